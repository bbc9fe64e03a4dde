//! In a replay: what is committed over the offsets that are read again, and where micro-batches must be cut.
//!
//! # Contract
//! A new micro-batch covers each one that it replaces whole (REPLAY-1), and one at a time, so that steps which
//! depend on the cut end as they did. Over skipped ranges it may be cut anywhere.
//! The plan is read once, under the fence: nobody else changes what is committed over these offsets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use deadpool_postgres::Pool;
use tokio::sync::OnceCell;

use super::overrides::Overrides;
use crate::catalog::{self, CatalogError, CoveredRange};
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::telemetry::guarded;
use crate::types::{MicroBatchId, ObjectClaim, OffsetRange};

/// Empty where nothing is read again.
#[derive(Debug, Default)]
pub(super) struct ReplayPlan {
    /// In the order of offsets.
    covered: Vec<CoveredRange>,
    /// Messages before it are gone from the log.
    pub(super) log_first: i64,
    /// Those that are being read again right now.
    replaced: Mutex<HashMap<MicroBatchId, Arc<OnceCell<Arc<Replaced>>>>>,
}

/// Where a micro-batch must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) end: i64,
    /// The micro-batch that it replaces: it must reach the end. `None`: it may end before.
    pub(super) replaces: Option<MicroBatchId>,
}

/// A live micro-batch that is about to be replaced.
#[derive(Debug)]
pub struct Replaced {
    pub id: MicroBatchId,
    pub offsets: OffsetRange,
    /// By offset and record.
    pub claims: HashMap<(i64, i32), ObjectClaim>,
    pub overrides: Overrides,
    /// Under which rows of its successor are staged before that is built.
    pub staged_as: MicroBatchId,
}

impl Replaced {
    pub(super) async fn load(
        catalog: &Pool,
        retries: &RetryPolicy,
        id: MicroBatchId,
        offsets: OffsetRange,
    ) -> Result<Self, CatalogError> {
        let (claims, overrides) = retry(retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(catalog).await.map_err(CatalogError::Connect)?;
            Ok((catalog::claims_of(&client, id).await?, catalog::overrides_of(&client, id).await?))
        })
        .await?;
        let claims = claims.into_iter().map(|claim| ((claim.message_offset, claim.record), claim)).collect();
        Ok(Self { id, offsets, claims, overrides: Overrides::new(overrides), staged_as: MicroBatchId::generate() })
    }
}

impl ReplayPlan {
    pub(super) fn new(covered: Vec<CoveredRange>, log_first: i64) -> Self {
        Self { covered, log_first, replaced: Mutex::default() }
    }

    /// Where a micro-batch that begins at `first` must end.
    pub(super) fn bound(&self, first: i64) -> Option<Bound> {
        if !guarded!("whole") {
            return None;
        }
        let mut live = self.covered.iter().filter(|range| !range.skipped && range.offsets.next() > first);
        let next = live.next()?;
        Some(if next.offsets.contains(first) {
            Bound { end: next.offsets.next(), replaces: Some(next.id) }
        } else {
            Bound { end: next.offsets.first(), replaces: None }
        })
    }

    /// What is to be replaced at an offset, with its claims and overrides.
    pub(super) async fn replaced(
        &self,
        catalog: &Pool,
        retries: &RetryPolicy,
        offset: i64,
    ) -> Result<Option<Arc<Replaced>>, CatalogError> {
        let found = self.covered.partition_point(|range| range.offsets.next() <= offset);
        let Some(range) = self.covered.get(found).filter(|range| !range.skipped && range.offsets.contains(offset))
        else {
            return Ok(None);
        };
        let cell = {
            let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(replaced.entry(range.id).or_default())
        };
        let load = || async { Ok(Arc::new(Replaced::load(catalog, retries, range.id, range.offsets).await?)) };
        cell.get_or_try_init(load).await.cloned().map(Some)
    }

    /// It is replaced: its claims are needed no more.
    pub(super) fn forget(&self, id: MicroBatchId) {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(first: i64, next: i64, skipped: bool) -> CoveredRange {
        let offsets = OffsetRange::new(first, next).expect("a range of the test's own");
        CoveredRange { id: MicroBatchId::generate(), offsets, skipped }
    }

    #[test]
    fn a_micro_batch_ends_where_the_one_it_replaces_ends() {
        let ranges = vec![covered(0, 10, false), covered(10, 30, true), covered(30, 40, false)];
        let (first, last) = (ranges[0].id, ranges[2].id);
        let plan = ReplayPlan::new(ranges, 0);
        assert_eq!(plan.bound(0), Some(Bound { end: 10, replaces: Some(first) }));
        assert_eq!(plan.bound(10), Some(Bound { end: 30, replaces: None }), "a skipped range may be cut anywhere");
        assert_eq!(plan.bound(17), Some(Bound { end: 30, replaces: None }));
        assert_eq!(plan.bound(30), Some(Bound { end: 40, replaces: Some(last) }));
        assert_eq!(plan.bound(40), None, "behind the replay nothing bounds");
    }

    #[test]
    fn without_a_replay_nothing_bounds() {
        assert_eq!(ReplayPlan::default().bound(7), None);
    }
}
