//! Names in rows on their way to the warehouse: which member each means, as far as that is not decided yet.
//!
//! # Contract
//! [`Resolver::prepare`] adds a column of spellings to rows whose connector resolves names, and proposals for the
//! spellings that have no decision. It writes nothing: the loader decides in the transaction of the rows, where the first
//! decision wins. A row that has a natural key gets no spelling.
//!
//! Order: natural key → decision → alias → candidates. Where names only propose (users), the verdict is `review` even if
//! it would be automatic.
//!
//! # Index
//! Members are read when a dimension is first needed; those that came since are read before each look-up and scanned
//! exactly. An index by arroy is made in the background where there are many ([`EXACT_MEMBERS_MAX`]); until it is there
//! the exact scan answers. Merged and inferred members are no candidates.
//!
//! # Personal data
//! Names are never logged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use deadpool_postgres::Pool;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::{Mutex, RwLock};

use crate::client::postgres::{self, PostgresError, kind_of};
use crate::config::NameLink;
use crate::error::ErrorKind;
use crate::load::LoadPart;
use crate::resolve::{
    ArroyIndex, Candidates, Comparison, Decision, EXACT_MEMBERS_MAX, ExactScan, Members, ResolveError, SCHEME_VERSION,
    Verdict, decide_all, near_duplicates, spelling,
};
use crate::telemetry::metrics;
use crate::types::Proposal;

/// A longer spelling ends in its hash instead: it is part of a key.
const SPELLING_BYTES_MAX: usize = 400;
/// Indexes are made anew when so many members have come since, in share of what they hold, …
const STALE_SHARE: f64 = 0.1;
/// … but not more often than this, nor are merges noticed sooner.
const REBUILD_INTERVAL: Duration = Duration::from_mins(5);

#[derive(Debug, Error)]
pub enum ResolverError {
    #[error("could not reach the warehouse to resolve names")]
    Connect(#[source] PostgresError),
    #[error("could not {operation}")]
    Query { operation: String, source: tokio_postgres::Error },
    #[error("could not resolve names")]
    Resolve(#[from] ResolveError),
    #[error("column `{column}` of connector `{connector}` cannot be read from the lake")]
    Column { connector: String, column: String, source: arrow::error::ArrowError },
    #[error("the task that resolves names died")]
    Died(#[source] tokio::task::JoinError),
}

impl ResolverError {
    fn query(operation: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Query { operation: operation.into(), source }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(source) => source.kind(),
            Self::Query { source, .. } => kind_of(source),
            Self::Resolve(source) => source.kind(),
            Self::Column { .. } | Self::Died(_) => ErrorKind::Halt,
        }
    }
}

/// A table of members and where their names stand.
#[derive(Debug, Clone)]
struct Table {
    /// `products`
    dimension: String,
    /// `product`
    singular: String,
    against: String,
}

impl Table {
    fn new(dimension: &str, against: &str) -> Self {
        let singular = dimension.strip_suffix('s').unwrap_or(dimension).to_owned();
        Self { dimension: dimension.to_owned(), singular, against: against.to_owned() }
    }
}

/// What is looked up in. One for each dimension and process.
struct Index {
    members: Members,
    natural_keys: HashMap<i64, String>,
    backend: Arc<dyn Candidates>,
    arroy: Option<Arc<ArroyIndex>>,
    /// Of the members that the index was made of.
    version: String,
    indexed_count: usize,
    last_key: i64,
    built_at: Instant,
}

impl Index {
    fn natural_key(&self, place: u32) -> String {
        self.natural_keys.get(&self.members.key(place)).cloned().unwrap_or_default()
    }
}

pub struct Resolver {
    warehouse: Pool,
    indexes: Mutex<HashMap<String, Arc<RwLock<Index>>>>,
}

impl Resolver {
    pub fn new(warehouse: Pool) -> Self {
        Self { warehouse, indexes: Mutex::new(HashMap::new()) }
    }

    /// Adds the spellings to the rows, and proposals for those that nobody has decided about.
    pub async fn prepare(&self, part: &mut LoadPart) -> Result<(), ResolverError> {
        let connector = Arc::clone(&part.connector);
        let Some(warehouse) = &connector.warehouse else { return Ok(()) };
        for link in &warehouse.dimensions {
            let Some(name) = &link.resolve else { continue };
            let mut texts = BTreeMap::new();
            for batch in &mut part.batches {
                let column = Proposal::column(&link.dimension);
                let add = add_spellings(batch, link.key.as_deref(), &name.column, &column, &mut texts);
                *batch = add.map_err(|source| ResolverError::Column {
                    connector: connector.name.clone(),
                    column: name.column.clone(),
                    source,
                })?;
            }
            part.proposals.extend(self.propose(&link.dimension, name, texts).await?);
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

    /// For spellings without a decision.
    async fn propose(
        &self,
        dimension: &str,
        name: &NameLink,
        mut texts: BTreeMap<String, String>,
    ) -> Result<Vec<Proposal>, ResolverError> {
        for decided in
            self.known("SELECT spelling, natural_key FROM warehouse.resolution_decision", dimension, &texts).await?
        {
            texts.remove(&decided.0);
        }
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let aliases = self.known("SELECT spelling, natural_key FROM warehouse.alias", dimension, &texts).await?;
        let mut proposals = Vec::with_capacity(texts.len());
        for (spelling, natural_key) in aliases {
            if let Some(text) = texts.remove(&spelling) {
                proposals.push(by_alias(dimension, spelling, text, natural_key));
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
            self.add_members(table, &mut writing).await?;
            let added = writing.members.len() - writing.indexed_count;
            let is_stale = added as f64 > STALE_SHARE * writing.indexed_count as f64;
            drop(writing);
            if !is_stale || index.read().await.built_at.elapsed() < REBUILD_INTERVAL {
                return Ok(index);
            }
        }
        let index = Arc::new(RwLock::new(self.build(table).await?));
        indexes.insert(table.dimension.clone(), Arc::clone(&index));
        drop(indexes);
        if index.read().await.members.len() > EXACT_MEMBERS_MAX {
            tokio::spawn(build_arroy(Arc::clone(&index), table.dimension.clone()));
        }
        Ok(index)
    }

    async fn build(&self, table: &Table) -> Result<Index, ResolverError> {
        let rows = self.members_after(table, 0).await?;
        let build = move || {
            let members = Members::new(rows.iter().map(|(key, _, name)| (*key, name.as_str())));
            let backend = Arc::new(ExactScan::new(&members));
            Index {
                version: version_of(&rows),
                indexed_count: members.len(),
                last_key: rows.last().map_or(0, |(key, ..)| *key),
                natural_keys: rows.into_iter().map(|(key, natural_key, _)| (key, natural_key)).collect(),
                members,
                backend,
                arroy: None,
                built_at: Instant::now(),
            }
        };
        tokio::task::spawn_blocking(build).await.map_err(ResolverError::Died)
    }

    async fn add_members(&self, table: &Table, index: &mut Index) -> Result<(), ResolverError> {
        for (key, natural_key, name) in self.members_after(table, index.last_key).await? {
            index.members.push(key, &name);
            index.natural_keys.insert(key, natural_key);
            index.last_key = key;
        }
        Ok(())
    }

    /// Key, natural key and name, by key.
    async fn members_after(&self, table: &Table, key: i64) -> Result<Vec<(i64, String, String)>, ResolverError> {
        let client = postgres::get(&self.warehouse).await.map_err(ResolverError::Connect)?;
        let Table { dimension, singular, against } = table;
        let sql = format!(
            "SELECT \"{singular}_key\", \"{singular}_id\", \"{against}\" FROM warehouse.\"dim_{dimension}\" \
             WHERE \"{singular}_key\" > $1 AND NOT inferred AND merged_into IS NULL AND \"{against}\" IS NOT NULL ORDER BY 1"
        );
        let failed = ResolverError::query(format!("read the members of dim_{dimension}"));
        let rows = client.query(&sql, &[&key]).await.map_err(failed)?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    }
}

/// Until it is there, the exact scan answers.
async fn build_arroy(index: Arc<RwLock<Index>>, dimension: String) {
    let reading = Arc::clone(&index).read_owned().await;
    let build =
        move || ArroyIndex::build(&reading.members, &std::env::temp_dir()).map(|arroy| (arroy, reading.members.len()));
    match tokio::task::spawn_blocking(build).await {
        Ok(Ok((arroy, _))) => {
            let arroy = Arc::new(arroy);
            let mut writing = index.write().await;
            writing.backend = Arc::clone(&arroy) as Arc<dyn Candidates>;
            writing.arroy = Some(arroy);
        }
        Ok(Err(error)) => {
            tracing::warn!(component = "resolve", dimension, error = %error, "no index of candidates: the exact scan answers");
        }
        Err(_) => tracing::warn!(component = "resolve", dimension, "the task that builds the index died"),
    }
}

/// The rows with one more column: the spelling of each name, null where there is a natural key or no name. Collects
/// the text of each spelling.
fn add_spellings(
    batch: &RecordBatch,
    key: Option<&str>,
    name: &str,
    column: &str,
    texts: &mut BTreeMap<String, String>,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let text_of = |column: &str| -> Result<Option<ArrayRef>, arrow::error::ArrowError> {
        batch.column_by_name(column).map(|array| arrow::compute::cast(array, &DataType::Utf8)).transpose()
    };
    let names = text_of(name)?;
    let keys = key.map(text_of).transpose()?.flatten();
    let has_key = |row: usize| {
        keys.as_ref().is_some_and(|keys| !keys.is_null(row) && !keys.as_string::<i32>().value(row).is_empty())
    };
    let mut spellings: Vec<Option<String>> = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let text = names.as_ref().filter(|names| !names.is_null(row) && !has_key(row));
        let text = text.map(|names| names.as_string::<i32>().value(row));
        let spelled = text.and_then(|text| Some((decision_key(&spelling(text))?, text)));
        if let Some((spelled, text)) = &spelled {
            texts.entry(spelled.clone()).or_insert_with(|| (*text).replace('\0', ""));
        }
        spellings.push(spelled.map(|(spelled, _)| spelled));
    }
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(column, DataType::Utf8, true)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(StringArray::from(spellings)));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// A spelling short enough for a key; none where there is no word.
fn decision_key(spelling: &str) -> Option<String> {
    if spelling.len() <= SPELLING_BYTES_MAX {
        return (!spelling.is_empty()).then(|| spelling.to_owned());
    }
    let digest = Sha256::digest(spelling.as_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let end = (0..=SPELLING_BYTES_MAX - hash.len() - 1).rev().find(|end| spelling.is_char_boundary(*end))?;
    Some(format!("{} {hash}", &spelling[..end]))
}

/// Names the members that an index was made of.
fn version_of(rows: &[(i64, String, String)]) -> String {
    let mut hash = Sha256::new();
    for (key, _, name) in rows {
        hash.update(key.to_be_bytes());
        hash.update(Sha256::digest(name.as_bytes()));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn by_alias(dimension: &str, spelling: String, text: String, natural_key: String) -> Proposal {
    Proposal {
        dimension: dimension.to_owned(),
        spelling,
        text,
        proposed_key: Some(natural_key.clone()),
        natural_key,
        verdict: "alias",
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
