//! `sluice query`

use std::io::Write;

use anyhow::Context;
use arrow::csv::WriterBuilder as CsvWriterBuilder;
use arrow::json::LineDelimitedWriter;
use arrow::util::pretty::pretty_format_batches_with_schema;
use comfy_table::{Table, presets};

use super::{EXIT_DONE, SettingsArgs};
use crate::client::postgres;
use crate::client::rate::RequestRate;
use crate::client::s3::S3Client;
use crate::config::Need;
use crate::query::{Answer, Lake, TableSummary, summaries};

#[derive(Debug, Clone, clap::Args)]
pub struct QueryArgs {
    /// A statement that reads, such as "SELECT source, sum(amount) FROM transactions GROUP BY source"; without one, the
    /// tables are listed
    pub sql: Option<String>,
    /// Rows to print at most; 0: all, held in memory
    #[arg(long, value_name = "ROWS", default_value_t = 1000)]
    pub limit: usize,
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: QueryOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum QueryOutput {
    Table,
    /// A JSON object a line
    Json,
    Csv,
}

/// Prints what a statement finds in the lake, exactly as committed.
pub async fn run(settings: &SettingsArgs, args: &QueryArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let settings = settings.load(&[Need::Catalog, Need::Lake])?;
    let lake = Lake {
        catalog: postgres::pool(&settings.catalog, "query")?,
        group: settings.kafka.group.clone(),
        store: S3Client::new("lake", &settings.s3.lake, RequestRate::new(settings.limits.s3_requests_per_s)),
        bucket: settings.s3.lake_bucket.clone(),
        memory_bytes_max: usize::try_from(settings.limits.memory_bytes_max).unwrap_or(usize::MAX),
    };
    let Some(sql) = &args.sql else {
        return list(&summaries(&lake.files().await?.0), args.output, out);
    };
    let answer = lake.query(sql, Some(args.limit).filter(|rows| *rows > 0)).await?;
    print(&answer, args.output, out)?;
    if answer.is_cut {
        eprintln!("only the first {} rows: --limit 0 prints all", args.limit);
    }
    Ok(EXIT_DONE)
}

fn print(answer: &Answer, output: QueryOutput, out: &mut dyn Write) -> anyhow::Result<()> {
    match output {
        QueryOutput::Table => {
            let schema = std::sync::Arc::clone(&answer.schema);
            let table = pretty_format_batches_with_schema(schema, &answer.batches);
            writeln!(out, "{}", table.context("a value cannot be shown")?)?;
            let rows: usize = answer.batches.iter().map(arrow::record_batch::RecordBatch::num_rows).sum();
            writeln!(out, "({rows} rows)")?;
        }
        QueryOutput::Json => {
            let mut writer = LineDelimitedWriter::new(out);
            answer.batches.iter().try_for_each(|batch| writer.write(batch)).context("a value cannot be shown")?;
            writer.finish()?;
        }
        QueryOutput::Csv => {
            let mut writer = CsvWriterBuilder::new().with_header(true).build(out);
            answer.batches.iter().try_for_each(|batch| writer.write(batch)).context("a value cannot be shown")?;
        }
    }
    Ok(())
}

fn list(tables: &[TableSummary], output: QueryOutput, out: &mut dyn Write) -> anyhow::Result<u8> {
    let time = |time: Option<chrono::DateTime<chrono::Utc>>| time.map_or_else(String::new, |time| time.to_rfc3339());
    match output {
        QueryOutput::Json => tables
            .iter()
            .try_for_each(|table| writeln!(out, "{}", serde_json::to_string(table)?).map_err(anyhow::Error::from))?,
        QueryOutput::Csv => {
            writeln!(out, "name,rows,files,size_bytes,first,last")?;
            for table in tables {
                let TableSummary { name, rows, files, size_bytes, first, last } = table;
                writeln!(out, "{name},{rows},{files},{size_bytes},{},{}", time(*first), time(*last))?;
            }
        }
        QueryOutput::Table => {
            let mut shown = Table::new();
            shown.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["table", "rows", "files", "MiB", "from", "to"]);
            for table in tables {
                shown.add_row([
                    table.name.clone(),
                    table.rows.to_string(),
                    table.files.to_string(),
                    format!("{:.1}", table.size_bytes as f64 / f64::from(1 << 20)),
                    time(table.first),
                    time(table.last),
                ]);
            }
            writeln!(out, "{shown}")?;
        }
    }
    Ok(EXIT_DONE)
}
