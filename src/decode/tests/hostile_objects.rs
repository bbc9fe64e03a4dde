//! Hostile objects in every format and compression: what each becomes, and that compression has no say in it.

use std::io::Write;

use super::*;
use crate::config::CsvDialect;

fn packings(object: &[u8]) -> [Vec<u8>; 3] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(object).unwrap();
    [object.to_vec(), gzip.finish().unwrap(), zstd::encode_all(object, 1).unwrap()]
}

/// Good rows and each reason's count, or the fault of the object; the same in every compression.
fn outcome(connector: &Arc<Connector>, object: &[u8]) -> String {
    let mut outcomes = packings(object).map(|stored| {
        let decoded = match decode_object(connector, Bytes::from(stored), &LIMITS) {
            Ok(decoded) => decoded,
            Err(fault) => return fault.reason().as_str().to_owned(),
        };
        let good: usize = decoded.batches.iter().map(|batch| batch.rows.num_rows()).sum();
        assert_eq!(decoded.row_count as usize, good + decoded.rejects.len());
        let mut counts = std::collections::BTreeMap::new();
        decoded.rejects.iter().for_each(|reject| *counts.entry(reject.reason.as_str()).or_insert(0) += 1);
        let rejects: String = counts.iter().map(|(reason, count)| format!(" {count} {reason}")).collect();
        format!("{good}{rejects}")
    });
    outcomes.sort_unstable();
    let [first, _, last] = outcomes;
    assert_eq!(first, last, "compression has no say");
    first
}

#[test]
fn every_row_of_a_hostile_object_is_accounted_for() {
    let json = connector(vec![field("v", FieldType::Json, true)], NewField::Reject);
    let mut csv = connector(vec![field("v", FieldType::Float64, true)], NewField::Reject);
    Arc::make_mut(&mut csv).source.format = Format::Csv(CsvDialect::default());
    let utf16: Vec<u8> = "v\n1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bomb = vec![b' '; 10_000_001];
    for (object, as_json, as_csv) in [
        (&b""[..], "0", "0"),
        (b"\n\n\r\n\n", "0", "0"),
        (b"\xef\xbb\xbf", "0", "0"),
        (b"\xef\xbb\xbfv\n1\n", "0 1 malformed_json 1 not_an_object", "1"),
        (&[&b"\xff\xfe"[..], &utf16].concat(), "0 1 invalid_utf8 2 malformed_json", "malformed_header"),
        (&bomb, "object_too_large", "object_too_large"),
        (
            format!("v\n{}\n1\n", "[".repeat(1_000_000)).as_bytes(),
            "0 1 malformed_json 1 not_an_object 1 record_too_long",
            "1 1 record_too_long",
        ),
        (
            format!("v\n{}\n1\n", "[".repeat(9_000)).as_bytes(),
            "0 1 malformed_json 1 not_an_object 1 too_deep",
            "1 1 invalid_value",
        ),
        (b"v\nNaN\n1e400\n1e-400\n-0\n", "0 2 malformed_json 3 not_an_object", "2 2 invalid_value"),
        (b"v,v\n1,2\n", "0 2 malformed_json", "malformed_header"),
        (b"{\"v\":1,\"v\":2}\n{\"v\":1}\n", "1 1 duplicate_field", "malformed_header"),
        (b"v\n\"1\n2\n\"3\"x\n", "0 3 malformed_json 1 not_an_object", "1 2 malformed_csv"),
        (b"v\n\xff\n1\n", "0 1 invalid_utf8 1 malformed_json 1 not_an_object", "1 1 invalid_utf8"),
        (b"v\n\0\n1\n", "0 2 malformed_json 1 not_an_object", "1 1 invalid_value"),
        (b"v\n1,2\n\"\"\n", "0 2 malformed_json 1 not_an_object", "0 1 missing_required 1 ragged_row"),
    ] {
        let shown = String::from_utf8_lossy(&object[..object.len().min(40)]);
        assert_eq!(outcome(&json, object), as_json, "JSON {shown:?}");
        assert_eq!(outcome(&csv, object), as_csv, "CSV {shown:?}");
    }
}
