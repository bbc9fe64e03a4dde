//! Entity resolution: texts that come without a reliable id find their member of a dimension.
//!
//! # Contract
//! For each query, in this order: natural id → identifier → alias → candidates → [`Decision`]. A decision is automatic
//! only with a margin to every other member and without conflict of model codes or numbers; it is `review` where a
//! member resembles the query, `new` otherwise. The same query against the same members is decided the same, whatever
//! the number of threads and whether the index was built here or read from a snapshot.
//!
//! ```text
//! text ─ normalize ─▶ features ─ vectorize ─▶ sparse vector ──────────────┐
//!                                     └─▶ 256 dimensions ─▶ arroy: top 50 ─┤ exact cosine
//!                                                                          ▼
//!                                              compare ─▶ decide ─▶ automatic | review | new
//! ```
//!
//! # Candidates
//! A trait with two implementations: [`ExactScan`], the oracle and the default under [`EXACT_MEMBERS_MAX`] members, and
//! [`ArroyIndex`], whose finds are ranked again by the exact cosine and whose recall is measured as it works. Members
//! that came after the index are scanned exactly by both.
//!
//! # Thresholds
//! None is fitted to a set of data. A margin is a ratio of distances; evidence is counted in nats of surprise, measured
//! on the members themselves, and must exceed what chance gives among so many.
//!
//! # Personal data
//! Texts are never logged, and errors do not contain them.

mod arroy_index;
mod candidates;
mod compare;
mod decide;
mod duplicates;
mod evaluate;
mod members;
mod name;
mod normalize;
mod snapshot;
mod synthetic;
mod vectorize;

pub use arroy_index::{ArroyIndex, SampledRecall};
pub use candidates::{Candidate, Candidates, ExactScan};
pub use compare::{Codes, Comparison};
pub use decide::{Decision, Verdict, decide_all};
pub use duplicates::{NearDuplicate, near_duplicates};
pub use evaluate::{Evaluation, LookupRates, Pairs, Recall, WorldResult, evaluate};
pub use members::Members;
pub use normalize::{SCHEME_VERSION, spelling};
pub use snapshot::{IndexedMember, read_snapshot, write_snapshot};
pub use synthetic::catalogue;

use thiserror::Error;

use crate::error::ErrorKind;

/// With fewer members the exact scan is as fast as the index, and needs no upkeep.
pub const EXACT_MEMBERS_MAX: usize = 50_000;

/// Candidates that are looked at for a decision.
pub const CANDIDATE_COUNT: usize = 50;

#[derive(Debug, Error)]
pub enum ResolveError {
    #[error("could not {operation} the index of candidates")]
    Index { operation: &'static str, source: arroy::Error },
    #[error("could not {operation} the file of the index")]
    File { operation: &'static str, source: std::io::Error },
    #[error("a snapshot of the index does not fit: {0}")]
    Snapshot(String),
}

impl ResolveError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Index { .. } | Self::File { .. } => ErrorKind::Transient,
            Self::Snapshot(_) => ErrorKind::Invalid,
        }
    }
}
