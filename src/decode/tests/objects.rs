//! Objects: lines, batches, compression, numbering.

use std::io::Write;

use super::*;

fn letters() -> Arc<Connector> {
    connector(vec![field("v", FieldType::Utf8, true)], NewField::Ignore)
}

#[test]
fn an_object_without_rows_is_sound() {
    for object in ["", "\n", "\n\n\r\n \t\n", "\u{feff}", "\u{feff}\n"] {
        let decoded = decode(&letters(), object);
        assert_eq!((decoded.row_count, decoded.batches.len(), decoded.rejects.len()), (0, 0, 0), "{object:?}");
    }
}

#[test]
fn rows_are_numbered_without_blank_lines_and_with_rejects() {
    let object = "\u{feff}{\"v\":\"a\"}\r\n\r\nbroken\r\n \t\n{\"v\":\"b\"}\n{}\n{\"v\":\"c\"}";
    let decoded = decode(&letters(), object);
    assert_eq!(rows(&decoded), ["a|0", "b|2", "c|4"]);
    assert_eq!(decoded.row_count, 5);
    let rejects: Vec<_> = decoded
        .rejects
        .iter()
        .map(|reject| (reject.row, reject.byte_offset, reject.reason.as_str(), &reject.bytes[..]))
        .collect();
    assert_eq!(rejects, [(1, 16, "malformed_json", &b"broken"[..]), (3, 37, "missing_required", b"{}")]);
    let batch = &decoded.batches[0];
    assert_eq!(batch.spans[0], Span { byte_offset: 3, len: 9 });
    assert_eq!(batch.row_bytes(2), &b"{\"v\":\"c\"}"[..]);
}

#[test]
fn a_record_is_one_row_whatever_newlines_it_holds() {
    assert_eq!(fate(&letters(), "\u{feff}\n{\n\"v\"\n:\r\n\"a\"}\n\n"), "a");
    assert_eq!(fate(&letters(), "{\"v\":\"a\"}\n{\"v\":\"b\"}"), "malformed_json");
    let decoded = decode_record(&letters(), Bytes::new(), &LIMITS);
    assert_eq!(decoded.rejects[0].reason, RejectReason::MalformedJson);
    assert_eq!((decoded.row_count, decoded.rejects[0].row, decoded.rejects[0].byte_offset), (1, 0, 0));
}

#[test]
fn a_failed_row_leaves_no_trace_in_any_column() {
    let fields = vec![
        field("a", FieldType::Utf8, false),
        field("b", FieldType::Int64, false),
        field("c", FieldType::Decimal { precision: 9, scale: 3 }, false),
        field("d", FieldType::TimestampMs, false),
        field("e", FieldType::Boolean, false),
        field("f", FieldType::Float64, false),
        field("g", FieldType::Json, false),
        field("h", FieldType::Int32, false),
    ];
    let connector = connector(fields, NewField::Rescue);
    let good = r#"{"a":"ü","b":1,"c":2.125,"d":3,"e":true,"f":0.5,"g":[1],"new":"kept"}"#;
    let bad = r#"{"a":"lost","b":9,"c":9,"d":9,"e":false,"f":9,"g":[9],"new":"lost","h":"no"}"#;
    let nulls = r#"{"a":null,"e":null,"g":null}"#;
    let missing = r#"{"a":null,"b":null,"h":2.5,"c":null}"#;
    let object = [good, bad, nulls, missing, bad, good, bad].join("\n");
    let decoded = decode(&connector, object);
    let kept = "ü|1|2.125|1970-01-01T00:00:00.003Z|true|0.5|[1]|∅|{\"new\":\"kept\"}";
    assert_eq!(rows(&decoded), [format!("{kept}|0"), "∅|∅|∅|∅|∅|∅|∅|∅|∅|2".to_owned(), format!("{kept}|5")]);
    assert_eq!(decoded.batches[0].rows.column(1).null_count(), 1);
    assert_eq!(decoded.rejects.len(), 4);
}

#[test]
fn batches_are_cut_and_share_the_unpacked_bytes() {
    let object: String = (0..20_001).map(|n| format!("{{\"v\":\"{n}\"}}\n")).collect();
    let decoded = decode(&letters(), &object);
    let sizes: Vec<usize> = decoded.batches.iter().map(|batch| batch.rows.num_rows()).collect();
    assert_eq!(sizes, [8192, 8192, 3617]);
    assert_eq!(rows(&decoded)[20_000], "20000|20000");
    assert_eq!(decoded.batches[2].row_bytes(0), &b"{\"v\":\"16384\"}"[..]);
}

#[test]
fn compression_makes_no_difference() {
    let object: String = (0..1000).map(|n| format!("{{\"v\":\"{n}\"}}\n")).collect();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(object.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(object.as_bytes(), 1).unwrap();
    let plain = decode(&letters(), &object);
    for packed in [gzip, zstd] {
        let decoded = decode_object(&letters(), Bytes::from(packed.clone()), &LIMITS).unwrap();
        assert_eq!(rows(&decoded), rows(&plain));
        assert_eq!(decoded.unpacked_bytes, object.len() as u64);
        let cut = Bytes::from(packed).slice(..20);
        let fault = decode_object(&letters(), cut, &LIMITS).unwrap_err();
        assert_eq!(fault.reason(), RejectReason::CorruptCompression);
    }
    let limits = DecodeLimits { object_bytes_max: 100, ..LIMITS };
    let fault = decode_object(&letters(), Bytes::from(object), &limits).unwrap_err();
    assert_eq!(fault.reason(), RejectReason::ObjectTooLarge);
}

#[test]
fn few_rejects_do_not_keep_the_object_in_memory() {
    let object = format!("{{}}\n{}", "{\"v\":\"a\"}\n".repeat(100));
    let unpacked = Bytes::from(object);
    let decoded = decode_object(&letters(), unpacked.clone(), &LIMITS).unwrap();
    let range = unpacked.as_ptr_range();
    assert!(!range.contains(&decoded.rejects[0].bytes.as_ptr()));
}
