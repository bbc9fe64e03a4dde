//! `sluice connectors list|park|resume`

use std::io::Write;

use clap::Subcommand;
use comfy_table::{Table, presets};

use super::{EXIT_DONE, EXIT_FAILED, OutputFormat, SettingsArgs};
use crate::catalog::{self, CatalogError, ParkedConnector};
use crate::client::postgres;
use crate::config::{Connectors, Need, Settings};

#[derive(Debug, Clone, clap::Args)]
pub struct ConnectorsArgs {
    #[command(subcommand)]
    pub action: ConnectorsAction,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ConnectorsAction {
    /// Show every connector, and which are parked
    List {
        #[arg(long, value_name = "FORMAT", default_value = "table")]
        output: OutputFormat,
    },
    /// Set the objects of a connector aside unread from now on
    Park {
        /// As the connector's file names it
        name: String,
        /// Shown to whoever looks
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// End the parking of a connector and announce its objects again
    Resume {
        /// As the connector's file names it
        name: String,
    },
}

/// Exit code 1 where there is no such connector, or it is not parked.
pub async fn run(settings: &SettingsArgs, args: &ConnectorsArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (settings, connectors) = settings.load_project(&[Need::Catalog])?;
    let pool = postgres::pool(&settings.catalog, "connectors")?;
    let mut client = postgres::get(&pool).await?;
    let group = settings.kafka.group.as_str();
    match &args.action {
        ConnectorsAction::List { output } => {
            let parked = catalog::parked_connectors(&client, group).await?;
            list(&settings, &connectors, &parked, *output, out)?;
        }
        ConnectorsAction::Park { name, reason } => {
            let known: Vec<&str> = connectors.all.iter().map(|connector| connector.name.as_str()).collect();
            anyhow::ensure!(known.contains(&name.as_str()), "there is no connector `{name}`: {}", known.join(", "));
            anyhow::ensure!(!reason.trim().is_empty() && !reason.contains('\0'), "--reason says nothing");
            let by = std::env::var("USER").unwrap_or_else(|_| "sluice connectors park".to_owned());
            if catalog::park_connector(&client, group, name, reason, &by).await? {
                writeln!(out, "{name} is parked: processes hear of it within seconds")?;
            } else {
                writeln!(out, "{name} was parked already: its reason stands")?;
            }
        }
        ConnectorsAction::Resume { name } => {
            let transaction = client.transaction().await.map_err(CatalogError::query("begin to resume"))?;
            let Some(count) = catalog::resume_connector(&transaction, group, name).await? else {
                writeln!(out, "{name} is not parked")?;
                return Ok(EXIT_FAILED);
            };
            transaction.commit().await.map_err(CatalogError::query("resume a connector"))?;
            writeln!(out, "{name} is resumed: {count} objects are announced again")?;
        }
    }
    Ok(EXIT_DONE)
}

fn list(
    settings: &Settings,
    connectors: &Connectors,
    parked: &[ParkedConnector],
    output: OutputFormat,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let of = |name: &str| parked.iter().find(|parked| parked.connector == name);
    // one that has gone from the folder may still be parked
    let gone = parked.iter().filter(|parked| connectors.by_name(&parked.connector).is_none());
    let known = connectors.all.iter().map(|connector| (connector.name.as_str(), connector.source.topic.as_str()));
    let names: Vec<(&str, &str)> = known.chain(gone.map(|parked| (parked.connector.as_str(), "-"))).collect();
    if output == OutputFormat::Json {
        let listed: Vec<_> = names
            .iter()
            .map(|(name, topic)| serde_json::json!({"connector": name, "topic": topic, "parked": of(name)}))
            .collect();
        writeln!(out, "{:#}", serde_json::json!({"group": settings.kafka.group, "connectors": listed}))?;
        return Ok(());
    }
    let mut table = Table::new();
    let header = ["connector", "topic", "state", "since", "by", "objects waiting", "reason"];
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    for (name, topic) in names {
        let row = of(name).map_or_else(
            || ["running".to_owned(), String::new(), String::new(), String::new(), String::new()],
            |parked| {
                [
                    "parked".to_owned(),
                    parked.parked_at.format("%F %T").to_string(),
                    parked.parked_by.clone(),
                    parked.objects.to_string(),
                    parked.reason.clone(),
                ]
            },
        );
        table.add_row([name.to_owned(), topic.to_owned()].into_iter().chain(row));
    }
    writeln!(out, "{table}")?;
    Ok(())
}
