//! Input that was made, or damaged, to hurt.

use super::*;

fn json() -> Arc<Connector> {
    one(FieldType::Json)
}

#[test]
fn what_is_no_json() {
    let connector = json();
    for record in [
        "",
        "\n",
        "{",
        "}",
        "{]",
        "{\"v\"}",
        "{\"v\":}",
        "{\"v\":1,}",
        "{,\"v\":1}",
        "{\"v\":1 \"w\":2}",
        "{\"v\":[1,]}",
        "{\"v\":[,1]}",
        "{\"v\":[1 2]}",
        "{\"v\":[1}",
        "{\"v\":{\"a\":1]}",
        "{v:1}",
        "{'v':1}",
        "{\"v\":'x'}",
        "{\"v\":NaN}",
        "{\"v\":Infinity}",
        "{\"v\":-Infinity}",
        "{\"v\":undefined}",
        "{\"v\":True}",
        "{\"v\":nul}",
        "{\"v\":nulll}",
        "{\"v\":truefalse}",
        "{\"v\":01}",
        "{\"v\":-}",
        "{\"v\":-01}",
        "{\"v\":+1}",
        "{\"v\":.5}",
        "{\"v\":1.}",
        "{\"v\":1.e5}",
        "{\"v\":1e}",
        "{\"v\":1e+}",
        "{\"v\":0x10}",
        "{\"v\":1_000}",
        "{\"v\":\"x}",
        "{\"v\":\"\\\"}",
        "{\"v\":\"\\x41\"}",
        "{\"v\":\"\\u12\"}",
        "{\"v\":\"\\u12g4\"}",
        "{\"v\":\"\\ud800\"}",
        "{\"v\":\"\\udc00\"}",
        "{\"v\":\"\\ud800\\u0041\"}",
        "{\"v\":\"\\ud800x\"}",
        "{\"v\":\"\\ud800\\ud800\"}",
        "{\"v\":\"\\ud83d\\ude0\"}",
        "{\"\\ud800\":1}",
        "{\"v\":\"a\tb\"}",
        "{\"v\":\"a\u{0}b\"}",
        "{\"v\":\"1234567\u{1f}\"}",
        "{\"v\":1}{\"v\":2}",
        "{\"v\":1},",
        "{\"v\":1}\u{0}",
        "\u{0}{\"v\":1}",
        "{\"v\":1}//x",
        "/*x*/{\"v\":1}",
        "{\"v\"\u{a0}:1}",
        "nope",
        "NaN",
        "-",
        "\"open",
    ] {
        assert_eq!(fate(&connector, record), "malformed_json", "{record:?}");
    }
}

#[test]
fn what_is_json_but_no_object() {
    for record in ["[]", "[{\"v\":1}]", "\"x\"", "12", "-0.5e3", "true", "null", " false "] {
        assert_eq!(fate(&json(), record), "not_an_object", "{record}");
    }
}

#[test]
fn a_broken_value_is_malformed_in_fields_nobody_wants_too() {
    for value in ["\"\\ud800\"", "[1,]", "tru", "\"\\x\"", "1.", "{\"a\"}"] {
        assert_eq!(fate(&json(), format!("{{\"other\":{value}}}")), "malformed_json", "{value}");
        assert_eq!(fate(&json(), format!("{{\"v\":{value}}}")), "malformed_json", "{value}");
    }
}

#[test]
fn depth_counts_open_brackets_with_the_records_own() {
    let nested = |depth: usize| format!("{{\"v\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert_eq!(fate(&json(), nested(8)), "[[[[[[[]]]]]]]");
    assert_eq!(fate(&json(), nested(9)), "too_deep");
    let objects = format!("{}1{}", "{\"v\":".repeat(9), "}".repeat(9));
    assert_eq!(fate(&json(), objects), "too_deep");
    // nine brackets, never more than two at once
    assert_eq!(fate(&json(), "{\"v\":[],\"w\":[],\"x\":[],\"y\":{},\"z\":[]}"), "[]");
}

#[test]
fn bottomless_input_does_not_overflow_the_stack() {
    let limits = DecodeLimits { record_bytes_max: u64::MAX, json_depth_max: usize::MAX, ..LIMITS };
    for record in ["[".repeat(1_000_000), "{\"v\":".repeat(1_000_000)] {
        let decoded = decode_record(&json(), Bytes::from(record), &limits);
        assert_eq!(decoded.rejects[0].reason, RejectReason::MalformedJson);
    }
    let record = format!("{{\"v\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(decode_record(&json(), Bytes::from(record), &limits).rejects.len(), 0);
}

#[test]
fn what_is_no_utf8() {
    let connector = json();
    for record in [
        &b"{\"v\":\"\xff\"}"[..],
        b"{\"v\":\"\xc3\"}",
        b"{\"v\":\"\xed\xa0\x80\"}",
        b"\xff\xfe{\0}\0",
        b"\xfe\xff\0{\0}",
        b"{\"\xe4\":1}",
        b"not json either \xff",
    ] {
        assert_eq!(fate(&connector, record), "invalid_utf8", "{record:?}");
    }
    // the neighbours of a bad line are none the worse
    let decoded = decode(&connector, b"{\"v\":1}\n{\"v\":\"\xff\"}\n{\"v\":\"\xc3\xbc\"}\n");
    assert_eq!(rows(&decoded), ["1|0", "\"ü\"|2"]);
}

#[test]
fn utf16_is_rejected_line_by_line() {
    let utf16: Vec<u8> = "{\"v\":1}\n{\"v\":2}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_mark = [&[0xff, 0xfe], &utf16[..]].concat();
    let decoded = decode(&json(), with_mark);
    assert!(decoded.batches.is_empty());
    let reasons: Vec<_> = decoded.rejects.iter().map(|reject| reject.reason.as_str()).collect();
    // the halves of a code unit around a newline fall to different lines
    assert_eq!(reasons, ["invalid_utf8", "malformed_json", "malformed_json"]);
}

#[test]
fn a_long_record_is_rejected_whole() {
    let long = format!("{{\"v\":\"{}\"}}", "x".repeat(10_000));
    let fits = format!("{{\"v\":\"{}\"}}", "x".repeat(10_000 - 8));
    assert_eq!(fits.len(), 10_000);
    assert_eq!(fate(&json(), &long), "record_too_long");
    assert_ne!(fate(&json(), &fits), "record_too_long");
    let decoded = decode(&json(), format!("{{\"v\":1}}\n{long}\r\n{fits}"));
    assert_eq!(decoded.rejects.len(), 1);
    assert_eq!(decoded.rejects[0].bytes, long.as_bytes());
    assert_eq!(decoded.row_count, 3);
    // before anything else is looked at
    assert_eq!(fate(&json(), vec![0xff; 10_001]), "record_too_long");
}

#[test]
fn many_fields_and_many_faults_are_all_counted() {
    let wide: String = (0..900).map(|n| format!("\"n{n}\":{n},")).collect();
    let decoded = decode(&json(), format!("{{{wide}\"v\":1}}\n").repeat(3));
    assert_eq!(rows(&decoded), ["1|0", "1|1", "1|2"]);
    let decoded = decode(&json(), "x\n".repeat(20_000));
    assert_eq!(decoded.rejects.len(), 20_000);
}
