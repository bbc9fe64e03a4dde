//! Hostile objects in every format and compression: what each becomes, and that compression has no say in it.

use std::collections::BTreeMap;
use std::io::Write;

use super::hostile_table::{Hostile, hostile_objects};
use super::*;
use crate::config::CsvDialect;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn data_type(name: &str) -> FieldType {
    match name {
        "utf8" => FieldType::Utf8,
        "int32" => FieldType::Int32,
        "int64" => FieldType::Int64,
        "float64" => FieldType::Float64,
        "boolean" => FieldType::Boolean,
        "decimal(5,2)" => FieldType::Decimal { precision: 5, scale: 2 },
        "timestamp_ms" => FieldType::TimestampMs,
        "uuid" => FieldType::Uuid,
        "json" => FieldType::Json,
        other => panic!("no type {other}"),
    }
}

fn of(is_csv: bool, type_name: &str) -> Arc<Connector> {
    let mut connector = connector(vec![field("v", data_type(type_name), true)], NewField::Reject);
    if is_csv {
        Arc::make_mut(&mut connector).source.format = Format::Csv(CsvDialect::default());
    }
    connector
}

/// Good rows and each reason's count, or the fault of the object.
fn outcome(connector: &Arc<Connector>, stored: Vec<u8>, unpacked: &[u8]) -> String {
    let decoded = match decode_object(connector, Bytes::from(stored), &LIMITS) {
        Ok(decoded) => decoded,
        Err(fault) => return fault.reason().as_str().to_owned(),
    };
    let good: usize = decoded.batches.iter().map(|batch| batch.rows.num_rows()).sum();
    assert_eq!(decoded.row_count as usize, good + decoded.rejects.len());
    for reject in &decoded.rejects {
        // rejects of CSV have their header before them, of whose lines one is enough here
        let has_header = connector.source.format != Format::Json && reject.reason != RejectReason::RecordTooLong;
        let header_len = has_header.then(|| reject.bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1);
        let kept = &reject.bytes[header_len.unwrap_or(0)..];
        assert!(!kept.is_empty() && unpacked[reject.byte_offset as usize..].starts_with(kept), "{reject:?}");
    }
    let mut counts = BTreeMap::new();
    decoded.rejects.iter().for_each(|reject| *counts.entry(reject.reason.as_str()).or_insert(0) += 1);
    let rejects: String = counts.iter().map(|(reason, count)| format!(" {count} {reason}")).collect();
    format!("{good}{rejects}")
}

#[test]
fn every_row_of_a_hostile_object_is_accounted_for() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for Hostile { is_csv, data_type, object, outcome: expected } in hostile_objects() {
        let connector = of(is_csv, data_type);
        for stored in [object.clone(), gzip(&object), zstd(&object)] {
            count += 1;
            let found = outcome(&connector, stored, &object);
            if found != expected {
                let shown = String::from_utf8_lossy(&object[..object.len().min(80)]);
                wrong.push(format!("{data_type} csv={is_csv} {shown:?}: {found}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 300, "{count} objects");
}

#[test]
fn compression_that_is_broken_is_a_fault_of_the_object() {
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let mut count = 0;
    for (is_csv, object, good) in [(false, &b"{\"v\":1}\n{\"v\":2}\n"[..], "2"), (true, b"v\n1\n2\n", "2")] {
        let connector = of(is_csv, "json");
        let (packed_gzip, packed_zstd) = (gzip(object), zstd(object));
        let flipped = |packed: &[u8], at: usize| {
            let mut packed = packed.to_vec();
            packed[at] ^= 0xff;
            packed
        };
        let (head, tail) = object.split_at(5);
        let cases = [
            (packed_gzip[..packed_gzip.len() - 1].to_vec(), "corrupt_compression"),
            (packed_gzip[..packed_gzip.len() - 8].to_vec(), "corrupt_compression"),
            (packed_gzip[..11].to_vec(), "corrupt_compression"),
            (packed_gzip[..2].to_vec(), "corrupt_compression"),
            (flipped(&packed_gzip, packed_gzip.len() - 5), "corrupt_compression"),
            (flipped(&packed_gzip, packed_gzip.len() - 1), "corrupt_compression"),
            (flipped(&packed_gzip, 2), "corrupt_compression"),
            ([&packed_gzip[..], b"garbage"].concat(), "corrupt_compression"),
            ([&packed_gzip[..], &packed_gzip[..9]].concat(), "corrupt_compression"),
            ([gzip(head), gzip(tail)].concat(), good),
            ([gzip(b""), gzip(object), gzip(b"")].concat(), good),
            (packed_zstd[..packed_zstd.len() - 1].to_vec(), "corrupt_compression"),
            (packed_zstd[..5].to_vec(), "corrupt_compression"),
            (packed_zstd[..4].to_vec(), "corrupt_compression"),
            ([&packed_zstd[..], b"garbage"].concat(), "corrupt_compression"),
            ([zstd(head), zstd(tail)].concat(), good),
            ([&skippable[..], &packed_zstd, &skippable].concat(), good),
            ([&packed_zstd[..], &packed_gzip].concat(), "corrupt_compression"),
            (skippable.clone(), "0"),
            (skippable[..9].to_vec(), "corrupt_compression"),
        ];
        for (index, (stored, expected)) in cases.into_iter().enumerate() {
            count += 1;
            assert_eq!(outcome(&connector, stored, object), expected, "case {index}, csv={is_csv}");
        }
    }
    assert_eq!(count, 40);
}

#[test]
fn what_is_packed_twice_is_unpacked_once() {
    let object = gzip(b"{\"v\":1}\n");
    for stored in [gzip(&object), zstd(&object)] {
        let outcome = outcome(&of(false, "json"), stored.clone(), &object);
        assert!(outcome.starts_with("0 ") && outcome.contains("invalid_utf8"), "{outcome}");
    }
    assert_eq!(outcome(&of(true, "json"), gzip(&object), &object), "malformed_header");
}
