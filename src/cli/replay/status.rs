//! `sluice replay status`

use std::io::Write;

use comfy_table::{Table, presets};

use super::ReplayStatusArgs;
use crate::catalog::{self, ReplayProgress, ReplayStatus};
use crate::cli::{EXIT_DONE, OutputFormat, SettingsArgs};
use crate::client::postgres;
use crate::config::Need;

/// Both, as one object.
#[derive(serde::Serialize)]
struct Told {
    #[serde(flatten)]
    status: ReplayStatus,
    #[serde(flatten)]
    progress: ReplayProgress,
}

pub(super) async fn run(settings: &SettingsArgs, args: &ReplayStatusArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let settings = settings.load(&[Need::Catalog])?;
    let pool = postgres::pool(&settings.catalog, "replay-status")?;
    let client = postgres::get(&pool).await?;
    let now = chrono::Utc::now();
    let replays = catalog::replays(&client, &settings.kafka.group).await?;
    let told: Vec<Told> = replays.into_iter().map(|status| Told { progress: status.progress(now), status }).collect();
    match args.output {
        OutputFormat::Json => {
            let json = serde_json::json!({"group": settings.kafka.group, "replays": told});
            writeln!(out, "{json:#}")?;
        }
        OutputFormat::Table if told.is_empty() => writeln!(out, "no topic partition was ever replayed")?,
        OutputFormat::Table => print(&told, out)?,
    }
    Ok(EXIT_DONE)
}

fn print(told: &[Told], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
        "topic partition",
        "state",
        "from",
        "position",
        "to",
        "done",
        "micro-batches replaced",
        "offsets/s",
        "time left",
        "accepted",
    ]);
    let number =
        |value: Option<f64>, unit: &str| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}{unit}"));
    for Told { status, progress } in told {
        table.add_row([
            format!("{}/{}", status.topic, status.topic_partition),
            status.state.clone(),
            status.start_offset.to_string(),
            status.position.to_string(),
            status.until_offset.to_string(),
            number(progress.percent, " %"),
            status.replaced_count.to_string(),
            number(progress.offsets_per_s, ""),
            number(progress.seconds_left, " s"),
            status.accepted_at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(())
}
