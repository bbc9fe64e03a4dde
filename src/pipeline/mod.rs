//! The stages wired together: `source … commit` per topic partition, publish and load beside them.
//!
//! # Contract
//! One task owns a topic partition from its assignment to its revocation ([`partition`]). Memory in
//! flight is bounded by one budget ([`budget`]); CPU work runs on blocking threads, a few at a time whatever is in flight
//! ([`context`]). SIGTERM drains: open micro-batches are committed, the group is left, and what does not end by the
//! deadline is dropped, which loses nothing.
//!
//! # Freshness
//! Where the reader has caught up with the log, what it reads is committed when it is `limits.micro_batch_age_max` old at
//! the latest. Behind a backlog micro-batches grow to their limits of rows, bytes and offsets instead, up to ten times that
//! age ([`open_batch`]): a cut would make many small files, and nothing fresher.
//!
//! # Dimensions that SQL joins
//! They are read from the warehouse before the first message, and again while rows are transformed ([`joined_tables`]).
//!
//! # Large objects
//! An object that unpacks to more than `limits.chunk_bytes` is one offset all the same: it is read in parts, its files are
//! put chunk by chunk, and a micro-batch of its own commits them together ([`read_chunks`]).

mod windows;
mod absent;
mod batch_writer;
mod budget;
mod build;
mod careful;
mod carry;
mod claims;
mod checks;
mod chunk_log;
mod context;
mod decode_rows;
mod decode_task;
mod dependencies;
mod evolution;
mod forecast;
mod joined_tables;
mod lake_files;
mod letters;
mod load_worker;
mod local;
mod local_files;
mod open_batch;
mod overrides;
mod parking;
mod partition;
mod position;
mod preview;
mod process;
mod object_stream;
mod read_chunks;
mod read_object;
mod redrive;
mod reload;
mod replay;
mod resolver;
mod resolver_index;
mod rewrite;
mod row_books;
mod run;
mod settled;
mod staged;
mod start;
mod stored_books;

pub use context::TransformContext;
pub use forecast::{Forecast, ForecastAction, ForecastError, ForecastRequest, PartitionForecast, ResetTo, forecast};
pub use joined_tables::{TableError, read_joined_tables};
pub use letters::{Letters, LettersError};
pub use load_worker::{JOINED, LoadWorker, holding_lease};
pub use local::{LocalError, StageJob, StageReport, stage_files};
pub use overrides::{Misfit, check_correction};
pub use preview::{Preview, PreviewError, PreviewReject, PreviewStage, preview};
pub use reload::{ReloadError, Reloaded, reload};
pub use resolver::{Resolver, ResolverError};
pub use resolver_index::IndexPolicy;
pub use run::{LOADS_IN_FLIGHT, Role, RunError, RunHandle, run};
pub use settled::{InFlight, SettledError, backlog, in_flight};
pub use start::{StartError, Started, check_buckets, check_catalog, check_kafka, check_warehouse, connect};
