//! Record batches of many small objects as few large ones.
//!
//! What is done once for each record batch and column (ordering, cutting and joining it) costs as much as some hundred
//! rows, and a small object brings a dozen. Several are put together first, with the lineage of each row in columns of
//! its own. The rows and their order are the same.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::sorted::longest_text_bytes;
use crate::config::UTC;
use crate::types::Origin;

/// Where record batches have fewer rows on average they are put together.
const MEAN_ROWS_MIN: usize = 512;
/// Rows of one record batch then: as of a large object.
const ROWS_MAX: usize = 8192;
/// Likewise of one text column: offsets have 32 bits.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Rows on their way to their partitions, in the order of offset and record.
pub(super) struct Source<'a> {
    /// `None`: of several, and the last columns are those of [`lineage`].
    pub(super) origin: Option<&'a Origin>,
    pub(super) rows: RecordBatch,
}

/// Whether so small record batches are put together.
pub(super) fn is_gathered<'a>(batches: impl Iterator<Item = &'a RecordBatch>) -> bool {
    let (mut batch_count, mut row_count) = (0, 0);
    for batch in batches {
        batch_count += 1;
        row_count += batch.num_rows();
    }
    batch_count > 1 && row_count < batch_count * MEAN_ROWS_MIN
}

/// Each batch is let go when its rows are with their partitions.
pub(super) fn sources<'a>(
    origins: &'a [Origin],
    batches: Vec<Vec<RecordBatch>>,
) -> Box<dyn Iterator<Item = Result<Source<'a>, ArrowError>> + 'a> {
    let is_gathered = is_gathered(batches.iter().flatten());
    let of_each = origins.iter().zip(batches);
    let batches = of_each.flat_map(|(origin, batches)| batches.into_iter().map(move |batch| (origin, batch)));
    if !is_gathered {
        return Box::new(batches.map(|(origin, rows)| Ok(Source { origin: Some(origin), rows })));
    }
    let mut batches = batches.peekable();
    Box::new(std::iter::from_fn(move || {
        let (mut group, mut row_count, mut text_bytes) = (vec![batches.next()?], 0, 0);
        while row_count < ROWS_MAX && text_bytes < TEXT_BYTES_MAX {
            let (_, last) = &group[group.len() - 1];
            row_count += last.num_rows();
            text_bytes += longest_text_bytes(last);
            match batches.next_if(|(_, next)| row_count + next.num_rows() <= ROWS_MAX) {
                Some(next) => group.push(next),
                None => break,
            }
        }
        Some(together(&group))
    }))
}

fn together<'a>(group: &[(&'a Origin, RecordBatch)]) -> Result<Source<'a>, ArrowError> {
    let schema = group[0].1.schema();
    let rows = concat_batches(&schema, group.iter().map(|(_, batch)| batch))?;
    let mut columns = rows.columns().to_vec();
    columns.extend(lineage(group.iter().map(|(origin, batch)| (*origin, batch.num_rows()))));
    Ok(Source { origin: None, rows: RecordBatch::try_new(with_lineage(&schema, &columns), columns)? })
}

/// Offset, record and time of each row; `runs`: origins, each with its number of rows.
pub(super) fn lineage<'a>(runs: impl Iterator<Item = (&'a Origin, usize)> + Clone) -> [ArrayRef; 3] {
    let row_count = runs.clone().map(|(_, count)| count).sum();
    let (mut offsets, mut records, mut times) =
        (Vec::with_capacity(row_count), Vec::with_capacity(row_count), Vec::with_capacity(row_count));
    for (origin, count) in runs {
        let end = offsets.len() + count;
        offsets.resize(end, origin.message_offset);
        records.resize(end, origin.record);
        times.resize(end, origin.time.timestamp_millis());
    }
    [
        Arc::new(Int64Array::from(offsets)),
        Arc::new(Int32Array::from(records)),
        Arc::new(TimestampMillisecondArray::from(times).with_timezone(UTC)),
    ]
}

/// Nobody reads the names: columns are taken by their places.
fn with_lineage(schema: &SchemaRef, columns: &[ArrayRef]) -> SchemaRef {
    let known = schema.fields().len();
    let added = columns[known..].iter().map(|column| Field::new("", column.data_type().clone(), false).into());
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(added).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMillisecondType};
    use chrono::DateTime;

    use super::*;

    fn numbers(first: i64, count: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(first..first + count))]).unwrap()
    }

    /// Of `counts` rows in record batches of an origin each; number, offset, record and time of every row, as it must be.
    fn rows(counts: &[i64]) -> (Vec<Origin>, Vec<Vec<RecordBatch>>, Vec<[i64; 4]>) {
        let (mut origins, mut batches, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (index, count) in (0_i64..).zip(counts) {
            let time = DateTime::from_timestamp_millis(1000 * index).unwrap();
            let (message_offset, record) = (index / 2, (index % 2) as i32);
            origins.push(Origin { message_offset, record, time, order_hash: 0 });
            let first = expected.len() as i64;
            batches.push(vec![numbers(first, *count)]);
            expected
                .extend((first..first + count).map(|number| [number, message_offset, i64::from(record), 1000 * index]));
        }
        (origins, batches, expected)
    }

    #[test]
    fn small_batches_become_large_ones_of_the_same_rows_with_their_lineage() {
        let counts: Vec<i64> = (0..100).map(|index| if index == 50 { 9000 } else { index * 37 % 400 }).collect();
        let (origins, batches, expected) = rows(&counts);
        let together: Vec<RecordBatch> = sources(&origins, batches)
            .map(|source| {
                let source = source.unwrap();
                assert!(source.origin.is_none());
                source.rows
            })
            .collect();
        let found: Vec<[i64; 4]> = together
            .iter()
            .flat_map(|batch| {
                let numbers = batch.column(0).as_primitive::<Int64Type>();
                let offsets = batch.column(1).as_primitive::<Int64Type>();
                let records = batch.column(2).as_primitive::<Int32Type>();
                let times = batch.column(3).as_primitive::<TimestampMillisecondType>();
                let row = |row| [numbers.value(row), offsets.value(row), records.value(row).into(), times.value(row)];
                (0..batch.num_rows()).map(row).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(found, expected);
        let sizes: Vec<usize> = together.iter().map(RecordBatch::num_rows).collect();
        assert!(sizes.iter().all(|size| *size <= ROWS_MAX || *size == 9000), "{sizes:?}");
        assert!(sizes.len() < 8, "{sizes:?}");
    }

    #[test]
    fn large_batches_stay_as_they_are() {
        let (origins, batches, _) = rows(&[600, 500]);
        let memory: Vec<_> = batches.iter().map(|batches| batches[0].column(0).to_data()).collect();
        for ((source, origin), memory) in sources(&origins, batches).zip(&origins).zip(memory) {
            let source = source.unwrap();
            assert_eq!(source.origin.map(|origin| origin.message_offset), Some(origin.message_offset));
            assert!(source.rows.column(0).to_data().ptr_eq(&memory));
        }
    }
}
