//! `sluice run`: starts the roles, watches them, drains them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::context::TransformContext;
use super::dependencies::Dependencies;
use super::joined_tables::{JoinedTables, TableError};
use super::load_worker::{LoadWorker, LoadWorkerError};
use super::parking;
use super::partition::PartitionWorker;
use super::resolver::Resolver;
use super::resolver_index::IndexPolicy;
use super::rewrite::Rewriter;
use super::start::{StartError, Started, connect};
use crate::catalog;
use crate::client::kafka::{self, KafkaError};
use crate::client::postgres;
use crate::client::rate::RequestRate;
use crate::client::retry::{RetryPolicy, retry};
use crate::client::s3::S3Client;
use crate::config::{Connectors, Settings};
use crate::error::{ErrorKind, chain};
use crate::load::{LoadError, Loader};
use crate::publish::{Publisher, send_outbox};
use crate::source::consumer::{Assignment, GroupConsumer, GroupEvent};
use crate::telemetry::{Health, metrics};
use crate::transform::TransformError;
use crate::types::TopicPartition;

/// How long a role waits for work that nobody told it of.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// How often the gauges of the backlog are read.
const GAUGES_WAIT: Duration = Duration::from_secs(5);
/// Micro-batches of this age are looked at by the books gauge.
const BOOKS_SECONDS: f64 = 3600.0;
/// Micro-batches loaded at once by one process.
pub const LOADS_IN_FLIGHT: usize = 2;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    /// Reads, decodes, stages and commits
    Transform,
    /// Makes committed files visible and sends manifests
    Publish,
    /// Loads committed micro-batches into the warehouse
    Load,
}

impl Role {
    pub const ALL: &[Self] = &[Self::Transform, Self::Publish, Self::Load];
}

#[derive(Debug, Error)]
pub enum RunError {
    #[error("could not start")]
    Start(#[from] StartError),
    #[error("could not plan a connector")]
    Plan(#[from] TransformError),
    #[error("could not read a table that a connector joins")]
    Table(#[from] TableError),
    #[error("could not join the group")]
    Join(#[from] KafkaError),
    #[error("the warehouse does not fit the connectors")]
    Warehouse(#[from] LoadError),
    #[error("the Kafka client gave up: {0}")]
    ConsumerFatal(String),
    #[error("a worker ended unexpectedly")]
    Worker(#[source] tokio::task::JoinError),
}

impl RunError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Start(error) => error.kind(),
            Self::Plan(_) => ErrorKind::Invalid,
            Self::Join(error) => error.kind(),
            Self::Warehouse(error) => error.kind(),
            Self::Table(error) => error.kind(),
            Self::ConsumerFatal(_) | Self::Worker(_) => ErrorKind::Halt,
        }
    }
}

/// The roles of this process, running.
pub struct RunHandle {
    stop: watch::Sender<bool>,
    drain_deadline: Duration,
    roles: JoinSet<Result<(), RunError>>,
}

/// Connects, then starts the roles. Returns when they run.
pub async fn run(
    settings: &Settings,
    connectors: &Connectors,
    roles: &[Role],
    health: &Health,
) -> Result<RunHandle, RunError> {
    let started = connect(settings, connectors).await?;
    metrics().build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let (stop, stopped) = watch::channel(false);
    let committed = Arc::new(Notify::new());
    let mut set = JoinSet::new();
    // it makes the tables of histories, which may be joined
    if roles.contains(&Role::Load) {
        start_load(&mut set, settings, connectors, &started, &stopped, &committed).await?;
    }
    if roles.contains(&Role::Transform) {
        set.spawn(read_tables(settings, connectors, &started).await?.watch(stopped.clone()));
        let transform = Transform::new(settings, connectors, &started, health, &stopped, &committed)?;
        set.spawn(transform.run());
    }
    if roles.contains(&Role::Publish) {
        start_publish(&mut set, settings, &started, &stopped, &committed)?;
    }
    set.spawn(Dependencies::new(settings, connectors, &started).watch(stopped.clone()));
    set.spawn(watch_gauges(started.catalog.clone(), stopped));
    // ready only when nothing can end the start any more
    health.started();
    Ok(RunHandle { stop, drain_deadline: settings.limits.drain_deadline, roles: set })
}

impl RunHandle {
    /// Ends only where a role ends by itself: with its error.
    pub async fn failed(&mut self) -> RunError {
        loop {
            match self.roles.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(error)) => return RunError::Worker(error),
                None => return std::future::pending().await,
            }
        }
    }

    /// Commits what is open, leaves the group, ends by the deadline. Returns whether everything ended in time.
    pub async fn drain(mut self) -> bool {
        self.stop.send_replace(true);
        let all_ended = async { while self.roles.join_next().await.is_some() {} };
        tokio::time::timeout(self.drain_deadline, all_ended).await.is_ok()
    }
}

/// The dimensions that connectors join, read: before that no row may be.
async fn read_tables(
    settings: &Settings,
    connectors: &Connectors,
    started: &Started,
) -> Result<JoinedTables, TableError> {
    let policy = RetryPolicy::until(settings.limits.start_deadline);
    retry(&policy, "warehouse", TableError::kind, || async {
        let mut tables = JoinedTables::new(connectors, started.warehouse.clone());
        tables.read_all().await.map(|()| tables)
    })
    .await
}

struct Transform {
    context: Arc<TransformContext>,
    settings: Settings,
    health: Health,
    stopped: watch::Receiver<bool>,
    committed: Arc<Notify>,
    consumer: GroupConsumer,
    events: mpsc::UnboundedReceiver<GroupEvent>,
    poll_thread: std::thread::JoinHandle<()>,
    owned: HashMap<TopicPartition, Owned>,
}

struct Owned {
    revoked: watch::Sender<bool>,
    worker: JoinHandle<()>,
}

impl Transform {
    fn new(
        settings: &Settings,
        connectors: &Connectors,
        started: &Started,
        health: &Health,
        stopped: &watch::Receiver<bool>,
        committed: &Arc<Notify>,
    ) -> Result<Self, RunError> {
        let context = TransformContext::new(
            settings,
            connectors.clone(),
            started.catalog.clone(),
            started.cluster_id.clone(),
            started.catalog_id,
        )?;
        let (consumer, events, poll_thread) = GroupConsumer::join(&settings.kafka, &connectors.topics())?;
        health.expect_assignment();
        Ok(Self {
            context: Arc::new(context),
            settings: settings.clone(),
            health: health.clone(),
            stopped: stopped.clone(),
            committed: Arc::clone(committed),
            consumer,
            events,
            poll_thread,
            owned: HashMap::new(),
        })
    }

    async fn run(mut self) -> Result<(), RunError> {
        let mut stopped = self.stopped.clone();
        tokio::spawn(parking::watch(Arc::clone(&self.context), stopped.clone()));
        let result = loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(GroupEvent::Assigned(assignments)) => self.assigned(assignments),
                    Some(GroupEvent::Revoked(gone)) => self.revoked(&gone),
                    Some(GroupEvent::Fatal(reason)) => break Err(RunError::ConsumerFatal(reason)),
                    None => break Err(RunError::ConsumerFatal("the poll thread ended".into())),
                },
                _ = stopped.wait_for(|stopped| *stopped) => break Ok(()),
            }
        };
        if result.is_err() {
            // nobody has told them to stop
            self.owned.values().for_each(|owned| _ = owned.revoked.send_replace(true));
        }
        for (_, owned) in self.owned.drain() {
            // a worker sees the same stop signal, commits what is open and ends
            if let Err(error) = owned.worker.await {
                tracing::error!(component = "source", error = %error, "a worker ended unexpectedly");
            }
        }
        self.consumer.stop();
        let thread = self.poll_thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        result
    }

    fn assigned(&mut self, assignments: Vec<Assignment>) {
        for assignment in assignments {
            let topic_partition = assignment.topic_partition.clone();
            tracing::info!(component = "source", %topic_partition, "assigned");
            let (revoke, revoked) = watch::channel(false);
            let worker = PartitionWorker {
                context: Arc::clone(&self.context),
                kafka: self.settings.kafka.clone(),
                consumer: self.consumer.clone(),
                assignment,
                stop: self.stopped.clone(),
                revoked,
                committed: Arc::clone(&self.committed),
            };
            let worker = tokio::spawn(worker.run());
            self.owned.insert(topic_partition, Owned { revoked: revoke, worker });
        }
        self.health.assignment_received();
        self.gauge_assigned();
    }

    fn revoked(&mut self, gone: &[TopicPartition]) {
        for topic_partition in gone {
            tracing::info!(component = "source", %topic_partition, "revoked");
            if let Some(owned) = self.owned.remove(topic_partition) {
                owned.revoked.send_replace(true);
            }
            forget_gauges(topic_partition);
        }
        self.gauge_assigned();
    }

    fn gauge_assigned(&self) {
        for topic in self.context.connectors.topics() {
            let count = self.owned.keys().filter(|owned| owned.topic.as_ref() == topic).count();
            metrics().partitions_assigned.with_label_values(&[topic.as_str()]).set(count as i64);
        }
    }
}

/// Its next owner shows them; a stale value here would look like lag.
fn forget_gauges(topic_partition: &TopicPartition) {
    let number = topic_partition.number.to_string();
    let labels = [topic_partition.topic.as_ref(), number.as_str()];
    // an error says that there was no such series
    let _ = metrics().kafka_lag.remove_label_values(&labels);
    for reason in crate::source::assignment::HaltReason::LABELS {
        let _ = metrics().partitions_halted.remove_label_values(&[labels[0], labels[1], reason]);
    }
}

fn start_publish(
    set: &mut JoinSet<Result<(), RunError>>,
    settings: &Settings,
    started: &Started,
    stopped: &watch::Receiver<bool>,
    committed: &Arc<Notify>,
) -> Result<(), RunError> {
    let rate = RequestRate::new(settings.limits.s3_requests_per_s);
    let publisher = Arc::new(Publisher {
        catalog: started.catalog.clone(),
        lake: S3Client::new("lake", &settings.s3.lake, rate).owned_by(started.catalog_id),
        lake_bucket: settings.s3.lake_bucket.clone(),
    });
    let rewriter = Rewriter {
        catalog: started.catalog.clone(),
        lake: publisher.lake.clone(),
        lake_bucket: settings.s3.lake_bucket.clone(),
    };
    set.spawn(work(stopped.clone(), Arc::clone(committed), "publish", move || {
        let rewriter = rewriter.clone();
        async move { rewriter.rewrite_round().await.map(|count| count > 0).map_err(|error| (error.kind(), chain(&error))) }
    }));
    set.spawn(sweep(stopped.clone(), Arc::clone(&publisher), settings.limits.sweep_interval));
    set.spawn(work(stopped.clone(), Arc::clone(committed), "publish", move || {
        let publisher = Arc::clone(&publisher);
        async move { publisher.publish_round().await.map(|count| count > 0).map_err(|error| (error.kind(), chain(&error))) }
    }));
    let producer = Arc::new(kafka::producer(&settings.kafka)?);
    let catalog = started.catalog.clone();
    set.spawn(work(stopped.clone(), Arc::clone(committed), "outbox", move || {
        let (catalog, producer) = (catalog.clone(), Arc::clone(&producer));
        async move {
            send_outbox(&catalog, &producer).await.map(|count| count > 0).map_err(|error| (error.kind(), chain(&error)))
        }
    }));
    Ok(())
}

/// At the start, and then at an interval.
async fn sweep(
    mut stopped: watch::Receiver<bool>,
    publisher: Arc<Publisher>,
    interval: Duration,
) -> Result<(), RunError> {
    loop {
        if let Err(error) = publisher.sweep().await {
            metrics().errors.with_label_values(&["publish", error.kind().as_str()]).inc();
            tracing::warn!(component = "publish", error = %chain(&error), "could not look through the lake, trying again later");
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        }
    }
}

async fn start_load(
    set: &mut JoinSet<Result<(), RunError>>,
    settings: &Settings,
    connectors: &Connectors,
    started: &Started,
    stopped: &watch::Receiver<bool>,
    committed: &Arc<Notify>,
) -> Result<(), RunError> {
    let policy = RetryPolicy::until(settings.limits.start_deadline);
    let loader =
        retry(&policy, "warehouse", LoadError::kind, || Loader::new(started.warehouse.clone(), connectors)).await?;
    let lake = S3Client::new("lake", &settings.s3.lake, RequestRate::new(settings.limits.s3_requests_per_s));
    let snapshots = Some((lake.clone(), settings.s3.lake_bucket.clone()));
    let policy = IndexPolicy { snapshots, ..IndexPolicy::default() };
    let worker = Arc::new(LoadWorker {
        catalog: started.catalog.clone(),
        lake,
        lake_bucket: settings.s3.lake_bucket.clone(),
        connectors: connectors.clone(),
        loader,
        resolver: Resolver::new(started.warehouse.clone(), policy),
    });
    for _ in 0..LOADS_IN_FLIGHT {
        let worker = Arc::clone(&worker);
        set.spawn(work(stopped.clone(), Arc::clone(committed), "load", move || {
            let worker = Arc::clone(&worker);
            async move { worker.load_next().await.map_err(|error: LoadWorkerError| (error.kind(), chain(&error))) }
        }));
    }
    set.spawn(work(stopped.clone(), Arc::default(), "seal", move || {
        let worker = Arc::clone(&worker);
        async move { worker.seal_next().await.map_err(|error: LoadWorkerError| (error.kind(), chain(&error))) }
    }));
    Ok(())
}

/// Runs rounds of background work: at once again while there is some, else when a commit happened or
/// after a while. Errors are logged, counted and waited out; the work itself is idempotent.
async fn work<F, Fut>(
    mut stopped: watch::Receiver<bool>,
    committed: Arc<Notify>,
    component: &'static str,
    mut round: F,
) -> Result<(), RunError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool, (ErrorKind, String)>>,
{
    let mut wait = IDLE_WAIT;
    loop {
        let woken = committed.notified();
        // a round is never interrupted: it ends by itself, and a stop waits for it
        match round().await {
            Ok(true) if !*stopped.borrow() => {
                wait = IDLE_WAIT;
                continue;
            }
            Ok(_) => wait = IDLE_WAIT,
            Err((kind, error)) => {
                metrics().errors.with_label_values(&[component, kind.as_str()]).inc();
                tracing::warn!(component, kind = kind.as_str(), error, "round failed, trying again later");
                wait = (wait * 2).min(Duration::from_secs(15));
            }
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        }
    }
}

/// Keeps the gauges of the backlog and of the books.
async fn watch_gauges(catalog: deadpool_postgres::Pool, mut stopped: watch::Receiver<bool>) -> Result<(), RunError> {
    loop {
        if let Err(error) = read_gauges(&catalog).await {
            tracing::debug!(component = "catalog", error = %chain(&error), "could not read the backlog");
        }
        tokio::select! {
            () = tokio::time::sleep(GAUGES_WAIT) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        }
    }
}

async fn read_gauges(pool: &deadpool_postgres::Pool) -> Result<(), catalog::CatalogError> {
    let client = postgres::get(pool).await.map_err(catalog::CatalogError::Connect)?;
    let backlog = catalog::backlog(&client).await?;
    let none: &[&str] = &[];
    metrics().files_pending.with_label_values(none).set(backlog.files_pending);
    metrics().files_to_hide.with_label_values(none).set(backlog.files_to_hide);
    metrics().outbox_pending.with_label_values(none).set(backlog.outbox_pending);
    metrics().batches_unloaded.with_label_values(none).set(backlog.batches_unloaded);
    metrics().redrives_open.with_label_values(none).set(backlog.redrives_open);
    let unbalanced = catalog::unbalanced_count(&client, Some(BOOKS_SECONDS)).await?;
    metrics().books_unbalanced.with_label_values(none).set(unbalanced);
    Ok(())
}
