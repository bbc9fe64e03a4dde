//! What the expectations of a micro-batch come to, and the ones that can only be asked when all of its rows are together.
//!
//! # Contract
//! Pure. Results are made for connectors of which the micro-batch has read rows: what is only carried over stands, and stops
//! nothing. An object that turns out to be a duplicate is not counted. A row that corrected bytes have mended counts as it was
//! read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::process::ProcessedRows;
use crate::catalog::ExpectationRecord;
use crate::config::{CheckStage, Connector};
use crate::stage;
use crate::transform::{
    self, CheckOutcome, CheckResult, Loadable, Measures, Seen, Tallies, TransformError, TransformPlan, Window, dedupe,
    drop_seen, seen,
};
use crate::types::{DeadLetter, Origin, OriginRows};

/// Connector and expectation → the rows that it was asked of in earlier micro-batches, as many as it wants to know of.
pub(super) type Histories = BTreeMap<(String, String), Vec<i64>>;

/// By connector: what was counted, and when the newest was announced.
pub(super) type Counted = BTreeMap<String, (Tallies, DateTime<Utc>)>;

/// Offset, record, number of the row.
type RowPlace = (i64, i32, i64);

/// Of one micro-batch.
#[derive(Default)]
pub(super) struct Checks {
    read: Counted,
    held: HashMap<RowPlace, (DeadLetter, DateTime<Utc>)>,
    /// Offset and record of what is carried over.
    carried: HashSet<(i64, i32)>,
    results: Vec<(String, CheckResult)>,
}

/// A connector's rows that go into the lake, and what has become of the others.
pub(super) struct Checked {
    pub(super) rows: Vec<OriginRows>,
    pub(super) duplicates: u64,
    pub(super) filtered: u64,
    pub(super) dead_letters: Vec<(DeadLetter, DateTime<Utc>)>,
    /// Keys of the rows, where they are deduped within a window.
    pub(super) seen: Vec<Seen>,
}

impl Checks {
    /// Rows of an object or a record that counts.
    pub(super) fn read(&mut self, rows: &ProcessedRows, announced_at: DateTime<Utc>) {
        let name = &rows.connector.name;
        let location = rows.object.as_ref().map(|version| &version.location);
        let origin = &rows.rows.origin;
        for reject in &rows.held {
            let letter = DeadLetter {
                object_version: rows.object.as_ref().map(|version| version.version.clone()),
                ..DeadLetter::of_row(name, origin, reject, location.cloned())
            };
            self.hold(origin, reject.row, letter, announced_at);
        }
        self.count(name, &rows.tallies, announced_at);
    }

    pub(super) fn count(&mut self, connector: &str, tallies: &Tallies, announced_at: DateTime<Utc>) {
        let (counted, newest) =
            self.read.entry(connector.to_owned()).or_insert_with(|| (Tallies::default(), announced_at));
        counted.append(tallies);
        *newest = announced_at.max(*newest);
    }

    pub(super) fn hold(&mut self, origin: &Origin, row: i64, letter: DeadLetter, time: DateTime<Utc>) {
        self.held.insert((origin.message_offset, origin.record, row), (letter, time));
    }

    pub(super) fn carried(&mut self, origin: &Origin) {
        self.carried.insert((origin.message_offset, origin.record));
    }

    /// What was counted of rows whose files are made.
    pub(super) fn append(&mut self, counted: &Counted) {
        for (connector, (tallies, announced_at)) in counted {
            self.count(connector, tallies, *announced_at);
        }
    }

    pub(super) fn counted(self) -> Counted {
        self.read
    }

    /// Dedupes all rows of a connector and checks what is left. `window`: what has passed before them.
    pub(super) fn check(
        &mut self,
        plan: &TransformPlan,
        rows: Vec<OriginRows>,
        window: Option<&Window>,
    ) -> Result<Checked, TransformError> {
        let connector = plan.dataset();
        let mut unread = Tallies::of(connector);
        let tallies = self.read.get_mut(&connector.name).map_or(&mut unread, |(tallies, _)| tallies);
        tallies.observe_all(connector, CheckStage::AfterTransform, &rows)?;
        // expectations before the load are planned for texts
        let rows = if plan.asks_before_load() {
            rows
        } else {
            stage::with_views(connector, rows)
                .map_err(|source| TransformError::Dedupe { connector: connector.name.clone(), source })?
        };
        let is_carried = |origin: &Origin| self.carried.contains(&(origin.message_offset, origin.record));
        let (rows, known) = match window {
            Some(window) => drop_seen(connector, window, rows, is_carried)?,
            None => (rows, 0),
        };
        let (rows, repeated) = dedupe(connector, rows)?;
        let duplicates = known + repeated;
        let Loadable { rows, filtered, rejected } = transform::before_load(plan, rows, is_carried, tallies)?;
        let dead_letters = rejected
            .iter()
            .map(|place| self.held.remove(place).expect("what fails before the load failed when it was read, too"))
            .collect();
        let seen = seen(connector, rows.iter().flat_map(|origin| &origin.batches))?;
        Ok(Checked { rows, duplicates, filtered, dead_letters, seen })
    }

    /// Concludes for each connector, when all of its rows are counted.
    pub(super) fn conclude(&mut self, connector: impl Fn(&str) -> Arc<Connector>, histories: &Histories) {
        for (name, (tallies, announced_at)) in std::mem::take(&mut self.read) {
            let history =
                |expectation: &str| histories.get(&(name.clone(), expectation.to_owned())).cloned().unwrap_or_default();
            let measures = Measures { announced_ms: announced_at.timestamp_millis(), history: &history };
            let results = transform::conclude(&connector(&name), &tallies, measures);
            self.results.extend(results.into_iter().map(|result| (name.clone(), result)));
        }
    }

    /// Connectors to be parked, each with the reason.
    pub(super) fn stops(&self) -> Vec<(String, String)> {
        let mut stops: Vec<(String, String)> = Vec::new();
        for (connector, result) in self.results.iter().filter(|(_, result)| result.outcome == CheckOutcome::Failed) {
            if stops.iter().all(|(stopped, _)| stopped != connector) {
                stops.push((connector.clone(), result.reason()));
            }
        }
        stops
    }

    /// As the catalog keeps them.
    pub(super) fn records(&self) -> Vec<ExpectationRecord> {
        let record = |(connector, result): &(String, CheckResult)| ExpectationRecord {
            connector: connector.clone(),
            stage: result.stage.as_str(),
            name: result.name.clone(),
            rows_checked: result.rows_checked as i64,
            rows_failed: result.rows_failed as i64,
            value: result.value,
            outcome: result.outcome.as_str(),
        };
        self.results.iter().map(record).collect()
    }
}
