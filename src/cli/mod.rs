//! The commands: parse, call, print. Nothing is decided here.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused for safety.

pub mod dead_letters;
pub mod connectors;
pub mod demo;
pub mod doctor;
pub mod infer;
pub mod migrate;
pub mod preview;
mod progress;
pub mod query;
pub mod replay;
pub mod resolve;
pub mod run;
mod sample;
pub mod schema;
pub mod seal;
pub mod settled;
pub mod stage;
pub mod status;
pub mod topics;
pub mod validate;

use std::io::Write;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{ConfigErrors, Connectors, Need, Override, Settings, load_connectors};
use crate::pipeline::read_joined_tables;

pub const EXIT_DONE: u8 = 0;
pub const EXIT_FAILED: u8 = 1;
pub const EXIT_CONFIG: u8 = 2;
pub const EXIT_REFUSED: u8 = 3;

/// Moves raw files from S3 into partitioned Parquet and a PostgreSQL star schema, exactly once.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Where settings come from: defaults < file < environment < flags.
#[derive(Debug, Clone, clap::Args)]
pub struct SettingsArgs {
    /// Settings file; without it `sluice.yaml`, if there is one
    #[arg(long, global = true, value_name = "FILE", env = "SLUICE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Override one setting, as in `--set kafka.group=replay`
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = parse_override)]
    pub overrides: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the pipeline until SIGTERM or Ctrl-C
    Run(run::RunArgs),
    /// Try everything on this machine: embedded servers, seeded data, verified result
    Demo(demo::DemoArgs),
    /// Check connectors and topics, without any server
    Validate(validate::ValidateArgs),
    /// Take local files through a connector into Parquet files, without any server
    Stage(stage::StageArgs),
    /// Show the first rows of an object on their way through a connector; nothing is written
    Preview(preview::PreviewArgs),
    /// Draft a connector from a sample of objects
    Infer(infer::InferArgs),
    /// Compare the Kafka topics with `topics/`, or make them so
    Topics(topics::TopicsArgs),
    /// Bring the catalog's and the warehouse's schema up to date
    Migrate(migrate::MigrateArgs),
    /// Check every dependency and say what to do about those that fail
    Doctor(doctor::DoctorArgs),
    /// Show positions, backlog and outcomes
    Status(status::StatusArgs),
    /// Seal partitions of facts now: indexes on members' keys, checked foreign keys, statistics
    Seal(seal::SealArgs),
    /// Exit 0 when nothing is in flight anywhere, 1 otherwise
    Settled(settled::SettledArgs),
    /// Plan replays, follow them, or load the warehouse again
    Replay(replay::ReplayArgs),
    /// Run SQL over the lake, exactly as committed, or list its tables
    Query(query::QueryArgs),
    /// List what did not fit, show it, correct it, run it again
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Show connectors, park them, resume them
    Connectors(connectors::ConnectorsArgs),
    /// Review which members names mean, merge members, measure resolution
    Resolve(resolve::ResolveArgs),
    /// Print the JSON Schemas that editors check the YAML files with
    Schema(schema::SchemaArgs),
}

/// How a listing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    #[default]
    Table,
    Json,
}

fn parse_override(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE, as in kafka.group=replay".to_owned())
}

impl SettingsArgs {
    /// Reads the settings and checks that those the command needs are there.
    pub fn load(&self, needs: &[Need]) -> Result<Settings, ConfigErrors> {
        let default = PathBuf::from("sluice.yaml");
        let file = self.config.clone().or_else(|| default.exists().then_some(default));
        let overrides: Vec<Override> = self
            .overrides
            .iter()
            .map(|(key, value)| Override { flag: format!("--set {key}"), key: key.clone(), value: value.clone() })
            .collect();
        let settings = Settings::load(file.as_deref(), std::env::vars(), &overrides)?;
        settings.require(needs)?;
        Ok(settings)
    }

    /// Settings and connectors.
    pub fn load_project(&self, needs: &[Need]) -> Result<(Settings, Connectors), ConfigErrors> {
        let settings = self.load(needs)?;
        let connectors = load_connectors(&settings.connectors_dir)?.with_keys(&settings.secrets);
        Ok((settings, connectors))
    }
}

/// Reads the dimensions that the connectors' SQL joins, where there are any: then the command needs the warehouse.
async fn join_dimensions(settings: &SettingsArgs, connectors: &Connectors) -> anyhow::Result<()> {
    if connectors.join_dimensions() {
        read_joined_tables(&settings.load(&[Need::Warehouse])?, connectors).await?;
    }
    Ok(())
}

/// Runs a command to its end; returns the exit code.
pub async fn execute(cli: Cli) -> u8 {
    let mut out = std::io::stdout();
    let result = match &cli.command {
        Command::Run(args) => Box::pin(run::run(&cli.settings, args)).await,
        Command::Demo(args) => Box::pin(demo::run(args, &mut out)).await,
        Command::Validate(args) => validate::run(args, &mut out).map_err(Into::into),
        Command::Stage(args) => stage::run(&cli.settings, args, &mut out).await,
        Command::Preview(args) => preview::run(&cli.settings, args, &mut out).await,
        Command::Infer(args) => infer::run(&cli.settings, args, &mut out).await,
        Command::Topics(args) => topics::run(&cli.settings, args, &mut out).await,
        Command::Migrate(args) => migrate::run(&cli.settings, args, &mut out).await,
        Command::Doctor(args) => Box::pin(doctor::run(&cli.settings, args, &mut out)).await,
        Command::Status(args) => status::run(&cli.settings, args, &mut out).await,
        Command::Seal(args) => seal::run(&cli.settings, args, &mut out).await,
        Command::Settled(args) => settled::run(&cli.settings, args, &mut out).await,
        Command::Replay(args) => Box::pin(replay::run(&cli.settings, args, &mut out)).await,
        Command::Query(args) => Box::pin(query::run(&cli.settings, args, &mut out)).await,
        Command::DeadLetters(args) => Box::pin(dead_letters::run(&cli.settings, args, &mut out)).await,
        Command::Connectors(args) => connectors::run(&cli.settings, args, &mut out).await,
        Command::Resolve(args) => resolve::run(&cli.settings, args, &mut out).await,
        Command::Schema(args) => schema::run(args, &mut out).map_err(Into::into),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let code = if error.is::<ConfigErrors>() { EXIT_CONFIG } else { EXIT_FAILED };
            // nobody may be reading: then the exit code has to do
            let _ = writeln!(std::io::stderr(), "error: {}", one_line(&error));
            code
        }
    }
}

/// The chain of causes, once; parts that repeat what stands already are left out.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
    }
    text
}
