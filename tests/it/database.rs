//! A private PostgreSQL cluster for this test process, and a fresh database in it for each test.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where Debian puts the servers of PostgreSQL 15.
const DEBIAN_BINARIES: &str = "/usr/lib/postgresql/15/bin";

/// Ends with its standard input: whatever becomes of the test process, the cluster goes with it. Each line of it lets the server die
/// and start anew.
const CLUSTER: &str = r#"
set -e
folder=$(mktemp -d /tmp/sluice-it-XXXXXX)
"$1/initdb" -D "$folder/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync >"$folder/initdb.log" 2>&1
"$1/pg_ctl" -D "$folder/data" -l "$folder/server.log" -w \
    -o "-k $folder -c listen_addresses= -c fsync=off -c max_connections=200" start >/dev/null
echo "$folder"
while read -r _; do
    "$1/pg_ctl" -D "$folder/data" -l "$folder/server.log" -w -m immediate restart >/dev/null
    echo up
done
"$1/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null
rm -rf "$folder"
"#;

pub(crate) struct Cluster {
    folder: String,
    process: Child,
}

static CLUSTER_OF_PROCESS: OnceLock<Cluster> = OnceLock::new();

/// DSN of an empty database of its own.
pub(crate) async fn fresh_database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let cluster = CLUSTER_OF_PROCESS.get_or_init(Cluster::start);
    cluster.database(&format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed))).await
}

impl Cluster {
    /// DSN of a new database.
    pub(crate) async fn database(&self, name: &str) -> String {
        let folder = &self.folder;
        let server = format!("host={folder} user=postgres");
        let (client, connection) = tokio_postgres::connect(&format!("{server} dbname=postgres"), tokio_postgres::NoTls)
            .await
            .expect("the cluster is up");
        let running = tokio::spawn(connection);
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a new name");
        drop(client);
        running.await.expect("not cancelled").expect("ends well");
        format!("{server} dbname={name}")
    }

    /// Kills the server and waits until it has recovered.
    pub(crate) fn restart(&mut self) {
        writeln!(self.process.stdin.as_mut().expect("piped"), "restart").expect("the shell listens");
        assert_eq!(self.said(), "up");
    }

    /// What the server has written down so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(format!("{}/server.log", self.folder)).expect("it keeps a log")
    }

    fn said(&mut self) -> String {
        let mut line = String::new();
        let mut byte = [0];
        let output = self.process.stdout.as_mut().expect("piped");
        while output.read_exact(&mut byte).is_ok() && byte[0] != b'\n' {
            line.push(char::from(byte[0]));
        }
        line
    }

    /// PostgreSQL refuses to run as root, so root hands over to `postgres`.
    pub(crate) fn start() -> Self {
        let is_root = Command::new("id").arg("-u").output().expect("id runs").stdout.starts_with(b"0\n");
        let mut command = if is_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let binaries = std::env::var("SLUICE_PG_BIN").unwrap_or_else(|_| DEBIAN_BINARIES.to_owned());
        let process = command
            .args(["-c", CLUSTER, "sh", &binaries])
            .current_dir("/tmp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell runs");
        let mut cluster = Self { folder: String::new(), process };
        cluster.folder = cluster.said();
        assert!(!cluster.folder.is_empty(), "no cluster: is PostgreSQL in {binaries}?");
        cluster
    }
}
