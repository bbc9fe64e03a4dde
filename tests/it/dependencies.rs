//! `/readyz` while servers are away: each is reached through a forwarder of the test's own, closed and opened again.

use std::net::SocketAddr;

use sluice_loadtest::{ProducePlan, produce};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::stack::{World, wait_for};

/// Passes connections on to a server, as long as it is open.
struct Forwarder {
    address: SocketAddr,
    target: String,
    accepting: Option<JoinHandle<()>>,
}

impl Forwarder {
    async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let mut forwarder = Self { address, target: target.to_owned(), accepting: None };
        forwarder.accept(listener);
        forwarder
    }

    fn accept(&mut self, listener: TcpListener) {
        let target = self.target.clone();
        self.accepting = Some(tokio::spawn(async move {
            // dropped with this task, and every connection with it
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(&target).await {
                        // an error says that one side has gone
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        }));
    }

    /// From now on connections are refused, and those that stand are cut.
    async fn close(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
            // the error is our own cancellation; then the port is free
            let _ = task.await;
        }
    }

    async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("our port is still free");
        self.accept(listener);
    }
}

/// `host:port` of an address with or without scheme, user and path.
fn place(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The world's servers behind forwarders, in the order of `/readyz`.
async fn forwarded(world: &mut World) -> Vec<Forwarder> {
    let mut forwarders = Vec::new();
    for variable in [
        // brokers tell their own address: only who asks for the first time comes this way
        "SLUICE_KAFKA__BROKERS",
        "SLUICE_S3__RAW__ENDPOINT",
        "SLUICE_S3__LAKE__ENDPOINT",
        "SLUICE_CATALOG__DSN",
        "SLUICE_WAREHOUSE__DSN",
    ] {
        let address = world.env[variable].clone();
        let forwarder = Forwarder::to(place(&address)).await;
        world.env.insert(variable.to_owned(), address.replace(place(&address), &forwarder.address.to_string()));
        forwarders.push(forwarder);
    }
    forwarders
}

/// Status and body; `None` while nobody listens.
pub(crate) async fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_names_the_servers_that_are_down_and_comes_back_with_them() {
    let mut world = World::new(1).await;
    let mut forwarders = forwarded(&mut world).await;
    let running = world.run();
    wait_for("the process to listen", || async { running.telemetry().is_some() }).await;
    let address = running.telemetry().expect("just seen");
    let answers = |code: u16, body: &'static str| {
        let address = address.clone();
        wait_for(body, move || {
            let address = address.clone();
            async move { get(&address, "/readyz").await == Some((code, format!("{body}\n"))) }
        })
    };
    answers(200, "ready").await;

    for forwarder in &mut forwarders {
        forwarder.close().await;
    }
    answers(503, "down: kafka, s3_raw, s3_lake, catalog, warehouse").await;
    let (_, metrics) = get(&address, "/metrics").await.expect("it serves");
    for dependency in sluice::telemetry::DEPENDENCIES {
        let line = format!("sluice_dependency_up{{dependency=\"{dependency}\"}} 0");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    assert_eq!(get(&address, "/healthz").await.map(|(code, _)| code), Some(200), "a restart would mend nothing");

    // all but the lake's store
    for (index, forwarder) in forwarders.iter_mut().enumerate() {
        if index != 2 {
            forwarder.open().await;
        }
    }
    answers(503, "down: s3_lake").await;
    forwarders[2].open().await;
    answers(200, "ready").await;

    let plan = ProducePlan { rows: 500, rows_per_object: 100, ..crate::pipeline::plan(&world) };
    produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    world.settle();
    world.assert_verified().await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
}
