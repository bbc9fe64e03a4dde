//! `sluice dead-letters list`

use std::collections::BTreeMap;
use std::io::Write;

use comfy_table::{Table, presets};

use super::{ListArgs, printable};
use crate::catalog::{self, LetterCount, LetterSummary, SAMPLES_MAX};
use crate::cli::{EXIT_DONE, OutputFormat, SettingsArgs};
use crate::client::postgres;
use crate::config::Need;
use crate::pipeline::Letters;

/// Prints dead letters of live micro-batches: of those that were replaced, the successor's count.
pub async fn run(settings: &SettingsArgs, args: &ListArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let settings = settings.load(if args.all { &[Need::Catalog, Need::Lake] } else { &[Need::Catalog] })?;
    let pool = postgres::pool(&settings.catalog, "dead-letters")?;
    let group = &settings.kafka.group;
    let filter = args.filter.filter();
    if args.summary {
        let counts = if args.all {
            count_all(&Letters::new(&settings, pool), &filter).await?
        } else {
            catalog::letter_counts(&postgres::get(&pool).await?, group, &filter).await?
        };
        return print_counts(&counts, args, out);
    }
    let letters = if args.all {
        let mut found = Vec::new();
        let visit = |letter| {
            found.push(letter);
            found.len() >= args.limit as usize
        };
        Letters::new(&settings, pool).visit(&filter, visit).await?;
        found
    } else {
        catalog::letters(&postgres::get(&pool).await?, group, &filter, i64::from(args.limit)).await?
    };
    match args.output {
        OutputFormat::Json => {
            let listed: Vec<_> = letters.iter().map(json).collect();
            writeln!(out, "{:#}", serde_json::json!({"source": source(args.all), "dead_letters": listed}))?;
        }
        OutputFormat::Table => print(&letters, args, out)?,
    }
    Ok(EXIT_DONE)
}

async fn count_all(letters: &Letters, filter: &catalog::LetterFilter) -> anyhow::Result<Vec<LetterCount>> {
    let mut counts: BTreeMap<(String, String), i64> = BTreeMap::new();
    let visit = |letter: LetterSummary| {
        *counts.entry((letter.connector, letter.reason)).or_insert(0) += 1;
        false
    };
    letters.visit(filter, visit).await?;
    let count = |((connector, reason), count)| LetterCount { connector, reason, count, is_least: false };
    Ok(counts.into_iter().map(count).collect())
}

fn source(all: bool) -> &'static str {
    if all { "files" } else { "samples" }
}

fn json(letter: &LetterSummary) -> serde_json::Value {
    serde_json::json!({
        "id": letter.id.to_string(),
        "connector": letter.connector,
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic_partition.topic.as_ref(),
        "topic_partition": letter.topic_partition.number,
        "micro_batch_id": letter.id.batch.0,
        "offset": letter.id.place.message_offset,
        "record": letter.id.place.record,
        "row": letter.id.place.row,
        "bucket": letter.bucket,
        "key": letter.key,
        "version": letter.version,
        "committed_at": letter.committed_at,
        "tries": letter.try_count,
    })
}

fn print(letters: &[LetterSummary], args: &ListArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
        "id",
        "connector",
        "reason",
        "detail",
        "object or topic",
        "committed",
        "edited",
    ]);
    for letter in letters {
        let place = match (&letter.bucket, &letter.key) {
            (Some(bucket), Some(key)) => format!("{bucket}/{key}"),
            _ => letter.topic_partition.to_string(),
        };
        let edited = match letter.try_count {
            None => String::new(),
            Some(0) => "yes".to_owned(),
            Some(count) => format!("yes, {count} tries"),
        };
        table.add_row([
            letter.id.to_string(),
            letter.connector.clone(),
            letter.reason.clone(),
            printable(&letter.detail),
            printable(&place),
            letter.committed_at.format("%F %T").to_string(),
            edited,
        ]);
    }
    writeln!(out, "{table}")?;
    note(args, out)
}

fn print_counts(counts: &[LetterCount], args: &ListArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    if args.output == OutputFormat::Json {
        writeln!(out, "{:#}", serde_json::json!({"source": source(args.all), "counts": counts}))?;
        return Ok(EXIT_DONE);
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["connector", "reason", "dead letters"]);
    for count in counts {
        let number = if count.is_least { format!("{} or more", count.count) } else { count.count.to_string() };
        table.add_row([count.connector.clone(), count.reason.clone(), number]);
    }
    writeln!(out, "{table}")?;
    note(args, out)?;
    Ok(EXIT_DONE)
}

fn note(args: &ListArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if !args.all {
        writeln!(
            out,
            "from the catalog's samples, up to {SAMPLES_MAX} of each micro-batch, connector and reason; `--all` reads the files"
        )?;
    }
    Ok(())
}
