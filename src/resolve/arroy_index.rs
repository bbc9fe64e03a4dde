//! Candidates by arroy: trees over the projected vectors, in an LMDB file of this process's own, and the members that
//! share a rare feature with the query.
//!
//! # Contract
//! Projecting blurs what is rare, and model codes are; so the trees are asked for what is like the query as a whole,
//! and short lists of who has a rare feature for the rest. At 60,000 members the trees alone found 93 % of the exact top
//! ten at the same speed, both together 99 %.
//! What is found is ranked again by the exact cosine, so that a [`Candidate`] is the same from here as from the
//! exact scan; the index can only leave one out. One look-up in [`SAMPLE_EVERY`] is repeated exactly, chosen by the
//! query alone, and what was found of it is counted: [`ArroyIndex::take_recall`].
//!
//! The trees are made with a fixed seed and a fixed number, which makes them the same whatever the number of threads.
//! The file is never written again: a newer index is another file, and this one goes when it is dropped.

use std::collections::HashMap;
use std::num::NonZeroUsize;
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
/// More trees find more and take longer to build and to search.
const TREE_COUNT: usize = 16;
/// Members that the trees are asked to look at, at least. The search takes time in proportion.
const INSPECTED: NonZeroUsize = NonZeroUsize::new(250).expect("not zero");
/// A feature that more members have is not rare.
const RARE_MEMBERS_MAX: u32 = 128;
/// Members that are looked at for their rare features: of the query's rarest ones first, until this many.
const RARE_COUNT: usize = 256;
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
    /// By rare feature: the members that have it; ascending.
    rare: HashMap<u32, Vec<u32>>,
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
        Ok(Self::opened(env, database, members, folder))
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
        Ok(Self::opened(env, database, members, folder))
    }

    fn opened(env: Env, database: Database<'static, Cosine>, members: &Members, folder: TempDir) -> Self {
        let mut rare: HashMap<u32, Vec<u32>> = HashMap::new();
        for (place, name) in members.names().iter().enumerate() {
            for (feature, _) in &name.vector.entries {
                if members.table().count(*feature) <= RARE_MEMBERS_MAX {
                    rare.entry(*feature).or_default().push(place as u32);
                }
            }
        }
        let (found_count, wanted_count) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { env, database, rare, indexed_count: members.len(), found_count, wanted_count, _folder: folder }
    }

    /// Members that share the query's rarest features.
    fn sharing(&self, query: &SparseVector) -> Vec<u32> {
        let mut features: Vec<(u32, f32)> = query.entries.to_vec();
        features.sort_unstable_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        let mut places = Vec::with_capacity(2 * RARE_COUNT);
        for members in features.iter().filter_map(|(feature, _)| self.rare.get(feature)) {
            if places.len() >= RARE_COUNT {
                break;
            }
            places.extend_from_slice(members);
        }
        places
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
            let near = reader
                .nns(count.max(CANDIDATE_COUNT))
                .search_k(INSPECTED)
                .by_vector(&transaction, &projected)
                .map_err(failed)?;
            let mut places = self.sharing(query);
            places.extend(near.into_iter().map(|(place, _)| place));
            places.sort_unstable();
            places.dedup();
            let exact = |place| Candidate { place, cosine: query.cosine(&members.name(place).vector) };
            let mut found: Vec<Candidate> = places.into_iter().map(exact).filter(|found| found.cosine > 0.0).collect();
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

#[cfg(test)]
mod tests {
    use super::super::candidates::ExactScan;
    use super::super::name::Name;
    use super::super::synthetic::catalogue;
    use super::*;

    fn members(texts: &[String]) -> Members {
        Members::new(texts.iter().enumerate().map(|(place, text)| (place as i64, text.as_str())))
    }

    fn nearest(index: &dyn Candidates, members: &Members, texts: &[String]) -> Vec<Vec<Candidate>> {
        let names: Vec<Name> = texts.iter().map(|text| Name::new(text, members.table())).collect();
        let vectors: Vec<_> = names.iter().map(|name| &name.vector).collect();
        index.nearest(members, &vectors, CANDIDATE_COUNT).expect("searches")
    }

    fn build(members: &Members) -> ArroyIndex {
        ArroyIndex::build(members, &std::env::temp_dir()).expect("builds")
    }

    #[test]
    fn the_index_finds_nearly_all_of_the_exact_top_ten_and_counts_it() {
        let pairs = catalogue(2000, 400);
        let members = members(&pairs.reference);
        let index = build(&members);
        let exact = nearest(&ExactScan::new(&members), &members, &pairs.queries);
        let found = nearest(&index, &members, &pairs.queries);
        let top = exact.iter().zip(&found).flat_map(|(exact, found)| exact.iter().take(10).map(move |c| (c, found)));
        let hits: Vec<bool> = top.map(|(candidate, found)| found.contains(candidate)).collect();
        let share = hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64;
        assert!(share >= 0.985, "{share}");
        let sampled = index.take_recall();
        assert!(sampled.wanted_count > 0 && sampled.found_count <= sampled.wanted_count, "{sampled:?}");
        assert!(sampled.found_count * 100 >= sampled.wanted_count * 90, "{sampled:?}");
        assert_eq!(index.take_recall(), SampledRecall::default());
    }

    #[test]
    fn a_snapshot_and_a_second_build_find_the_same() {
        let pairs = catalogue(600, 100);
        let members = members(&pairs.reference);
        let index = build(&members);
        let first = nearest(&index, &members, &pairs.queries);
        let restored = ArroyIndex::from_bytes(&index.to_bytes().expect("copies"), &members, &std::env::temp_dir());
        assert_eq!(nearest(&restored.expect("opens"), &members, &pairs.queries), first);
        assert_eq!(nearest(&build(&members), &members, &pairs.queries), first);
    }

    #[test]
    fn members_added_since_are_found_exactly() {
        let pairs = catalogue(300, 1);
        let mut members = members(&pairs.reference);
        let index = build(&members);
        members.push(300, "an altogether unusual xylophone qx9000");
        let found = nearest(&index, &members, &["xylophone qx 9000".to_owned()]);
        assert_eq!(found[0][0].place, 300);
    }

    #[test]
    fn a_snapshot_of_other_members_is_refused() {
        let pairs = catalogue(60, 1);
        let bytes = build(&members(&pairs.reference)).to_bytes().expect("copies");
        let others = members(&pairs.reference[1..]);
        let refused = ArroyIndex::from_bytes(&bytes, &others, &std::env::temp_dir()).expect_err("refused");
        assert!(matches!(refused, ResolveError::Snapshot(_)), "{refused}");
    }
}
