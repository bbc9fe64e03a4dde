//! RFC 8259 by its grammar: what a parser must take, what it must not, and what the RFC leaves to it.
//!
//! Each text stands as the value of a field, since a row is an object, and by itself besides. serde_json has to agree
//! unless the line says why not.

use super::*;

/// Texts that are JSON.
const TAKEN: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "10",
    "123",
    "0.5",
    "-0.0",
    "1.5e3",
    "1E3",
    "1e+3",
    "1e-3",
    "0e1",
    "0E+1",
    "20e1",
    "123.456e78",
    "-123123123123123123",
    "0.000000000000000000000000000000000000001",
    "\"\"",
    "\"a\"",
    "\" \"",
    "\"asd \"",
    "\"\u{7f}\"",
    "\"\u{80}\"",
    "\"ü€😀\"",
    "\"\u{2028}\u{2029}\"",
    "\"\u{feff}\"",
    "\"\u{ffff}\"",
    "\"\u{10ffff}\"",
    "\"\\\"\"",
    "\"\\\\\"",
    "\"\\/\"",
    "\"\\b\\f\\n\\r\\t\"",
    "\"\\u0000\"",
    "\"\\u0041\"",
    "\"\\u00E9\\u00e9\"",
    "\"\\ud83d\\ude00\"",
    "\"\\uD834\\uDd1e\"",
    "\"\\uDBFF\\uDFFF\"",
    "\"\\uffff\"",
    "\"\\\\u0041\"",
    "\"a/*b*/c\"",
    "\"\\\\a\"",
    "\"new\\u000Aline\"",
    "\"\\u2028\"",
    "\"{\"",
    "\"],[\"",
    "[]",
    "[ ]",
    "[[]]",
    "[\"\"]",
    "[null]",
    "[1,2]",
    "[1,null,\"x\",{}]",
    "[ 1 , 2 ]",
    "[\n1\n,\t2\r]",
    "[[],[]]",
    "[1,null,null,null,2]",
    "[\"a\"] ",
    " [1]",
    "{}",
    "{ }",
    "{\"\":0}",
    "{\"a\":[]}",
    "{\"a\" : 1 , \"b\" : 2}",
    "{\"a\":{\"b\":{}}}",
    "{\"\\u0041\":1}",
    "{\"a\\u0000b\":0}",
    "{\n\"a\"\n:\r1\t}",
    "{\"x\":[{\"y\":\"z\"}],\"w\":null}",
    "{\"a\":1,\"a\":1}",
    "{\"a\":1,\"a\":2}",
    "{\"a\":\"b\",\"\\u0061\":\"c\"}",
    "[[[[[]]]]]",
];

/// Texts that are none.
const REFUSED: &[&str] = &[
    "",
    " ",
    "nul",
    "nulll",
    "tru",
    "truex",
    "True",
    "NULL",
    "fals",
    "nan",
    "NaN",
    "-NaN",
    "Inf",
    "Infinity",
    "-Infinity",
    "+Inf",
    "+1",
    "++1",
    "-",
    "--1",
    "-a",
    "- 1",
    "01",
    "-01",
    "00",
    "012",
    "-012",
    "0x1",
    "0x42",
    "1x",
    "1a",
    "1 2",
    ".5",
    "-.5",
    ".",
    "1.",
    "-2.",
    "0.e1",
    "2.e3",
    "2.e+3",
    "1.2.3",
    "0.1.2",
    "0e",
    "0e+",
    "0E",
    "1e",
    "1e+",
    "1e-",
    "1eE2",
    "1e1.5",
    "9.3e+",
    "1+2",
    "1_0",
    "1,5",
    "١",
    "１",
    "-foo",
    "0.3e",
    "1\u{0}",
    "\"",
    "\"a",
    "a\"",
    "'a'",
    "`a`",
    "\"\\\"",
    "\"\\x00\"",
    "\"\\a\"",
    "\"\\'\"",
    "\"\\ \"",
    "\"\\\u{1f300}\"",
    "\"\\",
    "\"\\u\"",
    "\"\\u0\"",
    "\"\\u00A\"",
    "\"\\u00zz\"",
    "\"\\U0041\"",
    "\"\\u{41}\"",
    "\"a\u{0}b\"",
    "\"\n\"",
    "\"\t\"",
    "\"\r\"",
    "\"\u{1f}\"",
    "\"a\"\"b\"",
    "\"a\" \"b\"",
    "\\u0041",
    "\\\"a\\\"",
    "[",
    "]",
    "[1",
    "1]",
    "[,",
    "[,]",
    "[,1]",
    "[1,]",
    "[1,,2]",
    "[1,,]",
    "[1 2]",
    "[1:2]",
    "[1;2]",
    "[1}",
    "[\"a\"",
    "[\"a",
    "[\"a\",",
    "[1]]",
    "[[1]",
    "[1],",
    "[]x",
    "[][]",
    "[*]",
    "[-]",
    "[a",
    "[\"\":1]",
    "[\"a\\]",
    "[\n1\n,1",
    "[/]",
    "[1]//",
    "{",
    "}",
    "{]",
    "{\"a\"",
    "{\"a\":",
    "{\"a\":1",
    "{\"a\":1,",
    "{\"a\":1,}",
    "{\"a\":1,,\"b\":2}",
    "{,}",
    "{:1}",
    "{1:1}",
    "{a:1}",
    "{'a':1}",
    "{\"a\" 1}",
    "{\"a\":1 \"b\":2}",
    "{\"a\"::1}",
    "{\"a\",1}",
    "{\"a\":1}}",
    "{\"a\":1}{}",
    "{null:1}",
    "{\"a\":/*c*/1}",
    "{\"a\":1}//",
    "{\"a\":1}#",
    "{\"a\":1,\"b\"}",
    "{[1]:2}",
    "{\"a\":\"b\":\"c\"}",
    "{\"a\":\"b",
    "\u{feff}1",
    "1\u{a0}",
    "\u{2003}1",
    "\u{c}1",
    "\u{b}1",
    "<null>",
    "[<null>]",
    "*",
    "$",
    "&",
    "😀",
    "{\"a\":true",
    "[\"\u{0}\"]",
    "[1,\n1\n,1",
    "[\"a\"\n\"b\"]",
    "{\"a\": tru}",
    "[tRUE]",
    "[1e]",
    "[\"x\", truth]",
];

/// What the RFC leaves open, how we decide, and what serde_json does.
const OPEN: &[(&str, bool, bool)] = &[
    // numbers of any size are JSON: whether one fits is the column's business. serde_json takes them for a double
    ("1e400", true, false),
    ("-1e400", true, false),
    ("123e100000", true, false),
    ("0.4e00669999999999999999999999999999999999999999999999969999999006", true, false),
    ("1e-400", true, true),
    ("123e-10000000", true, true),
    ("-237462374673276894279832749832423479823246327846", true, true),
    ("100000000000000000000", true, true),
    // half a surrogate pair is no character: text could not hold it
    ("\"\\ud800\"", false, false),
    ("\"\\udc00\"", false, false),
    ("\"\\ud800\\ud800\"", false, false),
    ("\"\\ud800abc\"", false, false),
    ("\"\\ud800\\n\"", false, false),
    ("\"\\udd1e\\ud834\"", false, false),
    ("\"\\uDADA\"", false, false),
    ("\"\\ud888\\u1234\"", false, false),
    ("{\"\\udfaa\":0}", false, false),
];

/// Bytes that are no UTF-8, each of which the RFC lets a parser refuse.
const NO_UTF8: &[&[u8]] = &[
    b"\"\xff\"",
    b"\"\x80\"",
    b"\"\xc0\xaf\"",
    b"\"\xe0\x80\xaf\"",
    b"\"\xf0\x80\x80\xaf\"",
    b"\"\xfc\x83\xbf\xbf\xbf\xbf\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf4\xbf\xbf\xbf\"",
    b"\"\xe6\x97\xa5\xd1\x88\xfa\"",
    b"\"\xe9\"",
    b"\xff",
    b"\xe5",
    b"[\xe5]",
    b"{\"\xb9\":0}",
    b"1\xe5",
    b"\xff\xfe[\0\"\0\xe9\0\"\0]\0",
    b"\0[\0\"\0\xe9\0\"\0]",
];

fn is_taken(text: &str) -> bool {
    let record = format!("{{\"v\":{text}}}");
    let taken = fate(&one(FieldType::Json), &record) != "malformed_json";
    let alone = fate(&one(FieldType::Json), text);
    let is_object = text.trim_start().starts_with('{');
    let alone_is_taken = alone == "not_an_object" || is_object && alone != "malformed_json";
    // a byte order mark is skipped before a record, and nowhere else
    assert!(taken == alone_is_taken || text.starts_with('\u{feff}'), "{text:?} alone is {alone}");
    taken
}

fn serde_takes(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(&format!("{{\"v\":{text}}}")).is_ok()
}

#[test]
fn what_the_grammar_makes_is_taken_and_nothing_else() {
    for (texts, expected) in [(TAKEN, true), (REFUSED, false)] {
        for text in texts {
            assert_eq!(is_taken(text), expected, "{text:?}");
            assert_eq!(serde_takes(text), expected, "serde_json on {text:?}");
        }
    }
    assert!(TAKEN.len() + REFUSED.len() >= 240, "{} and {}", TAKEN.len(), REFUSED.len());
}

#[test]
fn what_the_grammar_leaves_open_is_decided() {
    for (text, ours, theirs) in OPEN {
        assert_eq!((is_taken(text), serde_takes(text)), (*ours, *theirs), "{text:?}");
    }
    for bytes in NO_UTF8 {
        let record = [b"{\"v\":", *bytes, b"}"].concat();
        assert_eq!(fate(&one(FieldType::Json), &record), "invalid_utf8", "{bytes:?}");
    }
    // deeper than its own bound serde_json refuses; ours is a limit of the configuration
    let deep = |depth: usize| format!("{{\"v\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(fate(&one(FieldType::Json), deep(LIMITS.json_depth_max - 1)), deep(7)[5..19].to_owned());
    assert_eq!(fate(&one(FieldType::Json), deep(100_000 / 25)), "too_deep");
}

#[test]
fn white_space_is_four_bytes() {
    for byte in 0..=127_u8 {
        let space = char::from(byte);
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let text = format!("{{{space}\"v\"{space}:{space}1{space}}}{space}");
        assert_eq!(fate(&one(FieldType::Json), &text) == "1", is_space, "{byte}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), is_space, "{byte}");
    }
}
