//! `sluice resolve`: what names mean, measured, reviewed and mended

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use comfy_table::{Table, presets};

use super::{EXIT_DONE, OutputFormat, SettingsArgs};
use crate::resolve::{Evaluation, Recall, WorldResult, catalogue, evaluate};

mod answers;
mod pairs;

pub use pairs::{PairFiles, TruthOrder, read_pairs};

const SYNTHETIC_QUERY_COUNT: usize = 2000;

#[derive(Debug, Clone, clap::Args)]
pub struct ResolveArgs {
    #[command(subcommand)]
    pub action: ResolveAction,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ResolveAction {
    /// Measure resolution on data of your own whose matches are known, without any server
    Evaluate(EvaluateArgs),
    /// List names whose member is proposed and waits for an answer
    Review(answers::ReviewArgs),
    /// The name means the proposed member
    Accept(answers::AcceptArgs),
    /// The name means a member of its own
    Reject(answers::RejectArgs),
    /// One member is another; facts keep their keys
    Merge(answers::MergeArgs),
    /// Take a merge back
    Unmerge(answers::UnmergeArgs),
    /// List members of a dimension that look like one thing
    Report(answers::ReportArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct EvaluateArgs {
    /// The members, as CSV with a header; the first column is the id
    #[arg(long, value_name = "CSV", required_unless_present = "synthetic")]
    pub reference: Option<PathBuf>,
    /// What is to find its member, as CSV with a header; the first column is the id
    #[arg(long, value_name = "CSV", required_unless_present = "synthetic")]
    pub queries: Option<PathBuf>,
    /// The right matches: an id of each, one pair a line, below a header
    #[arg(long, value_name = "CSV", required_unless_present = "synthetic")]
    pub truth: Option<PathBuf>,
    /// Instead of files: a made-up catalogue of so many members, and 2,000 queries
    #[arg(long, value_name = "ROWS", conflicts_with_all = ["reference", "queries", "truth"])]
    pub synthetic: Option<usize>,
    /// Which column of the truth names what; left out, found from the ids and the texts
    #[arg(long, value_name = "ORDER")]
    pub truth_order: Option<TruthOrder>,
    /// Columns whose text is compared
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required_unless_present = "synthetic")]
    pub columns: Vec<String>,
    /// What stands between the columns of the files; left out, found from each header
    #[arg(long, value_name = "CHAR")]
    pub separator: Option<char>,
    /// Half-open worlds to try, one for each seed
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "1,2,3")]
    pub seeds: Vec<u64>,
    /// Threads to decide on; left out, one for each core
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// The same as `--output json`
    #[arg(long)]
    pub json: bool,
}

pub async fn run(settings: &SettingsArgs, args: &ResolveArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    match &args.action {
        ResolveAction::Evaluate(args) => run_evaluate(args, out),
        ResolveAction::Review(args) => answers::review(settings, args, out).await,
        ResolveAction::Accept(args) => answers::run_accept(settings, args, out).await,
        ResolveAction::Reject(args) => answers::run_reject(settings, args, out).await,
        ResolveAction::Merge(args) => answers::run_merge(settings, args, out).await,
        ResolveAction::Unmerge(args) => answers::run_unmerge(settings, args, out).await,
        ResolveAction::Report(args) => answers::report(settings, args, out).await,
    }
}

fn run_evaluate(args: &EvaluateArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let pairs = match (args.synthetic, &args.reference, &args.queries, &args.truth) {
        (Some(rows), ..) => catalogue(rows, SYNTHETIC_QUERY_COUNT),
        (None, Some(reference), Some(queries), Some(truth)) => {
            let order = args.truth_order;
            let (columns, separator) = (args.columns.as_slice(), args.separator);
            read_pairs(&PairFiles { reference, queries, truth, order, columns, separator })?
        }
        _ => bail!("give --reference, --queries and --truth, or --synthetic"),
    };
    ensure!(!pairs.truth.is_empty(), "the truth names no pair of rows that both files have");
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let parent: &Path = &std::env::temp_dir();
    let evaluation = evaluate(&pairs, &args.seeds, threads, parent).context("could not evaluate")?;
    if args.json || args.output == OutputFormat::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&evaluation)?)?;
    } else {
        print_tables(&evaluation, out)?;
    }
    Ok(EXIT_DONE)
}

fn print_tables(evaluation: &Evaluation, out: &mut dyn Write) -> anyhow::Result<()> {
    let (reference, queries) = (evaluation.reference_rows, evaluation.query_rows);
    writeln!(out, "{reference} members, {queries} queries, {} of them with a match\n", evaluation.matched_queries)?;
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
        "candidates",
        "recall@1",
        "recall@10",
        "recall@50",
        "look-ups/s and core",
    ]);
    let rates = &evaluation.rates;
    let backends = [
        ("exact", evaluation.recall_exact, rates.exact_per_second),
        ("arroy", evaluation.recall_arroy, rates.arroy_per_second),
    ];
    for (name, Recall { at_1, at_10, at_50 }, rate) in backends {
        table.add_row([name.to_owned(), fixed(at_1), fixed(at_10), fixed(at_50), format!("{rate:.0}")]);
    }
    writeln!(out, "{table}\n")?;
    let mut table = Table::new();
    let header = ["world", "members", "answerable", "automatic", "review", "new", "precision", "coverage"];
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    for world in std::iter::once(&evaluation.closed).chain(&evaluation.half_open) {
        table.add_row(world_row(world));
    }
    writeln!(out, "{table}\n")?;
    writeln!(out, "arroy finds {} of the ten exact neighbours", fixed(evaluation.arroy_finds_exact_top_10))?;
    writeln!(
        out,
        "{:.0} decisions/s and {:.0} alias hits/s and core; index built in {:.1} s",
        rates.decisions_per_second, rates.alias_hits_per_second, rates.index_build_seconds
    )?;
    Ok(())
}

fn world_row(world: &WorldResult) -> [String; 8] {
    let name = world.seed.map_or_else(|| "closed".to_owned(), |seed| format!("half-open, seed {seed}"));
    let counts = [world.reference_rows, world.answerable, world.automatic, world.review, world.new];
    let [members, answerable, automatic, review, new] = counts.map(|count| count.to_string());
    [name, members, answerable, automatic, review, new, fixed(world.precision), fixed(world.coverage)]
}

fn fixed(share: f64) -> String {
    format!("{share:.4}")
}
