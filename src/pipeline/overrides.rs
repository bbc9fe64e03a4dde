//! Corrected bytes of dead letters, where what they take the place of is read again.
//!
//! # Contract
//! An override belongs to a place (offset, record, row) that a live micro-batch has rejected: so only what replaces a
//! micro-batch, a replay or a re-drive, looks for them, and the first reading of anything costs nothing.
//! What was read is decoded first; an override comes in only where it is rejected again, and leaves alone what fits.
//! The row keeps its lineage and its place among its neighbours. Where the override does not fit either, the dead
//! letter keeps the original bytes and says why the override was refused.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;

use super::context::TransformContext;
use super::decode_rows::{DecodeJob, Input, decode_rows};
use super::decode_task::Fault;
use super::evolution::CurrentSchema;
use super::process::{Manner, ProcessError, ProcessedObject};
use super::replay::Replaced;
use crate::catalog::Override;
use crate::client::kafka::Message;
use crate::config::{Connector, Connectors};
use crate::decode::{self, DecodeLimits};
use crate::source::notification::{self, Announcement, NotificationError};
use crate::transform::{self, TransformError, TransformPlan, Transformed};
use crate::types::{DeadLetter, DecodedBatch, LetterPlace, ObjectOutcome, Origin, RejectReason, RowReject};

/// The overrides within one micro-batch's offsets.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Arc<HashMap<LetterPlace, Corrected>>);

#[derive(Debug)]
struct Corrected {
    id: i64,
    bytes: Bytes,
}

/// What became of a corrected row.
enum Fate {
    Passed(RecordBatch),
    Filtered,
    Rejected(Fault),
}

impl Overrides {
    pub(super) fn new(found: Vec<Override>) -> Self {
        let corrected = |found: Override| (found.place, Corrected { id: found.id, bytes: found.bytes.into() });
        Self(Arc::new(found.into_iter().map(corrected).collect()))
    }

    /// None where nothing is replaced.
    pub(super) fn of(replaced: Option<&Replaced>) -> Self {
        replaced.map(|replaced| replaced.overrides.clone()).unwrap_or_default()
    }

    fn bytes(&self, place: LetterPlace) -> Option<&Bytes> {
        self.0.get(&place).map(|corrected| &corrected.bytes)
    }

    /// Those that did not help: what they were made for is a dead letter again. Each with the reason.
    pub(super) fn failed<'a>(&self, letters: impl Iterator<Item = &'a DeadLetter>) -> Vec<(i64, String)> {
        let failed = |letter: &DeadLetter| {
            let corrected = self.0.get(&letter.place())?;
            Some((corrected.id, format!("{}: {}", letter.reason.as_str(), letter.detail.replace('\0', "\u{fffd}"))))
        };
        letters.filter_map(failed).collect()
    }

    /// What a message says, or its override where it says nothing that can be understood.
    pub(super) fn announcement(&self, message: &Message) -> Option<Result<Announcement, NotificationError>> {
        let read = notification::decode(message.payload.as_deref()?);
        let place = LetterPlace { message_offset: message.offset, record: None, row: None };
        Some(match (read, self.bytes(place)) {
            (Err(_), Some(bytes)) => notification::decode(bytes),
            (read, _) => read,
        })
    }

    /// What the corrected rows make of the connector that the others were decoded by.
    pub(super) fn grown(
        &self,
        connector: &Arc<Connector>,
        limits: &DecodeLimits,
        origin: &Origin,
        rejects: &[RowReject],
    ) -> Arc<Connector> {
        let mut grown = Arc::clone(connector);
        if self.0.is_empty() || !connector.evolves() {
            return grown;
        }
        for reject in rejects {
            let place = LetterPlace {
                message_offset: origin.message_offset,
                record: Some(origin.record),
                row: Some(reject.row),
            };
            if let Some(bytes) = self.bytes(place) {
                grown = decode::decode_record(&grown, bytes, limits).1;
            }
        }
        grown
    }

    /// Puts corrected rows in the place of rejected ones.
    pub(super) fn correct_rows(
        &self,
        plan: &TransformPlan,
        connector: &Arc<Connector>,
        limits: &DecodeLimits,
        origin: &Origin,
        transformed: &mut Transformed,
    ) {
        if self.0.is_empty() {
            return;
        }
        let mut corrected = Vec::new();
        transformed.rejects.retain_mut(|reject| {
            let place = LetterPlace {
                message_offset: origin.message_offset,
                record: Some(origin.record),
                row: Some(reject.row),
            };
            let Some(bytes) = self.bytes(place) else { return true };
            match correct_row(plan, connector, limits, reject.row, bytes.clone()) {
                Fate::Passed(rows) => corrected.push((reject.row, rows)),
                Fate::Filtered => transformed.filtered += 1,
                Fate::Rejected(fault) => {
                    (reject.reason, reject.detail) = (fault.reason, not_either(&fault.detail));
                    return true;
                }
            }
            false
        });
        transformed.batches = merge(std::mem::take(&mut transformed.batches), corrected);
    }

    /// The same for a dead letter that is carried over: its source is gone. `Some`: it is one no more, and these are
    /// its rows.
    pub(super) fn correct_carried(&self, context: &TransformContext, letter: &mut DeadLetter) -> Option<CarriedRow> {
        let bytes = self.bytes(letter.place())?;
        let row = letter.row?;
        context.connectors.by_name(&letter.connector)?;
        let current = context.schemas.current(&letter.connector);
        let (_, grown) = decode::decode_record(&current.connector, bytes, &context.decode_limits);
        // where it cannot be planned the row is held against the schema as it is
        let CurrentSchema { connector, plan } = &context.schemas.learn(&current, grown).unwrap_or(current);
        match correct_row(plan, connector, &context.decode_limits, row, bytes.clone()) {
            Fate::Passed(rows) => Some(Some((Arc::clone(connector), rows))),
            Fate::Filtered => Some(None),
            Fate::Rejected(fault) => {
                (letter.reason, letter.detail) = (fault.reason, not_either(&fault.detail));
                None
            }
        }
    }

    /// Decodes the override of a quarantined object in its place.
    pub(super) async fn correct_object(
        &self,
        context: &Arc<TransformContext>,
        message_offset: i64,
        object: ProcessedObject,
        manner: Manner,
    ) -> Result<ProcessedObject, ProcessError> {
        let place = LetterPlace { message_offset, record: Some(object.record), row: None };
        let (ObjectOutcome::Quarantined, Some(bytes), Some(connector), Some(claim)) =
            (object.outcome, self.bytes(place), &object.connector, &object.claim)
        else {
            return Ok(object);
        };
        let version = claim.version.clone();
        let origin = Origin {
            message_offset,
            record: object.record,
            time: version.last_modified,
            order_hash: version.order_hash(),
        };
        let job = DecodeJob {
            connector: Arc::clone(connector),
            input: Input::Object(bytes.clone()),
            origin,
            object: Some(version),
            overrides: self.clone(),
            manner,
        };
        let rows = decode_rows(context, job).await?;
        Ok(match rows {
            Ok(rows) => ProcessedObject {
                outcome: ObjectOutcome::Emitted,
                claim: Some(crate::types::ObjectClaim { quarantined: false, ..claim.clone() }),
                rows: Some(rows),
                dead_letter: None,
                carried: false,
                ..object
            },
            Err(fault) => {
                let corrected =
                    |letter| DeadLetter { reason: fault.reason, detail: not_either(&fault.detail), ..letter };
                ProcessedObject { dead_letter: object.dead_letter.map(corrected), ..object }
            }
        })
    }
}

/// A corrected row with its connector; `None`: an expectation lets it go.
pub(super) type CarriedRow = Option<(Arc<Connector>, RecordBatch)>;

fn not_either(detail: &str) -> String {
    format!("the corrected bytes do not fit either: {detail}")
}

/// Decodes, cleans and checks one row.
fn correct_row(
    plan: &TransformPlan,
    connector: &Arc<Connector>,
    limits: &DecodeLimits,
    row: i64,
    bytes: Bytes,
) -> Fate {
    let (mut decoded, grown) = decode::decode_record(connector, &bytes, limits);
    if !Arc::ptr_eq(connector, &grown) {
        let detail = "the connector cannot be planned with what the row would add to its schema".to_owned();
        return Fate::Rejected(Fault { reason: RejectReason::UnknownField, detail });
    }
    for batch in &mut decoded.batches {
        renumber(batch, row);
    }
    let transformed = match transform::apply(plan, decoded) {
        Ok(transformed) => transformed,
        Err(error) => {
            return Fate::Rejected(Fault {
                reason: RejectReason::ExpectationFailed,
                detail: crate::error::chain(&error),
            });
        }
    };
    if let Some(reject) = transformed.rejects.into_iter().chain(transformed.held).next() {
        return Fate::Rejected(Fault { reason: reject.reason, detail: reject.detail });
    }
    transformed.batches.into_iter().next().map_or(Fate::Filtered, Fate::Passed)
}

/// Its one row has the number that it has in its object.
fn renumber(batch: &mut DecodedBatch, row: i64) {
    let mut columns = batch.rows.columns().to_vec();
    if let Some(last) = columns.last_mut() {
        *last = Arc::new(Int64Array::from(vec![row; batch.rows.num_rows()])) as ArrayRef;
    }
    batch.rows = RecordBatch::try_new(batch.rows.schema(), columns).expect("the column `_row` is the last, and Int64");
}

/// Rows in the order of their numbers. Both are in that order.
fn merge(batches: Vec<RecordBatch>, corrected: Vec<(i64, RecordBatch)>) -> Vec<RecordBatch> {
    let mut merged = Vec::with_capacity(batches.len() + 2 * corrected.len());
    let mut corrected = corrected.into_iter().peekable();
    for batch in batches {
        let numbers = batch.column(batch.num_columns() - 1).as_primitive::<Int64Type>().clone();
        let mut from = 0;
        while let Some((row, rows)) =
            corrected.next_if(|(row, _)| numbers.values().last().is_some_and(|last| row < last))
        {
            let to = numbers.values().partition_point(|number| *number < row);
            if to > from {
                merged.push(batch.slice(from, to - from));
            }
            merged.push(rows);
            from = to;
        }
        merged.push(batch.slice(from, batch.num_rows() - from));
    }
    merged.extend(corrected.map(|(_, rows)| rows));
    merged
}

/// Why corrected bytes are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    #[error("there is no connector `{0}`")]
    NoConnector(String),
    #[error("a message of records that could not be processed as a whole cannot be corrected")]
    WholeRecord,
    #[error("they are no notification")]
    Notification(#[from] NotificationError),
    #[error("{}: {detail}", reason.as_str())]
    Rejected { reason: RejectReason, detail: String },
    #[error("could not plan the connector")]
    Plan(#[from] TransformError),
}

/// Whether corrected bytes would make a dead letter what it should have been.
pub fn check_correction(
    connectors: &Connectors,
    topic: &str,
    limits: &DecodeLimits,
    letter: &DeadLetter,
    bytes: Bytes,
) -> Result<(), Misfit> {
    if letter.record.is_none() {
        if connectors.for_records(topic).is_some() {
            return Err(Misfit::WholeRecord);
        }
        return Ok(notification::decode(&bytes).map(|_| ())?);
    }
    let connector =
        connectors.by_name(&letter.connector).ok_or_else(|| Misfit::NoConnector(letter.connector.clone()))?;
    let Some(row) = letter.row else {
        let fault = decode::decode_object(connector, &bytes, limits).err();
        return fault
            .map_or(Ok(()), |fault| Err(Misfit::Rejected { reason: fault.reason(), detail: fault.to_string() }));
    };
    // the connector takes what would make its schema grow
    let (_, connector) = decode::decode_record(connector, &bytes, limits);
    match correct_row(&TransformPlan::new(&connector)?, &connector, limits, row, bytes) {
        Fate::Passed(_) | Fate::Filtered => Ok(()),
        Fate::Rejected(Fault { reason, detail }) => Err(Misfit::Rejected { reason, detail }),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn rows(numbers: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("_row", DataType::Int64, false)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(numbers.to_vec()))]).expect("one column")
    }

    fn numbers(batches: &[RecordBatch]) -> Vec<Vec<i64>> {
        batches.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn corrected_rows_stand_where_their_numbers_say() {
        let corrected = |places: &[i64]| places.iter().map(|row| (*row, rows(&[*row]))).collect::<Vec<_>>();
        let merged = |batches: &[&[i64]], places: &[i64]| {
            numbers(&merge(batches.iter().map(|batch| rows(batch)).collect(), corrected(places)))
        };
        assert_eq!(merged(&[&[1, 2, 5], &[6, 9]], &[]), [vec![1, 2, 5], vec![6, 9]]);
        assert_eq!(
            merged(&[&[1, 2, 5], &[6, 9]], &[0, 3, 4, 7, 10]),
            [vec![0], vec![1, 2], vec![3], vec![4], vec![5], vec![6], vec![7], vec![9], vec![10]]
        );
        assert_eq!(merged(&[&[0, 1], &[5]], &[2]), [vec![0, 1], vec![2], vec![5]]);
        assert_eq!(merged(&[], &[3, 4]), [vec![3], vec![4]]);
    }
}
