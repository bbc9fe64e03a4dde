//! Candidates by arroy: trees over the projected vectors, in an LMDB file of this process's own.
//!
//! # Contract
//! What the trees find is ranked again by the exact cosine, so that a [`Candidate`] is the same from here as from the
//! exact scan; the index can only leave one out. One look-up in [`SAMPLE_EVERY`] is repeated exactly, chosen by the
//! query alone, and what was found of it is counted: [`ArroyIndex::take_recall`].
//!
//! The trees are made with a fixed seed and a fixed number, which makes them the same whatever the number of threads.
//! The file is never written again: a newer index is another file, and this one goes when it is dropped.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arroy::distances::Cosine;
use arroy::{Database, Reader, Writer};
use heed::{CommitOrAbort, CompactionOption, Env, EnvOpenOptions};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::candidates::{Candidate, Candidates, best, scan};
use super::members::Members;
use super::vectorize::{DIMENSIONS, SparseVector};
use super::{CANDIDATE_COUNT, ResolveError};

const SEED: u64 = 0x736c_7569_6365;
const SPLIT_AFTER: usize = 16;
/// More trees find more and take longer. Measured at 60,000 members: see the test below.
const TREE_COUNT: usize = 40;
const SAMPLE_EVERY: u32 = 100;
/// Of the exact neighbours, how many a sampled look-up is judged by.
const SAMPLE_COUNT: usize = 10;
/// Room in the file's address space; the file itself is as large as its content.
const MAP_BYTES_MIN: usize = 64 << 20;
const MAP_BYTES_PER_MEMBER: usize = 32 << 10;
/// The one index of the file.
const INDEX: u16 = 0;

/// What sampled look-ups found of what they should have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SampledRecall {
    pub found_count: u64,
    pub wanted_count: u64,
}

#[derive(Debug)]
pub struct ArroyIndex {
    env: Env,
    database: Database<'static, Cosine>,
    indexed_count: usize,
    found_count: AtomicU64,
    wanted_count: AtomicU64,
    _folder: TempDir,
}

impl ArroyIndex {
    /// Builds the index of all members in a new folder under `parent`. CPU work, on all threads of rayon's pool.
    pub fn build(members: &Members, parent: &Path) -> Result<Self, ResolveError> {
        let folder = new_folder(parent)?;
        let env = open(folder.path(), members.len())?;
        let failed = |source: arroy::Error| ResolveError::Index { operation: "build", source };
        let database = open_database(&env).map_err(|e| failed(e.into()))?;
        let mut transaction = env.write_txn().map_err(|e| failed(e.into()))?;
        let writer = Writer::<Cosine>::new(database, INDEX, DIMENSIONS);
        for (place, name) in members.names().iter().enumerate() {
            writer.add_item(&mut transaction, place as u32, &name.vector.projected()).map_err(failed)?;
        }
        let mut rng = StdRng::seed_from_u64(SEED);
        // The number of trees is given because the default depends on the number of threads.
        writer
            .builder(&mut rng)
            .n_trees(TREE_COUNT)
            .split_after(SPLIT_AFTER)
            .build(&mut transaction)
            .map_err(failed)?;
        transaction.commit().map_err(|e| failed(e.into()))?;
        Ok(Self::opened(env, database, members.len(), folder))
    }

    /// Opens the file that [`ArroyIndex::to_bytes`] gave, over the same members.
    pub fn from_bytes(bytes: &[u8], members: &Members, parent: &Path) -> Result<Self, ResolveError> {
        let folder = new_folder(parent)?;
        std::fs::write(folder.path().join("data.mdb"), bytes)
            .map_err(|source| ResolveError::File { operation: "write", source })?;
        let env = open(folder.path(), members.len())?;
        let failed = |source: arroy::Error| ResolveError::Index { operation: "open", source };
        let database = open_database(&env).map_err(|e| failed(e.into()))?;
        let transaction = env.read_txn().map_err(|e| failed(e.into()))?;
        let item_count = Reader::open(&transaction, INDEX, database).map_err(failed)?.n_items();
        drop(transaction);
        if item_count != members.len() as u64 {
            let problem = format!("it is of {item_count} members, not {}", members.len());
            return Err(ResolveError::Snapshot(problem));
        }
        Ok(Self::opened(env, database, members.len(), folder))
    }

    fn opened(env: Env, database: Database<'static, Cosine>, indexed_count: usize, folder: TempDir) -> Self {
        let (found_count, wanted_count) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { env, database, indexed_count, found_count, wanted_count, _folder: folder }
    }

    /// The index as one file, without the gaps.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ResolveError> {
        let failed = |source| ResolveError::File { operation: "copy", source };
        let copy = tempfile::NamedTempFile::new().map_err(failed)?;
        let mut file = copy.reopen().map_err(failed)?;
        self.env
            .copy_to_file(&mut file, CompactionOption::Enabled)
            .map_err(|e| ResolveError::Index { operation: "copy", source: e.into() })?;
        std::fs::read(copy.path()).map_err(failed)
    }

    /// What the sampled look-ups found since the last call.
    pub fn take_recall(&self) -> SampledRecall {
        SampledRecall {
            found_count: self.found_count.swap(0, Ordering::Relaxed),
            wanted_count: self.wanted_count.swap(0, Ordering::Relaxed),
        }
    }

    fn sample(&self, members: &Members, query: &SparseVector, found: &[Candidate]) {
        let chosen = query.entries.iter().fold(0_u32, |sum, (feature, _)| sum.wrapping_add(*feature)) % SAMPLE_EVERY;
        if chosen != 0 {
            return;
        }
        let wanted = best(scan(members, query, 0).collect(), SAMPLE_COUNT);
        let hits = wanted.iter().filter(|wanted| found.iter().any(|found| found.place == wanted.place)).count();
        self.found_count.fetch_add(hits as u64, Ordering::Relaxed);
        self.wanted_count.fetch_add(wanted.len() as u64, Ordering::Relaxed);
    }
}

impl Candidates for ArroyIndex {
    fn nearest(
        &self,
        members: &Members,
        queries: &[&SparseVector],
        count: usize,
    ) -> Result<Vec<Vec<Candidate>>, ResolveError> {
        let failed = |source: arroy::Error| ResolveError::Index { operation: "search", source };
        let transaction = self.env.read_txn().map_err(|e| failed(e.into()))?;
        let reader = Reader::open(&transaction, INDEX, self.database).map_err(failed)?;
        let mut all = Vec::with_capacity(queries.len());
        for query in queries {
            let projected = query.projected();
            let near = reader.nns(count.max(CANDIDATE_COUNT)).by_vector(&transaction, &projected).map_err(failed)?;
            let exact = |(place, _): (u32, f32)| Candidate { place, cosine: query.cosine(&members.name(place).vector) };
            let mut found: Vec<Candidate> = near.into_iter().map(exact).filter(|found| found.cosine > 0.0).collect();
            found.extend(scan(members, query, self.indexed_count));
            let found = best(found, count);
            if count >= SAMPLE_COUNT {
                self.sample(members, query, &found);
            }
            all.push(found);
        }
        Ok(all)
    }
}

fn new_folder(parent: &Path) -> Result<TempDir, ResolveError> {
    tempfile::Builder::new()
        .prefix("sluice-resolve-")
        .tempdir_in(parent)
        .map_err(|source| ResolveError::File { operation: "create", source })
}

#[allow(
    unsafe_code,
    reason = "LMDB maps the file into memory; the folder is this process's own and nobody writes there"
)]
fn open(folder: &Path, member_count: usize) -> Result<Env, ResolveError> {
    let page = 1 << 12;
    let map_bytes = (MAP_BYTES_MIN + member_count * MAP_BYTES_PER_MEMBER).next_multiple_of(page);
    // SAFETY: the file lies in a folder made for this index, is opened once and is not changed behind LMDB's back.
    unsafe { EnvOpenOptions::new().map_size(map_bytes).max_readers(512).open(folder) }
        .map_err(|e| ResolveError::Index { operation: "open", source: e.into() })
}

/// The file's unnamed database, made where it is missing.
fn open_database(env: &Env) -> heed::Result<Database<'static, Cosine>> {
    let opened = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
        opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
    })?;
    Ok(opened.unwrap_commit())
}
