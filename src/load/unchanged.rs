//! A replay that changes nothing, found out without a look at each row.

use deadpool_postgres::Transaction;

use super::digest::Digest;
use super::error::LoadError;
use super::steps::Steps;
use super::transaction::Load;
use super::{BatchToLoad, LoadCounts, PreparedPart, TableCounts};
use crate::telemetry::guarded;

impl Load<'_> {
    /// `None` where what becomes of a row is not told by the rows alone.
    pub(super) fn digest(&self, batch: &BatchToLoad) -> Option<Digest> {
        let is_named = |part: &PreparedPart| part.plan.links().iter().any(|link| link.by_name.is_some());
        let digests = self.parts.iter().filter_map(|part| part.rows.digests.get(&batch.micro_batch_id));
        (!self.parts.iter().any(is_named)).then(|| digests.fold(Digest::default(), |sum, digest| sum.plus(*digest)))
    }

    /// Whether the rows of the range are those of this micro-batch: `load_state` says so, and none of them is missing.
    pub(super) async fn stands(&self, transaction: &Transaction<'_>) -> Result<bool, LoadError> {
        let (batch, (source, first, next)) = (&self.batches[0], self.range());
        let Some(digest) = self.digest(batch) else { return Ok(false) };
        let row = transaction
            .query_one(
                include_str!("sql/select_same_rows.sql"),
                &[&source, &first, &next, &batch.micro_batch_id.0, &&digest.bytes()[..]],
            )
            .await
            .map_err(LoadError::query("look for the same rows"))?;
        if !row.get::<_, bool>(0) && guarded!("digest") {
            return Ok(false);
        }
        for table in self.tables {
            let made = self.parts.iter().filter(|part| part.plan.table == table.name).map(|part| part.rows.row_count);
            let made: u64 = made.sum();
            if made > 0
                && guarded!("digest_count")
                && (Steps { transaction, table }).count_range(self.range()).await? != made
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Of a load that changed nothing.
pub(super) fn unchanged(parts: &[PreparedPart]) -> LoadCounts {
    let mut counts = LoadCounts::default();
    for part in parts {
        counts.repaired_value_count += part.rows.repaired_count;
        let found = TableCounts { unchanged_or_older: part.rows.row_count, ..TableCounts::default() };
        counts.tables.entry(part.plan.table.clone()).or_default().add(found);
    }
    counts
}
