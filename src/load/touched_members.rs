//! The members whose versions a load touches, and the recomputation of their intervals.
//!
//! # Contract
//! Touched are the members of rows that come into a dimension or its shadow, of those that leave either, and those that are made because
//! a fact named them. [`TouchedMembers::recompute`] brings their intervals to what their versions are then, at any time behind the last
//! row of the dimensions. Intervals that are so already stay as they are.
//!
//! # Ordering
//! A load that writes a dimension holds the lock of it from before its first statement about members, as every other
//! one does. So what is computed sees the versions of those who held it before.

use deadpool_postgres::Transaction;

use super::error::LoadError;
use super::history::{self, History};
use super::history_sql;
use super::plan::LoadTable;
use super::reconcile_sql;

/// The histories of the dimensions that a load writes.
pub(super) struct TouchedMembers<'a> {
    transaction: &'a Transaction<'a>,
    histories: Vec<History>,
}

impl<'a> TouchedMembers<'a> {
    /// With the dimensions locked, so that no history of them is made meanwhile.
    pub(super) async fn of_dimensions(
        transaction: &'a Transaction<'a>,
        dimensions: &[&str],
    ) -> Result<Self, LoadError> {
        let histories =
            if dimensions.is_empty() { Vec::new() } else { history::kept(transaction, Some(dimensions)).await? };
        for (number, history) in histories.iter().enumerate() {
            let sql = history_sql::create_touched(number);
            transaction.batch_execute(&sql).await.map_err(failed(history))?;
        }
        Ok(Self { transaction, histories })
    }

    fn of(&self, dimension: &str) -> Option<(usize, &History)> {
        self.histories.iter().enumerate().find(|(_, history)| history.dimension == dimension)
    }

    /// The rows that wait in the temporary table, before they are ranked.
    pub(super) async fn arriving(&self, table: &LoadTable) -> Result<(), LoadError> {
        let Some((number, history)) = self.of(&table.name) else { return Ok(()) };
        let sql = history_sql::touch_rows(history, number, &format!("{} t", reconcile_sql::rows_name(table)));
        self.transaction.execute(&sql, &[]).await.map_err(failed(history))?;
        Ok(())
    }

    /// The rows of a range that the micro-batch does not make again, before they are taken away.
    pub(super) async fn leaving(
        &self,
        table: &LoadTable,
        (source, first, next): (i64, i64, i64),
    ) -> Result<(), LoadError> {
        let Some((number, history)) = self.of(&table.name) else { return Ok(()) };
        for from in reconcile_sql::leaving_rows(table) {
            let sql = history_sql::touch_rows(history, number, &from);
            self.transaction.execute(&sql, &[&source, &first, &next]).await.map_err(failed(history))?;
        }
        Ok(())
    }

    /// Members of these natural keys.
    pub(super) async fn named(&self, dimension: &str, keys: &[&str]) -> Result<(), LoadError> {
        let Some((number, history)) = self.of(dimension) else { return Ok(()) };
        self.transaction.execute(&history_sql::touch_keys(number), &[&keys]).await.map_err(failed(history))?;
        Ok(())
    }

    /// Members that the spellings mean; `of`: as decisions call the dimension.
    pub(super) async fn decided(&self, dimension: &str, of: &str, spellings: &[&str]) -> Result<(), LoadError> {
        let Some((number, history)) = self.of(dimension) else { return Ok(()) };
        let sql = history_sql::touch_decided(number);
        self.transaction.execute(&sql, &[&spellings, &of]).await.map_err(failed(history))?;
        Ok(())
    }

    /// After the last row of the dimensions.
    pub(super) async fn recompute(&self) -> Result<(), LoadError> {
        for (number, history) in self.histories.iter().enumerate() {
            let [analyze, count] = history_sql::count_touched(number);
            self.transaction.batch_execute(&analyze).await.map_err(failed(history))?;
            let row = self.transaction.query_one(&count, &[]).await.map_err(failed(history))?;
            if row.get::<_, i64>(0) == 0 {
                continue;
            }
            let sql = history_sql::recompute(history, number);
            self.transaction.execute(&sql, &[]).await.map_err(failed(history))?;
        }
        Ok(())
    }
}

fn failed(history: &History) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
    LoadError::query(format!("keep {}", history.table()))
}
