//! The statements of a load over one table, run one by one.

use deadpool_postgres::Transaction;

use super::error::LoadError;
use super::plan::LoadTable;
use super::touched::Touched;
use super::{merge_sql, reconcile_sql};
use crate::catalog::LiveBatch;
use crate::telemetry::guarded;

/// Rows of a micro-batch meet few of a table: looking each up by its key beats reading the table.
pub(super) const BY_KEY: &str = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";
/// What the table holds of a range is about as much as the micro-batch's rows: each side is read once. By its key a
/// row would meet every loser of it in the shadow, and without statistics every row of the micro-batch.
pub(super) const BY_RANGE: &str = "SET LOCAL enable_nestloop = off";
pub(super) const AS_PLANNED: &str =
    "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_nestloop = on";

/// Statements over one table.
pub(super) struct Steps<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) table: &'a LoadTable,
}

impl Steps<'_> {
    fn failed(&self) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
        LoadError::query(format!("merge rows into {}", self.table.name))
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<(), LoadError> {
        self.transaction.batch_execute(sql).await.map_err(self.failed())
    }

    pub(super) async fn execute(&self, sql: &str) -> Result<u64, LoadError> {
        self.transaction.execute(sql, &[]).await.map_err(self.failed())
    }

    pub(super) async fn execute_over(
        &self,
        sql: &str,
        (source, first, next): (i64, i64, i64),
    ) -> Result<u64, LoadError> {
        self.transaction.execute(sql, &[&source, &first, &next]).await.map_err(self.failed())
    }

    pub(super) async fn leave_masked_out(&self, live: &LiveBatch) -> Result<(), LoadError> {
        if live.masked.is_empty() {
            return Ok(());
        }
        let (offsets, records): (Vec<i64>, Vec<i32>) = live.masked.iter().copied().unzip();
        let sql = merge_sql::delete_masked_of(&reconcile_sql::rows_name(self.table));
        self.transaction.execute(&sql, &[&offsets, &records]).await.map_err(self.failed())?;
        Ok(())
    }

    /// Whether the table and its shadow hold exactly the rows that the micro-batch makes.
    pub(super) async fn is_unchanged(
        &self,
        (source, first, next): (i64, i64, i64),
        row_count: u64,
    ) -> Result<bool, LoadError> {
        let row = self
            .transaction
            .query_one(&reconcile_sql::count_made_again(self.table), &[&source, &first, &next])
            .await
            .map_err(self.failed())?;
        let (held, same): (i64, i64) = (row.get("held"), row.get("same"));
        Ok(held == same && same.unsigned_abs() == row_count)
    }

    async fn any_is_held(&self) -> Result<bool, LoadError> {
        let row =
            self.transaction.query_one(&reconcile_sql::count_held(self.table), &[]).await.map_err(self.failed())?;
        Ok(row.get::<_, i64>(0) > 0)
    }

    /// How many rows of a range the table and its shadow hold.
    pub(super) async fn count_range(&self, (source, first, next): (i64, i64, i64)) -> Result<u64, LoadError> {
        let row = self
            .transaction
            .query_one(&reconcile_sql::count_range(self.table), &[&source, &first, &next])
            .await
            .map_err(self.failed())?;
        Ok(row.get::<_, i64>("held").unsigned_abs())
    }

    /// Leaves the rows that win their keys. Returns how many rows of the table they outrank. `are_held`: their keys were found in
    /// the table.
    pub(super) async fn shadow_losers(&self, rollups: &Touched<'_>, are_held: bool) -> Result<u64, LoadError> {
        self.execute(&reconcile_sql::shadow_own_losers(self.table)).await?;
        self.batch(BY_KEY).await?;
        let mut outranked = 0;
        if are_held || self.any_is_held().await? {
            rollups.held(self.table).await?;
            outranked = self.execute(&reconcile_sql::shadow_outranked(self.table)).await?;
            self.execute(&reconcile_sql::shadow_beaten(self.table)).await?;
        }
        self.batch(AS_PLANNED).await?;
        if !guarded!("shadow") {
            self.execute(&reconcile_sql::forget_losers(self.table)).await?;
        }
        Ok(outranked)
    }

    /// What was taken away has no time any more, where the key map knows it.
    pub(super) async fn forget_times(&self) -> Result<(), LoadError> {
        if self.table.changing_time.is_some() {
            self.execute(&reconcile_sql::forget_times(self.table)).await?;
        }
        Ok(())
    }

    pub(super) async fn insert(&self) -> Result<(u64, u64), LoadError> {
        if let Some(time) = &self.table.changing_time
            && guarded!("key_map")
        {
            self.execute(&reconcile_sql::note_times(self.table, time)).await?;
        }
        let row = self.transaction.query_one(&reconcile_sql::insert(self.table), &[]).await.map_err(self.failed())?;
        Ok((row.get::<_, i64>("inserted").unsigned_abs(), row.get::<_, i64>("updated").unsigned_abs()))
    }
}
