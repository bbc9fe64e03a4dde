//! `sluice status`

use std::io::Write;

use comfy_table::{Table, presets};

use super::{EXIT_DONE, OutputFormat, SettingsArgs};
use crate::catalog::{self, Backlog, ExpectationFailures, OutcomeSum, ParkedConnector, PartitionStatus};
use crate::client::postgres;
use crate::config::{Need, Settings};
use crate::load::{OtherTimes, PartitionState, other_times, partition_states};

/// How far back expectations are shown.
const DAY_SECONDS: f64 = 86_400.0;

#[derive(Debug, Clone, clap::Args)]
pub struct StatusArgs {
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

/// Prints what the catalog knows, and the warehouse about its partitions; Kafka and the stores are not asked.
pub async fn run(settings: &SettingsArgs, args: &StatusArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let settings = settings.load(&[Need::Catalog])?;
    let pool = postgres::pool(&settings.catalog, "status")?;
    let client = postgres::get(&pool).await?;
    let partitions = catalog::partitions(&client, &settings.kafka.group).await?;
    let backlog = catalog::backlog(&client).await?;
    let outcomes = catalog::outcome_sums(&client, &settings.kafka.group).await?;
    let unbalanced = catalog::unbalanced_count(&client, None).await?;
    let parked = catalog::parked_connectors(&client, &settings.kafka.group).await?;
    let failures = catalog::expectation_failures(&client, &settings.kafka.group, DAY_SECONDS).await?;
    let (table_partitions, other_times) = of_warehouse(&settings).await;
    match args.output {
        OutputFormat::Json => {
            let status = serde_json::json!({
                "group": settings.kafka.group, "partitions": partitions, "backlog": backlog,
                "outcomes": outcomes, "books_unbalanced": unbalanced,
                "parked": parked, "expectations": failures, "table_partitions": table_partitions,
                "other_times": other_times,
            });
            writeln!(out, "{status:#}")?;
        }
        OutputFormat::Table => {
            print(&partitions, backlog, &outcomes, unbalanced, out)?;
            print_failures(&failures, out)?;
            print_table_partitions(&table_partitions, out)?;
            for OtherTimes { fact, key_count, last_at } in &other_times {
                let last = last_at.format("%F %T");
                let what = "keys came with another event time and have several rows; see `time_changes`";
                writeln!(out, "{fact}: {key_count} {what} (last {last})")?;
            }
            for ParkedConnector { connector, reason, parked_at, parked_by, objects } in &parked {
                let since = parked_at.format("%F %T");
                writeln!(out, "parked: {connector} since {since} by {parked_by}, {objects} objects wait: {reason}")?;
            }
        }
    }
    Ok(EXIT_DONE)
}

/// None where there is no warehouse, or it does not answer: the catalog's part is worth having without it.
async fn of_warehouse(settings: &Settings) -> (Vec<PartitionState>, Vec<OtherTimes>) {
    let found = async {
        let pool = postgres::pool(&settings.warehouse, "status")?;
        let client = postgres::get(&pool).await?;
        anyhow::Ok((partition_states(&client, None).await?, other_times(&client).await?))
    };
    found.await.unwrap_or_default()
}

/// Facts' partitions: those that are not sealed each, the sealed ones counted.
fn print_table_partitions(partitions: &[PartitionState], out: &mut dyn Write) -> anyhow::Result<()> {
    if partitions.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["fact", "day", "state", "why", "since"]);
    let (sealed, others): (Vec<&PartitionState>, Vec<&PartitionState>) =
        partitions.iter().partition(|partition| partition.state == "sealed");
    for partition in others {
        table.add_row([
            partition.fact.clone(),
            partition.day.map_or_else(|| "-".into(), |day| day.to_string()),
            partition.state.clone(),
            partition.reason.clone(),
            partition.changed_at.map_or_else(|| "-".into(), |time| time.format("%F %T").to_string()),
        ]);
    }
    writeln!(out, "{table}")?;
    writeln!(out, "sealed: {} partitions of facts", sealed.len())?;
    Ok(())
}

/// Expectations that failed in the last 24 hours; nothing where there are none.
fn print_failures(failures: &[ExpectationFailures], out: &mut dyn Write) -> anyhow::Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
        "connector",
        "expectation, last 24 h",
        "stage",
        "outcome",
        "micro-batches",
        "rows",
        "last",
        "measured",
    ]);
    for failure in failures {
        table.add_row([
            failure.connector.clone(),
            failure.name.clone(),
            failure.stage.clone(),
            failure.outcome.clone(),
            failure.batch_count.to_string(),
            failure.rows_failed.to_string(),
            failure.last_at.format("%F %T").to_string(),
            failure.last_value.map_or_else(|| "-".into(), |value| format!("{value:.3}")),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(())
}

fn print(
    partitions: &[PartitionStatus],
    backlog: Backlog,
    outcomes: &[OutcomeSum],
    unbalanced: i64,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
        "topic partition",
        "next offset",
        "micro-batches",
        "last commit",
        "state",
    ]);
    for partition in partitions {
        table.add_row([
            format!("{}/{}", partition.topic, partition.topic_partition),
            partition.next_offset.map_or_else(|| "-".into(), |offset| offset.to_string()),
            partition.batch_count.to_string(),
            partition.last_commit.map_or_else(|| "-".into(), |time| time.format("%F %T").to_string()),
            partition.halted_reason.clone().map_or_else(|| "ok".into(), |reason| format!("halted: {reason}")),
        ]);
    }
    writeln!(out, "{table}")?;
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["ledger", "connector", "outcome", "count"]);
    for sum in outcomes {
        table.add_row([sum.ledger.clone(), sum.connector.clone(), sum.outcome.clone(), sum.count.to_string()]);
    }
    writeln!(out, "{table}")?;
    writeln!(
        out,
        "pending: {} files, {} manifests, {} micro-batches to load; books out of balance: {unbalanced}",
        backlog.files_pending, backlog.outbox_pending, backlog.batches_unloaded
    )?;
    Ok(())
}
