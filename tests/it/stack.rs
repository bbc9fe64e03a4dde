//! The real servers, started once a test process by `compose/native`, and a world of its own for each test:
//! topics, buckets, databases and a group that no other test touches.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sluice_loadtest::{Endpoints, S3Target};
use tokio_postgres::NoTls;

pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// A running stack and its settings.
pub(crate) struct Stack {
    pub(crate) state: PathBuf,
    pub(crate) settings: HashMap<String, String>,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Stack {
    /// Ends with the test process, however that ends: a shell waits for its death and takes the servers down.
    #[expect(clippy::zombie_processes, reason = "it outlives this process by design")]
    fn start(flags: &[&str]) -> Self {
        let state = std::env::temp_dir().join(format!("sluice-it-{}", uuid::Uuid::new_v4().simple()));
        let native = repository().join("compose/native");
        let up = Command::new(&native).arg("up").args(flags).arg("--state").arg(&state).output().expect("bash runs");
        assert!(up.status.success(), "the stack did not start: {}", String::from_utf8_lossy(&up.stderr));
        let watch = r#"tail --pid="$1" -f /dev/null; "$2" down --state "$3" && rm -rf "$3""#;
        Command::new("setsid")
            .args(["sh", "-c", watch, "sh"])
            .arg(std::process::id().to_string())
            .arg(&native)
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        let text = std::fs::read_to_string(state.join("settings.env")).expect("`up` writes its settings");
        let settings = text
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { state, settings }
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// One of Kafka's own tools.
    pub(crate) fn kafka(&self, args: &[&str]) -> String {
        let output = self.kafka_output(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, however it ends.
    pub(crate) fn kafka_output(&self, args: &[&str]) -> Output {
        self.native("kafka", args)
    }

    /// Stops a server (`kafka`, `postgres`, `raw` or `lake`) and starts it again on its port.
    pub(crate) fn restart(&self, server: &str) {
        let output = self.native("restart", &[server]);
        assert!(output.status.success(), "{server}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn native(&self, command: &str, args: &[&str]) -> Output {
        Command::new(repository().join("compose/native"))
            .arg(command)
            .args(["--state".as_ref(), self.state.as_os_str()])
            .args(args)
            .output()
            .expect("bash runs")
    }
}

/// The stack that most tests share: two gateways.
pub(crate) fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::start(&[]))
}

/// A stack where one gateway holds raw and lake.
pub(crate) fn single_gateway() -> Stack {
    Stack::start(&["--single-gateway"])
}

/// A test's own topics, databases, buckets, group and connectors.
pub(crate) struct World {
    pub(crate) stack: &'static Stack,
    pub(crate) name: String,
    pub(crate) notifications: String,
    pub(crate) records: String,
    pub(crate) raw_bucket: String,
    pub(crate) folder: PathBuf,
    pub(crate) env: HashMap<String, String>,
}

impl World {
    /// `partitions`: of each of its topics.
    pub(crate) async fn new(partitions: i32) -> Self {
        Self::on(stack(), partitions, None).await
    }

    /// `notifications`: a topic that is there already, with the bucket `raw` that announces on it.
    pub(crate) async fn on(stack: &'static Stack, partitions: i32, notifications: Option<&str>) -> Self {
        let name = format!("w{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let folder = std::env::temp_dir().join(format!("sluice-{name}"));
        let (topic, records) = (format!("{name}-notifications"), format!("{name}-records"));
        let (raw_bucket, lake_bucket) = match notifications {
            Some(_) => ("raw".to_owned(), format!("{name}-lake")),
            None => (format!("{name}-raw"), format!("{name}-lake")),
        };
        let mut world = Self {
            stack,
            notifications: notifications.map_or(topic, ToOwned::to_owned),
            records,
            raw_bucket,
            folder,
            env: stack.settings.clone(),
            name,
        };
        world.make_topics(partitions, notifications.is_none()).await;
        if notifications.is_none() {
            world.bucket("RAW", &world.raw_bucket).await;
        }
        world.bucket("LAKE", &lake_bucket).await;
        world.make_databases().await;
        world.write_connectors();
        let own = [
            ("SLUICE_KAFKA__GROUP", world.name.clone()),
            ("SLUICE_KAFKA__STAGED_BATCHES_TOPIC", format!("{}-staged", world.name)),
            ("SLUICE_S3__LAKE_BUCKET", lake_bucket),
            ("SLUICE_CONNECTORS_DIR", world.folder.join("connectors").display().to_string()),
            // a killed member is missed after six seconds, the least that brokers allow by default
            ("SLUICE_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "6000".to_owned()),
            ("SLUICE_KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS", "1500".to_owned()),
            ("SLUICE_TELEMETRY__LISTEN", "127.0.0.1:0".to_owned()),
            ("SLUICE_TELEMETRY__LOG_FORMAT", "json".to_owned()),
        ];
        world.env.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let migrated = world.sluice(&["migrate"]);
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        world
    }

    /// Reads the same topics and the same bucket, with connectors that are copies, into its own lake and databases.
    pub(crate) async fn twin(world: &Self) -> Self {
        let mut twin = Self::on(world.stack, 1, None).await;
        twin.notifications.clone_from(&world.notifications);
        twin.records.clone_from(&world.records);
        twin.raw_bucket.clone_from(&world.raw_bucket);
        let own = [
            "SLUICE_KAFKA__GROUP",
            "SLUICE_KAFKA__STAGED_BATCHES_TOPIC",
            "SLUICE_S3__LAKE_BUCKET",
            "SLUICE_CONNECTORS_DIR",
            "SLUICE_CATALOG__DSN",
            "SLUICE_WAREHOUSE__DSN",
        ];
        let others = world.env.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        twin.env.extend(others.map(|(name, value)| (name.clone(), value.clone())));
        std::fs::remove_dir_all(twin.folder.join("connectors")).expect("the folder is ours");
        std::fs::create_dir_all(twin.folder.join("connectors")).expect("the folder is ours");
        for entry in std::fs::read_dir(world.folder.join("connectors")).expect("the folder is ours") {
            let path = entry.expect("readable").path();
            let to = twin.folder.join("connectors").join(path.file_name().expect("a file"));
            std::fs::copy(&path, to).expect("the folder is ours");
        }
        twin
    }

    /// Changes the text of every connector.
    pub(crate) fn edit_connectors(&self, change: impl Fn(String) -> String) {
        for entry in std::fs::read_dir(self.folder.join("connectors")).expect("the folder is ours") {
            let path = entry.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("readable");
            std::fs::write(&path, change(text)).expect("the folder is ours");
        }
    }

    pub(crate) async fn make_topic(&self, name: &str, partitions: i32) {
        use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
        let admin: AdminClient<_> = self.kafka_config().create().expect("a valid configuration");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let created = admin.create_topics([&topic], &AdminOptions::new()).await.expect("the broker answers");
        created[0].as_ref().expect("a new topic");
    }

    async fn make_topics(&self, partitions: i32, with_notifications: bool) {
        use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
        let admin: AdminClient<_> = self.kafka_config().create().expect("a valid configuration");
        let staged = format!("{}-staged", self.name);
        let mut names = vec![self.records.as_str(), &staged];
        if with_notifications {
            names.push(&self.notifications);
        }
        let topics: Vec<NewTopic<'_>> =
            names.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1))).collect();
        for created in admin.create_topics(&topics, &AdminOptions::new()).await.expect("the broker answers") {
            created.expect("a new topic");
        }
    }

    pub(crate) fn kafka_config(&self) -> rdkafka::ClientConfig {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", self.stack.get("SLUICE_KAFKA__BROKERS"));
        config
    }

    async fn bucket(&self, role: &str, name: &str) {
        let created = self.target(role).client().create_bucket().bucket(name).send().await;
        created.expect("a new bucket");
    }

    async fn make_databases(&mut self) {
        for (variable, suffix) in [("SLUICE_CATALOG__DSN", "catalog"), ("SLUICE_WAREHOUSE__DSN", "warehouse")] {
            let dsn = self.stack.get(variable).to_owned();
            let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.expect("PostgreSQL answers");
            let driver = tokio::spawn(connection);
            let database = format!("{}_{suffix}", self.name);
            client.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("a new database");
            drop(client);
            driver.await.expect("not cancelled").expect("ends well");
            let (server, _) = dsn.rsplit_once('/').expect("the stack writes addresses");
            self.env.insert(variable.to_owned(), format!("{server}/{database}"));
        }
    }

    /// The repository's connectors, reading this world's topics and bucket.
    fn write_connectors(&self) {
        let folder = self.folder.join("connectors");
        std::fs::create_dir_all(&folder).expect("the folder is ours");
        for entry in std::fs::read_dir(repository().join("connectors")).expect("the repository has connectors") {
            let path = entry.expect("readable").path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("readable");
            let text = text
                .replace("topic: raw-notifications", &format!("topic: {}", self.notifications))
                .replace("topic: direct-events", &format!("topic: {}", self.records))
                .replace("bucket: raw", &format!("bucket: {}", self.raw_bucket));
            // worlds on one topic see each other's announcements: only objects below their own prefix are theirs
            let text = ["transactions/", "events/", "users/", "products/"].iter().fold(text, |text, prefix| {
                let own =
                    if self.raw_bucket == "raw" { format!("{prefix}{}/", self.name) } else { (*prefix).to_owned() };
                text.replace(&format!("prefix: {prefix}"), &format!("prefix: {own}"))
            });
            std::fs::write(folder.join(path.file_name().expect("a file")), text).expect("the folder is ours");
        }
    }

    pub(crate) fn without_connector(&self, name: &str) {
        std::fs::remove_file(self.folder.join("connectors").join(format!("{name}.yaml"))).expect("it was written");
    }

    pub(crate) fn target(&self, role: &str) -> S3Target {
        let get = |name: &str| self.stack.get(&format!("SLUICE_S3__{role}__{name}")).to_owned();
        S3Target {
            endpoint: Some(get("ENDPOINT")),
            region: get("REGION"),
            access_key_id: get("ACCESS_KEY_ID"),
            secret_access_key: get("SECRET_ACCESS_KEY"),
        }
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        Endpoints {
            kafka_brokers: self.stack.get("SLUICE_KAFKA__BROKERS").to_owned(),
            raw: self.target("RAW"),
            lake: self.target("LAKE"),
            lake_bucket: self.env["SLUICE_S3__LAKE_BUCKET"].clone(),
            warehouse_dsn: self.env["SLUICE_WAREHOUSE__DSN"].clone(),
        }
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.join("ledger")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(args).envs(&self.env).current_dir(repository());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn sluice(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Starts `sluice run`; its log goes to the world's folder.
    pub(crate) fn run(&self) -> Running {
        self.run_with(&HashMap::new(), &[])
    }

    /// `own`: settings of this process alone; `args` follow `run`.
    pub(crate) fn run_with(&self, own: &HashMap<String, String>, args: &[&str]) -> Running {
        let log = self.folder.join(format!("run-{}.log", uuid::Uuid::new_v4().simple()));
        let file = std::fs::File::create(&log).expect("the folder is ours");
        let mut command = self.command(&["run"]);
        let child = command.args(args).envs(own).stderr(file).stdout(Stdio::null()).spawn().expect("the binary runs");
        Running { child: Some(child), log }
    }

    /// Waits until nothing is in flight.
    pub(crate) fn settle(&self) {
        let settled = self.sluice(&["settled", "--wait", &DEADLINE.as_secs().to_string()]);
        let said = String::from_utf8_lossy(&settled.stdout).into_owned();
        assert!(settled.status.success(), "not settled: {said}\n{}", self.logs());
    }

    /// What the processes of this world have logged, for failures.
    pub(crate) fn logs(&self) -> String {
        let entries = std::fs::read_dir(&self.folder).expect("the folder is ours").flatten();
        let logs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("run-"));
        logs.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect::<Vec<_>>().join("\n---\n")
    }

    pub(crate) async fn catalog(&self) -> tokio_postgres::Client {
        connect(&self.env["SLUICE_CATALOG__DSN"]).await
    }

    pub(crate) async fn warehouse(&self) -> tokio_postgres::Client {
        connect(&self.env["SLUICE_WAREHOUSE__DSN"]).await
    }

    /// By [`checker`](crate::checker), on a thread of its own: the test's runtime is about to end. What still runs may go on loading;
    /// one snapshot is looked at.
    fn check_warehouse(&self) {
        let (server, _) = self.stack.get("SLUICE_WAREHOUSE__DSN").rsplit_once('/').expect("the stack writes addresses");
        let dsn = format!("{server}/{}_warehouse", self.name);
        let checked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let client = connect(&dsn).await;
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                client.batch_execute(begin).await.expect("the warehouse answers");
                crate::checker::check(&client).await;
            });
        });
        assert!(checked.join().is_ok(), "the checker's finding stands above");
    }

    /// A backup of the catalog, as an operator takes it.
    pub(crate) fn dump_catalog(&self) -> PathBuf {
        let file = self.folder.join(format!("catalog-{}.sql", uuid::Uuid::new_v4().simple()));
        let dumped = Command::new("pg_dump")
            .args(["--clean", "--if-exists", "--file"])
            .arg(&file)
            .arg(&self.env["SLUICE_CATALOG__DSN"])
            .output()
            .expect("pg_dump comes with PostgreSQL's client");
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        file
    }

    pub(crate) async fn restore_catalog(&self, dump: &Path) {
        let restored = Command::new("psql")
            .args(["--quiet", "--set", "ON_ERROR_STOP=1", "--file"])
            .arg(dump)
            .arg(&self.env["SLUICE_CATALOG__DSN"])
            .output()
            .expect("psql comes with PostgreSQL's client");
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    }

    /// Sums of a ledger as `outcome` → count.
    pub(crate) async fn outcomes(&self, ledger: &str) -> HashMap<String, i64> {
        let rows = self
            .catalog()
            .await
            .query(
                "SELECT outcome, sum(item_count)::bigint FROM catalog.outcome_count WHERE ledger = $1 GROUP BY 1",
                &[&ledger],
            )
            .await
            .expect("the catalog answers");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// BOOK-1 over every micro-batch, by a query.
    pub(crate) async fn assert_books_balance(&self) {
        let row = self
            .catalog()
            .await
            .query_one("SELECT count(*), count(*) FILTER (WHERE NOT balanced) FROM catalog.books", &[])
            .await
            .expect("the catalog answers");
        let (batches, unbalanced): (i64, i64) = (row.get(0), row.get(1));
        assert!(batches > 0, "nothing was committed");
        assert_eq!(unbalanced, 0);
    }

    /// Verifies from outside and expects zeros.
    pub(crate) async fn assert_verified(&self) {
        let report = sluice_loadtest::verify(&self.endpoints(), &self.ledger()).await.expect("everything can be read");
        assert!(report.is_clean(), "{}\n{}", report.display(30), self.logs());
    }
}

async fn connect(dsn: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

impl Drop for World {
    /// Whatever a test was about, its warehouse is right when it ends.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check_warehouse();
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A running `sluice run`; killed when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    pub(crate) log: PathBuf,
}

impl Running {
    /// User and system time so far. Source: proc(5), /proc/pid/stat, in ticks of 10 ms.
    pub(crate) fn cpu(&self) -> Duration {
        let id = self.child.as_ref().expect("it runs").id();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
        let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks =
            rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>();
        Duration::from_millis(ticks * 10)
    }

    /// Where it serves its endpoints, once it has logged that.
    pub(crate) fn telemetry(&self) -> Option<String> {
        let log = std::fs::read_to_string(&self.log).ok()?;
        let (_, rest) = log.split_once("\"address\":\"")?;
        Some(rest.split_once('"')?.0.to_owned())
    }

    pub(crate) fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// How the process has ended, or `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.as_mut()?.try_wait().expect("our own child")
    }

    /// SIGTERM; returns the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        child.wait().ok()?.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// Waits until `condition` holds; panics with `what` after the deadline.
pub(crate) async fn wait_for<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = tokio::time::interval(Duration::from_millis(100));
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        pause.tick().await;
    }
}
