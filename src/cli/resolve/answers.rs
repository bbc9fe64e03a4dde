//! `sluice resolve review|accept|reject|merge|unmerge|report`

use std::io::Write;

use anyhow::Context;
use comfy_table::{Table, presets};
use deadpool_postgres::Object;
use serde_json::json;

use super::super::{EXIT_DONE, EXIT_REFUSED, OutputFormat, SettingsArgs};
use crate::client::postgres;
use crate::config::Need;
use crate::load::{AnswerError, DimensionName, accept, merge, open_proposals, reject, unmerge};
use crate::pipeline::{IndexPolicy, Resolver};

#[derive(Debug, Clone, clap::Args)]
pub struct ReviewArgs {
    /// The dimension, as `products` for `dim_products`
    pub dimension: String,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: i64,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

#[derive(Debug, Clone, clap::Args)]
pub struct AcceptArgs {
    /// The dimension, as `products` for `dim_products`
    pub dimension: String,
    /// The spelling, as `sluice resolve review` shows it
    pub spelling: String,
    /// Natural key of the member that it means, where it is not the proposed one
    #[arg(long, value_name = "KEY")]
    pub member: Option<String>,
}

#[derive(Debug, Clone, clap::Args)]
pub struct RejectArgs {
    /// The dimension, as `products` for `dim_products`
    pub dimension: String,
    /// The spelling, as `sluice resolve review` shows it
    pub spelling: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct MergeArgs {
    /// The dimension, as `products` for `dim_products`
    pub dimension: String,
    /// Natural key of the member that turned out to be another
    pub member: String,
    /// Natural key of the other
    #[arg(long, value_name = "KEY")]
    pub into: String,
    /// Kept with the merge
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct UnmergeArgs {
    /// The dimension, as `products` for `dim_products`
    pub dimension: String,
    /// Natural key of the member that is itself again
    pub member: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// The dimension, as `products` for `dim_products`
    pub dimension: String,
    /// Its column with the names
    #[arg(long, value_name = "COLUMN", default_value = "name")]
    pub against: String,
    /// Show at most so many pairs
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

fn dimension(name: &str) -> anyhow::Result<DimensionName> {
    DimensionName::new(name).with_context(|| format!("`{name}` is no dimension: write `products` for `dim_products`"))
}

async fn warehouse(settings: &SettingsArgs) -> anyhow::Result<Object> {
    let settings = settings.load(&[Need::Warehouse])?;
    Ok(postgres::get(&postgres::pool(&settings.warehouse, "resolve")?).await?)
}

fn who() -> String {
    std::env::var("USER").unwrap_or_else(|_| "sluice resolve".to_owned())
}

pub(super) async fn review(settings: &SettingsArgs, args: &ReviewArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    dimension(&args.dimension)?;
    let open = open_proposals(&warehouse(settings).await?, &args.dimension, args.limit).await?;
    if args.output == OutputFormat::Json {
        writeln!(out, "{:#}", json!(open))?;
        return Ok(EXIT_DONE);
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["spelling", "proposed", "cosine", "margin", "since"]);
    for proposal in &open {
        let cosine = proposal.features.as_ref().and_then(|features| features["cosine"].as_f64());
        table.add_row([
            proposal.spelling.clone(),
            proposal.proposed_key.clone().unwrap_or_default(),
            cosine.map_or_else(String::new, |cosine| format!("{cosine:.2}")),
            proposal.margin.map_or_else(String::new, |margin| format!("{margin:.2}")),
            proposal.decided_at.format("%F %T").to_string(),
        ]);
    }
    writeln!(out, "{table}\n{} open in {}", open.len(), args.dimension)?;
    Ok(EXIT_DONE)
}

pub(super) async fn run_accept(settings: &SettingsArgs, args: &AcceptArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let dimension = dimension(&args.dimension)?;
    let mut client = warehouse(settings).await?;
    let done = accept(&mut client, &dimension, &args.spelling, args.member.as_deref(), &who()).await;
    told(done, out, |into| format!("`{}` means {into} from now on", args.spelling))
}

pub(super) async fn run_reject(settings: &SettingsArgs, args: &RejectArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let dimension = dimension(&args.dimension)?;
    let done = reject(&mut warehouse(settings).await?, &dimension, &args.spelling, &who()).await;
    told(done, out, |()| format!("`{}` keeps a member of its own", args.spelling))
}

pub(super) async fn run_merge(settings: &SettingsArgs, args: &MergeArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let dimension = dimension(&args.dimension)?;
    let mut client = warehouse(settings).await?;
    let done = merge(&mut client, &dimension, &args.member, &args.into, &args.reason, &who()).await;
    told(done, out, |()| format!("{} is {} from now on; facts stay as they are", args.member, args.into))
}

pub(super) async fn run_unmerge(
    settings: &SettingsArgs,
    args: &UnmergeArgs,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let dimension = dimension(&args.dimension)?;
    let done = unmerge(&mut warehouse(settings).await?, &dimension, &args.member, &who()).await;
    told(done, out, |into| format!("{} is itself again, and no longer {into}", args.member))
}

/// What stands in the way is said, and is no failure.
fn told<T>(done: Result<T, AnswerError>, out: &mut dyn Write, text: impl FnOnce(T) -> String) -> anyhow::Result<u8> {
    match done {
        Ok(value) => writeln!(out, "{}", text(value))?,
        Err(AnswerError::Load(error)) => return Err(error.into()),
        Err(refused) => {
            writeln!(out, "{refused}")?;
            return Ok(EXIT_REFUSED);
        }
    }
    Ok(EXIT_DONE)
}

pub(super) async fn report(settings: &SettingsArgs, args: &ReportArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    dimension(&args.dimension)?;
    dimension(&args.against).context("--against names no column")?;
    let settings = settings.load(&[Need::Warehouse])?;
    let resolver = Resolver::new(postgres::pool(&settings.warehouse, "resolve")?, IndexPolicy::default());
    let pairs = resolver.near_duplicates(&args.dimension, &args.against, args.limit).await?;
    if args.output == OutputFormat::Json {
        let pairs: Vec<_> =
            pairs.iter().map(|(keys, compared)| json!({"members": keys, "features": compared})).collect();
        writeln!(out, "{:#}", json!(pairs))?;
        return Ok(EXIT_DONE);
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["member", "looks like", "cosine"]);
    for ([one, other], compared) in &pairs {
        table.add_row([one.clone(), other.clone(), format!("{:.2}", compared.cosine)]);
    }
    writeln!(out, "{table}\n{} pairs", pairs.len())?;
    Ok(EXIT_DONE)
}
