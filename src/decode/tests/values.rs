//! Each column type: what it takes, and the reason for what it does not.

use super::*;

#[track_caller]
fn expect(data_type: FieldType, table: &[(&str, &str)]) {
    let connector = one(data_type);
    for (value, expected) in table {
        assert_eq!(fate(&connector, format!("{{\"v\":{value}}}")), *expected, "{value}");
        assert_eq!(fate(&connector, format!(" {{ \"x\" : [1] ,\t\"v\" : {value} \r\n}} ")), *expected, "{value}");
    }
}

#[test]
fn null_is_as_good_as_missing() {
    for data_type in [
        FieldType::Utf8,
        FieldType::Int32,
        FieldType::Int64,
        FieldType::Float64,
        FieldType::Boolean,
        FieldType::Decimal { precision: 12, scale: 2 },
        FieldType::TimestampMs,
        FieldType::Uuid,
        FieldType::Json,
    ] {
        expect(data_type, &[("null", "∅")]);
        assert_eq!(fate(&one(data_type), "{}"), "∅");
        let required = connector(vec![field("v", data_type, true)], NewField::Ignore);
        assert_eq!(fate(&required, "{}"), "missing_required");
        assert_eq!(fate(&required, "{\"v\":null}"), "missing_required");
    }
}

#[test]
fn utf8_takes_strings() {
    expect(
        FieldType::Utf8,
        &[
            (r#""""#, ""),
            (r#""plain""#, "plain"),
            (r#""exactly8""#, "exactly8"),
            (r#""ümläut and 😀 over eight bytes""#, "ümläut and 😀 over eight bytes"),
            (r#""a\"b\\c\/d\b\f\n\r\t""#, "a\"b\\c/d\u{8}\u{c}\n\r\t"),
            (r#""\u00fc\u0041\ud83d\ude00\u0000!""#, "üA😀\0!"),
            ("12", "wrong_type"),
            ("true", "wrong_type"),
            ("[]", "wrong_type"),
            ("{}", "wrong_type"),
        ],
    );
    let required = connector(vec![field("v", FieldType::Utf8, true)], NewField::Ignore);
    assert_eq!(fate(&required, r#"{"v":""}"#), "");
}

#[test]
fn integers_take_integers() {
    expect(
        FieldType::Int32,
        &[
            ("0", "0"),
            ("-0", "0"),
            ("2147483647", "2147483647"),
            ("-2147483648", "-2147483648"),
            ("2147483648", "invalid_value"),
            ("-2147483649", "invalid_value"),
            ("99999999999999999999999999", "invalid_value"),
            ("1.0", "wrong_type"),
            ("1e3", "wrong_type"),
            ("1e400", "wrong_type"),
            ("\"1\"", "wrong_type"),
            ("false", "wrong_type"),
            ("[1]", "wrong_type"),
        ],
    );
    expect(
        FieldType::Int64,
        &[
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "invalid_value"),
            ("1.5", "wrong_type"),
        ],
    );
}

#[test]
fn float64_takes_numbers_that_are_finite() {
    expect(
        FieldType::Float64,
        &[
            ("1", "1.0"),
            ("-0", "-0.0"),
            ("0.1", "0.1"),
            ("1E-2", "0.01"),
            ("1e400", "invalid_value"),
            ("-1e400", "invalid_value"),
            ("\"1\"", "wrong_type"),
            ("true", "wrong_type"),
        ],
    );
}

#[test]
fn boolean_takes_two_words() {
    expect(
        FieldType::Boolean,
        &[
            ("true", "true"),
            ("false", "false"),
            ("\"true\"", "wrong_type"),
            ("1", "wrong_type"),
            ("{\"a\":[true]}", "wrong_type"),
        ],
    );
}

#[test]
fn decimal_takes_numbers_and_strings_exactly() {
    expect(
        FieldType::Decimal { precision: 12, scale: 2 },
        &[
            ("12.5", "12.50"),
            ("\"12.50\"", "12.50"),
            ("\"12\\u002e50\"", "12.50"),
            ("0.29", "0.29"),
            ("-9999999999.99", "-9999999999.99"),
            ("1e2", "100.00"),
            ("12.345", "invalid_value"),
            ("10000000000", "invalid_value"),
            ("1e400", "invalid_value"),
            ("\"\"", "invalid_value"),
            ("\" 1\"", "invalid_value"),
            ("\"1 \"", "invalid_value"),
            ("\"+1\"", "invalid_value"),
            ("\"01\"", "invalid_value"),
            ("\"NaN\"", "invalid_value"),
            ("\"1,5\"", "invalid_value"),
            ("true", "wrong_type"),
            ("[1]", "wrong_type"),
        ],
    );
}

#[test]
fn timestamp_takes_what_its_formats_say() {
    expect(
        FieldType::TimestampMs,
        &[
            ("\"2026-11-23T18:43:11.123456Z\"", "2026-11-23T18:43:11.123Z"),
            ("\"2026-11-23T18:43:11+01:00\"", "2026-11-23T17:43:11Z"),
            ("\"2026-11-23T18:43:11\\u005a\"", "2026-11-23T18:43:11Z"),
            ("1795459391123", "2026-11-23T18:43:11.123Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("-1", "invalid_value"),
            ("7258118400000", "invalid_value"),
            ("99999999999999999999", "invalid_value"),
            ("\"1795459391123\"", "invalid_value"),
            ("\"2026-11-23\"", "invalid_value"),
            ("\"yesterday\"", "invalid_value"),
            ("\"\"", "invalid_value"),
            ("1.5", "wrong_type"),
            ("1e12", "wrong_type"),
            ("true", "wrong_type"),
            ("{}", "wrong_type"),
        ],
    );
    let with = |formats: &[TimestampFormat]| {
        let field = Field { formats: formats.to_vec(), ..field("v", FieldType::TimestampMs, false) };
        connector(vec![field], NewField::Ignore)
    };
    let text = with(&[TimestampFormat::Rfc3339]);
    assert_eq!(fate(&text, "{\"v\":0}"), "wrong_type");
    assert_eq!(fate(&text, "{\"v\":1.5}"), "wrong_type");
    assert_eq!(fate(&text, "{\"v\":\"2026-11-23T18:43:11Z\"}"), "2026-11-23T18:43:11Z");
    let integers = with(&[TimestampFormat::EpochMs]);
    assert_eq!(fate(&integers, "{\"v\":0}"), "1970-01-01T00:00:00Z");
    assert_eq!(fate(&integers, "{\"v\":\"2026-11-23T18:43:11Z\"}"), "wrong_type");
}

#[test]
fn uuid_takes_one_spelling_in_any_case() {
    expect(
        FieldType::Uuid,
        &[
            ("\"123E4567-e89b-12d3-A456-426614174000\"", "123e4567-e89b-12d3-a456-426614174000"),
            ("\"123e4567\\u002de89b-12d3-a456-426614174000\"", "123e4567-e89b-12d3-a456-426614174000"),
            ("\"123e4567e89b12d3a456426614174000\"", "invalid_value"),
            ("\"{123e4567-e89b-12d3-a456-426614174000}\"", "invalid_value"),
            ("\"123e4567-e89b-12d3-a456-42661417400g\"", "invalid_value"),
            ("\"123e4567-e89b-12d3-a456-4266141740000\"", "invalid_value"),
            ("\"\"", "invalid_value"),
            ("7", "wrong_type"),
            ("null", "∅"),
        ],
    );
}

#[test]
fn json_keeps_the_text_as_it_stood() {
    expect(
        FieldType::Json,
        &[
            ("{\"b\": 1,\"a\" :[1.50, 1e400, \"\\u00fc\"]}", "{\"b\": 1,\"a\" :[1.50, 1e400, \"\\u00fc\"]}"),
            ("[]", "[]"),
            ("\"text\"", "\"text\""),
            ("-0", "-0"),
            ("true", "true"),
            ("{\"same\":1,\"same\":2}", "{\"same\":1,\"same\":2}"),
        ],
    );
}

fn three(new_field: NewField) -> Arc<Connector> {
    let fields = vec![
        field("a", FieldType::Utf8, true),
        field("b", FieldType::Int32, false),
        field("c", FieldType::Boolean, false),
    ];
    connector(fields, new_field)
}

#[test]
fn fields_come_in_any_order_and_spelling() {
    let connector = three(NewField::Ignore);
    assert_eq!(fate(&connector, r#"{"c":true,"a":"x","b":1}"#), "x|1|true");
    assert_eq!(fate(&connector, r#"{"\u0062":1,"\u0061":"x"}"#), "x|1|∅");
    assert_eq!(fate(&connector, r#"{"A":"x","a":"y"}"#), "y|∅|∅");
}

#[test]
fn new_fields_are_ignored_kept_or_refused() {
    let record = r#"{"new":[1, {"x":null}],"a":"x","n\u0065xt":1.50,"":null}"#;
    assert_eq!(fate(&three(NewField::Ignore), record), "x|∅|∅");
    assert_eq!(fate(&three(NewField::Rescue), record), r#"x|∅|∅|{"new":[1, {"x":null}],"n\u0065xt":1.50,"":null}"#);
    assert_eq!(fate(&three(NewField::Rescue), r#"{"a":"x"}"#), "x|∅|∅|∅");
    assert_eq!(fate(&three(NewField::Reject), record), "unknown_field");
    assert_eq!(fate(&three(NewField::Reject), r#"{"a":"x"}"#), "x|∅|∅");
}

#[test]
fn a_field_may_not_stand_twice() {
    for new_field in [NewField::Ignore, NewField::Rescue] {
        let connector = three(new_field);
        for record in [
            r#"{"a":"x","a":"x"}"#,
            r#"{"a":"x","\u0061":"y"}"#,
            r#"{"a":"x","b":null,"b":1}"#,
            r#"{"a":"x","new":1,"new":1}"#,
            r#"{"a":"x","new":1,"ne\u0077":1}"#,
        ] {
            assert_eq!(fate(&connector, record), "duplicate_field", "{record}");
        }
        let many: String = (0..40).map(|n| format!("\"n{n}\":{n},")).collect();
        assert!(fate(&connector, format!("{{{many}\"a\":\"x\"}}")).starts_with("x|∅|∅"));
        for again in ["n0", "n15", "n16", "n39"] {
            assert_eq!(fate(&connector, format!("{{{many}\"a\":\"x\",\"{again}\":1}}")), "duplicate_field");
        }
    }
}

#[test]
fn of_several_faults_the_first_by_rank_is_the_reason() {
    let connector = three(NewField::Reject);
    for (record, reason) in [
        (r#"{"b":"wrong","new":1,"a":"x"}"#, "wrong_type"),
        (r#"{"new":1,"b":"wrong","a":"x"}"#, "unknown_field"),
        (r#"{"b":99999999999,"b":1}"#, "invalid_value"),
        (r#"{"b":"wrong"}"#, "wrong_type"),
        (r#"{"b":1}"#, "missing_required"),
        (r#"{"b":"wrong","a":}"#, "malformed_json"),
        (r#"{"b":"wrong","c":[[[[[[[[[]]]]]]]]]}"#, "too_deep"),
        (r#"{"b":"wrong"} x"#, "malformed_json"),
    ] {
        assert_eq!(fate(&connector, record), reason, "{record}");
    }
}

#[test]
fn details_name_columns_and_hold_no_values() {
    let decoded = decode(
        &three(NewField::Reject),
        "{\"b\":\"secret\"}\n{\"a\":\"secret\",\"b\":1.5}\n{\"b\":77777777777}\n{}\n{\"a\":\"secret\"\n[]\n{\"a\":\"s\",\"new\\u0007\":1}\n{\"a\":\"\",\"a\":1}",
    );
    let details: Vec<&str> = decoded.rejects.iter().map(|reject| reject.detail.as_str()).collect();
    assert_eq!(
        details,
        [
            "column `b` is int32, not a string",
            "column `b` is int32, not a number with point or exponent",
            "column `b` is int32: expected 32 bits",
            "column `a` is required",
            "expected `,` or `}` at byte 13",
            "a row is a JSON object",
            "the schema lacks field `new\u{fffd}`",
            "field `a` stands twice",
        ]
    );
}
