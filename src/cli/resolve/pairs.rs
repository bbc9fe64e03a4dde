//! Two tables and the matches between them, from CSV files as people have them.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, bail};

use crate::resolve::{Pairs, spelling};

/// What may stand between columns, likeliest first.
const SEPARATORS: [u8; 5] = *b",\t;|%";

/// Between the columns of one row: no word goes across it.
const BETWEEN_COLUMNS: &str = " ; ";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TruthOrder {
    QueryReference,
    ReferenceQuery,
}

#[derive(Debug, Clone, Copy)]
pub struct PairFiles<'a> {
    pub reference: &'a Path,
    pub queries: &'a Path,
    pub truth: &'a Path,
    pub order: Option<TruthOrder>,
    pub columns: &'a [String],
    pub separator: Option<char>,
}

struct Rows {
    texts: Vec<String>,
    by_id: HashMap<String, usize>,
}

pub fn read_pairs(files: &PairFiles<'_>) -> anyhow::Result<Pairs> {
    let reference = read_rows(files.reference, files)?;
    let queries = read_rows(files.queries, files)?;
    let (_, lines) = read_csv(files.truth, files.separator)?;
    let pairs: Vec<[&str; 2]> = lines
        .iter()
        .map(|line| match line.as_slice() {
            [one, other, ..] => Ok([one.as_str(), other.as_str()]),
            _ => bail!("{} has a line that is no pair of ids", files.truth.display()),
        })
        .collect::<anyhow::Result<_>>()?;
    let by_order = |order| places(&pairs, order, &queries, &reference);
    let truth = match files.order {
        Some(order) => by_order(order),
        None => {
            likelier(by_order(TruthOrder::QueryReference), by_order(TruthOrder::ReferenceQuery), &queries, &reference)
        }
    };
    let mut by_query: HashMap<usize, HashSet<usize>> = HashMap::new();
    truth.into_iter().for_each(|(query, place)| _ = by_query.entry(query).or_default().insert(place));
    Ok(Pairs { reference: reference.texts, queries: queries.texts, truth: by_query })
}

/// Pairs of (query, reference) that both files have.
fn places(pairs: &[[&str; 2]], order: TruthOrder, queries: &Rows, reference: &Rows) -> Vec<(usize, usize)> {
    let find = |[one, other]: &[&str; 2]| {
        let (query, member) = if order == TruthOrder::QueryReference { (one, other) } else { (other, one) };
        Some((*queries.by_id.get(*query)?, *reference.by_id.get(*member)?))
    };
    pairs.iter().filter_map(find).collect()
}

/// The order in which more pairs are found; of equals, the one whose pairs have more words in common.
fn likelier(
    one: Vec<(usize, usize)>,
    other: Vec<(usize, usize)>,
    queries: &Rows,
    reference: &Rows,
) -> Vec<(usize, usize)> {
    let common = |pairs: &[(usize, usize)]| -> usize {
        let words = |text: &String| spelling(text).split(' ').map(str::to_owned).collect::<HashSet<String>>();
        let shared = |(query, place): &(usize, usize)| {
            words(&queries.texts[*query]).intersection(&words(&reference.texts[*place])).count()
        };
        pairs.iter().map(shared).sum()
    };
    if (other.len(), common(&other)) > (one.len(), common(&one)) { other } else { one }
}

fn read_rows(path: &Path, files: &PairFiles<'_>) -> anyhow::Result<Rows> {
    let (header, lines) = read_csv(path, files.separator)?;
    let place = |name: &String| {
        let known = || header.join(", ");
        header
            .iter()
            .position(|column| column == name)
            .with_context(|| format!("{} has no column `{name}`; it has: {}", path.display(), known()))
    };
    let columns: Vec<usize> = files.columns.iter().map(place).collect::<anyhow::Result<_>>()?;
    let mut rows = Rows { texts: Vec::with_capacity(lines.len()), by_id: HashMap::new() };
    for line in lines {
        let fields = columns.iter().filter_map(|column| line.get(*column)).map(String::as_str);
        let text = fields.filter(|field| !field.is_empty()).collect::<Vec<_>>().join(BETWEEN_COLUMNS);
        if let Some(id) = line.into_iter().next() {
            rows.by_id.entry(id).or_insert(rows.texts.len());
        }
        rows.texts.push(text);
    }
    Ok(rows)
}

/// The header and the lines below it.
fn read_csv(path: &Path, separator: Option<char>) -> anyhow::Result<(Vec<String>, Vec<Vec<String>>)> {
    let shown = || format!("could not read {}", path.display());
    let bytes = std::fs::read(path).with_context(shown)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = String::from_utf8_lossy(bytes);
    let first = text.lines().next().unwrap_or_default();
    let count = |separator: &u8| first.bytes().filter(|byte| byte == separator).count();
    let separator = match separator {
        Some(separator) => u8::try_from(separator).context("the separator must be one byte")?,
        None => SEPARATORS.into_iter().rev().max_by_key(count).unwrap_or(b','),
    };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(separator).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().with_context(shown)?.iter().map(str::to_owned).collect();
    let mut lines = Vec::new();
    for record in reader.records() {
        lines.push(record.with_context(shown)?.iter().map(str::to_owned).collect());
    }
    Ok((header, lines))
}
