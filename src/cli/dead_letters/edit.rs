//! `sluice dead-letters edit`

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::show::not_found;
use super::{EditArgs, who};
use crate::catalog;
use crate::cli::{EXIT_DONE, EXIT_REFUSED, SettingsArgs, join_dimensions};
use crate::client::postgres;
use crate::config::{Connectors, Need};
use crate::decode::DecodeLimits;
use crate::error::chain;
use crate::pipeline::{Letters, check_correction};
use crate::types::{DeadLetter, LetterId};

/// Exit code 3 where the bytes are not accepted: they are empty, or would be a dead letter again.
pub async fn run(args_of_settings: &SettingsArgs, args: &EditArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (settings, connectors) = args_of_settings.load_project(&[Need::Catalog, Need::Lake])?;
    let pool = postgres::pool(&settings.catalog, "dead-letters")?;
    let Some((owner, letter)) = Letters::new(&settings, pool.clone()).find(args.id).await? else {
        return Ok(not_found(args.id));
    };
    let earlier = catalog::correction(&postgres::get(&pool).await?, owner.partition, letter.place()).await?;
    let shown = earlier.as_ref().map_or(&letter.bytes[..], |correction| &correction.bytes);
    let Some(read) = corrected(args, shown)? else {
        writeln!(out, "nothing was changed, nothing is stored")?;
        return Ok(EXIT_DONE);
    };
    let bytes = without_line_end(&letter, &read);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        eprintln!("error: refused: there are no corrected bytes, and an empty row is no row");
        return Ok(EXIT_REFUSED);
    }
    let of_letter = connectors.by_name(&letter.connector).cloned();
    join_dimensions(args_of_settings, &Connectors { all: of_letter.into_iter().collect() }).await?;
    let topic = &owner.topic_partition.topic;
    let limits = DecodeLimits::new(&settings.limits);
    if let Err(misfit) = check_correction(&connectors, topic, &limits, &letter, bytes.to_vec().into()) {
        if !args.force {
            eprintln!("error: refused: the corrected bytes do not fit either: {}", chain(&misfit));
            eprintln!("  help: `--force` stores them nevertheless, for a connector that is still to be changed");
            return Ok(EXIT_REFUSED);
        }
        writeln!(out, "warning: the corrected bytes do not fit as the connector is now: {}", chain(&misfit))?;
    }
    let client = postgres::get(&pool).await?;
    catalog::set_override(&client, owner.partition, letter.place(), bytes, &who()).await?;
    let id = LetterId { batch: owner.batch, place: letter.place() };
    writeln!(
        out,
        "stored {} corrected bytes; `sluice dead-letters redrive {id}` runs its micro-batch again",
        bytes.len()
    )?;
    Ok(EXIT_DONE)
}

/// A row is a line without its end, which editors and `echo` add.
fn without_line_end<'a>(letter: &DeadLetter, bytes: &'a [u8]) -> &'a [u8] {
    if letter.row.is_none() {
        return bytes;
    }
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// `None`: the editor was left without a change.
fn corrected(args: &EditArgs, shown: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let is_stdin = match &args.file {
        Some(file) => file.as_os_str() == "-",
        None => !std::io::stdin().is_terminal(),
    };
    if is_stdin {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("could not read standard input")?;
        return Ok(Some(bytes));
    }
    match &args.file {
        Some(file) => Ok(Some(std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?)),
        None => in_editor(shown),
    }
}

fn in_editor(shown: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let Some(editor) = editor else {
        bail!("no editor: set EDITOR, or give the corrected bytes with --file or on standard input");
    };
    let folder = std::env::temp_dir().join(format!("sluice-edit-{}", uuid::Uuid::new_v4().simple()));
    make_private(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let edited = edit_there(&editor, &folder.join("dead-letter"), shown);
    std::fs::remove_dir_all(&folder).with_context(|| format!("could not remove {}", folder.display()))?;
    edited
}

/// Others must not read what is in it.
fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(folder)
}

fn edit_there(editor: &str, file: &Path, shown: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    std::fs::write(file, shown).context("could not write the file to edit")?;
    // as git does: the variable may hold arguments
    let ended = Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(file).status();
    let ended = ended.with_context(|| format!("could not start `{editor}`"))?;
    if !ended.success() {
        bail!("`{editor}` failed, nothing is stored");
    }
    let bytes = std::fs::read(file).context("could not read the edited file")?;
    let is_same = bytes == shown || bytes.strip_suffix(b"\n") == Some(shown);
    Ok((!is_same).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_changes_the_bytes_or_leaves_them() {
        let folder = std::env::temp_dir().join(format!("sluice-edit-test-{}", uuid::Uuid::new_v4().simple()));
        make_private(&folder).expect("a new folder");
        let edited = |editor: &str| edit_there(editor, &folder.join("dead-letter"), b"shown");
        assert_eq!(edited("printf corrected >").expect("it ends well"), Some(b"corrected".to_vec()));
        assert_eq!(edited("true").expect("it ends well"), None);
        assert_eq!(edited("printf 'shown\\n' >").expect("it ends well"), None, "editors end the last line");
        assert!(edited("false").expect_err("it fails").to_string().contains("nothing is stored"));
        std::fs::remove_dir_all(&folder).expect("ours");
    }
}
