//! Bytes of an object or a record → rows, on a thread for CPU work.

use std::sync::Arc;

use bytes::Bytes;

use super::context::TransformContext;
use super::decode_task::{Fault, on_cpu_thread};
use super::overrides::Overrides;
use super::process::{Manner, ProcessError, ProcessedRows};
use crate::config::Connector;
use crate::decode::{self, DecodeLimits};
use crate::telemetry::metrics;
use crate::transform::{self, TransformPlan, Transformed};
use crate::types::{ObjectVersion, Origin, OriginRows, RejectReason};

pub(super) enum Input {
    Object(Bytes),
    Record(Bytes),
}

/// What is decoded, and how.
pub(super) struct DecodeJob {
    pub(super) connector: Arc<Connector>,
    pub(super) input: Input,
    pub(super) origin: Origin,
    /// `None`: a direct record.
    pub(super) object: Option<ObjectVersion>,
    pub(super) overrides: Overrides,
    pub(super) manner: Manner,
}

/// What stands in one object or record, before corrections.
pub(super) struct ReadRows {
    pub(super) transformed: Transformed,
    /// Rows read, rejected ones included.
    pub(super) row_count: u64,
    pub(super) unpacked_bytes: u64,
}

/// Decodes, cleans and checks. CPU work: not on an async thread.
pub(super) fn read_rows(
    connector: &Connector,
    plan: &TransformPlan,
    limits: &DecodeLimits,
    input: Input,
) -> Result<ReadRows, Fault> {
    let decoded = match input {
        Input::Object(bytes) => decode::decode_object(connector, bytes, limits)
            .map_err(|fault| Fault { reason: fault.reason(), detail: fault.to_string() })?,
        Input::Record(value) => decode::decode_record(connector, value, limits),
    };
    let (row_count, unpacked_bytes) = (decoded.row_count, decoded.unpacked_bytes);
    let transformed = transform::apply(plan, decoded)
        .map_err(|error| Fault { reason: RejectReason::ExpectationFailed, detail: crate::error::chain(&error) })?;
    Ok(ReadRows { transformed, row_count, unpacked_bytes })
}

/// Decodes, cleans, checks and corrects on a thread for CPU work.
pub(super) async fn decode_rows(
    context: &Arc<TransformContext>,
    job: DecodeJob,
) -> Result<Result<ProcessedRows, Fault>, ProcessError> {
    let context = Arc::clone(context);
    let DecodeJob { connector, input, origin, object, overrides, manner } = job;
    let others = if manner == Manner::Together { Some(Arc::clone(&context.alone).read_owned().await) } else { None };
    let work = move || {
        let _others = others;
        crate::telemetry::fail_point!("object.decoding"; object.as_ref().map_or("", |object| &object.location.key));
        let (plan, limits) = (context.plan(&connector), &context.decode_limits);
        let ReadRows { mut transformed, row_count, unpacked_bytes } = read_rows(&connector, plan, limits, input)?;
        metrics().object_unpacked_bytes.with_label_values(&[&connector.name]).inc_by(unpacked_bytes);
        for (step, count) in transformed.changes.iter() {
            metrics().clean_changed.with_label_values(&[&connector.name, step]).inc_by(count);
        }
        overrides.correct_rows(plan, &connector, limits, &origin, &mut transformed);
        Ok(ProcessedRows {
            connector,
            rows: OriginRows { origin, batches: transformed.batches },
            rejects: transformed.rejects,
            row_count,
            filtered: transformed.filtered,
            failed: transformed.failed,
            tallies: transformed.tallies,
            held: transformed.held,
            unpacked_bytes,
            object,
        })
    };
    on_cpu_thread(work).await.map_err(ProcessError::Task)
}

pub(super) fn count_read(connector: &Connector, bytes: u64) {
    metrics().object_read_bytes.with_label_values(&[&connector.name]).inc_by(bytes);
}
