//! Names in rows on their way to the warehouse: which member each means, as far as that is not decided yet.
//!
//! # Contract
//! [`Resolver::prepare`] adds a column of spellings to rows whose connector resolves names, and proposals for the
//! spellings that have no decision. It writes nothing: the loader decides in the transaction of the rows, where the first
//! decision wins. A row that has a natural key gets no spelling.
//!
//! Order: natural key → identifier → decision → alias → candidates. An identifier is a value that one member has; the
//! decision about it is kept under its column and hash. Where names only propose (users), the verdict is `review` even if
//! it would be automatic.
//!
//! # Personal data
//! Names are never logged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use deadpool_postgres::Pool;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::{Mutex, RwLock};

use super::resolver_index::{Index, IndexPolicy, Table, obtain_trees};
use crate::client::postgres::{self, PostgresError, kind_of};
use crate::client::s3::S3Error;
use crate::config::NameLink;
use crate::error::ErrorKind;
use crate::load::LoadPart;
use crate::resolve::{
    Comparison, Decision, ResolveError, SCHEME_VERSION, Verdict, decide_all, near_duplicates, spelling,
};
use crate::telemetry::metrics;
use crate::types::Proposal;

/// A longer spelling ends in its hash instead: it is part of a key.
const SPELLING_BYTES_MAX: usize = 400;

#[derive(Debug, Error)]
pub enum ResolverError {
    #[error("could not reach the warehouse to resolve names")]
    Connect(#[source] PostgresError),
    #[error("could not {operation}")]
    Query { operation: String, source: tokio_postgres::Error },
    #[error("could not resolve names")]
    Resolve(#[from] ResolveError),
    #[error("could not exchange the snapshot of an index")]
    Snapshot(#[source] S3Error),
    #[error("column `{column}` of connector `{connector}` cannot be read from the lake")]
    Column { connector: String, column: String, source: arrow::error::ArrowError },
    #[error("the task that resolves names died")]
    Died(#[source] tokio::task::JoinError),
}

impl ResolverError {
    pub(super) fn query(operation: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Query { operation: operation.into(), source }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(source) => source.kind(),
            Self::Query { source, .. } => kind_of(source),
            Self::Resolve(source) => source.kind(),
            Self::Snapshot(source) => source.kind(),
            Self::Column { .. } | Self::Died(_) => ErrorKind::Halt,
        }
    }
}

pub struct Resolver {
    warehouse: Pool,
    policy: IndexPolicy,
    indexes: Mutex<HashMap<String, Arc<RwLock<Index>>>>,
}

impl Resolver {
    pub fn new(warehouse: Pool, policy: IndexPolicy) -> Self {
        Self { warehouse, policy, indexes: Mutex::new(HashMap::new()) }
    }

    /// Whether the dimension is looked up by trees already.
    pub async fn has_trees(&self, dimension: &str) -> bool {
        let index = self.indexes.lock().await.get(dimension).cloned();
        match index {
            Some(index) => index.read().await.arroy.is_some(),
            None => false,
        }
    }

    /// Adds the spellings to the rows, and proposals for those that nobody has decided about.
    pub async fn prepare(&self, part: &mut LoadPart) -> Result<(), ResolverError> {
        let connector = Arc::clone(&part.connector);
        let Some(warehouse) = &connector.warehouse else { return Ok(()) };
        for link in &warehouse.dimensions {
            let Some(name) = &link.resolve else { continue };
            let failed = |source| ResolverError::Column {
                connector: connector.name.clone(),
                column: name.column.clone(),
                source,
            };
            let rows = Rows { key: link.key.as_deref(), name };
            let identified = self.identified(&link.dimension, rows, &part.batches, &failed).await?;
            let column = Proposal::column(&link.dimension);
            let mut found = Found::default();
            for batch in &mut part.batches {
                *batch = rows.spelled(batch, &column, &identified, &mut found).map_err(&failed)?;
            }
            part.proposals.extend(self.propose(&link.dimension, name, found).await?);
        }
        Ok(())
    }

    /// Pairs of natural keys of members that look like one thing, the most similar first.
    pub async fn near_duplicates(
        &self,
        dimension: &str,
        against: &str,
        count_max: usize,
    ) -> Result<Vec<([String; 2], Comparison)>, ResolverError> {
        let index = self.index(&Table::new(dimension, against)).await?.read_owned().await;
        let search = move || -> Result<Vec<([String; 2], Comparison)>, ResolverError> {
            let pairs = near_duplicates(&index.members, &*index.backend, count_max)?;
            let key = |place| index.natural_key(place);
            Ok(pairs.into_iter().map(|pair| (pair.places.map(key), pair.comparison)).collect())
        };
        tokio::task::spawn_blocking(search).await.map_err(ResolverError::Died)?
    }

    /// For each identifier: the natural keys of those values that one member has.
    async fn identified(
        &self,
        dimension: &str,
        rows: Rows<'_>,
        batches: &[RecordBatch],
        failed: &(impl Fn(arrow::error::ArrowError) -> ResolverError + Sync),
    ) -> Result<Vec<HashMap<String, String>>, ResolverError> {
        let mut identified = Vec::with_capacity(rows.name.identifiers.len());
        for column in &rows.name.identifiers {
            let mut values = BTreeSet::new();
            for batch in batches {
                let texts = texts_of(batch, column).map_err(failed)?;
                let given = (0..batch.num_rows()).filter_map(|row| text_at(texts.as_ref(), row));
                // the server cannot hold a zero character, so no member has one
                values.extend(given.filter(|value| !value.contains('\0')).map(str::to_owned));
            }
            let values: Vec<String> = values.into_iter().collect();
            let client = postgres::get(&self.warehouse).await.map_err(ResolverError::Connect)?;
            let singular = dimension.strip_suffix('s').unwrap_or(dimension);
            let sql = format!(
                "SELECT \"{column}\", min(\"{singular}_id\") FROM warehouse.\"dim_{dimension}\" \
                 WHERE \"{column}\" = ANY($1::text[]) AND NOT inferred AND merged_into IS NULL GROUP BY 1 HAVING count(*) = 1"
            );
            let query = ResolverError::query(format!("look for identifiers in dim_{dimension}"));
            let found = client.query(&sql, &[&values]).await.map_err(query)?;
            identified.push(found.iter().map(|row| (row.get(0), row.get(1))).collect());
        }
        Ok(identified)
    }

    /// For spellings without a decision.
    async fn propose(&self, dimension: &str, name: &NameLink, found: Found) -> Result<Vec<Proposal>, ResolverError> {
        let Found { mut texts, identified } = found;
        for decided in
            self.known("SELECT spelling, natural_key FROM warehouse.resolution_decision", dimension, &texts).await?
        {
            texts.remove(&decided.0);
        }
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let mut proposals = Vec::with_capacity(texts.len());
        for (spelling, natural_key) in identified {
            if let Some(text) = texts.remove(&spelling) {
                proposals.push(known_member(dimension, spelling, text, natural_key, "identifier"));
            }
        }
        let aliases = self.known("SELECT spelling, natural_key FROM warehouse.alias", dimension, &texts).await?;
        for (spelling, natural_key) in aliases {
            if let Some(text) = texts.remove(&spelling) {
                proposals.push(known_member(dimension, spelling, text, natural_key, "alias"));
            }
        }
        if !texts.is_empty() {
            let index = self.index(&Table::new(dimension, &name.against)).await?;
            let (dimension, propose_only) = (dimension.to_owned(), name.propose_only);
            let index = index.read_owned().await;
            let decide = move || decide(&index, &dimension, propose_only, texts);
            proposals.extend(tokio::task::spawn_blocking(decide).await.map_err(ResolverError::Died)??);
        }
        for proposal in &proposals {
            metrics().names_resolved.with_label_values(&[proposal.dimension.as_str(), proposal.verdict]).inc();
        }
        proposals.sort_by(|one, other| one.spelling.cmp(&other.spelling));
        Ok(proposals)
    }

    async fn known(
        &self,
        select: &str,
        dimension: &str,
        texts: &BTreeMap<String, String>,
    ) -> Result<Vec<(String, String)>, ResolverError> {
        let client = postgres::get(&self.warehouse).await.map_err(ResolverError::Connect)?;
        let spellings: Vec<&str> = texts.keys().map(String::as_str).collect();
        let sql = format!("{select} WHERE dimension = $1 AND spelling = ANY($2::text[]) ORDER BY spelling");
        let rows = client
            .query(&sql, &[&dimension, &spellings])
            .await
            .map_err(ResolverError::query("read what is decided about names"))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// The index of a dimension, with every member that is there now.
    async fn index(&self, table: &Table) -> Result<Arc<RwLock<Index>>, ResolverError> {
        let mut indexes = self.indexes.lock().await;
        let known = indexes.get(&table.dimension).cloned();
        if let Some(index) = known {
            let mut writing = index.write().await;
            writing.catch_up(table, &self.warehouse).await?;
            let is_stale = writing.is_stale();
            drop(writing);
            if !is_stale {
                return Ok(index);
            }
        }
        let read = Index::read(table, &self.warehouse).await?;
        let has_many = read.members.len() > self.policy.exact_members_max;
        let index = Arc::new(RwLock::new(read));
        indexes.insert(table.dimension.clone(), Arc::clone(&index));
        if has_many {
            let (warehouse, policy) = (self.warehouse.clone(), self.policy.clone());
            tokio::spawn(obtain_trees(Arc::clone(&index), table.clone(), warehouse, policy));
        }
        Ok(index)
    }
}

/// What rows give to find a member by.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    /// The column with the natural key.
    key: Option<&'a str>,
    name: &'a NameLink,
}

/// What stands for a member in rows.
#[derive(Debug, Default)]
struct Found {
    /// By spelling: the text, as it came first.
    texts: BTreeMap<String, String>,
    /// By spelling, of identifiers: the natural key of the member that has it.
    identified: BTreeMap<String, String>,
}

impl Rows<'_> {
    /// The rows with one more column: what is decided about, null where there is a natural key or nothing to go by.
    fn spelled(
        self,
        batch: &RecordBatch,
        column: &str,
        identified: &[HashMap<String, String>],
        found: &mut Found,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let names = texts_of(batch, &self.name.column)?;
        let keys = self.key.map(|key| texts_of(batch, key)).transpose()?.flatten();
        let identifiers: Vec<Option<ArrayRef>> =
            self.name.identifiers.iter().map(|column| texts_of(batch, column)).collect::<Result<_, _>>()?;
        let mut spellings: Vec<Option<String>> = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            if text_at(keys.as_ref(), row).is_some() {
                spellings.push(None);
                continue;
            }
            let known =
                self.name.identifiers.iter().zip(&identifiers).zip(identified).find_map(|((column, texts), known)| {
                    let value = text_at(texts.as_ref(), row)?;
                    Some((format!("{column} {}", hash_of(value)), known.get(value)?))
                });
            let text = text_at(names.as_ref(), row);
            let spelled = match known {
                Some((spelled, natural_key)) => {
                    found.identified.insert(spelled.clone(), natural_key.clone());
                    Some(spelled)
                }
                None => text.and_then(|text| decision_key(&spelling(text))),
            };
            if let Some(spelled) = &spelled
                && !found.texts.contains_key(spelled)
            {
                found.texts.insert(spelled.clone(), text.unwrap_or_default().replace('\0', ""));
            }
            spellings.push(spelled);
        }
        let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(column, DataType::Utf8, true)));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(StringArray::from(spellings)));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }
}

fn texts_of(batch: &RecordBatch, column: &str) -> Result<Option<ArrayRef>, arrow::error::ArrowError> {
    batch.column_by_name(column).map(|array| arrow::compute::cast(array, &DataType::Utf8)).transpose()
}

/// Neither null nor empty.
fn text_at(texts: Option<&ArrayRef>, row: usize) -> Option<&str> {
    let texts = texts?.as_string::<i32>();
    (!texts.is_null(row) && !texts.value(row).is_empty()).then(|| texts.value(row))
}

fn hash_of(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A spelling short enough for a key; none where there is no word.
fn decision_key(spelling: &str) -> Option<String> {
    if spelling.len() <= SPELLING_BYTES_MAX {
        return (!spelling.is_empty()).then(|| spelling.to_owned());
    }
    let hash = hash_of(spelling);
    let end = (0..SPELLING_BYTES_MAX - hash.len()).rev().find(|end| spelling.is_char_boundary(*end))?;
    Some(format!("{} {hash}", &spelling[..end]))
}

fn known_member(
    dimension: &str,
    spelling: String,
    text: String,
    natural_key: String,
    verdict: &'static str,
) -> Proposal {
    Proposal {
        dimension: dimension.to_owned(),
        spelling,
        text,
        proposed_key: Some(natural_key.clone()),
        natural_key,
        verdict,
        margin: None,
        features: Value::Null,
        candidates: json!([]),
        scheme_version: SCHEME_VERSION,
        index_version: String::new(),
    }
}

fn decide(
    index: &Index,
    dimension: &str,
    propose_only: bool,
    texts: BTreeMap<String, String>,
) -> Result<Vec<Proposal>, ResolverError> {
    let list: Vec<&str> = texts.values().map(String::as_str).collect();
    let decisions = decide_all(&index.members, &*index.backend, &list, 1)?;
    if let Some(sampled) = index.arroy.as_ref().map(|arroy| arroy.take_recall()) {
        let counts = [("found", sampled.found_count), ("missed", sampled.wanted_count - sampled.found_count)];
        for (result, count) in counts {
            metrics().candidates_sampled.with_label_values(&[dimension, result]).inc_by(count);
        }
    }
    let each = texts.into_iter().zip(decisions);
    Ok(each
        .map(|((spelling, text), decision)| propose(index, dimension, propose_only, spelling, text, &decision))
        .collect())
}

fn propose(
    index: &Index,
    dimension: &str,
    propose_only: bool,
    spelling: String,
    text: String,
    decision: &Decision,
) -> Proposal {
    let best = decision.candidates.first().map(|best| index.natural_key(best.place));
    let verdict = match decision.verdict {
        Verdict::Automatic if propose_only => Verdict::Review,
        verdict => verdict,
    };
    let decided = best.clone().filter(|_| verdict == Verdict::Automatic);
    let candidates: Vec<Value> = decision
        .candidates
        .iter()
        .map(|candidate| json!({"key": index.natural_key(candidate.place), "cosine": candidate.cosine}))
        .collect();
    Proposal {
        dimension: dimension.to_owned(),
        natural_key: decided.unwrap_or_else(|| format!("name:{spelling}")),
        spelling,
        text,
        verdict: verdict.name(),
        proposed_key: best.filter(|_| verdict != Verdict::New),
        margin: decision.comparison.map(|_| decision.margin),
        features: json!(decision.comparison),
        candidates: Value::Array(candidates),
        scheme_version: SCHEME_VERSION,
        index_version: index.version.clone(),
    }
}
