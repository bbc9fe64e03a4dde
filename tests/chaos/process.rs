//! A Sluice process behind proxies of its own: armed, watched, signalled, started again.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::proxy::Proxy;
use crate::stack::{DEADLINE, Running, World};

const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at a process, its log or a proxy.
const LOOK: Duration = Duration::from_millis(50);
/// A started process has its first topic partition after at most a session timeout and a rebalance.
const ASSIGNMENT_WAIT: Duration = Duration::from_secs(15);

/// What a process talks to through a proxy. Kafka is not among them: clients go where the broker says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    Raw,
    Lake,
    Catalog,
    Warehouse,
}

impl Server {
    pub(crate) const ALL: [Self; 4] = [Self::Raw, Self::Lake, Self::Catalog, Self::Warehouse];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "S3 raw",
            Self::Lake => "S3 lake",
            Self::Catalog => "catalog",
            Self::Warehouse => "warehouse",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Raw => "SLUICE_S3__RAW__ENDPOINT",
            Self::Lake => "SLUICE_S3__LAKE__ENDPOINT",
            Self::Catalog => "SLUICE_CATALOG__DSN",
            Self::Warehouse => "SLUICE_WAREHOUSE__DSN",
        }
    }
}

pub(crate) struct Process<'a> {
    world: &'a World,
    proxies: Vec<Proxy>,
    settings: HashMap<String, String>,
    running: Running,
    telemetry: SocketAddr,
}

/// `…host:port…` of an address: where it starts, and the rest behind it.
fn host_and_port(address: &str) -> (usize, usize) {
    let from = address.rfind('@').or_else(|| address.rfind("//").map(|at| at + 1)).map_or(0, |at| at + 1);
    let to = address[from..].find('/').map_or(address.len(), |length| from + length);
    (from, to)
}

impl<'a> Process<'a> {
    pub(crate) async fn start(world: &'a World) -> Self {
        let (mut proxies, mut settings) = (Vec::new(), HashMap::new());
        for server in Server::ALL {
            let address = &world.env[server.setting()];
            let (from, to) = host_and_port(address);
            let proxy = Proxy::start(address[from..to].parse().expect("the stack listens on loopback")).await;
            let through = format!("{}{}{}", &address[..from], proxy.address, &address[to..]);
            settings.insert(server.setting().to_owned(), through);
            proxies.push(proxy);
        }
        let running = world.run_with(&settings, &[]);
        let mut process = Self { world, proxies, settings, running, telemetry: ([127, 0, 0, 1], 0).into() };
        process.telemetry = process.listening().await;
        process.owns_something().await;
        process
    }

    pub(crate) fn proxy(&self, server: Server) -> &Proxy {
        &self.proxies[server as usize]
    }

    /// Ends it, whatever it does, and starts another in its place. `fail_points`: armed from the start.
    pub(crate) async fn replace(&mut self, fail_points: &str) {
        self.proxies.iter().for_each(Proxy::heal);
        let mut settings = self.settings.clone();
        settings.insert("FAILPOINTS".to_owned(), fail_points.to_owned());
        // the old one dies first
        if !self.has_ended() {
            self.signal("KILL");
        }
        self.until(DEADLINE, |process| process.running.ended().is_some()).await;
        self.running = self.world.run_with(&settings, &[]);
        self.telemetry = self.listening().await;
    }

    /// SIGTERM; returns the exit code.
    pub(crate) fn terminate(self) -> Option<i32> {
        self.running.terminate()
    }

    pub(crate) async fn restart(&mut self) {
        self.replace("").await;
        self.owns_something().await;
    }

    /// Waits for `condition`; says whether it came true in time.
    pub(crate) async fn until(&mut self, wait: Duration, mut condition: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + wait;
        while !condition(self) {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    async fn owns_something(&mut self) {
        self.until(ASSIGNMENT_WAIT, |process| process.log().contains("topic partition assigned")).await;
    }

    /// Where it serves `/metrics`, by its log.
    async fn listening(&mut self) -> SocketAddr {
        let address = |log: &str| {
            let (_, rest) = log.split_once(r#""address":""#)?;
            rest.split_once('"')?.0.parse().ok()
        };
        let found = self.until(DEADLINE, |process| address(&process.log()).is_some()).await;
        assert!(found, "the process does not listen: {}", self.log());
        address(&self.log()).expect("found just now")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.running.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// How often a fail point has done this (`abort`, `freeze`, `error`, `linger`) in this process.
    pub(crate) fn reached(&self, point: &str, action: &str) -> usize {
        let (point, action) = (format!(r#""point":"{point}""#), format!(r#""action":"{action}"#));
        let is_it =
            |line: &&str| line.contains("fail point reached") && line.contains(&point) && line.contains(&action);
        self.log().lines().filter(is_it).count()
    }

    /// The signal that ended it.
    pub(crate) fn ended_by(&mut self) -> Option<i32> {
        self.running.ended().and_then(|status| status.signal())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.ended().is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Stopped by a signal. Source: proc_pid_stat(5), the state behind the name in parentheses.
    pub(crate) fn is_frozen(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    pub(crate) fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
    }

    /// Arms a fail point; see `src/telemetry/fail_points.rs` for actions.
    pub(crate) fn arm(&self, point: &str, action: &str) {
        let answer = self.http("PUT", &format!("/fail-points/{point}"), action);
        assert!(answer.starts_with("HTTP/1.1 200"), "{point} {action}: {answer}\n{}", self.log());
    }

    pub(crate) fn disarm(&self, point: &str) {
        self.arm(point, "off");
    }

    /// A counter of `/metrics`, summed over its labels.
    pub(crate) fn counter(&self, name: &str) -> f64 {
        let text = self.http("GET", "/metrics", "");
        let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
        values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
    }

    fn http(&self, method: &str, path: &str, body: &str) -> String {
        let exchange = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.telemetry, HTTP_TIMEOUT)?;
            stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        exchange().unwrap_or_else(|error| format!("no answer: {error}"))
    }
}
