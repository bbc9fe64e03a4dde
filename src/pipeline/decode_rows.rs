//! Bytes of an object or a record → rows, on a thread for CPU work.

use std::sync::Arc;

use bytes::Bytes;

use super::context::TransformContext;
use super::decode_task::{Fault, on_cpu_thread};
use super::evolution::{CurrentSchema, EvolvedSchemas, widen_rows};
use super::overrides::Overrides;
use super::process::{Manner, ProcessError, ProcessedRows};
use crate::config::{Connector, Limits};
use crate::decode::{self, DecodeError, DecodeLimits, ObjectDecoder, ResumePoint, is_read_whole};
use crate::telemetry::metrics;
use crate::transform::{self, Transformed};
use crate::types::{Decoded, ObjectVersion, Origin, OriginRows, RejectReason};

pub(super) enum Input {
    /// Corrected bytes: all of them are held, and their rows.
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
#[derive(Debug)]
pub(super) struct ReadRows {
    /// The connector's schema as it is with this object: that of the rows.
    pub(super) schema: CurrentSchema,
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
    schemas: &'a EvolvedSchemas,
    /// Of the last block's rows.
    schema: CurrentSchema,
    decoder: ObjectDecoder<'a>,
    chunk_bytes: u64,
    /// The block behind the last chunk.
    ahead: Option<ReadRows>,
    /// Behind the last chunk.
    point: Option<ResumePoint>,
}

impl<'a> Chunks<'a> {
    /// The decoder's connector is the one of the schema.
    pub(super) fn new(
        schemas: &'a EvolvedSchemas,
        schema: CurrentSchema,
        decoder: ObjectDecoder<'a>,
        chunk_bytes: u64,
    ) -> Self {
        Self { schemas, schema, decoder, chunk_bytes, ahead: None, point: None }
    }

    /// The next chunk, and whether it is the last one. An object without rows is one chunk without rows.
    pub(super) fn next(&mut self) -> Result<(ReadRows, bool), ChunkError> {
        let mut chunk = self.ahead.take().unwrap_or_else(|| ReadRows::none(&self.schema));
        loop {
            self.point = self.decoder.resume_point();
            match self.block()? {
                None => return Ok((chunk, true)),
                Some(block) if chunk.unpacked_bytes >= self.chunk_bytes => {
                    self.ahead = Some(block);
                    return Ok((chunk, false));
                }
                Some(block) => chunk.append(block).map_err(ChunkError::Fault)?,
            }
        }
    }

    /// Where the next chunk begins; `None` where it cannot be read by itself.
    pub(super) fn resume_point(&self) -> Option<ResumePoint> {
        self.point
    }

    fn block(&mut self) -> Result<Option<ReadRows>, ChunkError> {
        let Some(decoded) = self.decoder.next_block()? else { return Ok(None) };
        let grown = Arc::clone(self.decoder.connector());
        self.schema = self.schemas.learn(&self.schema, grown).map_err(|error| ChunkError::Fault(unusable(&error)))?;
        transformed(&self.schema, decoded).map(Some).map_err(ChunkError::Fault)
    }
}

impl ReadRows {
    fn none(schema: &CurrentSchema) -> Self {
        Self { schema: schema.clone(), transformed: Transformed::default(), row_count: 0, unpacked_bytes: 0 }
    }

    fn append(&mut self, next: Self) -> Result<(), Fault> {
        widen_rows(&self.schema.connector, &next.schema.connector, &mut self.transformed)?;
        self.schema = next.schema;
        self.transformed.append(&self.schema.plan, next.transformed);
        self.row_count += next.row_count;
        self.unpacked_bytes += next.unpacked_bytes;
        Ok(())
    }
}

/// Decodes, cleans and checks as a whole. CPU work: not on an async thread.
fn read_rows(
    schema: &CurrentSchema,
    schemas: &EvolvedSchemas,
    limits: &DecodeLimits,
    input: Input,
) -> Result<ReadRows, Fault> {
    match input {
        Input::Object(bytes) => {
            let decoder = ObjectDecoder::of_bytes(&schema.connector, bytes, limits).map_err(ChunkError::from);
            match decoder.and_then(|decoder| Chunks::new(schemas, schema.clone(), decoder, u64::MAX).next()) {
                Ok((rows, _)) => Ok(rows),
                Err(ChunkError::Fault(fault)) => Err(fault),
                Err(ChunkError::Read(error)) => unreachable!("bytes in memory can be read: {error}"),
            }
        }
        Input::Record(value) => {
            let (decoded, connector) = decode::decode_record(&schema.connector, &value, limits);
            let schema = schemas.learn(schema, connector).map_err(|error| unusable(&error))?;
            transformed(&schema, decoded)
        }
    }
}

fn transformed(schema: &CurrentSchema, decoded: Decoded) -> Result<ReadRows, Fault> {
    let (row_count, unpacked_bytes) = (decoded.row_count, decoded.unpacked_bytes);
    let mut transformed = transform::apply(&schema.plan, decoded).map_err(|error| unusable(&error))?;
    let_go_of_the_rest(&mut transformed, unpacked_bytes);
    Ok(ReadRows { schema: schema.clone(), transformed, row_count, unpacked_bytes })
}

/// Rejected rows are slices of the whole block: few of them are copied, so that they do not keep all of it in memory
/// until the commit.
fn let_go_of_the_rest(transformed: &mut Transformed, unpacked_bytes: u64) {
    let rejects = || transformed.rejects.iter().chain(&transformed.held);
    if rejects().map(|reject| reject.bytes.len() as u64).sum::<u64>() > unpacked_bytes / 4 {
        return;
    }
    for reject in transformed.rejects.iter_mut().chain(&mut transformed.held) {
        reject.bytes = Bytes::copy_from_slice(&reject.bytes);
    }
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
        begin_decoding(object.as_ref());
        let limits = context.limits_held_whole();
        let current = context.schemas.current(&connector.name);
        let read = read_rows(&current, &context.schemas, &limits, input)?;
        processed(&context, &overrides, &limits, origin, object, read)
    };
    on_cpu_thread(work).await.map_err(ProcessError::Task)
}

/// `None`: a direct record.
#[cfg_attr(not(feature = "faults"), expect(unused_variables, reason = "only fault injection asks what it is"))]
pub(super) fn begin_decoding(object: Option<&ObjectVersion>) {
    crate::telemetry::fail_point!("object.decoding"; object.map_or("", |object| object.location.key.as_str()));
}

/// Counts and corrects what was read.
pub(super) fn processed(
    context: &TransformContext,
    overrides: &Overrides,
    limits: &DecodeLimits,
    origin: Origin,
    object: Option<ObjectVersion>,
    read: ReadRows,
) -> Result<ProcessedRows, Fault> {
    let ReadRows { schema, mut transformed, row_count, unpacked_bytes } = read;
    let name = &schema.connector.name;
    metrics().object_unpacked_bytes.with_label_values(&[name]).inc_by(unpacked_bytes);
    for (step, count) in transformed.changes.iter() {
        metrics().clean_changed.with_label_values(&[name, step]).inc_by(count);
    }
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
        tallies: transformed.tallies,
        held: transformed.held,
        unpacked_bytes,
        object,
    })
}

/// What one object of a connector may be. Of a format that is read whole it must fit into memory.
pub(super) fn decode_limits(limits: &Limits, connector: &Connector) -> DecodeLimits {
    if is_read_whole(&connector.source.format) { held_whole(limits) } else { DecodeLimits::new(limits) }
}

/// What an object may be that is held in memory.
pub(super) fn held_whole(limits: &Limits) -> DecodeLimits {
    DecodeLimits { object_bytes_max: limits.object_bytes_max.min(limits.memory_bytes_max), ..DecodeLimits::new(limits) }
}

pub(super) fn count_read(connector: &Connector, bytes: u64) {
    metrics().object_read_bytes.with_label_values(&[&connector.name]).inc_by(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RowReject;

    #[test]
    fn few_rejected_rows_do_not_keep_their_block_in_memory_and_many_are_not_doubled() {
        let block = Bytes::from(vec![b'x'; 100]);
        for (length, is_copied) in [(10, true), (20, false)] {
            let reject = |bytes: Bytes| RowReject {
                row: 0,
                byte_offset: 0,
                reason: RejectReason::ExpectationFailed,
                detail: String::new(),
                bytes,
            };
            let mut transformed = Transformed {
                rejects: vec![reject(block.slice(..length))],
                held: vec![reject(block.slice(50..50 + length))],
                ..Transformed::default()
            };
            let_go_of_the_rest(&mut transformed, 100);
            assert_eq!(transformed.rejects[0].bytes, block[..length]);
            assert_eq!(transformed.held[0].bytes, block[50..50 + length]);
            assert_eq!(transformed.rejects[0].bytes.as_ptr() != block.as_ptr(), is_copied);
        }
    }
}
