//! `sluice stage`: local files through a connector into Parquet files, without any server, but the warehouse where the
//! connector's SQL joins a dimension.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use serde_json::json;

use super::{EXIT_DONE, EXIT_REFUSED, OutputFormat, SettingsArgs};
use crate::config::Connectors;
use crate::pipeline::{LocalError, StageJob, StageReport, stage_files};
use crate::telemetry;

#[derive(Debug, Clone, clap::Args)]
pub struct StageArgs {
    /// Files to read, each as if it were an object
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Connector to read them by
    #[arg(long, value_name = "NAME")]
    pub connector: String,
    /// Folder to write `data/` and `dead-letters/` into; it must not hold any yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Micro-batches worked on at once; left out, one for each core
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

pub async fn run(args_of_settings: &SettingsArgs, args: &StageArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    telemetry::init_logs_quiet();
    let (settings, connectors) = args_of_settings.load_project(&[])?;
    let Some(connector) = connectors.by_name(&args.connector).cloned() else {
        let known: Vec<&str> = connectors.all.iter().map(|connector| connector.name.as_str()).collect();
        bail!("there is no connector `{}`; there are: {}", args.connector, known.join(", "));
    };
    let alone = Connectors { all: vec![Arc::clone(&connector)] };
    alone.require_keys()?;
    super::join_dimensions(args_of_settings, &alone).await?;
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let job =
        StageJob { connector, limits: settings.limits, files: args.files.clone(), out: args.out.clone(), threads };
    let started = Instant::now();
    let staged = tokio::task::spawn_blocking(move || stage_files(&job)).await.context("staging panicked")?;
    let report = match staged {
        Err(error @ LocalError::FolderInUse { .. }) => {
            writeln!(out, "{error}")?;
            return Ok(EXIT_REFUSED);
        }
        staged => staged?,
    };
    let seconds = started.elapsed().as_secs_f64();
    match args.output {
        OutputFormat::Table => print_table(&report, seconds, out)?,
        OutputFormat::Json => writeln!(out, "{}", to_json(&report, seconds))?,
    }
    Ok(EXIT_DONE)
}

fn to_json(report: &StageReport, seconds: f64) -> serde_json::Value {
    json!({
        "files_in": report.files_in, "bytes_in": report.bytes_in, "unpacked_bytes": report.unpacked_bytes,
        "rows_in": report.rows_in, "rows_out": report.rows_out, "filtered": report.filtered,
        "duplicates": report.duplicates, "rejected": report.rejected, "quarantined": report.quarantined,
        "dead_letters": report.dead_letters, "files_out": report.files_out, "bytes_out": report.bytes_out,
        "seconds": seconds,
    })
}

fn print_table(report: &StageReport, seconds: f64, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["", "FILES", "ROWS", "BYTES"]);
    let mut row = |what: &str, files: Option<u64>, rows: Option<u64>, bytes: Option<u64>| {
        let text = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        table.add_row([what.to_owned(), text(files), text(rows), text(bytes)]);
    };
    row("read", Some(report.files_in), Some(report.rows_in), Some(report.bytes_in));
    row("unpacked", None, None, Some(report.unpacked_bytes));
    row("written", Some(report.files_out), Some(report.rows_out), Some(report.bytes_out));
    row("filtered", None, Some(report.filtered), None);
    row("duplicates", None, Some(report.duplicates), None);
    row("rejected", None, Some(report.rejected), None);
    row("quarantined", Some(report.quarantined), None, None);
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    for (reason, count) in &report.dead_letters {
        writeln!(out, "  {count} × {reason}")?;
    }
    let rate = report.unpacked_bytes as f64 / 1e6 / seconds;
    writeln!(out, "{seconds:.2} s, {rate:.1} MB/s, {:.0} rows/s", report.rows_in as f64 / seconds)?;
    Ok(())
}
