//! `sluice-loadtest produce|verify|generate|put|floor`

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use sluice_loadtest::{
    BulkPlan, Compression, Dataset, Endpoints, FileFormat, ProducePlan, PutPlan, Target, floor, generate_files,
    produce, put_files, verify,
};

/// Seeded load for Sluice, and an outside check of what became of it.
#[derive(Debug, Parser)]
#[command(name = "sluice-loadtest", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put objects into S3, or records onto a topic, and keep a ledger of what each row must become
    Produce(Box<ProduceArgs>),
    /// Compare lake and warehouse with the ledger; exit 1 on any difference or an empty ledger
    Verify {
        /// Folder of the ledger
        #[arg(long, value_name = "DIR", default_value = "ledger")]
        ledger: PathBuf,
        /// Findings to print in full
        #[arg(long, default_value_t = 20)]
        examples: usize,
    },
    /// Write files of seeded rows to local disk, and expected.json with what must become of them
    Generate(GenerateArgs),
    /// Put the files of a folder into S3, and see that each is announced; print JSON
    Put(PutArgs),
    /// Measure reading files, finding their lines and compressing the pages of Parquet files; print JSON
    Floor {
        /// Folder of the raw files
        #[arg(long = "in", value_name = "DIR")]
        input: PathBuf,
        /// Folder below which the Parquet files lie
        #[arg(long, value_name = "DIR")]
        parquet: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct GenerateArgs {
    #[arg(long, default_value = "transactions")]
    dataset: Dataset,
    #[arg(long, default_value = "json")]
    format: FileFormat,
    #[arg(long, default_value = "none")]
    compression: Compression,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// As JSON lines before compression, whatever the format: 513, 64MiB, 1GiB
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    bytes: u64,
    /// The same of one file
    #[arg(long, default_value = "64MiB", value_parser = parse_bytes)]
    object_bytes: u64,
    /// Mean length of a JSON line with its newline
    #[arg(long, default_value_t = 513)]
    row_bytes: usize,
    #[arg(long, default_value_t = 0.01)]
    dirty_share: f64,
    /// Share of rows with the key of an earlier row of the same file
    #[arg(long, default_value_t = 0.005)]
    duplicate_share: f64,
    /// Hours over which the rows are spread
    #[arg(long, default_value_t = 24)]
    hours: u32,
    /// Leave dirty rows out; the good ones stay the same
    #[arg(long)]
    clean: bool,
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl GenerateArgs {
    fn plan(&self) -> BulkPlan {
        BulkPlan {
            dataset: self.dataset,
            format: self.format,
            compression: self.compression,
            seed: self.seed,
            size_bytes: self.bytes,
            object_bytes: self.object_bytes,
            row_bytes: self.row_bytes,
            dirty_share: self.dirty_share,
            duplicate_share: self.duplicate_share,
            hours: self.hours,
            is_clean: self.clean,
        }
    }
}

#[derive(Debug, clap::Args)]
struct PutArgs {
    #[arg(long = "in", value_name = "DIR")]
    input: PathBuf,
    #[arg(long, env = "SLUICE_RAW_BUCKET", default_value = "raw")]
    bucket: String,
    /// Before each file's name
    #[arg(long, default_value = "transactions/")]
    prefix: String,
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Topic on which the store announces objects
    #[arg(long, default_value = "raw-notifications")]
    announced_on: String,
    /// Seconds that the store has to announce an object by itself
    #[arg(long, default_value_t = 10)]
    announce_wait: u64,
    /// Delete each file when the store has its bytes, so that a large one needs its size twice, not three times
    #[arg(long)]
    remove: bool,
}

impl PutArgs {
    fn plan(self) -> PutPlan {
        PutPlan {
            folder: self.input,
            bucket: self.bucket,
            prefix: self.prefix,
            concurrency: self.concurrency,
            announced_on: self.announced_on,
            announce_wait: Duration::from_secs(self.announce_wait),
            remove: self.remove,
        }
    }
}

/// A number with one of the units B, KiB, MiB, GiB, or none.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match &text[digits..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        unit => return Err(format!("`{unit}` is no unit: B, KiB, MiB or GiB")),
    };
    let count: u64 = text[..digits].parse().map_err(|_| "expected a number, then a unit: 64MiB".to_owned())?;
    count.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

#[derive(Debug, clap::Args)]
struct ProduceArgs {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 10_000)]
    rows: u64,
    #[arg(long, default_value_t = 500)]
    rows_per_object: usize,
    /// Datasets, cycled
    #[arg(long, value_delimiter = ',', default_value = "users,transactions,events,products,transactions,events")]
    datasets: Vec<Dataset>,
    /// Share of rows that do not fit, of ten kinds
    #[arg(long, default_value_t = 0.01)]
    dirty: f64,
    /// Share of copies and updates of earlier rows
    #[arg(long, default_value_t = 0.01)]
    duplicates: f64,
    /// Share of rows days behind the others
    #[arg(long, default_value_t = 0.01)]
    late: f64,
    /// Hours over which the rows are spread
    #[arg(long, default_value_t = 48)]
    hours: u32,
    /// Compressions, cycled
    #[arg(long, value_delimiter = ',', default_value = "none,gzip,zstd")]
    compression: Vec<Compression>,
    /// Formats, cycled, each for one round of the datasets; `csv` and `parquet` are for connectors of their own, with
    /// prefixes such as transactions-csv/
    #[arg(long, value_delimiter = ',', default_value = "json")]
    formats: Vec<FileFormat>,
    #[arg(long, env = "SLUICE_RAW_BUCKET", default_value = "raw")]
    bucket: String,
    /// Behind each dataset's prefix; tells runs apart
    #[arg(long, default_value = "run")]
    key_prefix: String,
    /// Rows a second; as fast as possible without it
    #[arg(long)]
    rate: Option<NonZeroU32>,
    /// Send JSON records to this topic instead of putting objects
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Topic on which the store announces objects
    #[arg(long, default_value = "raw-notifications")]
    announced_on: String,
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Keys with spaces, `+`, `%` and umlauts
    #[arg(long)]
    awkward_keys: bool,
    /// Announce every object a second time
    #[arg(long)]
    announce_twice: bool,
    /// Seconds that the store has to announce an object by itself
    #[arg(long, default_value_t = 10)]
    announce_wait: u64,
    /// Folder of the ledger
    #[arg(long, value_name = "DIR", default_value = "ledger")]
    ledger: PathBuf,
}

impl ProduceArgs {
    fn plan(&self) -> ProducePlan {
        let target = match &self.topic {
            Some(topic) => Target::Topic(topic.clone()),
            None => Target::S3 { announced_on: self.announced_on.clone() },
        };
        ProducePlan {
            seed: self.seed,
            rows: self.rows,
            rows_per_object: self.rows_per_object,
            datasets: self.datasets.clone(),
            dirty_share: self.dirty,
            duplicate_share: self.duplicates,
            late_share: self.late,
            hours: self.hours,
            compressions: self.compression.clone(),
            formats: self.formats.clone(),
            bucket: self.bucket.clone(),
            key_prefix: self.key_prefix.clone(),
            rows_per_s: self.rate,
            target,
            concurrency: self.concurrency,
            awkward_keys: self.awkward_keys,
            announce_twice: self.announce_twice,
            announce_wait: Duration::from_secs(self.announce_wait),
            show_progress: true,
            ..ProducePlan::default()
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match execute(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Produce(args) => {
            println!("{}", produce(&Endpoints::from_env()?, &args.plan(), &args.ledger).await?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { ledger, examples } => {
            let report = verify(&Endpoints::from_env()?, &ledger).await?;
            print!("{}", report.display(examples));
            Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Generate(args) => {
            println!("{}", serde_json::to_string(&generate_files(&args.plan(), &args.out)?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Put(args) => {
            println!("{}", serde_json::to_string(&put_files(&Endpoints::from_env()?, &args.plan()).await?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Floor { input, parquet } => {
            println!("{}", serde_json::to_string(&floor::measure(&input, &parquet)?)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}
