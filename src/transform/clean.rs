//! Cleaning steps, a column at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Scalar, StringArray, StringBuilder};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, kernels::cmp::eq};
use arrow::compute::{cast_with_options, is_null, or, prep_null_mask_filter};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::TransformError;
use crate::config::{CleanStep, Connector};

pub(super) fn clean(connector: &Connector, rows: RecordBatch) -> Result<RecordBatch, TransformError> {
    let schema = rows.schema();
    let mut columns = rows.columns().to_vec();
    let mut change = |name: &str, step: &dyn Fn(&ArrayRef) -> Result<ArrayRef, ArrowError>| {
        let (index, _) =
            schema.column_with_name(name).ok_or_else(|| TransformError::ColumnMissing { column: name.to_owned() })?;
        columns[index] =
            step(&columns[index]).map_err(|source| TransformError::Clean { column: name.to_owned(), source })?;
        Ok(())
    };
    for step in &connector.clean {
        match step {
            CleanStep::Trim(names) => {
                for name in names {
                    change(name, &|column| Ok(map_text(column, |text, out| out.push_str(text.trim()))))?;
                }
            }
            CleanStep::Lowercase(names) => {
                for name in names {
                    change(name, &|column| {
                        Ok(map_text(column, |text, out| out.extend(text.chars().flat_map(char::to_lowercase))))
                    })?;
                }
            }
            CleanStep::Uppercase(names) => {
                for name in names {
                    change(name, &|column| {
                        Ok(map_text(column, |text, out| out.extend(text.chars().flat_map(char::to_uppercase))))
                    })?;
                }
            }
            CleanStep::Default(values) => {
                for (name, value) in values {
                    change(name, &|column| fill(column, value))?;
                }
            }
            // over the whole micro-batch, by `dedupe`
            CleanStep::Dedupe(_) => {}
        }
    }
    RecordBatch::try_new(schema, columns).map_err(|source| TransformError::Clean { column: "(all)".to_owned(), source })
}

fn map_text(column: &ArrayRef, write: impl Fn(&str, &mut String)) -> ArrayRef {
    let texts: &StringArray = column.as_string();
    let mut builder = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
    let mut buffer = String::new();
    for text in texts {
        match text {
            None => builder.append_null(),
            Some(text) => {
                buffer.clear();
                write(text, &mut buffer);
                builder.append_value(&buffer);
            }
        }
    }
    Arc::new(builder.finish())
}

/// Puts the default where a value is null, or an empty string.
fn fill(column: &ArrayRef, default: &str) -> Result<ArrayRef, ArrowError> {
    let mut missing = is_null(column)?;
    if column.data_type() == &DataType::Utf8 {
        let empty = eq(column, &Scalar::new(StringArray::from(vec![""])))?;
        // a null compares to null; whether it is missing stands in `missing` already
        let empty = if empty.null_count() > 0 { prep_null_mask_filter(&empty) } else { empty };
        missing = or(&missing, &empty)?;
    }
    if missing.true_count() == 0 {
        return Ok(Arc::clone(column));
    }
    let text: ArrayRef = Arc::new(StringArray::from(vec![default]));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let value = cast_with_options(&text, column.data_type(), &options)?;
    zip(&missing, &Scalar::new(value), column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fill_nulls_and_empty_strings_and_nothing_else() {
        let filled = |texts: Vec<Option<&str>>| {
            let column: ArrayRef = Arc::new(StringArray::from(texts));
            let filled = fill(&column, "USD").expect("a string column takes a string");
            filled.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
        };
        let usd = || Some("USD".to_owned());
        assert_eq!(
            filled(vec![None, Some(""), Some("EUR"), Some(" ")]),
            [usd(), usd(), Some("EUR".into()), Some(" ".into())]
        );
        assert_eq!(filled(vec![Some("")]), [usd()], "without any null");
        assert_eq!(filled(vec![Some("EUR")]), [Some("EUR".into())]);
    }
}
