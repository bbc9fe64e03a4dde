//! The record batch that rows are added to, whatever their format.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::column::Column;
use super::json::{RowFault, shortened};
use crate::config::{Connector, FieldType};

pub(super) struct OpenBatch {
    connector: Arc<Connector>,
    schema: SchemaRef,
    pub(super) columns: Vec<Column>,
    rescued: Option<Column>,
    /// Numbers of its rows.
    rows: Vec<i64>,
}

impl OpenBatch {
    pub(super) fn new(connector: &Arc<Connector>) -> Self {
        Self {
            connector: Arc::clone(connector),
            schema: connector.decoded_schema(),
            columns: Column::all(connector),
            rescued: connector.rescues().then(Column::json),
            rows: Vec::new(),
        }
    }

    /// Whether the row at hand has a value in that column.
    pub(super) fn has(&self, index: usize) -> bool {
        self.columns[index].len() > self.rows.len()
    }

    /// Adds the row at hand; of one that is none it leaves nothing.
    pub(super) fn close_row(&mut self, row: i64, read: Result<(), RowFault>) -> Result<(), RowFault> {
        if read.is_ok() {
            self.rows.push(row);
        } else {
            let rows = self.rows.len();
            self.columns.iter_mut().chain(&mut self.rescued).for_each(|column| column.truncate(rows));
        }
        read
    }

    /// Nulls where the record had no field, and `rescued` (JSON) in its column. `seen`: columns by which the schema would
    /// have to grow for the row.
    pub(super) fn complete(&mut self, seen: &[(String, FieldType)], rescued: Option<&[u8]>) -> Result<(), RowFault> {
        let rows = self.rows.len();
        for (field, column) in self.connector.fields.iter().zip(&mut self.columns) {
            if column.len() == rows {
                column.push_null();
            }
            let widens = || seen.iter().any(|(name, _)| *name == field.name);
            if field.required && column.last_is_null() && !widens() {
                return Err(RowFault::Missing { field: field.name.clone() });
            }
        }
        if let Some((field, _)) = seen.first() {
            return Err(RowFault::Widens { field: shortened(field.as_bytes()) });
        }
        if let Some(column) = &mut self.rescued {
            match rescued {
                Some(json) => column.push_json(json),
                None => column.push_null(),
            }
        }
        Ok(())
    }

    /// The batch; the next row opens another.
    pub(super) fn finish(&mut self) -> RecordBatch {
        let rows = std::mem::take(&mut self.rows);
        let mut arrays: Vec<ArrayRef> = self.columns.iter_mut().chain(&mut self.rescued).map(Column::finish).collect();
        arrays.push(Arc::new(Int64Array::from(rows)));
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .expect("every column took one value a row, and required ones no null")
    }
}
