//! `sluice dead-letters show`

use std::io::{IsTerminal, Write};

use super::{ShowArgs, printable};
use crate::catalog::{self, Correction, LetterOwner, TRIES_MAX};
use crate::cli::{EXIT_DONE, EXIT_FAILED, SettingsArgs};
use crate::client::postgres;
use crate::config::Need;
use crate::pipeline::Letters;
use crate::types::{DeadLetter, LetterId};

/// Exit code 1 where nothing is rejected at that place (any more).
pub async fn run(settings: &SettingsArgs, args: &ShowArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let settings = settings.load(&[Need::Catalog, Need::Lake])?;
    let pool = postgres::pool(&settings.catalog, "dead-letters")?;
    let Some((owner, letter)) = Letters::new(&settings, pool.clone()).find(args.id).await? else {
        return Ok(not_found(args.id));
    };
    if args.bytes_only {
        out.write_all(&letter.bytes)?;
        out.flush()?;
        return Ok(EXIT_DONE);
    }
    let correction = catalog::correction(&postgres::get(&pool).await?, owner.partition, letter.place()).await?;
    print(&owner, &letter, correction.as_ref(), out)?;
    Ok(EXIT_DONE)
}

/// For every command that is about one dead letter.
pub(super) fn not_found(id: LetterId) -> u8 {
    eprintln!(
        "error: there is no dead letter {id}: what fits is none, and `sluice dead-letters list --all` shows those there are"
    );
    EXIT_FAILED
}

fn print(
    owner: &LetterOwner,
    letter: &DeadLetter,
    correction: Option<&Correction>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let what = match (letter.record, letter.row) {
        (None, _) => "a message",
        (_, None) => "an object",
        _ => "a row",
    };
    let id = LetterId { batch: owner.batch, place: letter.place() };
    let object =
        letter.object.as_ref().map_or_else(|| "-".to_owned(), |at| printable(&format!("{}/{}", at.bucket, at.key)));
    for (name, value) in [
        ("id", id.to_string()),
        ("what", what.to_owned()),
        ("connector", if letter.connector.is_empty() { "-".to_owned() } else { letter.connector.clone() }),
        ("reason", letter.reason.as_str().to_owned()),
        ("detail", printable(&letter.detail)),
        ("topic partition", owner.topic_partition.to_string()),
        ("offset", letter.message_offset.to_string()),
        ("record", number(letter.record.map(i64::from))),
        ("row", number(letter.row)),
        ("byte offset", number(letter.byte_offset.map(u64::cast_signed))),
        ("object", object),
        ("version", letter.object_version.clone().unwrap_or_else(|| "-".to_owned())),
        ("committed", owner.committed_at.to_rfc3339()),
        ("size", format!("{} bytes", letter.bytes.len())),
    ] {
        writeln!(out, "{name:<16} {value}")?;
    }
    if let Some(correction) = correction {
        writeln!(
            out,
            "{:<16} {} by {}",
            "edited",
            correction.edited_at.to_rfc3339(),
            printable(&correction.edited_by)
        )?;
        if let Some(fault) = &correction.fault {
            let (tries, fault) = (correction.try_count, printable(fault));
            writeln!(out, "{:<16} {tries} of {TRIES_MAX}, in vain: {fault}", "tries")?;
        }
        writeln!(out, "\ncorrected bytes")?;
        write_bytes(&correction.bytes, out)?;
    }
    writeln!(out, "\noriginal bytes")?;
    write_bytes(&letter.bytes, out)
}

/// As they are; on a terminal without what it would act on.
fn write_bytes(bytes: &[u8], out: &mut dyn Write) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() {
        for line in String::from_utf8_lossy(bytes).lines() {
            writeln!(out, "{}", printable(line))?;
        }
    } else {
        out.write_all(bytes)?;
        writeln!(out)?;
    }
    Ok(())
}
