//! Bytes of an object or a record → rows, on a thread for CPU work.

use std::sync::Arc;

use bytes::Bytes;

use super::context::TransformContext;
use super::process::{Manner, ProcessError, ProcessedRows};
use crate::config::Connector;
use crate::decode;
use crate::telemetry::metrics;
use crate::transform;
use crate::types::{ObjectVersion, Origin, OriginRows, RejectReason};

/// Why an object as a whole cannot be read.
pub(super) struct Fault {
    pub(super) reason: RejectReason,
    pub(super) detail: String,
}

pub(super) enum Input {
    Object(Bytes),
    Record(Bytes),
}

/// Decodes, cleans and checks on a thread for CPU work.
pub(super) async fn decode_rows(
    context: &Arc<TransformContext>,
    connector: Arc<Connector>,
    input: Input,
    origin: Origin,
    object: Option<ObjectVersion>,
    manner: Manner,
) -> Result<Result<ProcessedRows, Fault>, ProcessError> {
    let context = Arc::clone(context);
    let others = if manner == Manner::Together { Some(Arc::clone(&context.alone).read_owned().await) } else { None };
    let work = move || {
        let _others = others;
        crate::telemetry::fail_point!("object.decoding"; object.as_ref().map_or("", |object| &object.location.key));
        let limits = &context.decode_limits;
        let decoded = match input {
            Input::Object(bytes) => decode::decode_object(&connector, bytes, limits)
                .map_err(|fault| Fault { reason: fault.reason(), detail: fault.to_string() })?,
            Input::Record(value) => decode::decode_record(&connector, value, limits),
        };
        let (row_count, unpacked_bytes) = (decoded.row_count, decoded.unpacked_bytes);
        metrics().object_unpacked_bytes.with_label_values(&[&connector.name]).inc_by(unpacked_bytes);
        let transformed = transform::apply(context.plan(&connector), decoded)
            .map_err(|error| Fault { reason: RejectReason::ExpectationFailed, detail: crate::error::chain(&error) })?;
        for (expectation, count) in &transformed.failures {
            metrics().expectation_failures.with_label_values(&[&connector.name, expectation]).inc_by(*count);
        }
        Ok(ProcessedRows {
            connector,
            rows: OriginRows { origin, batches: transformed.batches },
            rejects: transformed.rejects,
            row_count,
            filtered: transformed.filtered,
            failed: transformed.failed,
            unpacked_bytes,
            object,
        })
    };
    tokio::task::spawn_blocking(work).await.map_err(ProcessError::Task)
}

pub(super) fn count_read(connector: &Connector, bytes: u64) {
    metrics().object_read_bytes.with_label_values(&[&connector.name]).inc_by(bytes);
}
