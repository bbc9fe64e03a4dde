//! JSON against serde_json: which rows there are, what each line becomes and holds, and where values begin and end.
#![no_main]
#![allow(unsafe_code, reason = "the entry point that libFuzzer calls")]

mod facts;

use facts::{Cell, Fate, RECORD_BYTES_MAX, connector, rows};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use sluice::config::{FieldType, Format, NewField};

const FIELDS: [(&str, FieldType); 9] = [
    ("text", FieldType::Utf8),
    ("small", FieldType::Int32),
    ("large", FieldType::Int64),
    ("float", FieldType::Float64),
    ("flag", FieldType::Boolean),
    ("amount", FieldType::Decimal { precision: 12, scale: 2 }),
    ("at", FieldType::TimestampMs),
    ("id", FieldType::Uuid),
    ("any", FieldType::Json),
];
/// Rejected, for a reason that serde_json and chrono leave open.
const OPEN: &str = "open";
const MARK: &[u8] = b"\xef\xbb\xbf";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [way, block_bytes, object @ ..] = data else { return };
    let new_field = [NewField::Ignore, NewField::Rescue, NewField::Reject][usize::from(way % 3)];
    if way & 128 != 0 {
        return follow(object, usize::from(*block_bytes) + 1);
    }
    let connector = connector(&FIELDS, 1, Format::Json, new_field);
    let found = rows(&connector, object, usize::from(*block_bytes) + 1);
    if is_packed(object) {
        return;
    }
    let found = found.expect("plain bytes are no fault");
    let mark = if object.starts_with(MARK) { MARK.len() } else { 0 };
    let lines: Vec<(usize, &[u8])> = lines(object, mark).collect();
    assert_eq!(found.len(), lines.len(), "a row for each line");
    for (row, (byte_offset, line)) in found.iter().zip(lines) {
        assert_eq!((row.byte_offset, &row.bytes[..]), (byte_offset, line));
        if let Some(expected) = fate(line, new_field) {
            agree(&row.fate, &expected, new_field);
        }
    }
});

/// Values that follow each other or stand in an array are serde_json's, where it reads them all.
fn follow(object: &[u8], block_bytes: usize) {
    let connector = connector(&FIELDS, 1, Format::JsonValues, NewField::Ignore);
    let Some(found) = rows(&connector, object, block_bytes) else { return };
    let Ok(text) = std::str::from_utf8(object.strip_prefix(MARK).unwrap_or(object)) else { return };
    // raw values are not looked into by serde_json: not at surrogates, not at depth
    let brackets = text.bytes().filter(|byte| b"[{".contains(byte)).count();
    if is_packed(object) || brackets > 60 || text.contains("\\u") {
        return;
    }
    let texts: Result<Vec<Box<RawValue>>, _> = if text.trim_start_matches([' ', '\n', '\r', '\t']).starts_with('[') {
        serde_json::from_str(text)
    } else {
        serde_json::Deserializer::from_str(text).into_iter().collect()
    };
    let Ok(texts) = texts else { return };
    assert_eq!(found.len(), texts.len(), "a row for each value");
    for (row, text) in found.iter().zip(texts) {
        assert_eq!(row.bytes, text.get().as_bytes());
    }
}

fn is_packed(object: &[u8]) -> bool {
    let is_skippable = object.len() >= 4 && object[0] & 0xf0 == 0x50 && object[1..4] == [0x2a, 0x4d, 0x18];
    object.starts_with(&[0x1f, 0x8b]) || object.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable
}

fn lines(object: &[u8], start: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = start;
    object[start..].split_inclusive(|byte| *byte == b'\n').filter_map(move |whole| {
        let offset = at;
        at += whole.len();
        let line = match whole.strip_suffix(b"\n") {
            Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
            None => whole,
        };
        let is_blank = line.iter().all(|byte| b" \t\r".contains(byte));
        (!is_blank).then_some((offset, line))
    })
}

/// `None`: serde_json has no say.
fn fate(line: &[u8], new_field: NewField) -> Option<Result<Vec<Option<Cell>>, &'static str>> {
    if line.len() > RECORD_BYTES_MAX {
        return Some(Err("record_too_long"));
    }
    let Ok(text) = std::str::from_utf8(line) else { return Some(Err("invalid_utf8")) };
    if line.iter().filter(|byte| b"[{".contains(byte)).count() > 60 {
        return None;
    }
    match serde_json::from_str::<Value>(text) {
        // its only objection that is none of syntax
        Err(error) if error.to_string().contains("number out of range") => return None,
        Err(_) => return Some(Err("malformed_json")),
        Ok(value) if !value.is_object() => return Some(Err("not_an_object")),
        Ok(_) => {}
    }
    let Pairs(pairs) = serde_json::from_str(text).expect("an object");
    let mut is_open = false;
    let expected = values(&pairs, new_field, &mut is_open);
    Some(expected.map_err(|reason| if is_open { OPEN } else { reason }))
}

/// `None` in it: what may be an invalid value as well; `is_open` where there is one.
fn values(
    pairs: &[(String, Box<RawValue>)],
    new_field: NewField,
    is_open: &mut bool,
) -> Result<Vec<Option<Cell>>, &'static str> {
    let mut cells: Vec<Option<Option<Cell>>> = vec![None; FIELDS.len()];
    let mut unknown: Vec<&str> = Vec::new();
    let mut rescued = Vec::new();
    for (name, raw) in pairs {
        let Some(column) = FIELDS.iter().position(|(known, _)| known == name) else {
            if unknown.contains(&name.as_str()) {
                return Err("duplicate_field");
            }
            if new_field == NewField::Reject {
                return Err("unknown_field");
            }
            unknown.push(name);
            rescued.push((name, raw.get()));
            continue;
        };
        if cells[column].is_some() {
            return Err("duplicate_field");
        }
        let cell = value(FIELDS[column].1, raw.get())?;
        *is_open |= cell.is_none();
        cells[column] = Some(cell);
    }
    if matches!(cells[0], None | Some(Some(Cell::Null))) {
        return Err("missing_required");
    }
    let mut cells: Vec<Option<Cell>> = cells.into_iter().map(|cell| cell.unwrap_or(Some(Cell::Null))).collect();
    if new_field == NewField::Rescue {
        cells.push(Some(if rescued.is_empty() { Cell::Null } else { Cell::Text(format!("{rescued:?}")) }));
    }
    Ok(cells)
}

fn value(data_type: FieldType, raw: &str) -> Result<Option<Cell>, &'static str> {
    let is_integer = |raw: &str| !raw.contains(['.', 'e', 'E']);
    let first = raw.as_bytes()[0];
    let is_number = first == b'-' || first.is_ascii_digit();
    let text = || serde_json::from_str::<String>(raw).expect("a string");
    Ok(Some(match (data_type, first) {
        (_, b'n') => Cell::Null,
        (FieldType::Json, _) => Cell::Text(raw.to_owned()),
        (FieldType::Utf8, b'"') => Cell::Text(text()),
        (FieldType::Boolean, b't' | b'f') => Cell::Flag(first == b't'),
        (FieldType::Int32, _) if is_number && is_integer(raw) => {
            Cell::Whole(i128::from(raw.parse::<i32>().map_err(|_| "invalid_value")?))
        }
        (FieldType::Int64, _) if is_number && is_integer(raw) => {
            Cell::Whole(i128::from(raw.parse::<i64>().map_err(|_| "invalid_value")?))
        }
        (FieldType::Float64, _) if is_number => {
            let float: f64 = raw.parse().expect("JSON's numbers are Rust's");
            if float.is_infinite() {
                return Err("invalid_value");
            }
            Cell::Bits(float.to_bits())
        }
        (FieldType::Decimal { .. }, _) if is_number => return amount(raw),
        (FieldType::Decimal { .. }, b'"') => return amount(&text()),
        (FieldType::TimestampMs, _) if is_number && is_integer(raw) => {
            let ms = raw.parse::<i64>().ok().filter(|ms| (0..7_258_118_400_000).contains(ms));
            Cell::Whole(i128::from(ms.ok_or("invalid_value")?))
        }
        // lenient as chrono is, it only says what is no time at all
        (FieldType::TimestampMs, b'"') => {
            chrono::DateTime::parse_from_rfc3339(&text().replace(":60", ":59")).map_err(|_| "invalid_value")?;
            return Ok(None);
        }
        (FieldType::Uuid, b'"') => match uuid::Uuid::try_parse(&text()) {
            Ok(id) if text().len() == 36 => Cell::Text(id.to_string()),
            _ => return Err("invalid_value"),
        },
        _ => return Err("wrong_type"),
    }))
}

/// decimal(12,2) by its text; with an exponent by exact shifting of the digits.
fn amount(text: &str) -> Result<Option<Cell>, &'static str> {
    let is_number = text.as_bytes().first().is_some_and(|first| *first == b'-' || first.is_ascii_digit());
    if !is_number || serde_json::from_str::<&RawValue>(text).is_err() || text.ends_with([' ', '\n', '\r', '\t']) {
        return Err("invalid_value");
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or((1, mantissa), |rest| (-1, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let Ok(exponent) = exponent.parse::<i64>() else { return Ok(None) };
    let scale = fraction.len() as i64 - exponent;
    if digits.is_empty() && text.contains(['e', 'E']) {
        return Ok(None);
    }
    if scale > 2 || digits.len() as i64 - scale > 10 {
        return Err("invalid_value");
    }
    let digits: i128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| "invalid_value")? };
    Ok(Some(Cell::Whole(sign * digits * 10_i128.pow((2 - scale) as u32))))
}

fn agree(found: &Fate, expected: &Result<Vec<Option<Cell>>, &'static str>, new_field: NewField) {
    match (found, expected) {
        (Err(_), Err(expected)) if *expected == OPEN => {}
        (Err(found), Err(expected)) => assert_eq!(found, expected),
        (Err("invalid_value"), Ok(cells)) if cells.contains(&None) => {}
        (Ok(found), Ok(expected)) => {
            assert_eq!(found.len(), expected.len());
            for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
                match (expected, found) {
                    (Some(expected), Cell::Text(kept)) if new_field == NewField::Rescue && column == FIELDS.len() => {
                        let Pairs(pairs) = serde_json::from_str(kept).expect("an object");
                        let pairs: Vec<_> = pairs.iter().map(|(name, raw)| (name, raw.get())).collect();
                        assert_eq!(&Cell::Text(format!("{pairs:?}")), expected);
                    }
                    (Some(expected), found) => assert_eq!(found, expected, "{}", FIELDS[column].0),
                    (None, _) => {}
                }
            }
        }
        _ => panic!("found {found:?}, expected {expected:?}"),
    }
}

/// An object's fields in their order, doubled ones included.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
