//! Puts seeded objects into S3, or records onto a topic, and keeps the ledger.

use std::fmt;
use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::primitives::ByteStream;
use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::Endpoints;
use crate::announce::{self, AnnouncedObject, Envelope};
use crate::formats::FileFormat;
use crate::generate::{Compression, Dataset, Fate, Generator, Mix};
use crate::ledger::{self, Entry};

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Objects; the topic on which the store announces them.
    S3 { announced_on: String },
    /// Direct records of the dataset `direct-events`.
    Topic(String),
}

#[derive(Debug, Clone)]
pub struct ProducePlan {
    pub seed: u64,
    pub rows: u64,
    pub rows_per_object: usize,
    /// Cycled; facts usually stand more often than dimensions.
    pub datasets: Vec<Dataset>,
    pub dirty_share: f64,
    pub duplicate_share: f64,
    pub late_share: f64,
    /// Cycled.
    pub compressions: Vec<Compression>,
    /// Cycled, each for one round of the datasets. Objects in CSV or Parquet are read by connectors of their own
    /// ([`FileFormat::connector`]); records are JSON.
    pub formats: Vec<FileFormat>,
    pub bucket: String,
    /// Behind the dataset's own prefix; tells runs apart.
    pub key_prefix: String,
    pub rows_per_s: Option<NonZeroU32>,
    pub target: Target,
    /// PUTs or sends at once.
    pub concurrency: usize,
    /// Keys with spaces, `+`, `%` and umlauts.
    pub awkward_keys: bool,
    /// Connectors whose SQL fails on rows that an expectation refuses otherwise: their dead letters say so.
    pub sql_of: Vec<Dataset>,
    /// Announces every object a second time.
    pub announce_twice: bool,
    /// How long the store has to announce what was put.
    pub announce_wait: Duration,
    pub base_time: DateTime<Utc>,
    /// How far back from there rows reach.
    pub hours: u32,
    pub show_progress: bool,
}

impl Default for ProducePlan {
    fn default() -> Self {
        Self {
            seed: 1,
            rows: 10_000,
            rows_per_object: 500,
            datasets: vec![
                Dataset::Users,
                Dataset::Transactions,
                Dataset::Events,
                Dataset::Products,
                Dataset::Transactions,
                Dataset::Events,
            ],
            dirty_share: 0.01,
            duplicate_share: 0.01,
            late_share: 0.01,
            compressions: vec![Compression::None, Compression::Gzip, Compression::Zstd],
            formats: vec![FileFormat::Json],
            bucket: "raw".into(),
            key_prefix: "run".into(),
            rows_per_s: None,
            target: Target::S3 { announced_on: "raw-notifications".into() },
            concurrency: 8,
            awkward_keys: false,
            sql_of: Vec::new(),
            announce_twice: false,
            announce_wait: Duration::from_secs(10),
            base_time: Utc::now(),
            hours: 48,
            show_progress: false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct ProduceReport {
    pub objects: usize,
    pub rows: u64,
    /// As written, before compression.
    pub row_bytes: u64,
    pub stored_bytes: u64,
    pub elapsed: Duration,
    pub latency_ms_p50: f64,
    pub latency_ms_p99: f64,
    /// Objects that the store did not announce by itself.
    pub announced_again: usize,
    pub announced: Vec<AnnouncedObject>,
}

impl fmt::Display for ProduceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let megabytes = self.row_bytes as f64 / 1e6;
        writeln!(
            f,
            "produced {} rows in {} objects or sends: {megabytes:.1} MB, {:.1} MB stored",
            self.rows,
            self.objects,
            self.stored_bytes as f64 / 1e6
        )?;
        writeln!(
            f,
            "rate     {:.0} rows/s, {:.1} MB/s over {seconds:.1} s",
            self.rows as f64 / seconds,
            megabytes / seconds
        )?;
        writeln!(f, "latency  p50 {:.1} ms, p99 {:.1} ms", self.latency_ms_p50, self.latency_ms_p99)?;
        write!(f, "announced again after the store lost it: {}", self.announced_again)
    }
}

/// A piece of work, and what must become of its rows.
struct Piece {
    content: Content,
    entry: Entry,
}

enum Content {
    Records {
        topic: String,
        lines: Vec<Vec<u8>>,
    },
    /// The body is still to be compressed.
    Object {
        key: String,
        body: Vec<u8>,
        compression: Compression,
    },
}

struct Producer<'a> {
    endpoints: &'a Endpoints,
    plan: &'a ProducePlan,
    s3: aws_sdk_s3::Client,
    kafka: FutureProducer,
    rate: Option<DefaultDirectRateLimiter>,
    latency: Mutex<Histogram<u64>>,
    progress: Progress,
}

/// Produces what the plan says. The ledger is written last: without it nothing can be verified, with
/// it everything that it names was acknowledged by the store.
pub async fn produce(endpoints: &Endpoints, plan: &ProducePlan, ledger_folder: &Path) -> Result<ProduceReport> {
    ensure!(plan.rows_per_object > 0 && plan.rows > 0, "rows and rows per object must be at least 1");
    ensure!(
        !plan.datasets.is_empty() && !plan.compressions.is_empty() && !plan.formats.is_empty(),
        "give at least one dataset, format and compression"
    );
    let topic_end = match &plan.target {
        Target::S3 { announced_on } => Some(announce::topic_end(endpoints, announced_on).await?),
        Target::Topic(_) => None,
    };
    let producer = Producer {
        endpoints,
        plan,
        s3: endpoints.raw.client(),
        kafka: endpoints.kafka().create().context("could not create a Kafka producer")?,
        rate: plan.rows_per_s.map(|rows| RateLimiter::direct(Quota::per_second(rows))),
        latency: Mutex::new(
            Histogram::new_with_bounds(1, 600_000_000, 3).context("from a microsecond to ten minutes")?,
        ),
        progress: Progress::new(plan),
    };
    let started = Instant::now();
    let done: Vec<(Entry, u64, u64, Option<AnnouncedObject>)> = stream::iter(pieces(plan))
        .map(|piece| async { producer.put(piece?).await })
        .buffer_unordered(plan.concurrency.max(1))
        .try_collect()
        .await?;
    let elapsed = started.elapsed();
    producer.progress.finish();
    let announced: Vec<AnnouncedObject> = done.iter().filter_map(|(.., object)| object.clone()).collect();
    let announced_again = match (&plan.target, topic_end) {
        (Target::S3 { announced_on }, Some(end)) => producer.announce_the_rest(announced_on, end, &announced).await?,
        _ => 0,
    };
    let entries: Vec<Entry> = done.iter().map(|(entry, ..)| entry.clone()).collect();
    ledger::write(ledger_folder, &format!("{}-{}", plan.key_prefix.replace('/', "-"), plan.seed), &entries)?;
    let latency = producer.latency.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(ProduceReport {
        objects: done.len(),
        rows: entries.iter().map(|entry| entry.rows.len() as u64).sum(),
        row_bytes: done.iter().map(|(_, bytes, ..)| bytes).sum(),
        stored_bytes: done.iter().map(|(_, _, bytes, _)| bytes).sum(),
        elapsed,
        latency_ms_p50: latency.value_at_quantile(0.5) as f64 / 1000.0,
        latency_ms_p99: latency.value_at_quantile(0.99) as f64 / 1000.0,
        announced_again,
        announced,
    })
}

/// Generated one after the other: the same plan makes the same objects.
fn pieces(plan: &ProducePlan) -> impl Iterator<Item = Result<Piece>> + use<> {
    let mix = Mix {
        dirty_share: plan.dirty_share,
        duplicate_share: plan.duplicate_share,
        late_share: plan.late_share,
        base_time_ms: plan.base_time.timestamp_millis(),
        hours: plan.hours,
    };
    let mut generator = Generator::new(plan.seed, mix);
    let (mut left, mut index) = (plan.rows, 0);
    let (plan, mut datasets) = (plan.clone(), plan.datasets.clone().into_iter().cycle());
    std::iter::from_fn(move || {
        let count = left.min(plan.rows_per_object as u64);
        if count == 0 {
            return None;
        }
        left -= count;
        let piece = match &plan.target {
            Target::Topic(topic) => Ok(records(&mut generator, topic, count)),
            Target::S3 { .. } => object(&mut generator, &plan, datasets.next()?, index, count as usize),
        };
        index += 1;
        Some(piece)
    })
}

fn records(generator: &mut Generator, topic: &str, count: u64) -> Piece {
    let dataset = Dataset::DirectEvents;
    let (lines, rows) = (0..count).map(|_| generator.row(dataset)).map(|row| (row.line, row.fate)).unzip();
    let content = Content::Records { topic: topic.to_owned(), lines };
    Piece { content, entry: Entry { dataset, place: topic.to_owned(), rows } }
}

fn object(
    generator: &mut Generator,
    plan: &ProducePlan,
    dataset: Dataset,
    index: usize,
    count: usize,
) -> Result<Piece> {
    let format = plan.formats[index / plan.datasets.len() % plan.formats.len()];
    let packed = plan.compressions[index % plan.compressions.len()];
    let (body, mut rows) = generator.object(dataset, format, packed, count)?;
    if plan.sql_of.contains(&dataset) {
        rows.iter_mut().for_each(Fate::refused_by_sql);
    }
    // Parquet has compressed its pages
    let compression = if format == FileFormat::Parquet { Compression::None } else { packed };
    let awkward = ["plain", "with space", "plus+plus", "per%cent", "umläut ß", "a=b&c"];
    let name = if plan.awkward_keys { awkward[index % awkward.len()] } else { "part" };
    let (folder, extension, suffix) = (format.connector(dataset), format.extension(), compression.suffix());
    let key = format!("{folder}/{}/{name}-{index:05}.{extension}{suffix}", plan.key_prefix);
    let place = format!("s3://{}/{key}", plan.bucket);
    Ok(Piece { content: Content::Object { key, body, compression }, entry: Entry { dataset, place, rows } })
}

impl Producer<'_> {
    async fn put(&self, piece: Piece) -> Result<(Entry, u64, u64, Option<AnnouncedObject>)> {
        if let (Some(rate), Some(rows)) = (&self.rate, NonZeroU32::new(piece.entry.rows.len() as u32)) {
            for _ in 0..rows.get() {
                rate.until_ready().await;
            }
        }
        let rows = piece.entry.rows.len() as u64;
        let done = match piece.content {
            Content::Object { key, body, compression } => self.put_object(key, body, compression, piece.entry).await?,
            Content::Records { topic, lines } => self.send(&topic, &lines, piece.entry).await?,
        };
        self.progress.advance(rows);
        Ok(done)
    }

    async fn put_object(
        &self,
        key: String,
        body: Vec<u8>,
        compression: Compression,
        entry: Entry,
    ) -> Result<(Entry, u64, u64, Option<AnnouncedObject>)> {
        let row_bytes = body.len() as u64;
        let body = compress(compression, body)?;
        let size = body.len() as u64;
        let started = Instant::now();
        let put = self.s3.put_object().bucket(&self.plan.bucket).key(&key).body(ByteStream::from(body)).send().await;
        let put = put.with_context(|| format!("could not put s3://{}/{key}", self.plan.bucket))?;
        self.note_latency(started);
        let object = AnnouncedObject {
            bucket: self.plan.bucket.clone(),
            key,
            etag: put.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
            size,
            version_id: put.version_id().map(ToOwned::to_owned),
        };
        Ok((entry, row_bytes, size, Some(object)))
    }

    async fn send(
        &self,
        topic: &str,
        lines: &[Vec<u8>],
        entry: Entry,
    ) -> Result<(Entry, u64, u64, Option<AnnouncedObject>)> {
        let started = Instant::now();
        let sends = lines.iter().map(|line| {
            let record: FutureRecord<'_, [u8], Vec<u8>> = FutureRecord::to(topic).payload(line);
            let sent = self.kafka.send(record, Duration::from_secs(30));
            async move { sent.await.map_err(|(error, _)| error) }
        });
        futures::future::try_join_all(sends).await.with_context(|| format!("could not send to topic {topic}"))?;
        self.note_latency(started);
        let bytes = lines.iter().map(|line| line.len() as u64).sum();
        Ok((entry, bytes, bytes, None))
    }

    fn note_latency(&self, started: Instant) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.saturating_record(started.elapsed().as_micros() as u64);
    }

    /// Object stores announce asynchronously and may lose an announcement when they crash.
    async fn announce_the_rest(
        &self,
        topic: &str,
        end: announce::TopicEnd,
        objects: &[AnnouncedObject],
    ) -> Result<usize> {
        let missing = announce::announce_the_rest(self.endpoints, topic, end, objects, self.plan.announce_wait).await?;
        if self.plan.announce_twice {
            announce::announce(self.endpoints, topic, objects, Envelope::AwsS3).await?;
        }
        Ok(missing)
    }
}

fn compress(compression: Compression, bytes: Vec<u8>) -> Result<Vec<u8>> {
    Ok(match compression {
        Compression::None => bytes,
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes)?;
            encoder.finish()?
        }
        Compression::Zstd => zstd::encode_all(bytes.as_slice(), 1)?,
    })
}

/// A bar on a terminal, a line now and then elsewhere.
#[derive(Clone)]
struct Progress {
    bar: ProgressBar,
    lines: Option<Arc<Mutex<(u64, Instant)>>>,
    rows: u64,
}

const LINE_INTERVAL: Duration = Duration::from_secs(5);

impl Progress {
    fn new(plan: &ProducePlan) -> Self {
        let bar = if plan.show_progress { ProgressBar::new(plan.rows) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("produce {bar:40} {human_pos}/{human_len} rows, {per_sec}") {
            bar.set_style(style);
        }
        let lines = (plan.show_progress && bar.is_hidden()).then(|| Arc::new(Mutex::new((0, Instant::now()))));
        Self { bar, lines, rows: plan.rows }
    }

    fn advance(&self, rows: u64) {
        self.bar.inc(rows);
        let Some(lines) = &self.lines else { return };
        let mut state = lines.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += rows;
        if state.1.elapsed() >= LINE_INTERVAL {
            state.1 = Instant::now();
            eprintln!("produced {} of {} rows", state.0, self.rows);
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
