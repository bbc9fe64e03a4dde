//! The clean steps, column by column. A step that changes nothing copies nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Scalar, StringArray, StringBuilder};
use arrow::buffer::Buffer;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use chrono::DateTime;

use super::TransformError;
use crate::config::{CleanStep, Connector, Field, FieldType, arrow_type};

#[derive(Debug)]
enum Step {
    Trim,
    Lowercase,
    Uppercase,
    /// One value of the column's type.
    Default(ArrayRef),
}

/// Steps with the columns they change, in order.
#[derive(Debug)]
pub(super) struct Cleaning(Vec<(usize, Step)>);

impl Cleaning {
    pub(super) fn new(connector: &Connector) -> Result<Self, TransformError> {
        let column = |name: &str| {
            connector.fields.iter().position(|field| field.name == name).ok_or_else(|| TransformError::UnknownColumn {
                connector: connector.name.clone(),
                column: name.to_owned(),
            })
        };
        let mut steps = Vec::new();
        for step in &connector.clean {
            match step {
                CleanStep::Trim(names) => {
                    for name in names {
                        steps.push((column(name)?, Step::Trim));
                    }
                }
                CleanStep::Lowercase(names) => {
                    for name in names {
                        steps.push((column(name)?, Step::Lowercase));
                    }
                }
                CleanStep::Uppercase(names) => {
                    for name in names {
                        steps.push((column(name)?, Step::Uppercase));
                    }
                }
                CleanStep::Default(values) => {
                    for (name, text) in values {
                        let index = column(name)?;
                        let value = default_value(&connector.fields[index], text).map_err(|source| {
                            TransformError::Default { connector: connector.name.clone(), column: name.clone(), source }
                        })?;
                        steps.push((index, Step::Default(value)));
                    }
                }
                // Across rows: `super::dedupe`.
                CleanStep::Dedupe(_) => {}
            }
        }
        Ok(Self(steps))
    }

    pub(super) fn apply(&self, connector: &Connector, rows: &RecordBatch) -> Result<RecordBatch, TransformError> {
        let failed = |source| TransformError::Clean { connector: connector.name.clone(), source };
        if self.0.is_empty() {
            return Ok(rows.clone());
        }
        let mut columns = rows.columns().to_vec();
        for (index, step) in &self.0 {
            let column = &mut columns[*index];
            *column = step.apply(column).map_err(failed)?;
        }
        RecordBatch::try_new(rows.schema(), columns).map_err(failed)
    }
}

impl Step {
    fn apply(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Trim => changed(column, texts(column)?, needs_trim, |text| text.trim().into()),
            Self::Lowercase => {
                let texts = texts(column)?;
                match ascii_case(column, texts, u8::is_ascii_uppercase, <[u8]>::make_ascii_lowercase)? {
                    Some(lowered) => lowered,
                    None => changed(column, texts, |_| true, |text| text.to_lowercase().into()),
                }
            }
            Self::Uppercase => {
                let texts = texts(column)?;
                match ascii_case(column, texts, u8::is_ascii_lowercase, <[u8]>::make_ascii_uppercase)? {
                    Some(raised) => raised,
                    None => changed(column, texts, |_| true, |text| text.to_uppercase().into()),
                }
            }
            Self::Default(value) => with_default(column, value)?,
        })
    }
}

fn texts(column: &ArrayRef) -> Result<&StringArray, ArrowError> {
    column
        .as_string_opt()
        .ok_or_else(|| ArrowError::CastError(format!("{} is no text to trim or change in case", column.data_type())))
}

/// A column with `change` done to every text that may need it.
fn changed<'a>(
    column: &ArrayRef,
    texts: &'a StringArray,
    needs: impl Fn(&str) -> bool,
    change: impl Fn(&'a str) -> std::borrow::Cow<'a, str>,
) -> ArrayRef {
    if !texts.iter().flatten().any(&needs) {
        return Arc::clone(column);
    }
    let mut builder = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for text in texts {
        match text {
            Some(text) => builder.append_value(change(text)),
            None => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

/// False where both ends are plainly no white space; bytes of longer characters may be.
fn needs_trim(text: &str) -> bool {
    let may_be_space = |byte: Option<&u8>| byte.is_some_and(|byte| !byte.is_ascii_graphic());
    may_be_space(text.as_bytes().first()) || may_be_space(text.as_bytes().last())
}

/// Changes the case of all texts at once, where they are ASCII: their lengths stay. `None` where they are
/// not.
fn ascii_case(
    column: &ArrayRef,
    texts: &StringArray,
    is_other_case: impl Fn(&u8) -> bool,
    change: impl Fn(&mut [u8]),
) -> Result<Option<ArrayRef>, ArrowError> {
    let bytes = texts.value_data();
    if !bytes.is_ascii() {
        return Ok(None);
    }
    if !bytes.iter().any(is_other_case) {
        return Ok(Some(Arc::clone(column)));
    }
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    let array = StringArray::try_new(texts.offsets().clone(), Buffer::from(bytes), texts.nulls().cloned())?;
    Ok(Some(Arc::new(array)))
}

fn with_default(column: &ArrayRef, value: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let is_missing: BooleanArray = match column.as_string_opt::<i32>() {
        Some(texts) if texts.offsets().windows(2).all(|ends| ends[0] < ends[1]) => return Ok(Arc::clone(column)),
        Some(texts) => texts.iter().map(|text| Some(text.is_none_or(str::is_empty))).collect(),
        None if column.null_count() == 0 => return Ok(Arc::clone(column)),
        None => (0..column.len()).map(|row| Some(column.is_null(row))).collect(),
    };
    if is_missing.true_count() == 0 {
        return Ok(Arc::clone(column));
    }
    zip(&is_missing, &Scalar::new(value), column)
}

/// One value, from the text of a validated connector.
fn default_value(field: &Field, text: &str) -> Result<ArrayRef, ArrowError> {
    let text = match field.data_type {
        FieldType::TimestampMs => match DateTime::parse_from_rfc3339(text) {
            Ok(time) => time.timestamp_millis().to_string(),
            Err(_) => text.to_owned(),
        },
        FieldType::Uuid => text.to_lowercase(),
        _ => text.to_owned(),
    };
    let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let target = arrow_type(field.data_type);
    match target {
        DataType::Timestamp(..) => {
            let milliseconds = cast_with_options(&texts, &DataType::Int64, &strict)?;
            cast_with_options(&milliseconds, &target, &strict)
        }
        _ => cast_with_options(&texts, &target, &strict),
    }
}
