//! `sluice validate`: reads every connector and topic and says all that is wrong with them.
//!
//! Needs no server and no settings. Exit code 0 where all is well, 2 where anything is wrong.

use std::io::{self, Write};
use std::path::PathBuf;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::config::{ConfigError, Connector, Connectors, Place, SourceKind, TopicSpec, WarehouseTable, load_project};

const EXIT_DONE: u8 = 0;
const EXIT_CONFIG: u8 = 2;

#[derive(Debug, Clone, clap::Args)]
pub struct ValidateArgs {
    /// Folder of the connectors
    #[arg(long, value_name = "DIR", env = "SLUICE_CONNECTORS_DIR", default_value = "connectors")]
    pub connectors: PathBuf,
    /// Folder of the topics
    #[arg(long, value_name = "DIR", env = "SLUICE_TOPICS_DIR", default_value = "topics")]
    pub topics: PathBuf,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: ValidateOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ValidateOutput {
    Table,
    Json,
}

/// Prints to `out`; returns the exit code.
pub fn run(args: &ValidateArgs, out: &mut dyn Write) -> io::Result<u8> {
    match load_project(&args.connectors, &args.topics) {
        Ok((connectors, topics)) => {
            match args.output {
                ValidateOutput::Table => print_table(&connectors, &topics, out)?,
                ValidateOutput::Json => print_json(&connectors, &topics, &[], out)?,
            }
            Ok(EXIT_DONE)
        }
        Err(errors) => {
            match args.output {
                ValidateOutput::Table => print_problems(&errors, out)?,
                ValidateOutput::Json => print_json(&Connectors::default(), &[], &errors, out)?,
            }
            Ok(EXIT_CONFIG)
        }
    }
}

fn print_problems(problems: &[ConfigError], out: &mut dyn Write) -> io::Result<()> {
    for problem in problems {
        writeln!(out, "{}: {}", problem.place(), problem.message())?;
        if let Some(help) = problem.help() {
            writeln!(out, "  help: {help}")?;
        }
        writeln!(out)?;
    }
    let mut files: Vec<PathBuf> = problems
        .iter()
        .filter_map(|problem| match problem.place() {
            Place::File { path, .. } => Some(path),
            _ => None,
        })
        .collect();
    files.sort();
    files.dedup();
    writeln!(out, "{} in {}", counted(problems.len(), "problem"), counted(files.len(), "file"))
}

fn print_table(connectors: &Connectors, topics: &[TopicSpec], out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["NAME", "SOURCE", "COLUMNS", "DATASET", "TARGET", "REVISION"]);
    for connector in &connectors.all {
        table.add_row([
            connector.name.clone(),
            source(connector),
            connector.dataset().fields.len().to_string(),
            connector.staging.dataset.clone(),
            target(connector).unwrap_or("-").to_owned(),
            connector.revision.clone(),
        ]);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim())?;
    }
    let connectors = counted(connectors.all.len(), "connector");
    writeln!(out, "\n{connectors} and {}: no problems", counted(topics.len(), "topic"))
}

fn print_json(
    connectors: &Connectors,
    topics: &[TopicSpec],
    problems: &[ConfigError],
    out: &mut dyn Write,
) -> io::Result<()> {
    let connectors: Value = connectors
        .all
        .iter()
        .map(|connector| {
            json!({
                "name": connector.name,
                "source": source(connector),
                "columns": connector.dataset().fields.iter().map(|field| field.name.as_str()).collect::<Value>(),
                "dataset": connector.staging.dataset,
                "target": target(connector),
                "revision": connector.revision,
                "schema_revision": connector.dataset().schema_revision,
            })
        })
        .collect();
    let topics: Value = topics.iter().map(|topic| topic.name.as_str()).collect();
    let problems: Value = problems
        .iter()
        .map(|problem| {
            let (file, line, column) = match problem.place() {
                Place::File { path, line, column } => (json!(path.display().to_string()), json!(line), json!(column)),
                place => (json!(place.to_string()), Value::Null, Value::Null),
            };
            json!({"file": file, "line": line, "column": column, "message": problem.message(), "help": problem.help()})
        })
        .collect();
    writeln!(out, "{:#}", json!({"connectors": connectors, "topics": topics, "problems": problems}))
}

/// `topic raw-notifications, s3://raw/users/` or `topic direct-events`
fn source(connector: &Connector) -> String {
    let topic = &connector.source.topic;
    match &connector.source.kind {
        SourceKind::Objects { bucket, prefix, .. } => format!("topic {topic}, s3://{bucket}/{prefix}"),
        SourceKind::Records => format!("topic {topic}"),
    }
}

fn target(connector: &Connector) -> Option<&str> {
    connector.warehouse.as_ref().map(|warehouse| match &warehouse.target {
        WarehouseTable::Fact(table) | WarehouseTable::Dimension(table) => table.as_str(),
    })
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
