//! The rows of a decoded batch on their way through the stages: fewer from step to step, each with the place that it came
//! from.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::FilterBuilder;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::types::{DecodedBatch, RejectReason, RowReject};

pub(super) struct Sieve<'a> {
    batch: &'a DecodedBatch,
    schema: SchemaRef,
    /// As in the decoded batch or as SQL has made them, with the rows that are left.
    pub(super) columns: Vec<ArrayRef>,
    /// Of each row its place in the decoded batch; `None` where all are still there.
    places: Option<Vec<usize>>,
}

impl<'a> Sieve<'a> {
    pub(super) fn new(batch: &'a DecodedBatch) -> Self {
        Self { batch, schema: batch.rows.schema(), columns: batch.rows.columns().to_vec(), places: None }
    }

    pub(super) fn rows(&self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(Arc::clone(&self.schema), self.columns.clone())
    }

    /// One of the rows that are left, with the bytes that it was decoded from.
    pub(super) fn reject(&self, row: usize, reason: RejectReason, detail: String) -> RowReject {
        let batch = self.batch;
        let place = self.places.as_ref().map_or(row, |places| places[row]);
        let numbers: &Int64Array = batch.rows.column(batch.rows.num_columns() - 1).as_primitive::<Int64Type>();
        RowReject {
            row: numbers.value(place),
            byte_offset: batch.spans[place].byte_offset,
            reason,
            detail,
            bytes: batch.row_bytes(place),
        }
    }

    /// Puts other columns in the place of those that are left: one row for each of the `places` among them.
    pub(super) fn replace(&mut self, schema: &SchemaRef, columns: Vec<ArrayRef>, places: &[usize]) {
        let known = self.places.take();
        self.places = Some(places.iter().map(|place| known.as_ref().map_or(*place, |known| known[*place])).collect());
        self.schema = Arc::clone(schema);
        self.columns = columns;
    }

    /// Lets go of the rows that do not stay.
    pub(super) fn keep(&mut self, stays: &BooleanArray) -> Result<(), ArrowError> {
        let places = self.places.take().unwrap_or_else(|| (0..stays.len()).collect());
        self.places =
            Some(places.into_iter().zip(stays.values()).filter(|(_, stays)| *stays).map(|(p, _)| p).collect());
        // which runs of rows stay is found once for all columns
        let picked = FilterBuilder::new(stays).optimize().build();
        for column in &mut self.columns {
            *column = picked.filter(column)?;
        }
        Ok(())
    }
}
