//! CSV against the `csv` crate on arbitrary tables, and what its quotes can do to a reader.

use proptest::prelude::*;

use super::*;
use crate::config::CsvDialect;

fn csv(fields: Vec<Field>, new_field: NewField, dialect: CsvDialect) -> Arc<Connector> {
    let mut connector = connector(fields, new_field);
    Arc::make_mut(&mut connector).source.format = Format::Csv(dialect);
    connector
}

fn texts(names: &[&str]) -> Vec<Field> {
    names.iter().map(|name| field(name, FieldType::Utf8, false)).collect()
}

fn two(has_header: bool) -> Arc<Connector> {
    csv(texts(&["a", "b"]), NewField::Ignore, CsvDialect { has_header, ..CsvDialect::default() })
}

/// Rows, and rejects as `reason|row|bytes`.
fn outcome(connector: &Arc<Connector>, object: &[u8]) -> (Vec<String>, Vec<String>) {
    let decoded = decode_object(connector, Bytes::copy_from_slice(object), &LIMITS).unwrap();
    let good: usize = decoded.batches.iter().map(|batch| batch.rows.num_rows()).sum();
    assert_eq!(decoded.row_count as usize, good + decoded.rejects.len());
    let rejects = decoded
        .rejects
        .iter()
        .map(|r| format!("{}|{}|{}", r.reason.as_str(), r.row, String::from_utf8_lossy(&r.bytes)))
        .collect();
    (rows(&decoded), rejects)
}

#[test]
fn a_header_names_the_columns_in_any_order() {
    let (rows, rejects) = outcome(&two(true), b"\xef\xbb\xbfx,b,a\r\n1,2,3\r\n\r\n4,\"5\n\"\"6\",7");
    assert_eq!(rows, ["3|2|0", "7|5\n\"6|1"]);
    assert!(rejects.is_empty());
    assert_eq!(outcome(&two(true), b"b\n1\n").0, ["∅|1|0"]);
    assert_eq!(outcome(&two(true), b"").0.len(), 0);
    let mut renamed = two(true);
    Arc::make_mut(&mut renamed).fields[0].header = Some("User ID".to_owned());
    assert_eq!(outcome(&renamed, b"a,User ID\n1,2\n").0, ["2|∅|0"]);
}

#[test]
fn a_header_that_cannot_name_columns_is_a_fault_of_the_object() {
    for object in [&b"a,b,a\n1,2,3\n"[..], b"a,\"b\n1,2\n", b"\xff\xfea\0,\0b\0\n\0", b"a,b\"c\n"] {
        let fault = decode_object(&two(true), Bytes::copy_from_slice(object), &LIMITS).unwrap_err();
        assert_eq!(fault.reason(), RejectReason::MalformedHeader);
    }
}

#[test]
fn columns_that_the_schema_lacks_follow_the_evolution() {
    let of = |new_field| csv(texts(&["a"]), new_field, CsvDialect::default());
    let object = *b"a,nm\n1,2\n";
    assert_eq!(outcome(&of(NewField::Ignore), &object).0, ["1|0"]);
    assert_eq!(outcome(&of(NewField::Rescue), &object).0, ["1|{\"nm\":\"2\"}|0"]);
    assert_eq!(outcome(&of(NewField::Rescue), b"a,\"n\"\"\"\n1,\n").0, ["1|{\"n\\\"\":null}|0"]);
    assert_eq!(outcome(&of(NewField::Reject), &object).1, ["unknown_field|0|a,nm\n1,2"]);
}

#[test]
fn ragged_rows_are_rejected_with_the_header_that_they_need() {
    let (rows, rejects) = outcome(&two(true), b"a,b\n1\n2,3\n4,5,6\n");
    assert_eq!(rows, ["2|3|1"]);
    assert_eq!(rejects, ["ragged_row|0|a,b\n1", "ragged_row|2|a,b\n4,5,6"]);
    assert_eq!(outcome(&two(false), b"1\n").1, ["ragged_row|0|1"]);
    // a dead letter is all that is needed to decode it again
    assert_eq!(fate_of(&two(true), b"b,a\r\n1,2\n"), "2|1");
    assert_eq!(fate_of(&two(true), b"b,a\n1\n"), "ragged_row");
    assert_eq!(fate_of(&two(true), b"b,a\n1,2\n3,4\n"), "malformed_csv");
    assert_eq!(fate_of(&two(true), b"b,b\n1,2\n"), "malformed_csv");
    assert_eq!(fate_of(&two(false), b""), "malformed_csv");
    assert_eq!(fate_of(&two(false), b"1,2"), "1|2");
}

fn fate_of(connector: &Arc<Connector>, record: &[u8]) -> String {
    let decoded = decode_record(connector, Bytes::copy_from_slice(record), &LIMITS);
    assert_eq!(decoded.row_count, 1);
    match decoded.rejects.first() {
        Some(reject) => reject.reason.as_str().to_owned(),
        None => rows(&decoded)[0].strip_suffix("|0").unwrap().to_owned(),
    }
}

#[test]
fn a_lost_quote_costs_its_line_alone() {
    let (rows, rejects) = outcome(&two(false), b"1,2\n3,\"4\n5,6\n7,8\n");
    assert_eq!(rows, ["1|2|0", "5|6|2", "7|8|3"]);
    assert_eq!(rejects, ["malformed_csv|1|3,\"4"]);
    let (rows, rejects) = outcome(&two(false), b"1,\"2\"x\n3,4\"\n\"5\n6\"y,7\n8,9\n");
    assert_eq!(rows, ["8|9|4"]);
    assert_eq!(
        rejects,
        ["malformed_csv|0|1,\"2\"x", "malformed_csv|1|3,4\"", "malformed_csv|2|\"5", "malformed_csv|3|6\"y,7"]
    );
    // a quote that is closed, but too far behind
    let far = format!("1,\"2\n{}\"\n3,4\n", "x,y\n".repeat(3000));
    let (rows, rejects) = outcome(&two(false), far.as_bytes());
    assert_eq!((rows.len(), rejects.len()), (3001, 2));
    assert_eq!(outcome(&two(false), &[b'x'; 10_001]).1[0].split('|').next(), Some("record_too_long"));
}

#[test]
fn many_lost_quotes_do_not_make_it_slow() {
    let limits = DecodeLimits { record_bytes_max: 1 << 20, object_bytes_max: 1 << 30, ..LIMITS };
    for line in ["x,\"\n", "\"\n", "\"\"\",\n", "x\",\"\n", "\"a\n\"\"\n", ",\"\"\"\n"] {
        let object = line.repeat(1_000_000);
        let decoded = decode_object(&two(false), Bytes::from(object), &limits).unwrap();
        let good: usize = decoded.batches.iter().map(|batch| batch.rows.num_rows()).sum();
        assert_eq!(decoded.row_count as usize, good + decoded.rejects.len(), "{line:?}");
    }
}

#[test]
fn values_are_read_as_the_columns_type() {
    let decimal = FieldType::Decimal { precision: 6, scale: 2 };
    for (data_type, text, expected) in [
        (FieldType::Int32, "-7", "-7"),
        (FieldType::Int32, "2147483648", "invalid_value"),
        (FieldType::Int32, "1.0", "invalid_value"),
        (FieldType::Int64, " 1", "invalid_value"),
        (FieldType::Int64, "007", "invalid_value"),
        (FieldType::Float64, "1e3", "1000.0"),
        (FieldType::Float64, "NaN", "invalid_value"),
        (FieldType::Float64, "1e400", "invalid_value"),
        (decimal, "12.5", "12.50"),
        (decimal, "12.505", "invalid_value"),
        (decimal, "\"\"", "∅"),
        (FieldType::Boolean, "True", "true"),
        (FieldType::Boolean, "0", "false"),
        (FieldType::Boolean, "yes", "invalid_value"),
        (FieldType::TimestampMs, "1970-01-01T00:00:00.003Z", "1970-01-01T00:00:00.003Z"),
        (FieldType::TimestampMs, "3", "1970-01-01T00:00:00.003Z"),
        (FieldType::TimestampMs, "-3", "invalid_value"),
        (FieldType::TimestampMs, "1970-01-01", "invalid_value"),
        (FieldType::Uuid, "01234567-89AB-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"),
        (FieldType::Uuid, "1", "invalid_value"),
        (FieldType::Json, "\"{\"\"a\"\": [1]}\"", "{\"a\": [1]}"),
        (FieldType::Json, "null", "∅"),
        (FieldType::Json, "[1", "invalid_value"),
        (FieldType::Utf8, "\"\"", ""),
        (FieldType::Utf8, "NULL", "∅"),
        (FieldType::Utf8, "\"NULL\"", "NULL"),
        (FieldType::Int32, "NULL", "∅"),
        (FieldType::Utf8, " x ", " x "),
    ] {
        let dialect =
            CsvDialect { has_header: false, nulls: vec![String::new(), "NULL".to_owned()], ..CsvDialect::default() };
        let connector = csv(vec![field("v", data_type, false)], NewField::Ignore, dialect);
        assert_eq!(fate_of(&connector, text.as_bytes()), expected, "{data_type:?} {text}");
    }
    let required =
        csv(vec![field("v", FieldType::Utf8, true), field("w", FieldType::Utf8, false)], NewField::Ignore, {
            CsvDialect { has_header: false, ..CsvDialect::default() }
        });
    assert_eq!(fate_of(&required, b",x"), "missing_required");
    assert_eq!(fate_of(&required, b"\xff,x"), "invalid_utf8");
}

#[test]
fn nothing_is_quoted_where_the_dialect_has_no_quote() {
    let dialect = CsvDialect { has_header: false, delimiter: b'\t', quote: None, nulls: Vec::new() };
    let connector = csv(texts(&["a", "b"]), NewField::Ignore, dialect);
    assert_eq!(outcome(&connector, b"5\" pipe\t\"\n\t\n").0, ["5\" pipe|\"|0", "||1"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn tables_agree_with_the_csv_crate(
        table in prop::collection::vec(prop::array::uniform3("[ -~ü\n;|'\"\t,]{0,6}"), 1..12),
        delimiter in prop::sample::select(&b",;\t|"[..]),
        quote in prop::sample::select(&b"\"'"[..]),
        has_header in any::<bool>(),
        always in any::<bool>(),
        crlf in any::<bool>(),
    ) {
        let style = if always { ::csv::QuoteStyle::Always } else { ::csv::QuoteStyle::Necessary };
        let end = if crlf { ::csv::Terminator::CRLF } else { ::csv::Terminator::Any(b'\n') };
        let mut writer = ::csv::WriterBuilder::new()
            .delimiter(delimiter).quote(quote).quote_style(style).terminator(end).from_writer(Vec::new());
        if has_header {
            writer.write_record(["a", "b", "c"]).unwrap();
        }
        table.iter().for_each(|row| writer.write_record(row).unwrap());
        let object = writer.into_inner().unwrap();
        let mut reader =
            ::csv::ReaderBuilder::new().delimiter(delimiter).quote(quote).has_headers(has_header).from_reader(&object[..]);
        let expected: Vec<String> = reader
            .records()
            .enumerate()
            .map(|(row, record)| format!("{}|{row}", record.unwrap().iter().collect::<Vec<_>>().join("|")))
            .collect();
        let dialect = CsvDialect { has_header, delimiter, quote: Some(quote), nulls: Vec::new() };
        let (rows, rejects) = outcome(&csv(texts(&["a", "b", "c"]), NewField::Ignore, dialect), &object);
        prop_assert_eq!(rejects, Vec::<String>::new());
        prop_assert_eq!(rows, expected);
    }

    #[test]
    fn any_bytes_are_accounted_for_block_by_block_and_at_once(
        object in prop::collection::vec(prop::sample::select(&b"ab,\"\n\r\xff"[..]), 0..60),
        block_bytes in 1..40_usize,
    ) {
        let connector = two(false);
        let (rows, rejects) = outcome(&connector, &object);
        let mut decoder = ObjectDecoder::of_stream(&connector, &object[..], &LIMITS).unwrap().with_block_bytes(block_bytes);
        let mut decoded = Decoded::default();
        while let Some(block) = decoder.next_block().unwrap() {
            decoded.append(block);
        }
        prop_assert_eq!(super::rows(&decoded), rows);
        prop_assert_eq!(decoded.rejects.len(), rejects.len());
    }
}

#[test]
fn a_column_that_the_schema_lacks_is_added_as_text_and_a_field_that_does_not_fit_is_rescued() {
    let mut connector = csv(
        vec![field("a", FieldType::Utf8, false), field("n", FieldType::Int32, false)],
        NewField::Evolve,
        CsvDialect::default(),
    );
    Arc::make_mut(&mut connector).evolution.type_change = crate::config::TypeChange::Rescue;
    let (header, rows_before) = ("a,n,c,d\n", "x,1,,\n".repeat(40));
    let object = format!("{header}{rows_before}y,ten,007,\nz,3,\"\",\n");
    for block_bytes in [8, 100, 1 << 20] {
        let mut decoder =
            ObjectDecoder::of_stream(&connector, object.as_bytes(), &LIMITS).unwrap().with_block_bytes(block_bytes);
        let mut blocks = Vec::new();
        while let Some(block) = decoder.next_block().unwrap() {
            assert!(block.rejects.is_empty(), "{:?}", block.rejects);
            blocks.push(block);
        }
        // `d` holds but nulls, so it has no type
        let names: Vec<_> = decoder.connector().fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["a", "n", "c"]);
        let all: Vec<String> = blocks.iter().flat_map(rows).collect();
        assert_eq!(all.len(), 42);
        assert_eq!(all[40], "y|∅|007|{\"n\":\"ten\"}|40");
        assert_eq!(all[41], "z|3||∅|41");
    }
}
