//! CSV of any dialect against the csv crate, where both call it well formed; every byte of an object is in some row.
#![no_main]
#![allow(unsafe_code, reason = "the entry point that libFuzzer calls")]

mod facts;

use facts::{Cell, Row, connector, rows};
use sluice::config::{CsvDialect, FieldType, Format, NewField};

const FIELDS: [(&str, FieldType); 3] = [("a", FieldType::Utf8), ("b", FieldType::Utf8), ("c", FieldType::Utf8)];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [way, block_bytes, body @ ..] = data else { return };
    let dialect = CsvDialect {
        has_header: way & 8 != 0,
        delimiter: b",;\t|"[usize::from(way & 3)],
        quote: [Some(b'"'), Some(b'\''), None, Some(b'"')][usize::from((way >> 4) & 3)],
        nulls: if way & 64 == 0 { vec![String::new()] } else { vec!["NULL".to_owned(), "-".to_owned()] },
    };
    // mostly a header that names every column, so that there are rows at all
    let delimiter = char::from(dialect.delimiter);
    let header = match (dialect.has_header, way & 128) {
        (true, 0) => format!("a{delimiter}b{delimiter}c\n"),
        _ => String::new(),
    };
    let object = [header.as_bytes(), body].concat();
    let connector = connector(&FIELDS, 0, Format::Csv(dialect.clone()), NewField::Ignore);
    let Some(found) = rows(&connector, &object, usize::from(*block_bytes) + 1) else { return };
    if header.is_empty() && (dialect.has_header || is_packed(body)) {
        return;
    }
    account(&object, header.len(), &found, dialect.has_header);
    compare(&object, &dialect, &found);
});

fn is_packed(object: &[u8]) -> bool {
    let is_skippable = object.len() >= 4 && object[0] & 0xf0 == 0x50 && object[1..4] == [0x2a, 0x4d, 0x18];
    object.starts_with(&[0x1f, 0x8b]) || object.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable
}

/// Between rows there are line ends and nothing else.
fn account(object: &[u8], header_len: usize, found: &[Row], has_header: bool) {
    let mut at = header_len;
    if header_len == 0 && object.starts_with(b"\xef\xbb\xbf") {
        at = 3;
    }
    for row in found {
        let between = &object[at..row.byte_offset];
        assert!(between.iter().all(|byte| b"\r\n".contains(byte)), "{between:?} is in no row");
        let bytes = match (&row.fate, has_header) {
            // rejects keep their header
            (Err(reason), true) if *reason != "record_too_long" => &row.bytes[header_len..],
            _ => &row.bytes[..],
        };
        at = row.byte_offset + bytes.len();
        assert_eq!(&object[row.byte_offset..at], bytes);
    }
    assert!(object[at..].iter().all(|byte| b"\r\n".contains(byte)), "{:?} is in no row", &object[at..]);
}

fn compare(object: &[u8], dialect: &CsvDialect, found: &[Row]) {
    // of what is no UTF-8 the quotes are not looked at
    let has_quote = |row: &Row| dialect.quote.is_some_and(|quote| row.bytes.contains(&quote));
    let is_left_open = |row: &Row| match row.fate {
        Err("malformed_csv" | "record_too_long") => true,
        Err("invalid_utf8") => has_quote(row),
        _ => false,
    };
    // the csv crate ends records at a carriage return as well
    if object.contains(&b'\r') || found.iter().any(is_left_open) {
        return;
    }
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).flexible(true).delimiter(dialect.delimiter).quoting(dialect.quote.is_some());
    reader.quote(dialect.quote.unwrap_or(b'"'));
    let mut reader = reader.from_reader(object);
    let records: Vec<csv::ByteRecord> = reader.byte_records().map(|record| record.expect("bytes in memory")).collect();
    let records = &records[usize::from(dialect.has_header)..];
    assert_eq!(found.len(), records.len(), "{records:?}");
    for (row, record) in found.iter().zip(records) {
        match &row.fate {
            Err("invalid_utf8") => assert!(record.iter().any(|field| std::str::from_utf8(field).is_err())),
            Err("ragged_row") => assert_ne!(record.len(), FIELDS.len()),
            Err(reason) => panic!("{reason} of {record:?}"),
            Ok(cells) => {
                assert_eq!(cells.len(), record.len());
                for (cell, field) in cells.iter().zip(record) {
                    match cell {
                        Cell::Text(text) => assert_eq!(text.as_bytes(), field),
                        Cell::Null => assert!(dialect.nulls.iter().any(|null| null.as_bytes() == field)),
                        other => panic!("{other:?} in a column of text"),
                    }
                }
            }
        }
    }
}
