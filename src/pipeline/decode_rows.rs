//! Bytes of an object or a record → rows, on a thread for CPU work.

use std::sync::Arc;

use bytes::Bytes;

use super::context::TransformContext;
use super::decode_task::{Fault, on_cpu_thread};
use super::evolution::{CurrentSchema, EvolvedSchemas};
use super::overrides::Overrides;
use super::process::{Manner, ProcessError, ProcessedRows};
use crate::config::Connector;
use crate::decode::{self, DecodeLimits};
use crate::telemetry::metrics;
use crate::transform::{self, TransformError, Transformed};
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
    /// The connector's schema as it is with this object: that of the rows.
    pub(super) schema: CurrentSchema,
    pub(super) transformed: Transformed,
    /// Rows read, rejected ones included.
    pub(super) row_count: u64,
    pub(super) unpacked_bytes: u64,
}

/// Decodes, cleans and checks. CPU work: not on an async thread.
pub(super) fn read_rows(
    schema: &CurrentSchema,
    schemas: &EvolvedSchemas,
    limits: &DecodeLimits,
    input: Input,
) -> Result<ReadRows, Fault> {
    let (decoded, connector) = match input {
        Input::Object(bytes) => decode::decode_object_evolving(&schema.connector, &bytes, limits)
            .map_err(|fault| Fault { reason: fault.reason(), detail: fault.to_string() })?,
        Input::Record(value) => decode::decode_record_evolving(&schema.connector, &value, limits),
    };
    let failed = |error: TransformError| unusable(&error);
    let schema = schemas.learn(schema, connector).map_err(failed)?;
    let (row_count, unpacked_bytes) = (decoded.row_count, decoded.unpacked_bytes);
    let transformed = transform::apply(&schema.plan, decoded).map_err(failed)?;
    Ok(ReadRows { schema, transformed, row_count, unpacked_bytes })
}

/// Rows that cannot be cleaned or checked by the connector.
pub(super) fn unusable(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault { reason: RejectReason::ExpectationFailed, detail: crate::error::chain(error) }
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
        let limits = &context.decode_limits;
        let current = context.schemas.current(&connector.name);
        let ReadRows { schema: CurrentSchema { connector, plan }, mut transformed, row_count, unpacked_bytes } =
            read_rows(&current, &context.schemas, limits, input)?;
        metrics().object_unpacked_bytes.with_label_values(&[&connector.name]).inc_by(unpacked_bytes);
        for (expectation, count) in &transformed.failures {
            metrics().expectation_failures.with_label_values(&[&connector.name, expectation]).inc_by(*count);
        }
        let schema = CurrentSchema { connector, plan };
        let grown = overrides.grown(&schema.connector, limits, &origin, &transformed.rejects);
        let CurrentSchema { connector, plan } = context.schemas.grow(&schema, grown, &mut transformed)?;
        overrides.correct_rows(&plan, &connector, limits, &origin, &mut transformed);
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
    on_cpu_thread(work).await.map_err(ProcessError::Task)
}

pub(super) fn count_read(connector: &Connector, bytes: u64) {
    metrics().object_read_bytes.with_label_values(&[&connector.name]).inc_by(bytes);
}
