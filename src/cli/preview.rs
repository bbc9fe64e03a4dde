//! `sluice preview`: the first rows of an object through a connector, stage by stage. Writes nothing.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::json::ArrayWriter;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::sample::Sampled;
use super::{EXIT_DONE, OutputFormat, SettingsArgs};
use crate::config::Connectors;
use crate::pipeline::{Preview, PreviewReject, PreviewStage, preview};
use crate::telemetry;

/// Characters of an original line that are shown around its fault.
const LINE_CHARACTERS_MAX: usize = 100;
/// Characters of a value in a table.
const VALUE_CHARACTERS_MAX: usize = 40;

#[derive(Debug, Clone, clap::Args)]
pub struct PreviewArgs {
    /// A file, or an object of the raw store: s3://bucket/key
    #[arg(value_name = "FILE|s3://bucket/key")]
    pub object: String,
    /// Connector to read it by
    #[arg(long, value_name = "NAME")]
    pub connector: String,
    /// Rows to look at, from the first on
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub rows: u64,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

pub async fn run(args_of_settings: &SettingsArgs, args: &PreviewArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    telemetry::init_logs_quiet();
    let place = Sampled::parse(&args.object)?;
    let (settings, connectors) = args_of_settings.load_project(place.needs())?;
    let Some(connector) = connectors.by_name(&args.connector).cloned() else {
        let known: Vec<&str> = connectors.all.iter().map(|connector| connector.name.as_str()).collect();
        bail!("there is no connector `{}`; there are: {}", args.connector, known.join(", "));
    };
    super::join_dimensions(args_of_settings, &Connectors { all: vec![Arc::clone(&connector)] }).await?;
    let bytes = place.read(&settings).await?;
    let (limits, rows) = (settings.limits, args.rows);
    let previewed = tokio::task::spawn_blocking(move || preview(&connector, &limits, &bytes, rows));
    let previewed = previewed.await.context("the preview panicked")??;
    match args.output {
        OutputFormat::Table => print_tables(&previewed, out)?,
        OutputFormat::Json => writeln!(out, "{:#}", to_json(&previewed)?)?,
    }
    Ok(EXIT_DONE)
}

fn print_tables(preview: &Preview, out: &mut dyn Write) -> anyhow::Result<()> {
    for stage in &preview.stages {
        writeln!(out, "{} ({} rows)", stage.name, stage.rows.num_rows())?;
        print_rows(&stage.rows, out)?;
        writeln!(out)?;
    }
    for rejected in &preview.rejects {
        let reject = &rejected.reject;
        let at = rejected.fault_at.map_or_else(String::new, |at| format!(", byte {at}"));
        writeln!(out, "row {}{at}: {}: {}", reject.row, reject.reason.as_str(), printable(&reject.detail))?;
        writeln!(out, "{}\n", with_caret(rejected))?;
    }
    let (shown, all) = (preview.row_count, preview.row_count_all);
    let (rejected, filtered) = (preview.rejects.len(), preview.filtered);
    let passed = preview.stages.last().map_or(0, |stage| stage.rows.num_rows());
    writeln!(
        out,
        "{shown} of {all} rows: {passed} passed, {filtered} filtered, {rejected} rejected; nothing was written"
    )?;
    Ok(())
}

fn print_rows(rows: &RecordBatch, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let schema = rows.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    table.set_header(names);
    let options = FormatOptions::default().with_null("∅").with_display_error(true);
    let formatters =
        rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<Vec<_>, _>>()?;
    for row in 0..rows.num_rows() {
        table.add_row(formatters.iter().map(|formatter| shortened(&printable(&formatter.value(row).to_string()))));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= VALUE_CHARACTERS_MAX {
        return text.to_owned();
    }
    text.chars().take(VALUE_CHARACTERS_MAX - 1).chain(['…']).collect()
}

/// Without what a terminal would act on.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The part of the original line around the fault, and `^` under it.
fn with_caret(rejected: &PreviewReject) -> String {
    let bytes = &rejected.reject.bytes;
    let at = rejected.fault_at.map(|at| at.min(bytes.len()));
    let before = printable(&String::from_utf8_lossy(&bytes[..at.unwrap_or(0)]));
    let after = printable(&String::from_utf8_lossy(&bytes[at.unwrap_or(0)..]));
    let cut = before.chars().count().saturating_sub(LINE_CHARACTERS_MAX / 2);
    let start = if cut > 0 { "…" } else { "" };
    let head: String = start.chars().chain(before.chars().skip(cut)).collect();
    let room = LINE_CHARACTERS_MAX.saturating_sub(head.chars().count());
    let mut line: String = head.chars().chain(after.chars().take(room)).collect();
    if after.chars().count() > room {
        line.push('…');
    }
    let mut text = format!("  {line}");
    if at.is_some() {
        // writing to a String cannot fail
        let _ = write!(text, "\n  {}^", " ".repeat(head.chars().count()));
    }
    text
}

fn to_json(preview: &Preview) -> anyhow::Result<Value> {
    let stages = preview.stages.iter().map(|PreviewStage { name, rows }| {
        let mut writer = ArrayWriter::new(Vec::new());
        writer.write(rows)?;
        writer.finish()?;
        let text = writer.into_inner();
        let rows: Value = if text.is_empty() { json!([]) } else { serde_json::from_slice(&text)? };
        Ok(json!({"stage": name, "rows": rows}))
    });
    let stages = stages.collect::<anyhow::Result<Vec<_>>>()?;
    let rejects = preview.rejects.iter().map(|rejected| {
        let reject = &rejected.reject;
        json!({
            "row": reject.row, "byte_offset": reject.byte_offset, "fault_at": rejected.fault_at,
            "reason": reject.reason.as_str(), "detail": reject.detail,
            "line": String::from_utf8_lossy(&reject.bytes),
        })
    });
    Ok(json!({
        "connector": preview.connector.name, "schema_revision": preview.connector.schema_revision,
        "rows": preview.row_count, "rows_all": preview.row_count_all, "filtered": preview.filtered,
        "stages": stages, "rejects": rejects.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{RejectReason, RowReject};

    fn rejected(line: &str, fault_at: Option<usize>) -> PreviewReject {
        let reject = RowReject {
            row: 0,
            byte_offset: 0,
            reason: RejectReason::WrongType,
            detail: String::new(),
            bytes: Bytes::copy_from_slice(line.as_bytes()),
        };
        PreviewReject { reject, fault_at }
    }

    #[test]
    fn the_caret_stands_under_the_fault_whatever_is_before_it() {
        assert_eq!(with_caret(&rejected(r#"{"a":x}"#, Some(5))), "  {\"a\":x}\n       ^");
        assert_eq!(with_caret(&rejected("{\"ä\t\":x}", Some(7))), "  {\"ä\u{fffd}\":x}\n        ^");
        assert_eq!(with_caret(&rejected("[1]", None)), "  [1]");
        let long = with_caret(&rejected(&format!("{}!{}", "a".repeat(1000), "b".repeat(1000)), Some(1000)));
        let (line, caret) = long.split_once('\n').expect("two lines");
        assert_eq!(line.chars().nth(caret.chars().count() - 1), Some('!'));
        assert!(line.chars().count() < LINE_CHARACTERS_MAX + 10);
    }
}
