//! Every kind of fault: how it is brought about inside an open micro-batch, and how it is known to have happened.

use std::fmt;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use sluice::telemetry::fail_points;

use crate::load::Load;
use crate::process::{Process, Server};
use crate::proxy::{Action, Proxy, Trigger};

/// Longer than the session timeout of the tests: the group gives a frozen member's topic partitions away.
pub(crate) const FREEZE: Duration = Duration::from_millis(8_000);
/// Longer than the leases of files and loads (30 s): others have done the frozen worker's work.
const FREEZE_BEYOND_LEASE: Duration = Duration::from_secs(33);
/// Between a place inside a micro-batch and what is broken there.
const LINGER_MS: u64 = 600;
const SLOW: Duration = Duration::from_secs(3);
const ATTEMPTS: u32 = 4;
const ATTEMPT_WAIT: Duration = Duration::from_secs(8);
/// SIGABRT and SIGKILL.
const ABORTED: i32 = 6;
const KILLED: i32 = 9;
/// Reached before a process has its topic partition, so armed before it starts.
const AT_START: &str = "take_over.fence_installed";

/// Passed by objects of many chunks alone, which are too large to be produced by the dozen: `tests/it/large.rs` has it.
const OF_LARGE_OBJECTS: &str = "chunk.recorded";

/// Places inside an open micro-batch.
const GATES: [&str; 5] =
    ["batch.objects_read", "batch.one_put", "batch.all_put", "commit.swapped", "commit.before_commit"];

/// A further scenario is a further variant: [`Fault::all`] deals it, [`Fault::inject`] brings it about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies at a fail point.
    Abort(&'static str),
    /// It freezes there for longer than the session timeout.
    Freeze(&'static str),
    /// It gets an error there.
    Fail(&'static str),
    Sigkill,
    Sigstop,
    /// A server of the stack is restarted.
    Restart(&'static str),
    /// The connection breaks at COMMIT, of a micro-batch or of a load.
    Commit(Server, Action),
    /// All connections to it break.
    CutAll(Server),
    /// And cannot be opened again for a while.
    Refuse(Server),
    Delay(Server),
    /// A request of S3 goes wrong.
    Request(Server, &'static str, Action),
}

const SLOW_DOWN: Action = Action::Answer("503 Slow Down");
const INTERNAL: Action = Action::Answer("500 Internal Server Error");

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = |action: &Action| match action {
            Action::CutBefore => "cut before it arrives",
            Action::LoseAnswer => "answer lost",
            Action::CutAnswer => "reset in the body",
            Action::Answer(status) => &status[..3],
        };
        match self {
            Self::Abort(point) => write!(f, "dies at {point}"),
            Self::Freeze(point) => write!(f, "freezes at {point}"),
            Self::Fail(point) => write!(f, "error at {point}"),
            Self::Sigkill => write!(f, "SIGKILL"),
            Self::Sigstop => write!(f, "SIGSTOP, SIGCONT"),
            Self::Restart(server) => write!(f, "{server} restarted"),
            Self::Commit(server, action) => write!(f, "{}: COMMIT, {}", server.as_str(), what(action)),
            Self::CutAll(server) => write!(f, "{}: all connections cut", server.as_str()),
            Self::Refuse(server) => write!(f, "{}: cut and refused", server.as_str()),
            Self::Delay(server) => write!(f, "{}: slow", server.as_str()),
            Self::Request(server, method, action) => write!(f, "{}: {method}, {}", server.as_str(), what(action)),
        }
    }
}

impl Fault {
    /// Each kind once.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for point in points(fail_points::NAMES) {
            all.extend([Self::Abort(point), Self::Freeze(point)]);
        }
        all.extend(points(fail_points::FALLIBLE).filter(|point| *point != AT_START).map(Self::Fail));
        all.extend([Self::Sigkill, Self::Sigstop, Self::Restart("postgres"), Self::Restart("kafka")]);
        all.extend(Self::commits());
        for server in Server::ALL {
            all.extend([Self::CutAll(server), Self::Refuse(server), Self::Delay(server)]);
        }
        all.extend(Self::requests());
        all
    }

    /// Every death, the zombies that matter most, every broken COMMIT and request.
    pub(crate) fn quick() -> Vec<Self> {
        let mut quick: Vec<Self> = points(fail_points::NAMES).map(Self::Abort).collect();
        quick.extend(["batch.all_put", "commit.before_commit", "commit.committed"].map(Self::Freeze));
        quick.extend(Self::commits());
        quick.extend(Self::requests());
        quick.extend([Self::Sigkill, Self::Refuse(Server::Catalog), Self::Restart("postgres")]);
        quick
    }

    fn commits() -> impl Iterator<Item = Self> {
        [Server::Catalog, Server::Warehouse]
            .into_iter()
            .flat_map(|server| [Action::CutBefore, Action::LoseAnswer].map(|action| Self::Commit(server, action)))
    }

    fn requests() -> impl Iterator<Item = Self> {
        let raw = [SLOW_DOWN, INTERNAL, Action::CutAnswer, Action::LoseAnswer];
        let put = [SLOW_DOWN, INTERNAL, Action::LoseAnswer];
        let raw = raw.map(|action| Self::Request(Server::Raw, "GET", action));
        let put = put.map(|action| Self::Request(Server::Lake, "PUT", action));
        raw.into_iter().chain(put).chain([Self::Request(Server::Lake, "GET", Action::CutAnswer)])
    }

    /// Brings it about and mends what it broke. False: it did not happen.
    pub(crate) async fn inject(self, process: &mut Process<'_>, rng: &mut StdRng, load: &Load<'_>) -> bool {
        match self {
            Self::Abort(AT_START) => {
                process.replace(&format!("{AT_START}=1*return(abort)")).await;
                dies(process, AT_START, load).await
            }
            Self::Abort(point) => {
                process.arm(point, &format!("{}*off->1*return(abort)", skip(point, rng)));
                dies(process, point, load).await
            }
            Self::Freeze(AT_START) => {
                process.replace(&format!("{AT_START}=1*return(freeze)")).await;
                freezes(process, AT_START, rng, load).await
            }
            Self::Freeze(point) => {
                process.arm(point, &format!("{}*off->1*return(freeze)", skip(point, rng)));
                freezes(process, point, rng, load).await
            }
            Self::Fail(point) => fails(process, point, skip(point, rng), load).await,
            Self::Sigkill => {
                let inside = gate(process, rng, load).await;
                process.signal("KILL");
                process.until(ATTEMPT_WAIT, Process::has_ended).await;
                let killed = process.ended_by() == Some(KILLED);
                process.restart().await;
                inside && killed
            }
            Self::Sigstop => {
                let inside = gate(process, rng, load).await;
                process.signal("STOP");
                inside & thaw(process, FREEZE).await
            }
            Self::Restart(server) => {
                let inside = gate(process, rng, load).await;
                load.restart(server).await;
                inside
            }
            Self::Commit(server, action) => {
                let context: &[u8] = match server {
                    Server::Warehouse => b"INSERT INTO warehouse.load_state",
                    _ => b"INSERT INTO catalog.micro_batch",
                };
                let trigger = Trigger { context, pattern: b"COMMIT\0", skip: rng.random_range(0..2), action };
                passes(process, server, trigger, load).await
            }
            Self::Request(server, method, action) => {
                let pattern: &[u8] = if method == "GET" { b"GET /" } else { b"PUT /" };
                let trigger = Trigger { context: b"", pattern, skip: rng.random_range(0..5), action };
                passes(process, server, trigger, load).await
            }
            Self::CutAll(server) => {
                let inside = gate(process, rng, load).await;
                inside & suffers(process, server, load, Proxy::cut_all).await
            }
            Self::Refuse(server) => {
                let inside = gate(process, rng, load).await;
                let time = Duration::from_millis(rng.random_range(500..3_000));
                inside & suffers(process, server, load, |proxy| proxy.refuse_for(time)).await
            }
            Self::Delay(server) => {
                let inside = gate(process, rng, load).await;
                inside & suffers(process, server, load, |proxy| proxy.delay_for(SLOW)).await
            }
        }
    }
}

fn points(of: &[&'static str]) -> impl Iterator<Item = &'static str> {
    of.iter().copied().filter(|point| *point != OF_LARGE_OBJECTS)
}

/// How many times a point is passed first: the moment within the work.
fn skip(point: &str, rng: &mut StdRng) -> u32 {
    let passed_by_each = if point.starts_with("publish") || point == "batch.one_put" { 8 } else { 2 };
    rng.random_range(0..passed_by_each)
}

/// Puts objects until `happened`, a few times.
async fn under_load<'w>(
    process: &mut Process<'w>,
    load: &Load<'_>,
    mut happened: impl FnMut(&mut Process<'w>) -> bool,
) -> bool {
    for _ in 0..ATTEMPTS {
        let producing = load.produce();
        let waiting = process.until(ATTEMPT_WAIT, |process| happened(process) || process.has_ended());
        let (came, ()) = tokio::join!(waiting, producing);
        if came {
            return happened(process);
        }
    }
    false
}

/// Waits until the process lingers inside an open micro-batch, then for a random moment less than that.
async fn gate(process: &mut Process<'_>, rng: &mut StdRng, load: &Load<'_>) -> bool {
    let point = GATES[rng.random_range(0..GATES.len())];
    let before = process.reached(point, "linger");
    process.arm(point, &format!("{}*off->1*return(linger:{LINGER_MS})", skip(point, rng)));
    let inside = under_load(process, load, |process| process.reached(point, "linger") > before).await;
    if !inside {
        process.disarm(point);
    }
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..LINGER_MS / 3))).await;
    inside
}

async fn dies(process: &mut Process<'_>, point: &str, load: &Load<'_>) -> bool {
    let died = under_load(process, load, Process::has_ended).await;
    let there = process.ended_by() == Some(ABORTED) && process.reached(point, "abort") == 1;
    process.restart().await;
    died && there
}

async fn fails(process: &mut Process<'_>, point: &str, skip: u32, load: &Load<'_>) -> bool {
    let before = process.reached(point, "error");
    process.arm(point, &format!("{skip}*off->1*return(error)"));
    let happened = under_load(process, load, |process| process.reached(point, "error") > before).await;
    if !happened {
        process.disarm(point);
    }
    happened
}

async fn freezes(process: &mut Process<'_>, point: &str, rng: &mut StdRng, load: &Load<'_>) -> bool {
    // nothing else stops a process meanwhile
    let reached =
        under_load(process, load, |process| process.reached(point, "freeze") > 0 && process.is_frozen()).await;
    if !reached {
        process.disarm(point);
        return false;
    }
    let leased = point.starts_with("publish") || point.starts_with("load");
    thaw(process, if leased && rng.random_bool(0.5) { FREEZE_BEYOND_LEASE } else { FREEZE }).await
}

/// Wakes a frozen process after a while.
async fn thaw(process: &mut Process<'_>, after: Duration) -> bool {
    let frozen = process.until(Duration::from_secs(1), |process| process.is_frozen()).await;
    tokio::time::sleep(after).await;
    let frozen = frozen && process.is_frozen();
    process.signal("CONT");
    frozen
}

/// Breaks a way to a server at once.
async fn suffers(process: &mut Process<'_>, server: Server, load: &Load<'_>, what: impl FnOnce(&Proxy)) -> bool {
    let before = process.proxy(server).broken();
    what(process.proxy(server));
    under_load(process, load, |process| process.proxy(server).broken() > before).await
}

/// Lets a proxy wait for a pattern.
async fn passes(process: &mut Process<'_>, server: Server, trigger: Trigger, load: &Load<'_>) -> bool {
    let before = process.proxy(server).broken();
    process.proxy(server).arm(trigger);
    let happened = under_load(process, load, |process| process.proxy(server).broken() > before).await;
    process.proxy(server).heal();
    happened
}
