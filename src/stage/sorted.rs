//! Rows in the order of `staging.sort_by`.

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::config::{OFFSET_COLUMN, RECORD_COLUMN, ROW_COLUMN};

/// Of the lake's schema: the columns of `sort_by`, and what tells rows apart that are alike in them. Empty: nothing is sorted.
pub(super) fn columns(schema: &Schema, sort_by: &[String]) -> Vec<usize> {
    if sort_by.is_empty() {
        return Vec::new();
    }
    let lineage = [OFFSET_COLUMN, RECORD_COLUMN, ROW_COLUMN];
    let names = sort_by.iter().map(String::as_str).chain(lineage);
    names.filter_map(|name| schema.index_of(name).ok()).collect()
}

/// All rows, sorted: in parts whose text columns have no more bytes than that each, since offsets have 32 bits.
pub(super) fn sorted<'a>(
    schema: &'a SchemaRef,
    sort_by: &'a [usize],
    batches: &'a [RecordBatch],
    text_bytes_max: usize,
) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + 'a {
    let mut rest = batches;
    std::iter::from_fn(move || {
        let mut text_bytes = 0;
        let fits = rest.iter().take_while(|batch| {
            text_bytes += longest_text_bytes(batch);
            text_bytes <= text_bytes_max
        });
        let (part, next) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = next;
        (!part.is_empty()).then(|| sorted_part(schema, sort_by, part))
    })
}

fn sorted_part(schema: &SchemaRef, sort_by: &[usize], batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let rows = concat_batches(schema, batches)?;
    let options = SortOptions { descending: false, nulls_first: true };
    let column = |index: &usize| SortColumn { values: rows.column(*index).clone(), options: Some(options) };
    let order = lexsort_to_indices(&sort_by.iter().map(column).collect::<Vec<_>>(), None)?;
    take_record_batch(&rows, &order)
}

/// Of the text column that has most of them; views need no more offsets.
pub(super) fn longest_text_bytes(rows: &RecordBatch) -> usize {
    let texts = rows.columns().iter().filter_map(|column| column.as_string_opt::<i32>());
    texts.map(text_bytes).max().unwrap_or(0)
}

pub(super) fn text_bytes(texts: &StringArray) -> usize {
    match texts.value_offsets() {
        [first, .., last] => (last - first) as usize,
        _ => 0,
    }
}
