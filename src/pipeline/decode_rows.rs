//! Bytes of an object or a record → rows, on a thread for CPU work.

use std::sync::Arc;

use bytes::Bytes;

use super::context::TransformContext;
use super::decode_task::{Fault, on_cpu_thread};
use super::overrides::Overrides;
use super::process::{Manner, ProcessError, ProcessedRows};
use crate::config::Connector;
use crate::decode::{self, DecodeError, DecodeLimits, ObjectDecoder};
use crate::telemetry::metrics;
use crate::transform::{self, TransformPlan, Transformed};
use crate::types::{Decoded, ObjectVersion, Origin, OriginRows, RejectReason};

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

/// What stands in one object or record, or in a chunk of an object, before corrections.
#[derive(Debug, Default)]
pub(super) struct ReadRows {
    pub(super) transformed: Transformed,
    /// Rows read, rejected ones included.
    pub(super) row_count: u64,
    pub(super) unpacked_bytes: u64,
}

/// Why an object cannot be read on.
#[derive(Debug)]
pub(super) enum ChunkError {
    Fault(Fault),
    /// Its stored bytes do not come.
    Read(std::io::Error),
}

impl From<DecodeError> for ChunkError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Fault(fault) => Self::Fault(Fault { reason: fault.reason(), detail: fault.to_string() }),
            DecodeError::Read(error) => Self::Read(error),
        }
    }
}

/// An object in chunks: decoded, cleaned and checked. CPU work: not on an async thread.
///
/// Never holds more than one chunk and a block of what is unpacked. A chunk is the fewest blocks that have
/// `chunk_bytes` together, so its place depends on the object's bytes alone.
pub(super) struct Chunks<'a> {
    plan: &'a TransformPlan,
    decoder: ObjectDecoder<'a>,
    chunk_bytes: u64,
    /// The block behind the last chunk.
    ahead: Option<ReadRows>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(plan: &'a TransformPlan, decoder: ObjectDecoder<'a>, chunk_bytes: u64) -> Self {
        Self { plan, decoder, chunk_bytes, ahead: None }
    }

    /// The next chunk, and whether it is the last one. An object without rows is one chunk without rows.
    pub(super) fn next(&mut self) -> Result<(ReadRows, bool), ChunkError> {
        let mut chunk = self.ahead.take().unwrap_or_default();
        loop {
            match self.block()? {
                None => return Ok((chunk, true)),
                Some(block) if chunk.unpacked_bytes >= self.chunk_bytes => {
                    self.ahead = Some(block);
                    return Ok((chunk, false));
                }
                Some(block) => chunk.append(self.plan, block),
            }
        }
    }

    fn block(&mut self) -> Result<Option<ReadRows>, ChunkError> {
        let Some(decoded) = self.decoder.next_block()? else { return Ok(None) };
        transformed(self.plan, decoded).map(Some).map_err(ChunkError::Fault)
    }
}

impl ReadRows {
    fn append(&mut self, plan: &TransformPlan, next: Self) {
        self.transformed.append(plan, next.transformed);
        self.row_count += next.row_count;
        self.unpacked_bytes += next.unpacked_bytes;
    }
}

/// Decodes, cleans and checks as a whole. CPU work: not on an async thread.
fn read_rows(
    connector: &Connector,
    plan: &TransformPlan,
    limits: &DecodeLimits,
    input: Input,
) -> Result<ReadRows, Fault> {
    match input {
        Input::Object(bytes) => {
            let decoder = ObjectDecoder::of_bytes(connector, bytes, limits).map_err(ChunkError::from);
            match decoder.and_then(|decoder| Chunks::new(plan, decoder, u64::MAX).next()) {
                Ok((rows, _)) => Ok(rows),
                Err(ChunkError::Fault(fault)) => Err(fault),
                Err(ChunkError::Read(error)) => unreachable!("bytes in memory can be read: {error}"),
            }
        }
        Input::Record(value) => transformed(plan, decode::decode_record(connector, value, limits)),
    }
}

fn transformed(plan: &TransformPlan, decoded: Decoded) -> Result<ReadRows, Fault> {
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
