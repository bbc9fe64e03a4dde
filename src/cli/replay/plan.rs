//! `sluice replay plan`

use std::io::Write;

use comfy_table::{Table, presets};

use super::reset_to::ResetToArgs;
use super::unknown_topic;
use crate::catalog::CommitSpeed;
use crate::cli::progress::Progress;
use crate::cli::{EXIT_CONFIG, EXIT_DONE, EXIT_REFUSED, OutputFormat, SettingsArgs};
use crate::config::Need;
use crate::error::ErrorKind;
use crate::pipeline::{Forecast, ForecastAction, ForecastRequest, PartitionForecast, forecast};

#[derive(Debug, Clone, clap::Args)]
pub struct PlanArgs {
    /// Topic to be read again
    #[arg(long, value_name = "TOPIC")]
    pub topic: String,
    /// One of its partitions; all of them by default
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<i32>,
    #[command(flatten)]
    pub to: ResetToArgs,
    /// Do not ask the store about each raw object
    #[arg(long)]
    pub skip_raw_check: bool,
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

/// Exit code 3 where a topic partition would halt.
pub(super) async fn run(settings: &SettingsArgs, args: &PlanArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (settings, connectors) = settings.load_project(&[Need::Kafka, Need::Raw, Need::Catalog, Need::Warehouse])?;
    if !connectors.topics().contains(&args.topic) {
        return Ok(unknown_topic(&args.topic, &connectors.topics()));
    }
    let request = ForecastRequest {
        topic: args.topic.clone(),
        topic_partition: args.partition,
        to: args.to.resolve(chrono::Utc::now()),
        check_raw: !args.skip_raw_check,
    };
    let mut progress = Progress::start("asking Kafka, the catalog, the warehouse and the raw store");
    let found = forecast(&settings, &request, |count| progress.say(format!("{count} raw objects looked at"))).await;
    progress.finish();
    let found = match found {
        Err(error) if error.kind() == ErrorKind::Invalid => {
            eprintln!("error: {error}");
            return Ok(EXIT_CONFIG);
        }
        found => found?,
    };
    match args.output {
        OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?,
        OutputFormat::Table => print(&found, out)?,
    }
    let halts = found.partitions.iter().any(|partition| partition.action == ForecastAction::Halt);
    Ok(if halts { EXIT_REFUSED } else { EXIT_DONE })
}

fn print(found: &Forecast, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut table = Table::new();
    let names = found.partitions.iter().map(|partition| format!("{}/{}", found.topic, partition.topic_partition));
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_header([String::new()].into_iter().chain(names).chain(["sum".to_owned()]));
    let mut line = |name: &str, of: &dyn Fn(&PartitionForecast) -> String, sum: String| {
        let cells = found.partitions.iter().map(of);
        table.add_row([name.to_owned()].into_iter().chain(cells).chain([sum]));
    };
    line("would", &|partition| action(partition.action).to_owned(), String::new());
    line("from offset", &|partition| partition.start_offset.to_string(), String::new());
    line("to offset", &|partition| partition.until_offset.to_string(), String::new());
    let numbers: [(&str, fn(&PartitionForecast) -> i64); 12] = [
        ("micro-batches replaced", |partition| partition.scope.micro_batch_count),
        ("skipped ranges filled", |partition| partition.scope.skipped_range_count),
        ("offsets of them", |partition| partition.scope.skipped_offset_count),
        ("messages gone from the log", |partition| partition.messages_gone),
        ("raw objects", |partition| partition.scope.object_count),
        ("bytes of them", |partition| partition.scope.object_bytes),
        ("rows in", |partition| partition.scope.row_in_count),
        ("rows out", |partition| partition.scope.row_out_count),
        ("files", |partition| partition.scope.file_count),
        ("bytes of files", |partition| partition.scope.file_bytes),
        ("micro-batches loaded", |partition| partition.loaded.micro_batch_count),
        ("rows loaded", |partition| partition.loaded.row_count),
    ];
    for (name, of) in numbers {
        let sum: i64 = found.partitions.iter().map(of).sum();
        line(name, &|partition| of(partition).to_string(), sum.to_string());
    }
    let missing: Option<u64> =
        found.partitions.iter().filter_map(|partition| partition.objects_missing).reduce(|a, b| a + b);
    let told = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    line("raw objects missing", &|partition| told(partition.objects_missing), told(missing));
    writeln!(out, "{table}")?;
    for partition in &found.partitions {
        if let Some(reason) = &partition.reason {
            writeln!(out, "would halt: {}/{}: {reason}", found.topic, partition.topic_partition)?;
        }
    }
    writeln!(out, "{}", estimate(found))?;
    writeln!(out, "stop the group, run this, start the group again:\n  {}", found.command)?;
    Ok(())
}

fn action(action: ForecastAction) -> &'static str {
    match action {
        ForecastAction::Replay => "replay",
        ForecastAction::Skip => "skip",
        ForecastAction::Cancel => "end a replay",
        ForecastAction::Nothing => "do nothing",
        ForecastAction::Halt => "halt",
    }
}

fn estimate(found: &Forecast) -> String {
    let (Some(speed), Some(seconds)) = (&found.speed, found.estimated_seconds) else {
        return "estimated time: unknown, the group has committed too little to tell its speed".to_owned();
    };
    let CommitSpeed { micro_batch_count, row_count, seconds: measured, newest_at } = speed;
    format!(
        "estimated time: {seconds:.1} s for {} rows at {:.0} rows/s, the speed of the group's last {micro_batch_count} commits \
         ({row_count} rows in {measured:.1} s, idleness left out, the newest at {}); slower where rows came slowly",
        found.rows_in,
        speed.rows_per_s(),
        newest_at.format("%Y-%m-%dT%H:%M:%SZ")
    )
}
