//! Parquet objects, written by arrow's own writer: what each row becomes, and that broken files end as faults.

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::Compression;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    ListBuilder, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field as ArrowField};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::*;
use crate::config::JsonPath;

fn parquet_connector(fields: Vec<Field>, new_field: NewField) -> Arc<Connector> {
    let mut connector = connector(fields, new_field);
    Arc::make_mut(&mut connector).source.format = Format::Parquet;
    connector
}

fn file(columns: Vec<(&str, ArrayRef)>, properties: WriterProperties) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    let batch = batch.unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn plain(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    file(columns, WriterProperties::default())
}

fn decoded(connector: &Arc<Connector>, file: &[u8]) -> Decoded {
    decode_object(connector, Bytes::copy_from_slice(file), &LIMITS).unwrap()
}

/// Of a column `v`: its values, or the reasons of rejects.
fn fates(data_type: FieldType, array: ArrayRef) -> Vec<String> {
    let connector = parquet_connector(vec![field("v", data_type, false)], NewField::Ignore);
    let decoded = decoded(&connector, &plain(vec![("v", array)]));
    let mut fates: Vec<(i64, String)> = decoded.rejects.iter().map(|r| (r.row, r.reason.as_str().to_owned())).collect();
    for row in rows(&decoded) {
        let (value, number) = row.rsplit_once('|').unwrap();
        fates.push((number.parse().unwrap(), value.to_owned()));
    }
    fates.sort();
    fates.into_iter().map(|(_, fate)| fate).collect()
}

#[test]
fn values_are_cast_where_they_fit_and_are_rejects_where_they_do_not() {
    let decimal = |precision, scale| FieldType::Decimal { precision, scale };
    let ints = || Arc::new(Int64Array::from(vec![Some(1), None, Some(1 << 40)])) as ArrayRef;
    assert_eq!(fates(FieldType::Int32, ints()), ["1", "∅", "invalid_value"]);
    assert_eq!(fates(FieldType::Int64, Arc::new(Int32Array::from(vec![-7]))), ["-7"]);
    assert_eq!(fates(decimal(12, 1), Arc::new(Int32Array::from(vec![-7]))), ["-7.0"]);
    assert_eq!(fates(FieldType::Utf8, ints())[0], "wrong_type");
    let money = Decimal128Array::from(vec![1_250, 1_255]).with_precision_and_scale(10, 2).unwrap();
    assert_eq!(fates(decimal(10, 1), Arc::new(money)), ["12.5", "invalid_value"]);
    let floats = Float64Array::from(vec![0.1, f64::NAN, 1e300, -0.0]);
    assert_eq!(fates(FieldType::Float64, Arc::new(floats)), ["0.1", "wrong_type", "1e300", "-0.0"]);
    assert_eq!(fates(FieldType::Boolean, Arc::new(BooleanArray::from(vec![true, false]))), ["true", "false"]);
    let micros = TimestampMicrosecondArray::from(vec![1_767_225_600_123_456, -1, i64::MAX]);
    assert_eq!(
        fates(FieldType::TimestampMs, Arc::new(micros)),
        ["2026-01-01T00:00:00.123Z", "invalid_value", "invalid_value"]
    );
    assert_eq!(fates(FieldType::TimestampMs, Arc::new(Date32Array::from(vec![20_454]))), ["2026-01-01T00:00:00Z"]);
    let binary = || Arc::new(BinaryArray::from(vec![&b"a\"\n"[..], b"\xff"])) as ArrayRef;
    assert_eq!(fates(FieldType::Utf8, binary()), ["a\"\n", "invalid_utf8"]);
    assert_eq!(fates(FieldType::Json, binary()), ["\"a\\\"\\n\"", "\"\\\\xff\""]);
}

#[test]
fn a_path_leads_into_structs_and_lists_and_to_columns_of_other_names() {
    let at =
        |name, data_type, path| Field { path: Some(JsonPath::parse(path).unwrap()), ..field(name, data_type, false) };
    let connector = parquet_connector(
        vec![
            at("user_id", FieldType::Int64, "$.user.id"),
            at("first", FieldType::Utf8, "$.tags[0]"),
            at("seen_at", FieldType::TimestampMs, "$.seenAt"),
        ],
        NewField::Ignore,
    );
    let id = Arc::new(Int64Array::from(vec![Some(7), None, Some(9)])) as ArrayRef;
    let id_field = Arc::new(ArrowField::new("id", DataType::Int64, true));
    let user = StructArray::new(vec![id_field].into(), vec![id], Some(vec![true, true, false].into()));
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("a"), Some("b")]);
    tags.append_value([None::<&str>; 0]);
    tags.append_null();
    let seen = TimestampMillisecondArray::from(vec![Some(1_760_000_000_123), None, Some(0)]);
    let file = plain(vec![
        ("user", Arc::new(user)),
        ("tags", Arc::new(tags.finish())),
        ("seenAt", Arc::new(seen)),
        ("seen_at", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ]);
    assert_eq!(
        rows(&decoded(&connector, &file)),
        ["7|a|2025-10-09T08:53:20.123Z|0", "∅|∅|∅|1", "∅|∅|1970-01-01T00:00:00Z|2"]
    );
}

#[test]
fn a_reject_is_the_row_as_json_and_its_correction_is_decoded() {
    let connector = parquet_connector(
        vec![field("id", FieldType::Int32, true), field("name", FieldType::Utf8, false)],
        NewField::Rescue,
    );
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1 << 33)]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
    let extra: ArrayRef = Arc::new(Int32Array::from(vec![7, 8, 9]));
    let decoded = decoded(&connector, &plain(vec![("extra", extra), ("name", names), ("id", ids)]));
    assert_eq!(rows(&decoded), ["1|a|{\"extra\":7}|0"]);
    let rejects: Vec<_> = decoded.rejects.iter().map(|r| (r.row, r.reason.as_str(), r.bytes.as_ref())).collect();
    assert_eq!(
        rejects,
        [
            (1, "missing_required", &br#"{"extra":8,"name":"b","id":null}"#[..]),
            (2, "invalid_value", br#"{"extra":9,"name":null,"id":8589934592}"#),
        ]
    );
    assert_eq!(decoded.batches[0].row_bytes(0), &br#"{"extra":7,"name":"a","id":1}"#[..]);
    let corrected = decode_record(&connector, Bytes::from_static(br#"{"extra":8,"name":"b","id":2}"#), &LIMITS);
    assert_eq!(rows(&corrected), ["2|b|{\"extra\":8}|0"]);
}

#[test]
fn a_new_column_is_added_by_its_parquet_type_and_a_replay_makes_the_same_rows() {
    let declared = parquet_connector(vec![field("id", FieldType::Int32, true)], NewField::Evolve);
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(1_767_225_600_000_000), None]));
    let count: ArrayRef = Arc::new(Int64Array::from(vec![5, 6]));
    let file = Bytes::from(plain(vec![("id", ids), ("seen_at", at), ("count", count)]));
    let (decoded, grown) = super::super::decode_object(&declared, &file, &LIMITS).unwrap();
    assert_eq!(grown.field("seen_at").unwrap().data_type, FieldType::TimestampMs);
    assert_eq!(grown.field("count").unwrap().data_type, FieldType::Int64);
    assert_eq!(rows(&decoded).len(), 2);
    assert_eq!(decoded.rejects.len(), 0);
    let again = decode_object(&grown, file, &LIMITS).unwrap();
    assert_eq!(rows(&again), rows(&decoded));
}

/// Rows, or the reason of the fault.
fn outcome(connector: &Arc<Connector>, file: Vec<u8>) -> String {
    match decode_object(connector, Bytes::from(file), &LIMITS) {
        Ok(decoded) => {
            let good: usize = decoded.batches.iter().map(|batch| batch.rows.num_rows()).sum();
            assert_eq!(decoded.row_count as usize, good + decoded.rejects.len());
            format!("{good} of {}", decoded.row_count)
        }
        Err(fault) => fault.reason().as_str().to_owned(),
    }
}

fn sample(compression: Compression) -> Vec<u8> {
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..500));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..500).map(|n| format!("name {}", n % 17))));
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(120))
        .set_data_page_row_count_limit(50)
        .set_write_batch_size(25);
    file(vec![("id", ids), ("name", names)], properties.build())
}

fn sample_connector() -> Arc<Connector> {
    parquet_connector(vec![field("id", FieldType::Int32, true), field("name", FieldType::Utf8, true)], NewField::Ignore)
}

#[test]
fn a_broken_file_is_a_fault_of_the_object() {
    let (connector, sound) = (sample_connector(), sample(Compression::SNAPPY));
    assert_eq!(outcome(&connector, sound.clone()), "500 of 500");
    assert_eq!(outcome(&connector, zstd::encode_all(&sound[..], 1).unwrap()), "500 of 500");
    let with = |at: usize, bytes: &[u8]| {
        let mut file = sound.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let len = sound.len();
    for (what, file) in [
        ("empty", Vec::new()),
        ("JSON", b"{\"id\":1}\n".to_vec()),
        ("magic alone", b"PAR1PAR1".to_vec()),
        ("wrong magic", with(0, b"PARX")),
        ("encrypted footer", with(len - 4, b"PARE")),
        ("cut", sound[..len - 1].to_vec()),
        ("head cut", sound[1..].to_vec()),
        ("footer beyond the file", with(len - 8, &(len as u32).to_le_bytes())),
        ("footer of nothing", with(len - 8, &0_u32.to_le_bytes())),
    ] {
        assert_eq!(outcome(&connector, file), "malformed_parquet", "{what}");
    }
    assert_eq!(outcome(&connector, with(len - 8, &u32::MAX.to_le_bytes())), "object_too_large");
}

#[test]
fn a_list_that_claims_more_than_the_footer_holds_is_refused_before_it_is_read() {
    // version, then a schema of 2^31 elements; its fields are numbered from the last one's number
    let footer = [0x15, 0x02, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
    let file = [b"PAR1", &footer[..], &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat();
    assert_eq!(outcome(&sample_connector(), file), "malformed_parquet");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever byte is broken: an outcome, with every row of it accounted for.
    #[test]
    fn corruption_ends_as_rows_or_as_a_fault(
        zstd in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let compression = if zstd { Compression::ZSTD(::parquet::basic::ZstdLevel::default()) } else { Compression::UNCOMPRESSED };
        let mut file = sample(compression);
        for (at, byte) in flips {
            let at = at.index(file.len());
            file[at] = byte;
        }
        outcome(&sample_connector(), file);
    }

    /// Whatever the values, nulls, row groups and pages: the rows that were written.
    #[test]
    fn rows_are_the_ones_that_were_written(
        values in prop::collection::vec((any::<Option<i32>>(), prop::option::of("\\PC{0,12}")), 1..200),
        group in 1_usize..80,
        dictionary in any::<bool>(),
    ) {
        let ids: ArrayRef = Arc::new(values.iter().map(|(id, _)| *id).collect::<Int32Array>());
        let names: ArrayRef = Arc::new(values.iter().map(|(_, name)| name.as_deref()).collect::<StringArray>());
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(group))
            .set_dictionary_enabled(dictionary)
            .set_data_page_row_count_limit(7)
            .set_write_batch_size(3)
            .build();
        let written = file(vec![("name", names.clone()), ("id", ids.clone())], properties);
        let fields = vec![field("id", FieldType::Int32, false), field("name", FieldType::Utf8, false)];
        let connector = parquet_connector(fields, NewField::Reject);
        let mut decoder =
            ObjectDecoder::of_stream(&connector, std::io::Cursor::new(written), &LIMITS).unwrap().with_block_bytes(100);
        let mut read = Decoded::default();
        while let Some(block) = decoder.next_block().unwrap() {
            read.append(block);
        }
        let batches: Vec<_> = read.batches.iter().map(|batch| batch.rows.clone()).collect();
        let read = arrow::compute::concat_batches(&connector.decoded_schema(), &batches).unwrap();
        prop_assert_eq!(read.column(0), &ids);
        prop_assert_eq!(read.column(1), &names);
    }
}
