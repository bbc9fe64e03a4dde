//! What each piece of staging costs alone, on one thread: `make bench-pieces`.
//!
//! Rows are those of `make bench-staging` (513 bytes, 1 % dirty, 0.5 % duplicates), 32 MiB of them, read by the project's
//! `transactions` connector. Throughput is that of the raw bytes, whatever the piece does with them.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sluice::config::{Connector, CsvDialect, Format, load_connectors};
use sluice::decode::{DecodeLimits, decode_object};
use sluice::stage;
use sluice::transform::{self, TransformPlan};
use sluice::types::{Decoded, MicroBatchId, Origin, OriginRows, TopicPartition};
use sluice_loadtest::bulk::BulkPlan;
use sluice_loadtest::{Compression, Dataset, FileFormat, generate_files};

const SIZE_BYTES: u64 = 32 << 20;
const LIMITS: DecodeLimits =
    DecodeLimits { record_bytes_max: 1 << 20, json_depth_max: 64, object_bytes_max: 1 << 30, unpacked_ratio_max: 500 };

fn object(format: FileFormat, compression: Compression) -> Bytes {
    let folder = std::env::temp_dir().join(format!("sluice-pieces-{}", std::process::id()));
    let plan = BulkPlan {
        dataset: Dataset::Transactions,
        format,
        compression,
        seed: 1,
        size_bytes: SIZE_BYTES,
        object_bytes: SIZE_BYTES,
        row_bytes: 513,
        dirty_share: 0.01,
        duplicate_share: 0.005,
        hours: 2,
        is_clean: false,
    };
    generate_files(&plan, &folder).expect("the temporary folder takes files");
    let files = std::fs::read_dir(&folder).expect("just written").map(|entry| entry.expect("readable").path());
    let of_rows = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name != "expected.json");
    let path = files.into_iter().find(of_rows).expect("one file of rows");
    let bytes = Bytes::from(std::fs::read(path).expect("just written"));
    std::fs::remove_dir_all(&folder).expect("ours");
    bytes
}

fn connector(format: Format) -> Arc<Connector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors");
    let connectors = load_connectors(&folder).unwrap_or_else(|errors| panic!("{errors}"));
    let mut connector = Arc::clone(connectors.by_name("transactions").expect("the project has it"));
    Arc::make_mut(&mut connector).source.format = format;
    connector
}

fn decoded(connector: &Arc<Connector>, object: &Bytes) -> Decoded {
    decode_object(connector, object, &LIMITS).expect("it can be read").0
}

fn pieces(criterion: &mut Criterion) {
    let json = object(FileFormat::Json, Compression::None);
    let raw = connector(Format::Json);
    let mut group = criterion.benchmark_group("pieces");
    group.throughput(Throughput::Bytes(json.len() as u64)).sample_size(20);
    group.bench_function("decode_json", |bench| bench.iter(|| black_box(decoded(&raw, &json))));
    let zstd = object(FileFormat::Json, Compression::Zstd);
    group.bench_function("decode_json_zstd", |bench| bench.iter(|| black_box(decoded(&raw, &zstd))));
    let (csv, of_csv) = (object(FileFormat::Csv, Compression::None), connector(Format::Csv(CsvDialect::default())));
    group.bench_function("decode_csv", |bench| bench.iter(|| black_box(decoded(&of_csv, &csv))));
    let (parquet, of_parquet) = (object(FileFormat::Parquet, Compression::None), connector(Format::Parquet));
    group.bench_function("decode_parquet", |bench| bench.iter(|| black_box(decoded(&of_parquet, &parquet))));

    let plan = TransformPlan::new(&raw).expect("the project's connector can be planned");
    let rows = decoded(&raw, &json);
    let apply = |rows| transform::apply(&plan, rows).expect("it is deterministic");
    group.bench_function("transform", |bench| {
        bench.iter_batched(|| rows.clone(), |rows| black_box(apply(rows)), BatchSize::LargeInput);
    });
    let time = DateTime::from_timestamp_millis(1_772_409_600_000).expect("in range");
    let origin = Origin { message_offset: 0, record: 0, time, order_hash: 0 };
    let origin_rows = || vec![OriginRows { origin: origin.clone(), batches: apply(rows.clone()).batches }];
    group.bench_function("dedupe", |bench| {
        let dedupe = |rows| transform::dedupe(&raw, rows).expect("its key has columns");
        bench.iter_batched(origin_rows, |rows| black_box(dedupe(rows)), BatchSize::LargeInput);
    });
    let (topic_partition, id) = (TopicPartition::new("raw", 0), MicroBatchId::generate());
    group.bench_function("encode", |bench| {
        let encode = |rows| stage::encode_owned(&raw, &topic_partition, id, rows).expect("every row has a time");
        bench.iter_batched(origin_rows, |rows| black_box(encode(rows)), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, pieces);
criterion_main!(benches);
