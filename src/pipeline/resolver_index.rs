//! What names are looked up in: the members of a dimension, and the backend that finds candidates among them.
//!
//! # Contract
//! Few members ([`IndexPolicy::exact_members_max`]) are compared exactly. For more, trees are made in the background by one
//! process of all, which holds an advisory lock, and kept as a snapshot with its checksum below `_resolve/` in the lake's bucket; the
//! others take that. Until a process has the trees, its exact scan answers. An index is swapped whole.
//! Members that came after an index are read before each look-up and scanned exactly; where they have become more than
//! those that it was made of, it is made anew at once, for rarity is counted over the latter. Other changes (a member that is
//! renamed, merged, or inferred and now complete) are seen after [`IndexPolicy::changes_interval`] at most, by trees
//! after [`REBUILD_INTERVAL`]. Merged and inferred members are no candidates.
//!
//! # Retries
//! Whatever goes wrong in the background is tried again after a while; the exact scan answers meanwhile.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_postgres::{Object, Pool};
use sha2::{Digest, Sha256};
use tokio::sync::RwLock;

use super::resolver::ResolverError;
use crate::client::postgres;
use crate::client::s3::{Pin, S3Client};
use crate::error::chain;
use crate::resolve::{
    ArroyIndex, Candidates, EXACT_MEMBERS_MAX, ExactScan, IndexedMember, Members, read_snapshot, write_snapshot,
};

/// An index is made anew when so many members have come since, in share of what it holds, …
const STALE_SHARE: f64 = 0.1;
/// … but not more often than this.
const REBUILD_INTERVAL: Duration = Duration::from_mins(5);
/// Between looks for the snapshot that another process makes.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(10);
/// `pg_try_advisory_lock` of who makes an index, with the hash of `dimension/against`: the letters `slui`.
const LEADER_LOCK: i32 = 0x736c_7569;

/// A table of members and where their names stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Table {
    /// `products`
    pub(super) dimension: String,
    against: String,
}

impl Table {
    pub(super) fn new(dimension: &str, against: &str) -> Self {
        Self { dimension: dimension.to_owned(), against: against.to_owned() }
    }

    /// `product`, which its columns begin with.
    fn singular(&self) -> &str {
        self.dimension.strip_suffix('s').unwrap_or(&self.dimension)
    }

    /// Members that may be meant and have a greater key, by key.
    async fn members_after(&self, warehouse: &Pool, key: i64) -> Result<Vec<IndexedMember>, ResolverError> {
        let client = postgres::get(warehouse).await.map_err(ResolverError::Connect)?;
        let Self { dimension, against } = self;
        let singular = self.singular();
        let sql = format!(
            "SELECT \"{singular}_key\", \"{singular}_id\", \"{against}\" {} AND \"{singular}_key\" > $1 ORDER BY 1",
            self.candidates()
        );
        let failed = ResolverError::query(format!("read the members of dim_{dimension}"));
        let rows = client.query(&sql, &[&key]).await.map_err(failed)?;
        let member =
            |row: &tokio_postgres::Row| IndexedMember { key: row.get(0), natural_key: row.get(1), name: row.get(2) };
        Ok(rows.iter().map(member).collect())
    }

    /// Members that may be meant: not the unknown one.
    fn candidates(&self) -> String {
        let Self { dimension, against } = self;
        let singular = self.singular();
        format!(
            "FROM warehouse.\"dim_{dimension}\" WHERE \"{singular}_key\" > 0 AND NOT inferred AND merged_into IS NULL \
             AND \"{against}\" IS NOT NULL"
        )
    }

    /// What [`Marks`] are of the members up to a key, as they are now.
    async fn marks(&self, warehouse: &Pool, last_key: i64) -> Result<Marks, ResolverError> {
        let client = postgres::get(warehouse).await.map_err(ResolverError::Connect)?;
        let Self { dimension, against } = self;
        let singular = self.singular();
        let sql = format!(
            "SELECT count(*), coalesce(bit_xor(('x' || left(encode(sha256(convert_to(\"{singular}_key\"::text || chr(31) \
                    || \"{singular}_id\" || chr(31) || \"{against}\", 'UTF8')), 'hex'), 16))::bit(64)::bigint), 0) {} \
                    AND \"{singular}_key\" <= $1",
            self.candidates()
        );
        let failed = ResolverError::query(format!("look for changes in dim_{dimension}"));
        let row = client.query_one(&sql, &[&last_key]).await.map_err(failed)?;
        Ok(Marks { count: row.get(0), combined: row.get(1) })
    }
}

/// Tells whether members are the same ones by the same names: how many, and the first eight bytes of each one's SHA-256
/// over key, natural key and name, combined whatever their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Marks {
    count: i64,
    combined: i64,
}

impl Marks {
    fn of(listed: &[IndexedMember]) -> Self {
        let mut marks = Self::default();
        listed.iter().for_each(|member| marks.add(member));
        marks
    }

    fn add(&mut self, member: &IndexedMember) {
        let IndexedMember { key, natural_key, name } = member;
        let digest = Sha256::digest(format!("{key}\u{1f}{natural_key}\u{1f}{name}"));
        let first = digest.iter().take(8).fold(0_i64, |mark, byte| mark << 8 | i64::from(*byte));
        self.count += 1;
        self.combined ^= first;
    }
}

/// When trees are made, and where they are kept; without a place every process makes its own.
#[derive(Debug, Clone)]
pub struct IndexPolicy {
    pub exact_members_max: usize,
    pub snapshots: Option<(S3Client, String)>,
    /// Between looks for members that are not new, but changed.
    pub changes_interval: Duration,
}

impl Default for IndexPolicy {
    fn default() -> Self {
        Self { exact_members_max: EXACT_MEMBERS_MAX, snapshots: None, changes_interval: Duration::from_mins(1) }
    }
}

/// One for each dimension and process.
pub(super) struct Index {
    pub(super) members: Members,
    natural_keys: HashMap<i64, String>,
    pub(super) backend: Arc<dyn Candidates>,
    pub(super) arroy: Option<Arc<ArroyIndex>>,
    /// Of the members that it was made of.
    pub(super) version: String,
    indexed_count: usize,
    last_key: i64,
    marks: Marks,
    built_at: Instant,
    looked_at: Instant,
}

impl Index {
    /// Of all members that there are, compared exactly.
    pub(super) async fn read(table: &Table, warehouse: &Pool) -> Result<Self, ResolverError> {
        let listed = table.members_after(warehouse, 0).await?;
        tokio::task::spawn_blocking(move || Self::exact(&listed)).await.map_err(ResolverError::Died)
    }

    fn exact(listed: &[IndexedMember]) -> Self {
        let members = Members::new(listed.iter().map(|member| (member.key, member.name.as_str())));
        let backend = Arc::new(ExactScan::new(&members));
        Self::of(listed, members, backend, None)
    }

    fn of(
        listed: &[IndexedMember],
        members: Members,
        backend: Arc<dyn Candidates>,
        arroy: Option<Arc<ArroyIndex>>,
    ) -> Self {
        Self {
            version: version_of(listed),
            indexed_count: members.len(),
            last_key: listed.last().map_or(0, |member| member.key),
            natural_keys: listed.iter().map(|member| (member.key, member.natural_key.clone())).collect(),
            members,
            backend,
            arroy,
            marks: Marks::of(listed),
            built_at: Instant::now(),
            looked_at: Instant::now(),
        }
    }

    fn by_trees(listed: &[IndexedMember], members: Members, arroy: ArroyIndex) -> Self {
        let arroy = Arc::new(arroy);
        Self::of(listed, members, Arc::clone(&arroy) as Arc<dyn Candidates>, Some(arroy))
    }

    pub(super) fn natural_key(&self, place: u32) -> String {
        self.natural_keys.get(&self.members.key(place)).cloned().unwrap_or_default()
    }

    /// Adds the members that came since.
    pub(super) async fn catch_up(&mut self, table: &Table, warehouse: &Pool) -> Result<(), ResolverError> {
        for member in table.members_after(warehouse, self.last_key).await? {
            self.members.push(member.key, &member.name);
            self.marks.add(&member);
            self.natural_keys.insert(member.key, member.natural_key);
            self.last_key = member.key;
        }
        Ok(())
    }

    /// Whether it is to be made anew.
    pub(super) async fn is_stale(
        &mut self,
        table: &Table,
        warehouse: &Pool,
        policy: &IndexPolicy,
    ) -> Result<bool, ResolverError> {
        let added = self.members.len() - self.indexed_count;
        let is_old = self.built_at.elapsed() >= REBUILD_INTERVAL;
        if added > self.indexed_count || is_old && added as f64 > STALE_SHARE * self.indexed_count as f64 {
            return Ok(true);
        }
        let has_trees = self.members.len() > policy.exact_members_max;
        let interval = if has_trees { REBUILD_INTERVAL } else { policy.changes_interval };
        if self.looked_at.elapsed() < interval {
            return Ok(false);
        }
        self.looked_at = Instant::now();
        Ok(table.marks(warehouse, self.last_key).await? != self.marks)
    }
}

/// Names the members that an index was made of.
fn version_of(listed: &[IndexedMember]) -> String {
    let mut hash = Sha256::new();
    for member in listed {
        hash.update(member.key.to_be_bytes());
        hash.update(Sha256::digest(member.name.as_bytes()));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Gives `index` trees: those of a snapshot that holds nearly all members, or new ones where nobody else makes them.
pub(super) async fn obtain_trees(index: Arc<RwLock<Index>>, table: Table, warehouse: Pool, policy: IndexPolicy) {
    loop {
        let done = match &policy.snapshots {
            None => make(&index, &table, &warehouse, None).await.map(|()| true),
            Some(place) => shared(&index, &table, &warehouse, place).await,
        };
        match done {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                let dimension = &table.dimension;
                tracing::warn!(component = "resolve", dimension, error = %chain(&error), "no index yet: the exact scan answers");
            }
        }
        tokio::time::sleep(SNAPSHOT_INTERVAL).await;
    }
}

/// `false`: another process makes the trees.
async fn shared(
    index: &RwLock<Index>,
    table: &Table,
    warehouse: &Pool,
    place: &(S3Client, String),
) -> Result<bool, ResolverError> {
    if take_snapshot(index, table, warehouse, place).await? {
        return Ok(true);
    }
    // Out of the pool, so that the lock ends with this connection whatever happens.
    let client = Object::take(postgres::get(warehouse).await.map_err(ResolverError::Connect)?);
    let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
    let locked = client.query_one(sql, &[&LEADER_LOCK, &format!("{}/{}", table.dimension, table.against)]).await;
    if !locked.map_err(ResolverError::query("ask who makes the index"))?.get::<_, bool>(0) {
        return Ok(false);
    }
    // it may have been made while we asked
    if !take_snapshot(index, table, warehouse, place).await? {
        make(index, table, warehouse, Some(place)).await?;
    }
    Ok(true)
}

/// The newest snapshot, where it holds as many members as an index that is not stale, as they are now.
async fn take_snapshot(
    index: &RwLock<Index>,
    table: &Table,
    warehouse: &Pool,
    (s3, bucket): &(S3Client, String),
) -> Result<bool, ResolverError> {
    let Some(version) = get(s3, bucket, &current(table)).await? else { return Ok(false) };
    let version = String::from_utf8_lossy(&version).into_owned();
    let Some(bytes) = get(s3, bucket, &object(table, &version)).await? else { return Ok(false) };
    let read = tokio::task::spawn_blocking(move || read_snapshot(&bytes, &std::env::temp_dir()));
    let (listed, members, arroy) = match read.await.map_err(ResolverError::Died)? {
        Ok(read) => read,
        Err(error) => {
            let dimension = &table.dimension;
            tracing::warn!(component = "resolve", dimension, error = %chain(&error), "the snapshot of the index is made anew");
            return Ok(false);
        }
    };
    let missing = index.read().await.members.len().saturating_sub(listed.len());
    if missing as f64 > STALE_SHARE * listed.len() as f64 {
        return Ok(false);
    }
    let made = Index::by_trees(&listed, members, arroy);
    if table.marks(warehouse, made.last_key).await? != made.marks {
        return Ok(false);
    }
    swap(index, made, table, warehouse).await?;
    Ok(true)
}

/// Nothing that the old one had caught up with is missing from the new one.
async fn swap(index: &RwLock<Index>, mut made: Index, table: &Table, warehouse: &Pool) -> Result<(), ResolverError> {
    let mut index = index.write().await;
    made.catch_up(table, warehouse).await?;
    *index = made;
    Ok(())
}

async fn make(
    index: &RwLock<Index>,
    table: &Table,
    warehouse: &Pool,
    place: Option<&(S3Client, String)>,
) -> Result<(), ResolverError> {
    let listed = table.members_after(warehouse, 0).await?;
    let is_kept = place.is_some();
    let build = move || {
        let members = Members::new(listed.iter().map(|member| (member.key, member.name.as_str())));
        let arroy = ArroyIndex::build(&members, Path::new(&std::env::temp_dir()))?;
        let snapshot = is_kept.then(|| write_snapshot(&listed, &members, &arroy)).transpose()?;
        Ok::<_, ResolverError>((Index::by_trees(&listed, members, arroy), snapshot))
    };
    let (made, snapshot) = tokio::task::spawn_blocking(build).await.map_err(ResolverError::Died)??;
    if let (Some((s3, bucket)), Some(snapshot)) = (place, snapshot) {
        let version = made.version.clone();
        s3.put(bucket, &object(table, &version), Bytes::from(snapshot), None, false)
            .await
            .map_err(ResolverError::Snapshot)?;
        s3.put(bucket, &current(table), Bytes::from(version), None, false).await.map_err(ResolverError::Snapshot)?;
    }
    swap(index, made, table, warehouse).await
}

async fn get(s3: &S3Client, bucket: &str, key: &str) -> Result<Option<Bytes>, ResolverError> {
    match s3.open(bucket, key, Pin::default()).await {
        Ok(object) => Ok(Some(object.read_all().await.map_err(ResolverError::Snapshot)?)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(ResolverError::Snapshot(error)),
    }
}

/// The object that names the newest snapshot.
fn current(table: &Table) -> String {
    format!("_resolve/{}/{}/current", table.dimension, table.against)
}

fn object(table: &Table, version: &str) -> String {
    format!("_resolve/{}/{}/{version}.index", table.dimension, table.against)
}
