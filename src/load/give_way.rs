//! What a replay takes away of what it replaces, and what takes its place.

use super::error::LoadError;
use super::steps::{AS_PLANNED, BY_RANGE, Steps};
use super::touched::Touched;
use super::transaction::Load;
use super::{TableCounts, reconcile_sql};
use crate::telemetry::guarded;

impl Load<'_> {
    /// Retracts and promotes. `false`: the rows are there already, all of them.
    pub(super) async fn give_way(
        &self,
        rollups: &Touched<'_>,
        steps: &Steps<'_>,
        row_count: u64,
        found: &mut TableCounts,
    ) -> Result<bool, LoadError> {
        steps.batch(BY_RANGE).await?;
        let is_changed = row_count == 0 || !steps.is_unchanged(self.range(), row_count).await?;
        if is_changed {
            rollups.members.leaving(steps.table, self.range()).await?;
            found.retracted = self.retract(steps).await?;
        }
        steps.batch(AS_PLANNED).await?;
        if found.retracted > 0 {
            rollups.gone(steps.table).await?;
            steps.forget_times().await?;
            found.promoted = steps.execute(&reconcile_sql::promote(steps.table)).await?;
            rollups.promoted(steps.table).await?;
        }
        Ok(is_changed)
    }

    /// Takes away what the micro-batch does not make again, and leaves the rows that are not there already. Returns how many
    /// rows of the table went.
    async fn retract(&self, steps: &Steps<'_>) -> Result<u64, LoadError> {
        let (range, table) = (self.range(), steps.table);
        let mut retracted = 0;
        if guarded!("retract") {
            retracted = steps.execute_over(&reconcile_sql::retract(table), range).await?;
            steps.execute_over(&reconcile_sql::retract_shadow(table), range).await?;
        }
        for statement in reconcile_sql::forget_present(table) {
            steps.execute_over(&statement, range).await?;
        }
        Ok(retracted)
    }
}
