//! What is written can be read back: the same rows, in order, in the right places.

use std::collections::BTreeMap;
use std::io::Cursor;

use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::ParquetMetaData;
use proptest::prelude::*;

use super::*;
use crate::config::{Field, FieldType, NewField, PartitionBy, Staging};
use crate::types::{DeadLetter, ObjectLocation, Origin, RejectReason, TablePartition};

fn field(name: &str, data_type: FieldType, required: bool) -> Field {
    Field { name: name.to_owned(), data_type, required, formats: Vec::new(), header: None, path: None }
}

fn connector(by: Vec<PartitionBy>, new_field: NewField) -> Connector {
    let fields = vec![
        field("id", FieldType::Utf8, false),
        field("source", FieldType::Utf8, false),
        field("amount", FieldType::Decimal { precision: 12, scale: 2 }, false),
        field("at", FieldType::TimestampMs, true),
    ];
    let mut connector = Connector::of_objects("orders", fields, "at");
    (connector.revision, connector.schema_revision) = ("rev".to_owned(), "schema-rev".to_owned());
    connector.evolution.new_field = new_field;
    connector.staging =
        Staging { dataset: "orders-lake".to_owned(), type_name: "order".to_owned(), by, ..connector.staging };
    connector
}

fn hourly() -> Connector {
    connector(vec![column("source"), PartitionBy::Date, PartitionBy::Hour], NewField::Ignore)
}

fn column(name: &str) -> PartitionBy {
    PartitionBy::Column(name.to_owned())
}

fn origin_rows(connector: &Connector, offset: i64, record: i32, batches: &[&[String]]) -> OriginRows {
    let batches = batches.iter().map(|lines| {
        let mut reader =
            ReaderBuilder::new(connector.decoded_schema()).build(Cursor::new(lines.join("\n").into_bytes())).unwrap();
        reader.next().unwrap().unwrap()
    });
    let origin = Origin { message_offset: offset, record, time: DateTime::<Utc>::UNIX_EPOCH, order_hash: 0 };
    OriginRows { origin, batches: batches.collect() }
}

fn line(row: i64, source: &str, at: &str) -> String {
    let source = serde_json::Value::from(source);
    format!(r#"{{"id":"id-{row}","source":{source},"amount":{row}.25,"at":"{at}","_row":{row}}}"#)
}

fn topic_partition() -> TopicPartition {
    TopicPartition::new("raw-notifications", 3)
}

fn staged(connector: &Connector, rows: &[OriginRows]) -> (MicroBatchId, Vec<StagedFile>) {
    let id = MicroBatchId::generate();
    let files = encode(connector, &topic_partition(), id, rows).unwrap();
    let ids: std::collections::HashSet<_> = files.iter().map(|file| file.file_id).collect();
    assert_eq!(ids.len(), files.len());
    (id, files)
}

fn batches(file: &StagedFile) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64, file.row_count);
    batches
}

fn metadata(file: &StagedFile) -> std::sync::Arc<ParquetMetaData> {
    ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone()).unwrap().metadata().clone()
}

fn lines(file: &StagedFile) -> Vec<String> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write_batches(&batches(file).iter().collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap().lines().map(str::to_owned).collect()
}

fn paths(files: &[StagedFile]) -> Vec<&str> {
    files.iter().map(|file| file.table_partition.0.as_str()).collect()
}

#[test]
fn rows_go_to_their_partition_with_their_lineage() {
    let connector = hourly();
    let first = [line(0, "web", "2026-11-23T10:59:59.999Z"), line(1, "app", "2026-11-23T11:00:00Z")];
    let second = [line(0, "web", "2026-11-23T10:00:00Z")];
    // out of order, as concurrent reads may end
    let rows = [origin_rows(&connector, 8, 1, &[&second]), origin_rows(&connector, 7, 0, &[&first])];
    let (id, files) = staged(&connector, &rows);
    assert_eq!(
        paths(&files),
        ["type=order/source=app/date=2026-11-23/hour=11", "type=order/source=web/date=2026-11-23/hour=10",]
    );
    let lineage = |offset, record, row| {
        format!(
            r#""_topic_partition":"raw-notifications/3","_offset":{offset},"_record":{record},"_row":{row},"_origin_time":"1970-01-01T00:00:00Z","_batch":"{id}"}}"#
        )
    };
    assert_eq!(
        lines(&files[1]),
        [
            format!(
                r#"{{"id":"id-0","source":"web","amount":0.25,"at":"2026-11-23T10:59:59.999Z",{}"#,
                lineage(7, 0, 0)
            ),
            format!(r#"{{"id":"id-0","source":"web","amount":0.25,"at":"2026-11-23T10:00:00Z",{}"#, lineage(8, 1, 0)),
        ]
    );
    assert_eq!(batches(&files[1])[0].schema().fields(), connector.lake_schema().fields());
    let time = |text: &str| Some(text.parse::<DateTime<Utc>>().unwrap());
    assert_eq!(files[1].event_time_min, time("2026-11-23T10:00:00Z"));
    assert_eq!(files[1].event_time_max, time("2026-11-23T10:59:59.999Z"));
    let file = &files[0];
    assert_eq!(
        (file.kind, &*file.dataset, &*file.connector, &*file.connector_revision, &*file.schema_revision),
        (FileKind::Data, "orders-lake", "orders", "rev", "schema-rev")
    );
}

#[test]
fn keys_name_the_file_once_and_for_all() {
    let connector = hourly();
    let rows = [origin_rows(&connector, 7, 0, &[&[line(0, "a/b=ü", "2026-11-23T00:00:00Z")]])];
    let (id, files) = staged(&connector, &rows);
    let file_id = files[0].file_id;
    assert_eq!(pending_key(id, file_id), format!("_pending/{id}/{file_id}.parquet"));
    assert_eq!(
        published_key(id, &files[0]),
        format!("data/orders-lake/type=order/source=a%2Fb%3Dü/date=2026-11-23/hour=00/{id}-{file_id}.parquet")
    );
}

#[test]
fn levels_are_those_of_the_connector() {
    let at = "2199-12-31T23:59:59.999Z";
    for (by, path) in [
        (vec![], "type=order"),
        (vec![PartitionBy::Date], "type=order/date=2199-12-31"),
        (vec![PartitionBy::Hour, PartitionBy::Date], "type=order/hour=23/date=2199-12-31"),
        (vec![PartitionBy::Date, column("source"), column("id")], "type=order/date=2199-12-31/source=web/id=id-4"),
    ] {
        let connector = connector(by, NewField::Ignore);
        let (_, files) = staged(&connector, &[origin_rows(&connector, 7, 0, &[&[line(4, "web", at)]])]);
        assert_eq!(paths(&files), [path]);
    }
}

#[test]
fn null_and_empty_share_the_default_partition() {
    let connector = connector(vec![column("source")], NewField::Rescue);
    let rows = [
        line(0, "", "2026-11-23T00:00:00Z"),
        r#"{"at":"2026-11-23T00:00:00Z","_row":1,"_rescued":"{\"x\":1}"}"#.to_owned(),
        line(2, "", "2026-11-23T00:00:00Z"),
    ];
    let (_, files) = staged(&connector, &[origin_rows(&connector, 7, 0, &[&rows])]);
    assert_eq!(paths(&files), ["type=order/source=__HIVE_DEFAULT_PARTITION__"]);
    assert_eq!(files[0].row_count, 3);
    assert!(
        lines(&files[0])[1].starts_with(r#"{"at":"2026-11-23T00:00:00Z","_rescued":"{\"x\":1}","_topic_partition""#)
    );
    assert_eq!(batches(&files[0])[0].schema().fields(), connector.lake_schema().fields());
}

#[test]
fn no_rows_make_no_files() {
    let connector = hourly();
    assert!(staged(&connector, &[]).1.is_empty());
    assert!(staged(&connector, &[origin_rows(&connector, 7, 0, &[])]).1.is_empty());
}

#[test]
fn files_are_rolled_at_their_target_size() {
    let mut connector = connector(vec![PartitionBy::Date], NewField::Ignore);
    connector.staging.file_size_bytes_target = 1;
    let rows: Vec<String> = (0..20_000).map(|row| line(row, "web", "2026-11-23T00:00:00Z")).collect();
    let (_, files) = staged(&connector, &[origin_rows(&connector, 7, 0, &rows.chunks(700).collect::<Vec<_>>())]);
    assert_eq!(files.iter().map(|file| file.row_count).collect::<Vec<_>>(), [8192, 8192, 3616]);
    let read: Vec<String> = files.iter().flat_map(lines).collect();
    assert!(read.iter().zip(0..).all(|(line, row)| line.starts_with(&format!("{{\"id\":\"id-{row}\""))));
    connector.staging.file_size_bytes_target = 1 << 27;
    assert_eq!(staged(&connector, &[origin_rows(&connector, 7, 0, &[&rows[..]])]).1.len(), 1);
}

#[test]
fn the_files_say_how_and_by_whom_they_were_written() {
    let connector = hourly();
    let rows: Vec<String> = (0..100).map(|row| line(row, "web", "2026-11-23T00:00:00Z")).collect();
    let (_, files) = staged(&connector, &[origin_rows(&connector, 7, 0, &[&rows])]);
    let metadata = metadata(&files[0]);
    let about = metadata.file_metadata();
    assert!(about.created_by().unwrap().starts_with("sluice version "));
    let pairs: BTreeMap<_, _> =
        about.key_value_metadata().unwrap().iter().map(|pair| (pair.key.as_str(), pair.value.as_deref())).collect();
    assert_eq!(pairs["sluice.connector"], Some("orders"));
    assert_eq!(pairs["sluice.connector_revision"], Some("rev"));
    assert_eq!(pairs["sluice.schema_revision"], Some("schema-rev"));
    for column in metadata.row_group(0).columns() {
        assert!(column.statistics().is_some(), "{}", column.column_path());
        let name = column.column_path().string();
        let has = |wanted| column.encodings().any(|encoding| encoding == wanted);
        let is_number = matches!(name.as_str(), "amount" | "at" | "_offset" | "_record" | "_row" | "_origin_time");
        assert_eq!(has(Encoding::DELTA_BINARY_PACKED), is_number, "{name}");
        // what never repeats has no dictionary, and is all that compression is worth its while for
        assert_eq!(has(Encoding::RLE_DICTIONARY), !is_number && name != "id", "{name}");
        assert_eq!(matches!(column.compression(), Compression::ZSTD(_)), name == "id", "{name}");
    }
}

#[test]
fn rows_are_sorted_within_a_file_and_rows_alike_stay_in_the_order_of_their_lineage() {
    let mut connector = connector(vec![PartitionBy::Date], NewField::Ignore);
    connector.staging.sort_by = vec!["source".to_owned(), "amount".to_owned()];
    let sources = ["web", "app", "pos"];
    let lines_of = |seed: i64| -> Vec<String> {
        (0..9000)
            .map(|row| match (row * 7 + seed) % 11 {
                0 => format!(r#"{{"id":"n","at":"2026-11-23T00:00:00Z","_row":{row}}}"#),
                value => line(row, sources[value as usize % 3], "2026-11-23T00:00:00Z").replace(".25", ".50"),
            })
            .collect()
    };
    let (first, second) = (lines_of(1), lines_of(2));
    let origin = |offset, lines: &[String]| origin_rows(&connector, offset, 0, &lines.chunks(700).collect::<Vec<_>>());
    let (_, files) = staged(&connector, &[origin(8, &second), origin(7, &first)]);
    assert_eq!(files.len(), 1);
    let key = |line: &String| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let amount = row["amount"].as_f64().map(|amount| (amount * 100.0) as i64);
        (row["source"].as_str().map(str::to_owned), amount, row["_offset"].as_i64(), row["_row"].as_i64())
    };
    let keys: Vec<_> = lines(&files[0]).iter().map(key).collect();
    assert_eq!(keys.len(), 18_000);
    assert!(keys.is_sorted());
    let sorting = metadata(&files[0]).row_group(0).sorting_columns().unwrap().clone();
    let sorting: Vec<_> =
        sorting.iter().map(|column| (column.column_idx, column.descending, column.nulls_first)).collect();
    assert_eq!(sorting, [(1, false, true), (2, false, true)]);
}

#[test]
fn a_file_has_the_indexes_that_its_connector_wants() {
    let mut connector = hourly();
    let rows: Vec<String> = (0..100).map(|row| line(row, "web", "2026-11-23T00:00:00Z")).collect();
    let rows = [origin_rows(&connector, 7, 0, &[&rows])];
    let about = |connector: &Connector| {
        let (_, files) = staged(connector, &rows);
        let policy = parquet::file::metadata::PageIndexPolicy::Optional;
        let metadata = parquet::file::metadata::ParquetMetaDataReader::new()
            .with_page_index_policy(policy)
            .parse_and_finish(&files[0].bytes)
            .unwrap();
        let group = metadata.row_group(0);
        let blooms: Vec<String> = (group.columns().iter())
            .filter(|column| column.bloom_filter_offset().is_some())
            .map(|column| column.column_path().string())
            .collect();
        assert!(group.columns().iter().all(|column| column.statistics().is_some()));
        (blooms, metadata.column_index().is_some(), metadata.offset_index().is_some())
    };
    assert_eq!(about(&connector), (vec![], true, true));
    connector.staging.page_index = false;
    connector.staging.bloom_filter = vec!["id".to_owned()];
    assert_eq!(about(&connector), (vec!["id".to_owned()], false, false));
    let (_, files) = staged(&connector, &rows);
    let reader = ParquetRecordBatchReaderBuilder::try_new(files[0].bytes.clone()).unwrap();
    let filter = reader.get_row_group_column_bloom_filter(0, 0).unwrap().unwrap();
    assert!((0..100).all(|row| filter.check(&format!("id-{row}").as_str())));
    let found = (100..1100).filter(|row| filter.check(&format!("id-{row}").as_str())).count();
    assert!(found < 200, "{found}");
}

#[test]
fn what_is_left_of_a_file_is_laid_out_as_the_file_was() {
    let mut connector = hourly();
    let rows: Vec<String> = (0..100).map(|row| line(row, "web", "2026-11-23T00:00:00Z")).collect();
    for (sort_by, bloom_filter, page_index) in [(&["source", "id"][..], &["id"][..], false), (&[], &[], true)] {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        connector.staging.sort_by = names(sort_by);
        connector.staging.bloom_filter = names(bloom_filter);
        connector.staging.page_index = page_index;
        let (_, files) = staged(&connector, &[origin_rows(&connector, 7, 0, &[&rows])]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(files[0].bytes.clone()).unwrap();
        let layout = FileLayout::of_file(reader.metadata());
        assert_eq!(layout, FileLayout::of(&connector.staging));
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap().slice(10, 80)).collect();
        let again = encode_again("orders", "1", "1", &layout, &batches).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(again).unwrap();
        assert_eq!(FileLayout::of_file(reader.metadata()), layout);
        let left: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(left, batches);
    }
}

#[test]
fn an_unknown_column_is_the_connectors_fault() {
    let connector = connector(vec![column("nowhere")], NewField::Ignore);
    let error = encode(&connector, &topic_partition(), MicroBatchId::generate(), &[]).unwrap_err();
    assert_eq!(error.to_string(), "connector `orders` has no column `nowhere` to stage by");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

fn letter(connector: &str, offset: i64, bytes: &'static [u8]) -> DeadLetter {
    DeadLetter {
        connector: connector.to_owned(),
        reason: RejectReason::InvalidUtf8,
        detail: "no UTF-8 at byte 2".to_owned(),
        message_offset: offset,
        record: Some(1),
        row: Some(5),
        byte_offset: Some(42),
        object: Some(ObjectLocation { bucket: "raw".to_owned(), key: "a b.json".to_owned() }),
        object_version: Some("v1".to_owned()),
        bytes: Bytes::from_static(bytes),
    }
}

#[test]
fn dead_letters_keep_every_byte() {
    let day = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let unparsed = DeadLetter {
        reason: RejectReason::MalformedNotification,
        record: None,
        row: None,
        byte_offset: None,
        object: None,
        object_version: None,
        ..letter("", 3, b"")
    };
    let letters = [
        (letter("orders", 1, b"{\"\xff\x00\"}\r\n"), day("2026-11-23T23:59:59Z")),
        (unparsed, day("2026-11-23T00:00:00Z")),
        (letter("orders", 2, b"second"), day("2026-11-24T00:00:00Z")),
        (letter("orders", 4, b"third"), day("2026-11-23T12:00:00Z")),
    ];
    let id = MicroBatchId::generate();
    let revision_of = |name: &str| (format!("{name}-r"), format!("{name}-s"));
    let files = encode_dead_letters(&topic_partition(), id, &letters, revision_of).unwrap();
    let keys: Vec<String> =
        files.iter().map(|file| published_key(id, file).replace(&file.file_id.to_string(), "F")).collect();
    assert_eq!(
        keys,
        [
            format!("dead-letters/_unparsed/date=2026-11-23/{id}-F.parquet"),
            format!("dead-letters/orders/date=2026-11-23/{id}-F.parquet"),
            format!("dead-letters/orders/date=2026-11-24/{id}-F.parquet"),
        ]
    );
    assert_eq!(
        (files[1].kind, &*files[1].connector_revision, &*files[1].schema_revision),
        (FileKind::DeadLetter, "orders-r", "orders-s")
    );
    let batch = &batches(&files[1])[0];
    let bytes = batch.column_by_name("bytes").unwrap().as_binary::<i32>();
    assert_eq!(bytes.iter().flatten().collect::<Vec<_>>(), [&b"{\"\xff\x00\"}\r\n"[..], b"third"]);
    let about = |offset: i64| {
        format!(
            r#"{{"connector":"orders","reason":"invalid_utf8","detail":"no UTF-8 at byte 2","bucket":"raw","key":"a b.json","version":"v1","byte_offset":42,"bytes":"7468697264","_topic_partition":"raw-notifications/3","_offset":{offset},"_record":1,"_row":5,"_batch":"{id}"}}"#
        )
    };
    assert_eq!(lines(&files[1])[1], about(4));
    assert_eq!(
        lines(&files[0]),
        [format!(
            r#"{{"connector":"","reason":"malformed_notification","detail":"no UTF-8 at byte 2","bytes":"","_topic_partition":"raw-notifications/3","_offset":3,"_batch":"{id}"}}"#
        )]
    );
    assert!(encode_dead_letters(&topic_partition(), id, &[], revision_of).unwrap().is_empty());
}

proptest! {
    /// Every row comes out once, in the partition of its source and hour, in the order of its lineage.
    #[test]
    fn every_row_is_in_exactly_one_file(
        origins in prop::collection::vec((0..40_i64, prop::collection::vec((0..4_u8, 0..180_i64), 1..30), 1..9_usize), 1..8),
    ) {
        let connector = hourly();
        let mut expected: BTreeMap<TablePartition, Vec<(i64, i32, i64)>> = BTreeMap::new();
        let mut rows = Vec::new();
        for (record, (offset, values, size)) in origins.iter().enumerate() {
            let record = record as i32;
            let lines: Vec<String> = values.iter().enumerate().map(|(row, (source, minute))| {
                let at = DateTime::<Utc>::from_timestamp(1_795_392_000 + minute * 60, 0).unwrap();
                let path = format!("type=order/source=s{source}/date=2026-11-23/hour={:02}", minute / 60);
                expected.entry(TablePartition(path)).or_default().push((*offset, record, row as i64));
                line(row as i64, &format!("s{source}"), &at.to_rfc3339())
            }).collect();
            rows.push(origin_rows(&connector, *offset, record, &lines.chunks(*size).collect::<Vec<_>>()));
        }
        expected.values_mut().for_each(|rows| rows.sort_unstable());
        let mut found: BTreeMap<TablePartition, Vec<(i64, i32, i64)>> = BTreeMap::new();
        for file in &staged(&connector, &rows).1 {
            for line in lines(file) {
                let row: serde_json::Value = serde_json::from_str(&line).unwrap();
                let number = |name: &str| row[name].as_i64().unwrap();
                prop_assert_eq!(row["id"].as_str().unwrap(), format!("id-{}", number("_row")));
                let lineage = (number("_offset"), number("_record") as i32, number("_row"));
                found.entry(file.table_partition.clone()).or_default().push(lineage);
            }
        }
        prop_assert_eq!(found, expected);
    }
}
