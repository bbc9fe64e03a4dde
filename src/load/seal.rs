//! Partitions whose day is over get what loading was spared: indexes on the dimensions' keys, checked foreign keys, a BRIN
//! on time, statistics.
//!
//! # Contract
//! A partition is hot, then sealing, then sealed, and stays so: late rows load into it, their keys checked row by row. It is
//! sealed when its day has been over for the connector's `seal_after_hours`. Foreign keys hold before as well, because
//! every load writes the members that its rows name.
//!
//! # Ordering
//! One process seals a partition (an advisory lock of the session, not waited for). Indexes are built CONCURRENTLY. A foreign key is
//! added NOT VALID, which locks the dimension and then the partition for a moment, in the order of loads, and gives up after
//! [`LOCK_TIMEOUT`]: no queue of loaders builds up behind it. It is validated by itself, which hinders no load.
//!
//! # Retries
//! Every step looks at what is there and adds what is not. An index whose build broke off is dropped and built again.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::error::SqlState;

use super::error::LoadError;
use super::locks::partition_lock;
use super::merge_sql::{lock_tables, quoted, table_name};
use super::plan::{TableKind, TablePlan};
use super::warehouse_table::SCHEMA;

/// How long the locks for a foreign key are waited for; another round tries again.
pub(super) const LOCK_TIMEOUT: &str = "2s";
/// Identifiers beyond this are cut off by the server. Source: PostgreSQL 15, NAMEDATALEN − 1.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// A partition of a fact, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionState {
    pub fact: String,
    pub name: String,
    /// `None`: nobody's name for a day.
    pub day: Option<NaiveDate>,
    /// `hot`, `sealing` or `sealed`.
    pub state: String,
    /// Why it is in that state.
    pub reason: String,
    pub changed_at: Option<DateTime<Utc>>,
}

/// What became of a partition that was to be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealOutcome {
    Sealed,
    /// They hold a dimension: it is to be tried again.
    LoadsAreInTheWay,
    OthersAreAtIt,
}

/// What the partitions of a fact get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealPlan {
    time: String,
    /// (member key, dimension's table), of every connector that fills the fact.
    members: BTreeSet<(String, String)>,
    after_hours: u32,
    /// The members' keys are indexed from the beginning.
    pub index_hot: bool,
    /// Time is indexed from the beginning: rollups are computed from some of a day's hours.
    pub index_time: bool,
}

impl SealPlan {
    /// Adds what a connector's fact needs.
    pub(super) fn add(plans: &mut BTreeMap<String, Self>, plan: &TablePlan) {
        let TableKind::Fact { time, links } = &plan.kind else { return };
        let found = plans.entry(plan.table.clone()).or_insert_with(|| Self {
            time: time.clone(),
            members: BTreeSet::new(),
            after_hours: 0,
            index_hot: false,
            index_time: false,
        });
        found.members.extend(links.iter().map(|link| (link.member_key.clone(), link.table.clone())));
        found.after_hours = found.after_hours.max(plan.seal_after_hours);
        found.index_hot |= plan.index_hot;
    }

    /// (name, statement) of the indexes on members' keys.
    pub(super) fn member_indexes(&self, partition: &str, concurrently: bool) -> Vec<(String, String)> {
        let how = if concurrently { "CONCURRENTLY " } else { "" };
        let index = |(key, _): &(String, String)| {
            let name = own_name(partition, key);
            let (index, table) = (quoted(&name), table_name(partition));
            (name, format!("CREATE INDEX {how}{index} ON {table} ({})", quoted(key)))
        };
        self.members.iter().map(index).collect()
    }

    fn time_index(&self, partition: &str, concurrently: bool) -> (String, String) {
        let how = if concurrently { "CONCURRENTLY " } else { "" };
        let name = own_name(partition, &self.time);
        let (index, table) = (quoted(&name), table_name(partition));
        let brin = brin(&self.time);
        (name, format!("CREATE INDEX {how}{index} ON {table} USING {brin}"))
    }

    /// Those of a table that nobody else sees yet.
    pub(super) fn indexes(&self, partition: &str) -> Vec<String> {
        let mut indexes = self.member_indexes(partition, false);
        indexes.push(self.time_index(partition, false));
        indexes.into_iter().map(|(_, statement)| statement).collect()
    }

    pub(super) fn foreign_keys(&self, partition: &str) -> Vec<ForeignKey<'_>> {
        let foreign_key = |(key, dimension)| {
            let constraint = own_name(partition, &format!("{key}_fkey"));
            ForeignKey { constraint, key, dimension }
        };
        self.members.iter().map(|(key, dimension)| foreign_key((key, dimension))).collect()
    }

    #[cfg(test)]
    pub(super) fn of_nobody(after_hours: u32) -> Self {
        Self { time: "t".to_owned(), members: BTreeSet::new(), after_hours, index_hot: false, index_time: false }
    }

    /// The statements for what a partition has from the beginning.
    pub(super) fn hot_indexes(&self, partition: &str) -> Vec<String> {
        let members = if self.index_hot { self.member_indexes(partition, false) } else { Vec::new() };
        let members = members.into_iter().map(|(_, create)| create);
        members.chain(self.index_time.then(|| time_index_if_missing(partition, &self.time))).collect()
    }

    /// When a day's partition is to be sealed.
    pub(super) fn due_at(&self, day: NaiveDate) -> DateTime<Utc> {
        let end =
            day.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX).and_time(chrono::NaiveTime::MIN).and_utc();
        end.checked_add_signed(TimeDelta::hours(i64::from(self.after_hours))).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// From a partition to a dimension.
pub(super) struct ForeignKey<'a> {
    constraint: String,
    key: &'a String,
    pub dimension: &'a String,
}

impl ForeignKey<'_> {
    pub(super) fn add(&self) -> String {
        let (constraint, key, dimension) = (quoted(&self.constraint), quoted(self.key), table_name(self.dimension));
        format!("ADD CONSTRAINT {constraint} FOREIGN KEY ({key}) REFERENCES {dimension} ({key})")
    }

    pub(super) fn validate(&self) -> String {
        format!("VALIDATE CONSTRAINT {}", quoted(&self.constraint))
    }
}

/// The partitions of all facts, or of some.
pub async fn partition_states(
    client: &impl GenericClient,
    facts: Option<&[String]>,
) -> Result<Vec<PartitionState>, LoadError> {
    let rows = client
        .query(include_str!("sql/select_partition_states.sql"), &[&facts])
        .await
        .map_err(LoadError::query("list the partitions of facts"))?;
    let state = |row: &tokio_postgres::Row| PartitionState {
        fact: row.get("fact"),
        name: row.get("name"),
        day: row.get("day"),
        state: row.get("state"),
        reason: row.get("reason"),
        changed_at: row.get("changed_at"),
    };
    Ok(rows.iter().map(state).collect())
}

/// Later rows are found by it without a vacuum.
fn brin(time: &str) -> String {
    format!("brin ({}) WITH (autosummarize = on)", quoted(time))
}

/// The BRIN on time that sealing gives a partition, where it has none yet.
pub(super) fn time_index_if_missing(partition: &str, time: &str) -> String {
    let (index, table) = (quoted(&own_name(partition, time)), table_name(partition));
    format!("CREATE INDEX IF NOT EXISTS {index} ON {table} USING {}", brin(time))
}

/// Seals the first partition that is due at `now`. `false`: there is none, others are at it, or something was in the way.
pub(super) async fn seal_next(
    client: &Object,
    plans: &BTreeMap<String, SealPlan>,
    now: DateTime<Utc>,
) -> Result<bool, LoadError> {
    let facts: Vec<String> = plans.keys().cloned().collect();
    for found in partition_states(client, Some(&facts)).await? {
        let (Some(plan), Some(day)) = (plans.get(&found.fact), found.day) else { continue };
        if found.state == "sealed" || plan.due_at(day) > now {
            continue;
        }
        let sealing = Sealing { client, plan, partition: &found, day, why: "its day is over" };
        match sealing.alone().await? {
            SealOutcome::OthersAreAtIt => {}
            outcome => return Ok(outcome == SealOutcome::Sealed),
        }
    }
    Ok(false)
}

/// Seals what is not sealed of the days up to `last`, of one fact or of all. Each partition that was to be sealed, and what became
/// of it.
pub(super) async fn seal_through(
    client: &Object,
    plans: &BTreeMap<String, SealPlan>,
    fact: Option<&str>,
    last: NaiveDate,
) -> Result<Vec<(String, SealOutcome)>, LoadError> {
    let facts: Vec<String> = plans.keys().filter(|name| fact.is_none_or(|fact| fact == *name)).cloned().collect();
    let mut outcomes = Vec::new();
    for found in partition_states(client, Some(&facts)).await? {
        let (Some(plan), Some(day)) = (plans.get(&found.fact), found.day) else { continue };
        if found.state != "sealed" && day <= last {
            let sealing = Sealing { client, plan, partition: &found, day, why: "it was ordered" };
            outcomes.push((found.name.clone(), sealing.alone().await?));
        }
    }
    Ok(outcomes)
}

struct Sealing<'a> {
    client: &'a Object,
    plan: &'a SealPlan,
    partition: &'a PartitionState,
    day: NaiveDate,
    why: &'static str,
}

impl Sealing<'_> {
    /// Unless another process is at it.
    async fn alone(&self) -> Result<SealOutcome, LoadError> {
        let lock = partition_lock(&self.partition.name);
        let failed = || LoadError::query(format!("lock partition {}", self.partition.name));
        let sql = "SELECT pg_try_advisory_lock($1, $2)";
        let row = self.client.query_one(sql, &[&lock.class, &lock.object]).await.map_err(failed())?;
        if !row.get::<_, bool>(0) {
            return Ok(SealOutcome::OthersAreAtIt);
        }
        let sealed = self.run().await;
        let sql = "SELECT pg_advisory_unlock($1, $2)";
        self.client.query_one(sql, &[&lock.class, &lock.object]).await.map_err(failed())?;
        Ok(if sealed? { SealOutcome::Sealed } else { SealOutcome::LoadsAreInTheWay })
    }

    /// `false`: something is in the way, another round tries again.
    async fn run(&self) -> Result<bool, LoadError> {
        let name = &self.partition.name;
        self.say("sealing", "its indexes are built").await?;
        let mut indexes = self.plan.member_indexes(name, true);
        indexes.push(self.plan.time_index(name, true));
        let there = self.there().await?;
        for (index, create) in indexes {
            match there.get(&index).map(String::as_str) {
                Some("broken") => {
                    let drop = format!("DROP INDEX CONCURRENTLY {SCHEMA}.{}", quoted(&index));
                    self.execute(&drop).await?;
                }
                Some(_) => continue,
                None => {}
            }
            self.execute(&create).await?;
        }
        self.say("sealing", "its foreign keys are checked").await?;
        for key in self.plan.foreign_keys(name) {
            let found = there.get(&key.constraint).map(String::as_str);
            if found.is_none() && !self.add_foreign_key(&key).await? {
                let dimension = key.dimension;
                self.say("sealing", &format!("loads hold {dimension}: it is tried again")).await?;
                return Ok(false);
            }
            if found != Some("checked") {
                self.execute(&format!("ALTER TABLE {} {}", table_name(name), key.validate())).await?;
            }
        }
        // summarises the lineage's BRIN too
        self.execute(&format!("VACUUM (ANALYZE) {}", table_name(name))).await?;
        self.say("sealed", self.why).await?;
        tracing::info!(component = "load", partition = %name, "partition sealed");
        Ok(true)
    }

    /// Names of what the partition has, and their state.
    async fn there(&self) -> Result<BTreeMap<String, String>, LoadError> {
        let rows = self
            .client
            .query(include_str!("sql/select_seal_done.sql"), &[&table_name(&self.partition.name)])
            .await
            .map_err(LoadError::query(format!("look at partition {}", self.partition.name)))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// `false`: the locks could not be had in time.
    async fn add_foreign_key(&self, key: &ForeignKey<'_>) -> Result<bool, LoadError> {
        let partition = table_name(&self.partition.name);
        let tables = [key.dimension.clone(), self.partition.name.clone()];
        let lock = lock_tables(tables.iter(), "SHARE ROW EXCLUSIVE").unwrap_or_default();
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {lock};\n\
             ALTER TABLE {partition} {} NOT VALID; COMMIT",
            key.add(),
        );
        let added = self.client.batch_execute(&sql).await;
        if let Err(error) = added {
            let failed = LoadError::query(format!("add a foreign key to {}", self.partition.name));
            self.client.batch_execute("ROLLBACK").await.map_err(LoadError::query("roll back"))?;
            let in_the_way = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
            return if error.code().is_some_and(|code| in_the_way.contains(code)) {
                Ok(false)
            } else {
                Err(failed(error))
            };
        }
        Ok(true)
    }

    async fn execute(&self, sql: &str) -> Result<(), LoadError> {
        let failed = LoadError::query(format!("seal partition {}", self.partition.name));
        self.client.batch_execute(sql).await.map_err(failed)
    }

    async fn say(&self, state: &str, reason: &str) -> Result<(), LoadError> {
        let PartitionState { name, fact, .. } = self.partition;
        self.client
            .execute(include_str!("sql/set_partition_state.sql"), &[name, fact, &self.day, &state, &reason])
            .await
            .map_err(LoadError::query(format!("note the state of partition {name}")))?;
        Ok(())
    }
}

/// `fact_events_p20261123_user_key`, shortened where it would be cut off.
fn own_name(partition: &str, what: &str) -> String {
    let keep = IDENTIFIER_BYTES_MAX.saturating_sub(what.len() + 1);
    // the day is at the end
    let start = partition.len().saturating_sub(keep);
    format!("{}_{what}", &partition[partition.ceil_char_boundary(start)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_due_when_it_has_been_over_for_long_enough() {
        let plan = SealPlan::of_nobody(6);
        let day = NaiveDate::from_ymd_opt(2026, 12, 31).expect("a date");
        assert_eq!(plan.due_at(day).to_rfc3339(), "2027-01-01T06:00:00+00:00");
    }

    #[test]
    fn names_fit_and_keep_the_day() {
        assert_eq!(own_name("fact_events_p20261231", "user_key"), "fact_events_p20261231_user_key");
        let long = own_name(&format!("{}_p20261231", "f".repeat(53)), "warehouse_location_key_fkey");
        assert_eq!(long.len(), IDENTIFIER_BYTES_MAX);
        assert!(long.ends_with("_p20261231_warehouse_location_key_fkey"), "{long}");
    }
}
