//! How well resolution works on somebody's own data, where the truth is known.
//!
//! # Worlds
//! *Closed*: every member of the reference is there. *Half-open*: half of them are taken away at random, so that about
//! half of the queries have nothing to be found; the right answer for those is not to decide. In either world
//! `precision` is the share of automatic decisions that are right, and `coverage` the share of the queries with a match
//! in the reference that are decided automatically and rightly.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::arroy_index::ArroyIndex;
use super::candidates::{Candidates, ExactScan};
use super::decide::{Verdict, decide_all};
use super::members::Members;
use super::name::Name;
use super::normalize::spelling;
use super::synthetic::Dice;
use super::{CANDIDATE_COUNT, ResolveError};

/// The exact neighbours that the index should find.
const EXACT_TOP: usize = 10;

/// Texts of two tables, and which of the second mean which of the first.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    pub reference: Vec<String>,
    pub queries: Vec<String>,
    /// By query: the places in the reference that are right.
    pub truth: HashMap<usize, HashSet<usize>>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    pub reference_rows: usize,
    pub query_rows: usize,
    pub matched_queries: usize,
    pub recall_exact: Recall,
    pub recall_arroy: Recall,
    /// Of the ten exact neighbours of every query, the share that arroy finds.
    pub arroy_finds_exact_top_10: f64,
    pub closed: WorldResult,
    /// One for each seed.
    pub half_open: Vec<WorldResult>,
    pub rates: LookupRates,
}

/// Share of the matched queries whose match is among the first.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Recall {
    pub at_1: f64,
    pub at_10: f64,
    pub at_50: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct WorldResult {
    pub seed: Option<u64>,
    pub reference_rows: usize,
    /// Queries with a match in the reference.
    pub answerable: usize,
    pub automatic: usize,
    pub automatic_right: usize,
    pub review: usize,
    pub new: usize,
    pub precision: f64,
    pub coverage: f64,
}

/// Per second of one core: of the thread's time on it where the system tells, else of time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LookupRates {
    pub exact_per_second: f64,
    pub arroy_per_second: f64,
    /// Arroy's candidates and the decision.
    pub decisions_per_second: f64,
    pub alias_hits_per_second: f64,
    pub index_build_seconds: f64,
}

/// Runs everything; `parent` is where the index may lie meanwhile.
pub fn evaluate(pairs: &Pairs, seeds: &[u64], threads: usize, parent: &Path) -> Result<Evaluation, ResolveError> {
    let all: Vec<usize> = (0..pairs.reference.len()).collect();
    let members = members_of(pairs, &all);
    let exact = ExactScan::new(&members);
    let started = Instant::now();
    let arroy = ArroyIndex::build(&members, parent)?;
    let index_build_seconds = started.elapsed().as_secs_f64();
    let names: Vec<Name> = pairs.queries.iter().map(|text| Name::new(text, members.table())).collect();
    let (by_exact, exact_per_second) = timed(&members, &exact, &names)?;
    let (by_arroy, arroy_per_second) = timed(&members, &arroy, &names)?;
    let (mut found, mut wanted) = (0_usize, 0_usize);
    for (exact, arroy) in by_exact.iter().zip(&by_arroy) {
        let top = exact.iter().take(EXACT_TOP);
        wanted += top.len();
        found += top.filter(|place| arroy.contains(place)).count();
    }
    let texts: Vec<&str> = pairs.queries.iter().map(String::as_str).collect();
    let started = Stopwatch::start();
    decide_all(&members, &arroy, &texts, 1)?;
    let decisions_per_second = per_second(texts.len(), started);
    let closed = world(pairs, None, threads)?;
    let half_open = seeds.iter().map(|seed| world(pairs, Some(*seed), threads)).collect::<Result<_, _>>()?;
    let rates = LookupRates {
        exact_per_second,
        arroy_per_second,
        decisions_per_second,
        alias_hits_per_second: alias_rate(&texts),
        index_build_seconds,
    };
    Ok(Evaluation {
        reference_rows: pairs.reference.len(),
        query_rows: pairs.queries.len(),
        matched_queries: pairs.truth.len(),
        recall_exact: recall(pairs, &by_exact),
        recall_arroy: recall(pairs, &by_arroy),
        arroy_finds_exact_top_10: share(found, wanted),
        closed,
        half_open,
        rates,
    })
}

fn members_of(pairs: &Pairs, places: &[usize]) -> Members {
    Members::new(places.iter().map(|place| (*place as i64, pairs.reference[*place].as_str())))
}

/// The places found for each query, and how many look-ups a second.
fn timed(members: &Members, candidates: &dyn Candidates, names: &[Name]) -> Result<(Vec<Vec<u32>>, f64), ResolveError> {
    let vectors: Vec<_> = names.iter().map(|name| &name.vector).collect();
    let started = Stopwatch::start();
    let found = candidates.nearest(members, &vectors, CANDIDATE_COUNT)?;
    let rate = per_second(names.len(), started);
    let places = found.iter().map(|found| found.iter().map(|candidate| candidate.place).collect()).collect();
    Ok((places, rate))
}

fn recall(pairs: &Pairs, found: &[Vec<u32>]) -> Recall {
    let within = |count: usize| {
        let hit = |(query, right): &(&usize, &HashSet<usize>)| {
            found[**query].iter().take(count).any(|place| right.contains(&(*place as usize)))
        };
        share(pairs.truth.iter().filter(hit).count(), pairs.truth.len())
    };
    Recall { at_1: within(1), at_10: within(10), at_50: within(50) }
}

/// Decides in a closed world, or with half of the reference taken away.
fn world(pairs: &Pairs, seed: Option<u64>, threads: usize) -> Result<WorldResult, ResolveError> {
    let places: Vec<usize> =
        (0..pairs.reference.len()).filter(|place| seed.is_none_or(|seed| coin(seed, *place))).collect();
    let members = members_of(pairs, &places);
    let present: HashSet<usize> = places.iter().copied().collect();
    let texts: Vec<&str> = pairs.queries.iter().map(String::as_str).collect();
    let decisions = decide_all(&members, &ExactScan::new(&members), &texts, threads)?;
    let count = |verdict| decisions.iter().filter(|decision| decision.verdict == verdict).count();
    let is_right = |query: usize, place: u32| {
        pairs.truth.get(&query).is_some_and(|right| right.contains(&(members.key(place) as usize)))
    };
    let automatic_right = decisions.iter().enumerate().filter(|(query, decision)| {
        decision.verdict == Verdict::Automatic
            && decision.candidates.first().is_some_and(|best| is_right(*query, best.place))
    });
    let automatic_right = automatic_right.count();
    let answerable = pairs.truth.values().filter(|right| right.iter().any(|place| present.contains(place))).count();
    let automatic = count(Verdict::Automatic);
    Ok(WorldResult {
        seed,
        reference_rows: places.len(),
        answerable,
        automatic,
        automatic_right,
        review: count(Verdict::Review),
        new: count(Verdict::New),
        precision: share(automatic_right, automatic),
        coverage: share(automatic_right, answerable),
    })
}

/// Fair, and the same everywhere.
fn coin(seed: u64, place: usize) -> bool {
    Dice(seed ^ (place as u64).rotate_left(32)).next() & 1 == 0
}

/// Spellings looked up in a table that has them all.
fn alias_rate(texts: &[&str]) -> f64 {
    let aliases: HashMap<String, usize> =
        texts.iter().enumerate().map(|(place, text)| (spelling(text), place)).collect();
    let started = Stopwatch::start();
    let mut hit_count = 0;
    while started.seconds() < 0.2 {
        hit_count += texts.iter().filter(|text| aliases.contains_key(&spelling(text))).count();
    }
    per_second(hit_count, started)
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn per_second(count: usize, started: Stopwatch) -> f64 {
    count as f64 / started.seconds().max(1e-9)
}

#[derive(Debug, Clone, Copy)]
struct Stopwatch {
    wall: Instant,
    /// Seconds that this thread has had a core.
    on_core: Option<f64>,
}

impl Stopwatch {
    fn start() -> Self {
        Self { wall: Instant::now(), on_core: seconds_on_core() }
    }

    fn seconds(self) -> f64 {
        match (self.on_core, seconds_on_core()) {
            (Some(first), Some(last)) => last - first,
            _ => self.wall.elapsed().as_secs_f64(),
        }
    }
}

/// Source: Linux, Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat: nanoseconds spent on the cpu first.
fn seconds_on_core() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}
