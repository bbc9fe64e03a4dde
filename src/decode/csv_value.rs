//! Text of a CSV field → a value of its column, by the routines that read JSON.

use super::column::{Column, Misfit, Values};
use super::scan::{Scanner, whole_number};
use crate::config::FieldType;

impl Column {
    /// Takes what stands in a field. On a misfit nothing is kept of it.
    pub(super) fn push_field(
        &mut self,
        data_type: FieldType,
        text: &[u8],
        json_depth_max: usize,
    ) -> Result<(), Misfit> {
        let invalid = |expected| Err(Misfit::InvalidValue { expected });
        match (&mut self.values, data_type) {
            (Values::Utf8(values), _) => values.push(text),
            (Values::Json(_), _) => match json(text, json_depth_max) {
                None => return invalid("JSON text no deeper than limits.json_depth_max"),
                Some(b"null") => {
                    self.push_null();
                    return Ok(());
                }
                Some(value) => {
                    self.push_json(value);
                    return Ok(());
                }
            },
            (Values::Boolean(values), _) => match text {
                b"1" => values.push(true),
                b"0" => values.push(false),
                _ if text.eq_ignore_ascii_case(b"true") => values.push(true),
                _ if text.eq_ignore_ascii_case(b"false") => values.push(false),
                _ => return invalid("true, false, 1 or 0"),
            },
            (_, FieldType::Uuid) => self.push_string(text)?,
            (_, data_type) => match whole_number(text) {
                Some(number) => self.push_number(number).map_err(always_invalid)?,
                None if data_type == FieldType::TimestampMs => self.push_string(text).map_err(always_invalid)?,
                None => return invalid("a number"),
            },
        }
        self.is_valid.push(true);
        Ok(())
    }
}

/// Text has no type to be wrong.
fn always_invalid(misfit: Misfit) -> Misfit {
    match misfit {
        Misfit::WrongType { .. } => Misfit::InvalidValue { expected: "the spelling of the column's type" },
        invalid @ Misfit::InvalidValue { .. } => invalid,
    }
}

/// The value that is the whole of some text, without white space around it.
fn json(text: &[u8], depth_max: usize) -> Option<&[u8]> {
    let mut scanner = Scanner::new(text, Vec::new(), depth_max);
    let value = scanner.value().ok()?;
    scanner.end().ok()?;
    Some(value)
}
