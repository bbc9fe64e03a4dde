//! A private PostgreSQL cluster in a folder, on a free loopback port.
//!
//! `initdb` and `postgres` refuse to run as root: root lends the folder to the user `postgres` then. Where that
//! user cannot reach the folder, the cluster lies in the temporary directory and a link stands in the folder.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::EmbeddedError;

const ROOTS_DELEGATE: &str = "postgres";

/// A running cluster; stopped when dropped.
pub struct PostgresCluster {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
    as_delegate: bool,
    running: bool,
}

impl PostgresCluster {
    /// Starts the cluster of the folder, made anew where there is none, and creates the databases.
    pub async fn start(folder: &Path, databases: &[&str]) -> Result<Self, EmbeddedError> {
        let folder = folder.to_owned();
        let cluster = tokio::task::spawn_blocking(move || Self::start_blocking(&folder)).await??;
        for database in databases {
            cluster.create(database).await?;
        }
        Ok(cluster)
    }

    fn start_blocking(folder: &Path) -> Result<Self, EmbeddedError> {
        let bin = find_binaries().ok_or(EmbeddedError::PostgresMissing)?;
        let as_delegate = runs_as_root();
        let failed = |source| EmbeddedError::Folder { path: folder.to_owned(), source };
        let data = prepare(folder, as_delegate).map_err(failed)?;
        let port = free_port().map_err(EmbeddedError::Listen)?;
        let mut cluster = Self { bin, data, port, as_delegate, running: false };
        if !cluster.data.join("PG_VERSION").exists() {
            let data = cluster.data.to_string_lossy().into_owned();
            cluster.call("initdb", &["-D", &data, "-U", "sluice", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"])?;
        }
        // one that a killed process left behind
        let _ = cluster.control(&["-m", "immediate", "stop"]);
        let log = cluster.data.join("server.log").to_string_lossy().into_owned();
        let options =
            format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=100");
        cluster.control(&["-w", "-t", "60", "-l", &log, "-o", &options, "start"])?;
        cluster.running = true;
        Ok(cluster)
    }

    /// Stops the cluster that a killed process left in the folder, if there is one.
    pub fn stop_left_over(folder: &Path) {
        let data = folder.join("data");
        if let (Some(bin), true) = (find_binaries(), data.join("postmaster.pid").exists()) {
            let cluster = Self { bin, data, port: 0, as_delegate: runs_as_root(), running: false };
            // an error says that nothing runs any more
            let _ = cluster.control(&["-m", "immediate", "stop"]);
        }
    }

    /// Address of a database: no password, for the cluster listens on loopback alone.
    pub fn dsn(&self, database: &str) -> String {
        format!("postgres://sluice@127.0.0.1:{}/{database}", self.port)
    }

    async fn create(&self, database: &str) -> Result<(), EmbeddedError> {
        let failed = |source| EmbeddedError::Database { database: database.to_owned(), source };
        let dsn = self.dsn("postgres");
        let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.map_err(failed)?;
        let driver = tokio::spawn(connection);
        let known = client
            .query_one("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", &[&database])
            .await
            .map_err(failed)?;
        if !known.get::<_, bool>(0) {
            client.batch_execute(&format!("CREATE DATABASE \"{database}\"")).await.map_err(failed)?;
        }
        drop(client);
        let _ = driver.await;
        Ok(())
    }

    /// Stops the cluster; its data stay.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.running = false;
        let stopping = Self { running: false, bin: self.bin.clone(), data: self.data.clone(), ..self };
        tokio::task::spawn_blocking(move || stopping.control(&["-m", "fast", "-t", "30", "stop"])).await?
    }

    fn control(&self, args: &[&str]) -> Result<(), EmbeddedError> {
        let data = self.data.to_string_lossy().into_owned();
        let args: Vec<&str> = ["-D", &data, "-s"].into_iter().chain(args.iter().copied()).collect();
        self.call("pg_ctl", &args)
    }

    fn call(&self, program: &'static str, args: &[&str]) -> Result<(), EmbeddedError> {
        let path = self.bin.join(program);
        let mut command = if self.as_delegate {
            let mut command = Command::new("runuser");
            command.args(["-u", ROOTS_DELEGATE, "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        // a folder that the delegate may stand in
        command.args(args).current_dir("/").stdin(Stdio::null());
        // `pg_ctl start` leaves a server behind that would hold a pipe open for ever
        let output = if program == "pg_ctl" {
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().map(|status| Output {
                status,
                stdout: Vec::new(),
                stderr: Vec::new(),
            })
        } else {
            command.output()
        };
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(EmbeddedError::Postgres { program, detail: self.detail(&output) }),
            Err(error) => Err(EmbeddedError::Postgres { program, detail: error.to_string() }),
        }
    }

    fn detail(&self, output: &Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !said.is_empty() {
            return said;
        }
        let log = std::fs::read_to_string(self.data.join("server.log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it said nothing");
        format!("{last} (see {})", self.data.join("server.log").display())
    }
}

impl Drop for PostgresCluster {
    fn drop(&mut self) {
        if self.running {
            let _ = self.control(&["-m", "fast", "-t", "10", "stop"]);
        }
    }
}

/// `SLUICE_PG_BIN`, then the PATH, then where Debian keeps them, the newest first.
fn find_binaries() -> Option<PathBuf> {
    let named = std::env::var_os("SLUICE_PG_BIN").map(PathBuf::from);
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    debian.sort();
    named
        .into_iter()
        .chain(on_path.into_iter().flatten())
        .chain(debian.into_iter().rev())
        .find(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists())
}

fn runs_as_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("Uid:"))?.to_owned();
            line.split_whitespace().nth(2).map(|effective| effective == "0")
        })
        .unwrap_or(false)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The data folder, there and owned by whoever runs the server.
fn prepare(folder: &Path, as_delegate: bool) -> io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let mut data = folder.join("data");
    if as_delegate && !data.exists() && !reachable(&folder) {
        let elsewhere = std::env::temp_dir().join(format!("sluice-postgres-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&elsewhere)?;
        std::os::unix::fs::symlink(&elsewhere, &data)?;
    }
    std::fs::create_dir_all(&data)?;
    data = data.canonicalize()?;
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    if as_delegate {
        let owned = Command::new("chown").arg("-R").arg(ROOTS_DELEGATE).arg(&data).status()?;
        if !owned.success() {
            return Err(io::Error::other(format!("chown to user {ROOTS_DELEGATE} failed")));
        }
    }
    Ok(data)
}

/// Whether the delegate may pass through the folder.
fn reachable(folder: &Path) -> bool {
    Command::new("runuser")
        .args(["-u", ROOTS_DELEGATE, "--", "test", "-x"])
        .arg(folder)
        .current_dir("/")
        .status()
        .is_ok_and(|status| status.success())
}
