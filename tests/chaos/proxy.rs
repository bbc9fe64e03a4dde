//! A TCP proxy between one Sluice process and one server, which can be told to misbehave.
//!
//! What it breaks it counts: a fault that did not happen is not a fault.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What to do when a pattern passes, once.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    /// Must have been sent on the same connection since the pattern passed there last; empty: nothing.
    pub(crate) context: &'static [u8],
    /// In what the client sends.
    pub(crate) pattern: &'static [u8],
    /// Occurrences that pass.
    pub(crate) skip: u32,
    pub(crate) action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The connection ends, the server never sees the pattern.
    CutBefore,
    /// The server does it and answers; the answer is dropped and the connection ends: an unknown outcome.
    LoseAnswer,
    /// The connection is reset in the middle of the answer's body.
    CutAnswer,
    /// This answer to an HTTP request, which the server never sees.
    Answer(&'static str),
}

#[derive(Default)]
struct State {
    trigger: Option<Trigger>,
    refuse_until: Option<Instant>,
    delay_until: Option<Instant>,
    /// How often something was broken.
    broken: u64,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Counts up to end all connections.
    cut: watch::Sender<u64>,
}

const DELAY: Duration = Duration::from_millis(150);

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State::default()));
        let (cut, _) = watch::channel(0);
        let (own, cuts) = (Arc::clone(&state), cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let refused = {
                    let mut state = lock(&own);
                    let refused = state.refuse_until.is_some_and(|until| Instant::now() < until);
                    state.broken += u64::from(refused);
                    refused
                };
                if refused {
                    reset(&client);
                    continue;
                }
                let (state, cut) = (Arc::clone(&own), cuts.subscribe());
                tokio::spawn(carry(client, server, state, cut));
            }
        });
        Self { address, state, cut }
    }

    /// How often something was broken so far.
    pub(crate) fn broken(&self) -> u64 {
        lock(&self.state).broken
    }

    pub(crate) fn arm(&self, trigger: Trigger) {
        lock(&self.state).trigger = Some(trigger);
    }

    /// Everything passes again.
    pub(crate) fn heal(&self) {
        let mut state = lock(&self.state);
        (state.trigger, state.refuse_until, state.delay_until) = (None, None, None);
    }

    /// Ends all connections.
    pub(crate) fn cut_all(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Ends all connections and refuses new ones.
    pub(crate) fn refuse_for(&self, time: Duration) {
        lock(&self.state).refuse_until = Some(Instant::now() + time);
        self.cut_all();
    }

    /// Whatever is sent, either way, comes late.
    pub(crate) fn delay_for(&self, time: Duration) {
        lock(&self.state).delay_until = Some(Instant::now() + time);
    }
}

/// Not an orderly end: the other side sees a connection that was reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// One connection.
async fn carry(client: TcpStream, server: SocketAddr, state: Arc<Mutex<State>>, mut cut: watch::Receiver<u64>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    reset(&client);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (lose, lost) = watch::channel(None);
    let up = Upward { state: Arc::clone(&state), tail: Vec::new(), has_context: false, lose };
    let upward = async {
        up.run(from_client, to_server).await;
        // the server has to say its last word
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = cut.changed() => lock(&state).broken += 1,
        () = down(from_server, to_client, &state, lost) => {}
        () = upward => {}
    }
}

/// What the client sends.
struct Upward {
    state: Arc<Mutex<State>>,
    /// The end of what passed, so that a pattern across two reads is seen.
    tail: Vec<u8>,
    has_context: bool,
    /// Tells the other direction what to do with the answer.
    lose: watch::Sender<Option<Action>>,
}

impl Upward {
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            wait_if_delayed(&self.state).await;
            match self.triggered(&buffer[..count]) {
                // the other direction has the client's socket: it ends both
                Some(action @ (Action::CutBefore | Action::Answer(_))) => {
                    self.lose.send_replace(Some(action));
                    // a client that still sends must not lose its answer to a reset
                    while let Ok(1..) = from.read(&mut buffer).await {}
                    return;
                }
                Some(action) => {
                    self.lose.send_replace(Some(action));
                }
                None => {}
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }

    fn triggered(&mut self, chunk: &[u8]) -> Option<Action> {
        const TAIL: usize = 64;
        let seen: Vec<u8> = self.tail.iter().chain(chunk).copied().collect();
        let before = self.tail.len();
        self.tail = seen[seen.len().saturating_sub(TAIL)..].to_vec();
        let mut state = lock(&self.state);
        let trigger = state.trigger.as_mut()?;
        let find = |what: &[u8]| {
            // what lay in the tail as a whole was seen before
            let from = before.saturating_sub(what.len().saturating_sub(1));
            seen[from..].windows(what.len()).any(|window| window == what)
        };
        self.has_context |= trigger.context.is_empty() || find(trigger.context);
        if !self.has_context || !find(trigger.pattern) {
            return None;
        }
        self.has_context = false;
        if trigger.skip > 0 {
            trigger.skip -= 1;
            return None;
        }
        let action = trigger.action;
        state.trigger = None;
        state.broken += 1;
        Some(action)
    }
}

/// What the server sends.
async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &Mutex<State>,
    mut lost: watch::Receiver<Option<Action>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = tokio::select! {
            biased;
            told = without_the_server(&mut lost) => {
                if let Action::Answer(status) = told {
                    answer_with(&mut to, status).await;
                }
                return;
            }
            count = from.read(&mut buffer) => count.unwrap_or(0),
        };
        if count == 0 {
            let _ = to.shutdown().await;
            return;
        }
        wait_if_delayed(state).await;
        let action = *lost.borrow();
        match action {
            Some(Action::LoseAnswer) => return,
            Some(Action::CutAnswer) => {
                let head = buffer[..count].windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
                let _ = to.write_all(&buffer[..head + (count - head) / 2]).await;
                return;
            }
            _ => {}
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits for an action that the server has no part in.
async fn without_the_server(lost: &mut watch::Receiver<Option<Action>>) -> Action {
    let told =
        lost.wait_for(|lost| matches!(lost, Some(Action::CutBefore | Action::Answer(_)))).await.map(|told| *told);
    match told {
        Ok(Some(action)) => action,
        _ => std::future::pending().await,
    }
}

async fn wait_if_delayed(state: &Mutex<State>) {
    let delayed = {
        let mut state = lock(state);
        let delayed = state.delay_until.is_some_and(|until| Instant::now() < until);
        state.broken += u64::from(delayed);
        delayed
    };
    if delayed {
        tokio::time::sleep(DELAY).await;
    }
}

/// An error of S3. Source: Amazon S3 API Reference, Error responses.
async fn answer_with(to: &mut OwnedWriteHalf, status: &str) {
    let code = if status.starts_with("503") { "SlowDown" } else { "InternalError" };
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>");
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: ");
    let _ = to.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).await;
    let _ = to.shutdown().await;
    // time for the client to read it before the connection goes
    tokio::time::sleep(Duration::from_millis(100)).await;
}

mod tests {
    use tokio_postgres::{Client, NoTls};

    use super::*;
    use crate::alone;
    use crate::stack::stack;

    async fn connect(dsn: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.expect("PostgreSQL answers");
        tokio::spawn(connection);
        client
    }

    /// Inserts a row in a transaction of its own; true where COMMIT was answered.
    async fn insert(dsn: &str, number: i32) -> bool {
        let mut client = connect(dsn).await;
        let transaction = client.transaction().await.expect("passes");
        transaction.execute("INSERT INTO cut_commits VALUES ($1)", &[&number]).await.expect("passes");
        transaction.commit().await.is_ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_commit_cut_before_it_arrives_did_not_happen_and_one_whose_answer_is_lost_did() {
        let _alone = alone().await;
        let dsn = stack().get("SLUICE_WAREHOUSE__DSN");
        let (user, server) = dsn.split_once('@').expect("with a user");
        let (server, database) = server.split_once('/').expect("with a database");
        let proxy = Proxy::start(server.parse().expect("loopback")).await;
        let through = format!("{user}@{}/{database}", proxy.address);
        let direct = connect(dsn).await;
        direct.batch_execute("CREATE TABLE cut_commits (number int)").await.expect("a new table");
        let trigger =
            |skip, action| Trigger { context: b"INSERT INTO cut_commits", pattern: b"COMMIT\0", skip, action };

        assert!(insert(&through, 1).await);
        proxy.arm(trigger(0, Action::CutBefore));
        assert!(!insert(&through, 2).await);
        proxy.arm(trigger(1, Action::LoseAnswer));
        assert!(insert(&through, 3).await, "the first passes");
        assert!(!insert(&through, 4).await);
        assert_eq!(proxy.broken(), 2);
        assert!(insert(&through, 5).await, "a trigger acts once");
        let rows = direct.query("SELECT number FROM cut_commits ORDER BY 1", &[]).await.expect("it is there");
        assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>(), [1, 3, 4, 5]);
        direct.batch_execute("DROP TABLE cut_commits").await.expect("ours");
    }
}
