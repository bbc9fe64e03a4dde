//! Hostile objects and what becomes of each: made in code, read by the tests of this crate and of the program.
//!
//! A line of the table: the type of the one column `v` (required), the object, and its outcome: good rows, then each
//! reason's count, by name; or the fault of the object. Records have at most 10,000 bytes, JSON at most 8 brackets.

pub struct Hostile {
    pub is_csv: bool,
    /// As a connector spells it.
    pub data_type: &'static str,
    pub object: Vec<u8>,
    pub outcome: &'static str,
}

/// Every object that is the same in every compression.
pub fn hostile_objects() -> Vec<Hostile> {
    let of = |is_csv: bool| {
        move |(data_type, object, outcome): &(&'static str, &'static [u8], &'static str)| Hostile {
            is_csv,
            data_type,
            object: object.to_vec(),
            outcome,
        }
    };
    let mut objects: Vec<Hostile> = JSON.iter().map(of(false)).chain(CSV.iter().map(of(true))).collect();
    objects.extend(large_objects());
    objects
}

/// Good neighbours stand around what is broken: they must come through.
const JSON: &[(&str, &[u8], &str)] = &[
    // shapes of an object
    ("json", b"", "0"),
    ("json", b"\n\n\r\n \t\n\r\r\n", "0"),
    ("json", b"\xef\xbb\xbf", "0"),
    ("json", b"\xef\xbb\xbf{\"v\":1}\n\xef\xbb\xbf{\"v\":2}", "1 1 malformed_json"),
    ("json", b"\xef\xbb\xbf\xef\xbb\xbf{\"v\":1}", "0 1 malformed_json"),
    ("json", b"\xff\xfe{\0\"\0v\0\"\0:\x001\0}\0\n\0{\0}\0", "0 1 invalid_utf8 1 malformed_json"),
    ("json", b"\xfe\xff\0{\0\"\0v\0\"\0:\x001\0}\0\n\0{\0}", "0 1 invalid_utf8 1 malformed_json"),
    ("json", b"{\"v\":1}\r{\"v\":2}\r", "0 1 malformed_json"),
    ("json", b"{\"v\":1}\r\n{\"v\":2}\n\r\n{\"v\":3}\r\r\n{\"v\":4}\n\n", "4"),
    ("json", b"{\"v\":1}\n{\"v\":2", "1 1 malformed_json"),
    ("json", b"{\"v\":1}{\"v\":2}\n{\"v\":3}\n", "1 1 malformed_json"),
    ("json", b"{\n\"v\":1\n}\n{\"v\":2}\n", "1 3 malformed_json"),
    ("json", b"[{\"v\":1},\n{\"v\":2}]\n{\"v\":3}", "1 2 malformed_json"),
    ("json", b"[{\"v\":1}]\n1\n\"v\"\nnull\ntrue\n{\"v\":1}", "1 5 not_an_object"),
    ("json", b"\0\0\0\n{\"v\":1}\n\0", "1 2 malformed_json"),
    ("json", b"<html><body>503</body></html>\n{\"v\":1}", "1 1 malformed_json"),
    // syntax
    ("json", b"{\"v\":1,}\n{,\"v\":1}\n{\"v\" 1}\n{v:1}\n{'v':1}\n{\"v\":1}", "1 5 malformed_json"),
    ("json", b"{\"v\":[1,]}\n{\"v\":[1}}\n{\"v\":{\"a\":1]}\n{\"v\":[1]]}\n{\"v\":[1]}", "1 4 malformed_json"),
    ("json", b"{\"v\":NaN}\n{\"v\":Infinity}\n{\"v\":-Infinity}\n{\"v\":nan}\n{\"v\":0}", "1 4 malformed_json"),
    ("json", b"{\"v\":01}\n{\"v\":+1}\n{\"v\":.5}\n{\"v\":1.}\n{\"v\":1e}\n{\"v\":0x1}\n{\"v\":1}", "1 6 malformed_json"),
    ("json", b"{\"v\":True}\n{\"v\":nul}\n{\"v\":undefined}\n{\"v\":true}", "1 3 malformed_json"),
    ("json", b"{\"v\":1}//x\n{\"v\":1}#x\n{\"v\":1};\n{\"v\":1} \t", "1 3 malformed_json"),
    ("json", b"{\"v\":\"a\tb\"}\n{\"v\":\"a\0b\"}\n{\"v\":\"\x1f\"}\n{\"v\":\"\x7f\"}", "1 3 malformed_json"),
    ("json", b"{\"v\":\"open}\n{\"v\":\"\\\"}\n{\"v\":\"\\\\\"}", "1 2 malformed_json"),
    ("json", b"{\"v\":\"\\x41\"}\n{\"v\":\"\\u12\"}\n{\"v\":\"\\uzzzz\"}\n{\"v\":\"\\u0041\"}", "1 3 malformed_json"),
    (
        "utf8",
        b"{\"v\":\"\\ud800\"}\n{\"v\":\"\\udc00\"}\n{\"v\":\"\\ud800\\ud800\"}\n{\"v\":\"\\ud83d\\ude00\"}",
        "1 3 malformed_json",
    ),
    ("utf8", b"{\"\\ud800\":1}\n{\"v\":\"\\u0000\"}", "1 1 malformed_json"),
    ("json", b"{\"v\":[[[[[[[1]]]]]]]}\n{\"v\":[[[[[[[[1]]]]]]]]}\n{\"v\":1}", "2 1 too_deep"),
    ("json", b"[[[[[[[[[[[[\n]]]]]]]]]]]]\n{\"v\":1}", "1 1 malformed_json 1 too_deep"),
    // bytes
    ("utf8", b"{\"v\":\"\xff\"}\n{\"v\":\"\xc0\xaf\"}\n{\"v\":\"\xe0\x80\xaf\"}\n{\"v\":\"\xc3\xbc\"}", "1 3 invalid_utf8"),
    ("utf8", b"{\"v\":\"\xed\xa0\x80\"}\n{\"v\":\"\xf4\x90\x80\x80\"}\n{\"v\":\"\xf0\x9f\x98\x80\"}", "1 2 invalid_utf8"),
    ("utf8", b"{\"v\":\"\xe2\x82\"}\n{\"v\":\"\xe2\x82\xac\"}\n{\"v\":\"\x80\"}", "1 2 invalid_utf8"),
    ("utf8", b"{\"v\":\"caf\xe9\"}\n{\"v\":\"cafe\"}", "1 1 invalid_utf8"),
    // fields
    ("json", b"{\"v\":1,\"v\":2}\n{\"v\":1,\"\\u0076\":1}\n{\"\\u0076\":1}", "1 2 duplicate_field"),
    ("json", b"{\"v\":1,\"w\":2}\n{\"V\":1}\n{\"v \":1}\n{\"v\":1}", "1 3 unknown_field"),
    ("json", b"{}\n{\"v\":null}\n{\"v\":0}\n{\"v\":\"\"}", "2 2 missing_required"),
    ("json", b"{\"v\":{\"a\":1,\"a\":2}}\n{\"v\":{}}\n{\"v\":[]}", "3"),
    // values
    ("int32", b"{\"v\":2147483647}\n{\"v\":2147483648}\n{\"v\":-2147483649}\n{\"v\":-2147483648}", "2 2 invalid_value"),
    ("int64", b"{\"v\":9223372036854775807}\n{\"v\":9223372036854775808}\n{\"v\":-0}", "2 1 invalid_value"),
    ("int64", b"{\"v\":1e2}\n{\"v\":1.0}\n{\"v\":\"1\"}\n{\"v\":true}\n{\"v\":[]}\n{\"v\":{}}\n{\"v\":1}", "1 6 wrong_type"),
    ("int64", b"{\"v\":99999999999999999999999999999999999999999999}\n{\"v\":7}", "1 1 invalid_value"),
    ("float64", b"{\"v\":1e400}\n{\"v\":-1e999999999999}\n{\"v\":1e-400}\n{\"v\":1e308}\n{\"v\":-0.0}", "3 2 invalid_value"),
    ("float64", b"{\"v\":\"NaN\"}\n{\"v\":\"1\"}\n{\"v\":1E+2}\n{\"v\":0e999999999999999999999}", "2 2 wrong_type"),
    ("decimal(5,2)", b"{\"v\":999.99}\n{\"v\":1000}\n{\"v\":1.005}\n{\"v\":\"1e2\"}\n{\"v\":1e9999999999}", "2 3 invalid_value"),
    ("decimal(5,2)", b"{\"v\":\"\"}\n{\"v\":\" 1\"}\n{\"v\":\"1,5\"}\n{\"v\":\"-1.5\"}\n{\"v\":true}", "1 3 invalid_value 1 wrong_type"),
    ("boolean", b"{\"v\":1}\n{\"v\":\"true\"}\n{\"v\":false}", "1 2 wrong_type"),
    (
        "timestamp_ms",
        b"{\"v\":\"2026-02-30T00:00:00Z\"}\n{\"v\":\"2026-13-01T00:00:00Z\"}\n{\"v\":\"2026-01-31T25:00:00Z\"}\n{\"v\":\"2024-02-29T00:00:00Z\"}",
        "1 3 invalid_value",
    ),
    (
        "timestamp_ms",
        b"{\"v\":\"2026-01-31T00:00:00\"}\n{\"v\":\"2026-01-31\"}\n{\"v\":\"now\"}\n{\"v\":\"2026-01-31T00:00:00+14:00\"}",
        "1 3 invalid_value",
    ),
    (
        "timestamp_ms",
        b"{\"v\":\"1969-12-31T23:59:59Z\"}\n{\"v\":\"2200-01-01T00:00:00Z\"}\n{\"v\":\"9999-12-31T00:00:00Z\"}\n{\"v\":\"2199-12-31T23:59:59Z\"}",
        "1 3 invalid_value",
    ),
    ("timestamp_ms", b"{\"v\":-1}\n{\"v\":7258118400000}\n{\"v\":1e12}\n{\"v\":7258118399999}\n{\"v\":0}", "2 2 invalid_value 1 wrong_type"),
    (
        "uuid",
        b"{\"v\":\"0190a5b4-7c3e-7d00-8000-0123456789ab\"}\n{\"v\":\"0190a5b47c3e7d0080000123456789ab\"}\n{\"v\":\"0190a5b4-7c3e-7d00-8000-0123456789ag\"}\n{\"v\":\"\"}\n{\"v\":1}",
        "1 3 invalid_value 1 wrong_type",
    ),
    ("utf8", b"{\"v\":1}\n{\"v\":true}\n{\"v\":{}}\n{\"v\":[\"x\"]}\n{\"v\":\"x\"}", "1 4 wrong_type"),
];

/// The header is the first line.
const CSV: &[(&str, &[u8], &str)] = &[
    // shapes of an object
    ("utf8", b"", "0"),
    ("utf8", b"\n\r\n\n", "0"),
    ("utf8", b"\xef\xbb\xbf", "0"),
    ("utf8", b"v", "0"),
    ("utf8", b"v\r\n", "0"),
    ("utf8", b"\xef\xbb\xbfv\nx\n", "1"),
    ("utf8", b"\n\nv\nx\n\n\ny", "2"),
    ("utf8", b"\xff\xfev\0\n\0x\0\n\0", "malformed_header"),
    ("utf8", b"\xfe\xff\0v\0\n\0x", "malformed_header"),
    ("utf8", b"v\nx\r\ny\n\r\nz\r\n", "3"),
    ("utf8", b"v\nx\ry\nz", "2"),
    ("utf8", b"v\rx\ry\r", "0"),
    ("float64", b"v\n1\n2", "2"),
    // headers
    ("utf8", b"v,v\n1,2\n", "malformed_header"),
    ("utf8", b"\"v\nx\ny\n", "malformed_header"),
    ("utf8", b"v\xff\nx\n", "malformed_header"),
    ("utf8", b"\"v\"x\nx\n", "malformed_header"),
    ("utf8", b"w\nx\ny\n", "0 2 unknown_field"),
    ("utf8", b"V\nx\n", "0 1 unknown_field"),
    ("utf8", b" v\nx\n", "0 1 unknown_field"),
    ("utf8", b"v;w\nx;y\n", "0 1 unknown_field"),
    ("utf8", b"\"v\"\nx\n", "1"),
    ("utf8", b"v,\nx,\n", "0 1 unknown_field"),
    // quotes
    ("utf8", b"v\n\"a\"\"b\"\n\"\"\"\"\n\"c\nd\"\n\"e\r\nf\"\n", "4"),
    ("utf8", b"v\n\"open\nx\ny\n", "2 1 malformed_csv"),
    ("utf8", b"v\nx\n\"", "1 1 malformed_csv"),
    ("utf8", b"v\nx\n\"open", "1 1 malformed_csv"),
    ("utf8", b"v\na\"b\nx\n", "1 1 malformed_csv"),
    ("utf8", b"v\n\"a\"b\nx\n", "1 1 malformed_csv"),
    ("utf8", b"v\n \"a\"\nx\n", "1 1 malformed_csv"),
    ("utf8", b"v\n\"a\" \nx\n", "1 1 malformed_csv"),
    ("utf8", b"v\n\"a\"\"\nx\n", "1 1 malformed_csv"),
    ("utf8", b"v\n\"a\\\"b\"\nx\n", "1 1 malformed_csv"),
    ("utf8", b"v\n\"\"\nx\n", "2"),
    // fields
    ("utf8", b"v\na,b\nx\n,\n", "1 2 ragged_row"),
    ("utf8", b"v\n\"a\",\"b\"\nx\n", "1 1 ragged_row"),
    ("utf8", b"v\n \n\t\nx\n", "3"),
    // bytes
    ("utf8", b"v\n\xff\nx\n", "1 1 invalid_utf8"),
    ("utf8", b"v\n\xc0\xaf\n\xed\xa0\x80\n\xf4\x90\x80\x80\n\xe2\x82\n\xc3\xbc\n", "1 4 invalid_utf8"),
    ("utf8", b"v\n\"\xff\nx\"\ny\n", "1 1 invalid_utf8"),
    ("utf8", b"v\n\0\n\x01\x1b[31m\nx\n", "3"),
    // values
    ("int32", b"v\n2147483647\n2147483648\n1e2\n1.0\n 1\n0x1\n+1\n01\n-5\n", "2 7 invalid_value"),
    ("int64", b"v\n9223372036854775807\n9223372036854775808\nx\n\"7\"\n", "2 2 invalid_value"),
    ("float64", b"v\nNaN\nInfinity\ninf\n-inf\n1e400\n1e-400\n1,5\n-0\n", "2 5 invalid_value 1 ragged_row"),
    ("decimal(5,2)", b"v\n999.99\n1000\n1.005\n1e2\n1e9999999999\n$1\n", "2 4 invalid_value"),
    ("boolean", b"v\ntrue\nFALSE\n1\n0\nyes\n2\nt\n", "4 3 invalid_value"),
    (
        "timestamp_ms",
        b"v\n2026-02-30T00:00:00Z\n2026-01-31\n1969-12-31T23:59:59Z\n2200-01-01T00:00:00Z\n31.01.2026\n2026-01-31T00:00:00Z\n0\n",
        "2 5 invalid_value",
    ),
    ("uuid", b"v\n0190a5b4-7c3e-7d00-8000-0123456789ab\n0190a5b4\n\"\"\n", "1 1 invalid_value 1 missing_required"),
    ("json", b"v\n\"{\"\"a\"\":1}\"\n[1]\n{\nnull\n[[[[[[[[[1]]]]]]]]]\n\"[1,]\"\n", "2 3 invalid_value 1 missing_required"),
];

/// Those that are too long to be written down.
fn large_objects() -> Vec<Hostile> {
    let deep = |count: usize| format!("{{\"v\":1}}\n{{\"v\":{}\n{{\"v\":2}}\n", "[".repeat(count)).into_bytes();
    let deep_csv = |count: usize| format!("v\n1\n{}\n2\n", "[".repeat(count)).into_bytes();
    let fields = (0..500).map(|n| format!("\"f{n}\":{n}")).collect::<Vec<_>>().join(",");
    let columns = (0..500).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
    let json = |object: Vec<u8>, outcome| Hostile { is_csv: false, data_type: "json", object, outcome };
    let csv = |object: Vec<u8>, outcome| Hostile { is_csv: true, data_type: "float64", object, outcome };
    vec![
        // a bomb: beyond the 10 MB that an object may have unpacked
        json(vec![b' '; 10_000_001], "object_too_large"),
        csv(vec![b' '; 10_000_001], "object_too_large"),
        json(vec![b'\n'; 1_000_000], "0"),
        csv(vec![b'\n'; 1_000_000], "0"),
        json(deep(1_000_000), "2 1 record_too_long"),
        csv(deep_csv(1_000_000), "2 1 record_too_long"),
        json(deep(9_000), "2 1 too_deep"),
        csv(deep_csv(9_000), "2 1 invalid_value"),
        json([&b"{\"v\":\""[..], &vec![b'x'; 5_000_000], b"\"}\n{\"v\":1}"].concat(), "1 1 record_too_long"),
        csv([&b"v\n"[..], &vec![b'1'; 5_000_000], b"\n1\n"].concat(), "1 1 record_too_long"),
        json(format!("{{{fields}}}\n{{\"v\":1}}").into_bytes(), "1 1 unknown_field"),
        csv(format!("{columns}\n1\n").into_bytes(), "0 1 ragged_row"),
        csv([&b"v\n1\n\"open\n"[..], &b"2\n".repeat(20_000), b"x\"\n"].concat(), "20001 2 malformed_csv"),
        json(b"{\"v\":1}\n{\n".repeat(10_000), "10000 10000 malformed_json"),
    ]
}
