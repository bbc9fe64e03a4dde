//! Every metric Sluice exports, in one place. Names: `sluice_<noun>_<unit>[_total]`, base units,
//! closed label sets. Counted once per micro-batch (or per file, message, request), never per row.

use std::sync::LazyLock;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// One exported metric: what dashboards, alert rules and this file agree on.
pub struct MetricSpec {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $ident:ident: $kind:ident($name:literal, [$($label:literal),*], $help:literal);)+) => {
        /// The list, in the order in which data flows.
        pub const METRICS: &[MetricSpec] = &[
            $(MetricSpec { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], help: $help },)+
        ];
        /// The metrics of this process and the registry they are gathered from.
        pub struct Metrics {
            pub registry: Registry,
            $($(#[$doc])* pub $ident: metrics!(@type $kind),)+
        }
        impl Metrics {
            fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(let $ident = metrics!(@new $kind, $name, $help, &[$($label),*])?;
                  registry.register(Box::new($ident.clone()))?;)+
                Ok(Self { registry, $($ident,)+ })
            }
        }
    };
    (@type Counter) => { IntCounterVec };
    (@type Gauge) => { IntGaugeVec };
    (@type Histogram) => { HistogramVec };
    (@new Counter, $name:literal, $help:literal, $labels:expr) => { IntCounterVec::new(Opts::new($name, $help), $labels) };
    (@new Gauge, $name:literal, $help:literal, $labels:expr) => { IntGaugeVec::new(Opts::new($name, $help), $labels) };
    (@new Histogram, $name:literal, $help:literal, $labels:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(SECONDS_BUCKETS.to_vec()), $labels)
    };
}

/// 5 ms to 10 minutes.
const SECONDS_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

metrics! {
    kafka_messages: Counter("sluice_kafka_messages_total", ["topic"], "Messages read from Kafka.");
    kafka_lag: Gauge("sluice_kafka_lag_messages", ["topic", "topic_partition"], "Messages of an assigned topic partition not yet covered by a commit.");
    partitions_assigned: Gauge("sluice_partitions_assigned", ["topic"], "Topic partitions this process owns.");
    partitions_halted: Gauge("sluice_partitions_halted", ["topic", "topic_partition", "reason"], "1 where a topic partition is stopped and a human must act.");
    rebalances: Counter("sluice_rebalances_total", ["event"], "Rebalance events: assign, revoke, lost.");
    offsets: Counter("sluice_offsets_total", ["topic", "outcome"], "Offsets covered by commits: decoded, ignored, rejected, absent, skipped, carried.");
    objects: Counter("sluice_objects_total", ["connector", "outcome"], "Objects covered by commits: emitted, duplicate, stale, filtered, missing, quarantined, parked, carried.");
    connector_parked: Gauge("sluice_connector_parked", ["connector"], "1 where a connector is stopped and its objects wait for `sluice connectors resume`.");
    object_read_bytes: Counter("sluice_object_read_bytes_total", ["connector"], "Bytes of objects and direct records read, as stored.");
    object_unpacked_bytes: Counter("sluice_object_unpacked_bytes_total", ["connector"], "The same, unpacked.");
    rows_in: Counter("sluice_rows_in_total", ["connector", "outcome"], "Rows read: passed, filtered, duplicate, rejected.");
    rows_out: Counter("sluice_rows_out_total", ["dataset"], "Rows committed to the lake.");
    clean_changed: Counter("sluice_clean_changed_total", ["connector", "step"], "Values changed by clean steps: trim, lowercase, uppercase, default, nulls, clamp, replace, map, mask, hash, parse_units.");
    dedupe_keys: Gauge("sluice_dedupe_keys", ["connector", "topic", "topic_partition"], "Keys that a dedupe within a window remembers for a topic partition.");
    dedupe_rebuild_seconds: Histogram("sluice_dedupe_rebuild_seconds", ["connector"], "Time to read the keys of a window back from the lake, when a topic partition is taken over, its offsets were moved, or an object of several chunks has passed.");
    table_rows: Gauge("sluice_table_rows", ["connector", "table"], "Rows of a dimension that a connector's SQL joins, as this process has them.");
    table_age_seconds: Gauge("sluice_table_age_seconds", ["connector", "table"], "Since the rows of a dimension that a connector's SQL joins were read.");
    expectation_failures: Counter("sluice_expectation_failures_total", ["connector", "expectation"], "Rows of committed micro-batches that failed an expectation, whatever its on_fail; nulls, and rows that are not unique, where a micro-batch failed.");
    expectation_results: Counter("sluice_expectation_results_total", ["connector", "expectation", "outcome"], "Committed micro-batches by what an expectation came to: passed, warned, dropped, rejected. One that fails parks its connector.");
    dead_letters: Counter("sluice_dead_letters_total", ["connector", "reason"], "Dead letters committed.");
    micro_batches: Counter("sluice_micro_batches_total", ["topic", "result"], "Micro-batches: committed, rebuilt, fenced, unbalanced.");
    commit_fenced: Counter("sluice_commit_fenced_total", ["topic"], "Commits refused because a newer owner exists.");
    replays: Counter("sluice_replays_total", ["topic"], "Replays accepted: a topic partition's offset was moved back.");
    replay_carried: Counter("sluice_replay_carried_total", ["reason"], "What a replay took over as it stood: raw_expired (objects that are gone), log_expired (offsets whose messages are gone).");
    replay_refused: Counter("sluice_replay_refused_total", ["topic"], "Micro-batches that a replay could not rebuild and left as they were.");
    redrives: Counter("sluice_redrives_total", ["topic", "outcome"], "Micro-batches run again on request: done, gone, refused, failed.");
    redrives_open: Gauge("sluice_redrives_open", [], "Requests to run a micro-batch again that are not finished.");
    micro_batch_seconds: Histogram("sluice_micro_batch_seconds", ["stage"], "Time of a micro-batch by stage: process, stage, commit.");
    staged_bytes: Counter("sluice_staged_bytes_total", ["dataset"], "Bytes of Parquet put to the lake.");
    files_published: Counter("sluice_files_published_total", ["kind"], "Files moved from pending to published.");
    files_hidden: Counter("sluice_files_hidden_total", ["kind"], "Files of replaced micro-batches taken away from listing readers.");
    files_rewritten: Counter("sluice_files_rewritten_total", [], "Files published again without rows that are masked, or with rows that are masked no more.");
    files_swept: Counter("sluice_files_swept_total", [], "Files found where readers look that no live micro-batch has published, removed.");
    files_pending: Gauge("sluice_files_pending", [], "Files of live micro-batches not yet published.");
    files_to_hide: Gauge("sluice_files_to_hide", [], "Files of replaced micro-batches that are still listed.");
    outbox_sent: Counter("sluice_outbox_sent_total", ["topic"], "Manifests sent to downstream consumers.");
    outbox_pending: Gauge("sluice_outbox_pending", [], "Manifests not yet sent.");
    batches_loaded: Counter("sluice_batches_loaded_total", ["result"], "Micro-batches taken by the loader: loaded, already_loaded, not_live.");
    batches_unloaded: Gauge("sluice_batches_unloaded", [], "Live micro-batches with rows that the warehouse lacks.");
    rows_loaded: Counter("sluice_rows_loaded_total", ["table", "result"], "Rows merged into the warehouse: inserted, updated, unchanged_or_older, inferred, retracted, promoted; other_time: keys that the fact holds with another event time too; not_wanted: left out by the connector's load.rows.");
    names_resolved: Counter("sluice_names_resolved_total", ["dimension", "verdict"], "Names that rows gave instead of a key, by what was proposed: identifier, alias, automatic, review, new.");
    candidates_sampled: Counter("sluice_candidates_sampled_total", ["dimension", "result"], "Exact neighbours in the look-ups that were repeated exactly: found or missed by the index.");
    values_repaired: Counter("sluice_values_repaired_total", [], "Values that PostgreSQL cannot hold, mended for the warehouse; the lake keeps the originals.");
    load_seconds: Histogram("sluice_load_seconds", [], "Time of one load transaction.");
    notification_to_row_seconds: Histogram("sluice_notification_to_row_seconds", [], "From a message's timestamp to its rows in the warehouse, oldest message of each micro-batch.");
    errors: Counter("sluice_errors_total", ["component", "kind"], "Errors handled: component source, s3, catalog, warehouse, table, publish, outbox, load, seal, redrive; kind as in the docs.");
    retries: Counter("sluice_retries_total", ["component"], "Tries after a transient error.");
    books_unbalanced: Gauge("sluice_books_unbalanced", [], "Micro-batches whose ledgers do not add up; must be 0.");
    memory_reserved_bytes: Gauge("sluice_memory_reserved_bytes", [], "Memory budget in use.");
    memory_limit_bytes: Gauge("sluice_memory_limit_bytes", [], "Memory budget.");
    dependency_up: Gauge("sluice_dependency_up", ["dependency"], "1 where the last check reached it: kafka, s3_raw, s3_lake, catalog, warehouse.");
    build_info: Gauge("sluice_build_info", ["version"], "1; the version is the label.");
}

static METRICS_OF_PROCESS: LazyLock<Metrics> =
    LazyLock::new(|| Metrics::new().expect("names and labels above are valid and distinct; a test gathers them"));

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    &METRICS_OF_PROCESS
}
