//! Connectors that are stopped: their objects are set aside unread, the other connectors of the topic go on.
//!
//! # Contract
//! A connector is parked by a row or a micro-batch that fails an expectation with `on_fail: fail`, by its circuit breaker,
//! or by a person. The micro-batch that shows it is built without the connector, and nothing of it is committed. Its objects
//! count as `parked`: no claim, no rows, what announced them is kept, and `resume` announces it again. Its direct
//! records are dead letters as a whole (`connector_parked`), with their bytes, and their offsets `rejected`.
//! In a replay or re-drive the rows of a parked connector's objects stand as they stood, and whole micro-batches of its
//! direct records.
//!
//! # Ordering
//! The state is read at every take-over and every few seconds. An owner that has not heard of `resume` parks for
//! a moment longer: its commit sees that, and announces those objects again itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use super::build::SealedBatch;
use super::context::TransformContext;
use super::overrides::Overrides;
use super::process::{ProcessedMessage, ProcessedObject, dead_letter};
use crate::catalog::{self, CatalogError};
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::config::{Breaker, Connector, Connectors};
use crate::error::chain;
use crate::source::notification::{self, Announcement};
use crate::telemetry::metrics;
use crate::types::{ObjectOutcome, OffsetOutcome, ParkedObject, RejectReason};

/// How soon an owner hears of parking and of its end.
const REFRESH_WAIT: Duration = Duration::from_secs(3);

/// The detail of a direct record's dead letter.
pub(super) const PARKED: &str = "its connector is parked";

/// Connectors that are parked, as this process knows it.
#[derive(Debug, Default)]
pub struct Parked(RwLock<HashSet<String>>);

impl Parked {
    pub fn contains(&self, connector: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(connector)
    }

    fn set(&self, connectors: HashSet<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = connectors;
    }

    fn insert(&self, connector: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(connector.to_owned());
    }
}

/// Reads which connectors are parked.
pub(super) async fn refresh(context: &TransformContext) -> Result<(), CatalogError> {
    let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
    let parked = catalog::parked_connectors(&client, &context.consumer_group).await?;
    context.parked.set(parked.into_iter().map(|parked| parked.connector).collect());
    for connector in &context.connectors.all {
        let is_parked = context.parked.contains(&connector.name);
        metrics().connector_parked.with_label_values(&[&connector.name]).set(i64::from(is_parked));
    }
    Ok(())
}

/// Does so every few seconds, until the process stops.
pub(super) async fn watch(context: Arc<TransformContext>, mut stopped: watch::Receiver<bool>) {
    loop {
        if let Err(error) = refresh(&context).await {
            tracing::debug!(component = "catalog", error = %chain(&error), "could not read which connectors are parked");
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH_WAIT) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

/// What a connector brings to a micro-batch. A quarantined object counts as one row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    rows: u64,
    dead_letters: u64,
}

/// The circuit breakers of one ownership.
#[derive(Debug, Default)]
pub(super) struct Breakers {
    /// What was committed lately.
    seen: HashMap<String, Tally>,
}

impl Breakers {
    /// Whether the connector's share of dead letters is too great, with this micro-batch: why.
    fn verdict(&self, connector: &str, breaker: Breaker, tally: Tally) -> Option<String> {
        let seen = self.seen.get(connector).copied().unwrap_or_default();
        let (rows, dead_letters) = (seen.rows + tally.rows, seen.dead_letters + tally.dead_letters);
        let share = dead_letters as f64 / rows.max(1) as f64;
        (rows >= breaker.rows_min && share > breaker.dead_letter_share_max).then(|| {
            let max = breaker.dead_letter_share_max;
            format!("{dead_letters} of {rows} rows are dead letters, more than a share of {max}")
        })
    }

    /// The micro-batch is committed.
    pub(super) fn committed(&mut self, batch: &BTreeMap<String, Tally>, connectors: &Connectors) {
        for (name, tally) in batch {
            if let Some(breaker) = connectors.by_name(name).and_then(|connector| connector.breaker) {
                self.add(name, breaker, *tally);
            }
        }
    }

    /// What is older counts half as soon as there is enough that is new.
    fn add(&mut self, connector: &str, breaker: Breaker, tally: Tally) {
        let seen = self.seen.entry(connector.to_owned()).or_default();
        seen.rows += tally.rows;
        seen.dead_letters += tally.dead_letters;
        while seen.rows > breaker.rows_min.saturating_mul(2) {
            seen.rows /= 2;
            seen.dead_letters /= 2;
        }
    }
}

/// Parks what fails, and takes whatever belongs to parked connectors out of the micro-batch. Returns what the others
/// bring.
pub(super) async fn park(
    context: &TransformContext,
    retries: &RetryPolicy,
    breakers: &std::sync::Mutex<Breakers>,
    sealed: &mut SealedBatch,
) -> Result<BTreeMap<String, Tally>, CatalogError> {
    let mut tallies = tally(&sealed.messages);
    // whatever a refresh says meanwhile: of a connector that stops, rows may be there in part
    let all = context.connectors.all.iter().map(|connector| &connector.name);
    let mut parked: HashSet<String> = all.filter(|name| context.parked.contains(name)).cloned().collect();
    for connector in &context.connectors.all {
        let name = connector.name.as_str();
        let Some(batch) = tallies.get(name).copied().filter(|_| !parked.contains(name)) else { continue };
        // a re-drive sees a part of what the breaker has seen already
        let breaker = connector.breaker.filter(|_| sealed.redrives.is_none());
        let breaks = |breaker| breakers.lock().unwrap_or_else(PoisonError::into_inner).verdict(name, breaker, batch);
        let Some(reason) = failed(connector, &sealed.messages).or_else(|| breaker.and_then(breaks)) else {
            continue;
        };
        stop(context, retries, breakers, name, &reason).await?;
        parked.insert(name.to_owned());
    }
    let is_parked = |name: &str| parked.contains(name) || context.parked.contains(name);
    tallies.retain(|name, _| !is_parked(name));
    set_aside(is_parked, sealed);
    Ok(tallies)
}

/// Parks a connector.
pub(super) async fn stop(
    context: &TransformContext,
    retries: &RetryPolicy,
    breakers: &std::sync::Mutex<Breakers>,
    name: &str,
    reason: &str,
) -> Result<(), CatalogError> {
    retry(retries, "catalog", CatalogError::kind, || async {
        let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
        catalog::park_connector(&client, &context.consumer_group, name, reason, &context.process).await
    })
    .await?;
    context.parked.insert(name);
    metrics().connector_parked.with_label_values(&[name]).set(1);
    breakers.lock().unwrap_or_else(PoisonError::into_inner).seen.remove(name);
    tracing::error!(
        component = "transform",
        connector = name,
        reason,
        "connector parked: mend it, then `sluice connectors resume`"
    );
    Ok(())
}

fn tally(messages: &[ProcessedMessage]) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for processed in messages {
        for rows in processed.rows() {
            let tally = tallies.entry(rows.connector.name.clone()).or_default();
            tally.rows += rows.row_count;
            tally.dead_letters += rows.rejects.len() as u64;
        }
        for staged in processed.staged() {
            let tally = tallies.entry(staged.connector.name.clone()).or_default();
            tally.rows += staged.books.totals.rows_in;
            tally.dead_letters += staged.books.totals.dead_letters;
        }
        let quarantined = processed.objects.iter().filter(|object| object.outcome == ObjectOutcome::Quarantined);
        for connector in quarantined.filter_map(|object| object.connector.as_ref()) {
            let tally = tallies.entry(connector.name.clone()).or_default();
            tally.rows += 1;
            tally.dead_letters += 1;
        }
    }
    tallies
}

/// Why, where a row failed an expectation that stops the connector.
fn failed(connector: &Connector, messages: &[ProcessedMessage]) -> Option<String> {
    let mut rows = messages.iter().flat_map(ProcessedMessage::rows);
    let failed = rows.find_map(|rows| rows.failed.as_ref().filter(|_| rows.connector.name == connector.name))?;
    Some(format!("expectation `{failed}` failed"))
}

/// Takes what belongs to parked connectors out. Objects that kill the process stay quarantined.
fn set_aside(is_parked: impl Fn(&str) -> bool, sealed: &mut SealedBatch) {
    for processed in &mut sealed.messages {
        let parked_record = processed.record.take_if(|rows| is_parked(&rows.connector.name));
        if let Some(rows) = parked_record {
            let (reason, detail) = (RejectReason::ConnectorParked, PARKED.to_owned());
            processed.outcome = OffsetOutcome::Rejected;
            processed.dead_letter = Some(dead_letter(&processed.message, Some(&rows.connector), reason, detail));
        }
        let offset = processed.message.offset;
        for object in &mut processed.objects {
            let wanted = object.connector.as_ref().is_some_and(|connector| is_parked(&connector.name));
            // what was parked when it was read stands as it stood, also where its connector was resumed meanwhile
            if object.outcome != ObjectOutcome::Parked && (!wanted || !may_be_parked(object)) {
                continue;
            }
            let standing = sealed.replaced.as_ref().and_then(|old| old.claims.get(&(offset, object.record))).cloned();
            object.outcome = match &standing {
                Some(claim) if claim.quarantined => ObjectOutcome::Quarantined,
                Some(_) => ObjectOutcome::Carried,
                None => ObjectOutcome::Parked,
            };
            object.carried = standing.is_some();
            object.claim = standing;
            object.rows = None;
            if let Some(staged) = object.staged.take() {
                staged.files.discard_later();
            }
            object.dead_letter = None;
            object.reservation = None;
        }
    }
}

fn may_be_parked(object: &ProcessedObject) -> bool {
    let kills = object.dead_letter.as_ref().is_some_and(|letter| letter.reason == RejectReason::KilledTheProcess);
    let is_read = matches!(object.outcome, ObjectOutcome::Emitted | ObjectOutcome::Quarantined | ObjectOutcome::Parked);
    is_read && !kills && !object.carried
}

/// The parked objects of a message, with what announces them again.
pub(super) fn parked_objects(processed: &ProcessedMessage, overrides: &Overrides) -> Vec<ParkedObject> {
    let parked: HashMap<i32, &str> = processed
        .objects
        .iter()
        .filter(|object| object.outcome == ObjectOutcome::Parked)
        .map(|object| (object.record, object.connector.as_ref().map_or("", |connector| connector.name.as_str())))
        .collect();
    if parked.is_empty() {
        return Vec::new();
    }
    let Some(Ok(Announcement::Objects(events))) = overrides.announcement(&processed.message) else {
        return Vec::new();
    };
    let parked = events.into_iter().filter_map(|event| {
        Some(ParkedObject {
            message_offset: processed.message.offset,
            record: event.record,
            connector: (*parked.get(&event.record)?).to_owned(),
            announcement: notification::announce(&event),
            bucket: event.bucket,
            key: event.key_as_sent,
            version: event.version_id,
        })
    });
    parked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKER: Breaker = Breaker { dead_letter_share_max: 0.5, rows_min: 100 };

    #[test]
    fn a_breaker_wants_enough_rows_and_too_great_a_share() {
        let breakers = Breakers::default();
        let verdict = |rows, dead_letters| breakers.verdict("x", BREAKER, Tally { rows, dead_letters }).is_some();
        assert!(!verdict(99, 99), "too few to judge");
        assert!(!verdict(100, 50), "as many as are allowed");
        assert!(verdict(100, 51));
        assert!(!verdict(0, 0));
    }

    #[test]
    fn small_micro_batches_add_up_and_old_ones_fade() {
        let mut breakers = Breakers::default();
        let bad = Tally { rows: 40, dead_letters: 40 };
        breakers.add("x", BREAKER, Tally { rows: 60, dead_letters: 40 });
        assert!(breakers.verdict("x", BREAKER, bad).is_some(), "80 of 100");
        assert!(breakers.verdict("y", BREAKER, bad).is_none(), "another's rows say nothing");
        for _ in 0..10 {
            breakers.add("x", BREAKER, Tally { rows: 100, dead_letters: 0 });
        }
        assert!(breakers.seen["x"].rows <= 200);
        assert_eq!(breakers.seen["x"].dead_letters, 0, "forgotten");
        assert!(
            breakers.verdict("x", BREAKER, Tally { rows: 1_000, dead_letters: 900 }).is_some(),
            "it is noticed soon"
        );
    }
}
