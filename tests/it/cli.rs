//! What a person sees: every help text, usage error and doctor's word, and that every failure says what to do.

use std::collections::HashMap;
use std::process::{Command, Output};

use clap::CommandFactory;

use crate::stack::World;

/// Every command there is, as it is typed.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, typed: &[String], found: &mut Vec<Vec<String>>) {
        found.push(typed.to_vec());
        for sub in command.get_subcommands() {
            walk(sub, &[typed, &[sub.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    walk(&sluice::cli::Cli::command(), &[], &mut found);
    found
}

/// Without any setting of the surroundings.
fn sluice(args: &[&str], env: &HashMap<String, String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SLUICE_")) {
        command.env_remove(name);
    }
    command.args(args).envs(env).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("the binary runs")
}

fn transcript(output: &Output) -> String {
    let code = output.status.code().map_or_else(|| "signal".into(), |code| code.to_string());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("exit code {code}\n{out}{err}")
}

#[test]
fn every_help_text_is_as_reviewed() {
    let texts: Vec<String> = commands()
        .iter()
        .map(|command| {
            let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
            format!("$ sluice {}\n{}", args.join(" "), transcript(&sluice(&args, &HashMap::new())))
        })
        .collect();
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn every_usage_error_is_as_reviewed() {
    let mut texts = Vec::new();
    for args in [
        &["fly"][..],
        &["run", "--role", "dance"],
        &["topics"],
        &["settled", "--wait", "long"],
        &["replay", "plan", "--topic", "raw-notifications"],
        &["replay", "plan", "--topic", "raw-notifications", "--by-duration", "an hour"],
        &["replay", "reload", "--since", "yesterday"],
        &["run", "--set", "kafka.group"],
        &["run", "--set", "kafka.grup=x"],
        &["run"],
        &["validate", "--connectors", "nowhere"],
        &["dead-letters", "redrive"],
        &["dead-letters", "show", "7"],
    ] {
        texts.push(format!("$ sluice {}\n{}", args.join(" "), transcript(&sluice(args, &HashMap::new()))));
    }
    insta::assert_snapshot!(texts.join("\n"));
}

/// Addresses that nobody listens on.
fn unreachable() -> HashMap<String, String> {
    let settings = [
        ("SLUICE_KAFKA__BROKERS", "127.0.0.1:1"),
        ("SLUICE_S3__RAW__ENDPOINT", "http://127.0.0.1:1"),
        ("SLUICE_S3__RAW__ACCESS_KEY_ID", "key"),
        ("SLUICE_S3__RAW__SECRET_ACCESS_KEY", "secret"),
        ("SLUICE_CATALOG__DSN", "postgres://sluice:hidden@127.0.0.1:1/sluice_catalog"),
        ("SLUICE_TELEMETRY__LISTEN", "127.0.0.1:0"),
        ("SLUICE_LIMITS__START_DEADLINE", "2s"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[test]
fn unreachable_servers_are_told_by_doctor_and_end_a_start_with_exit_code_1() {
    let doctor = sluice(&["doctor"], &unreachable());
    insta::assert_snapshot!(String::from_utf8_lossy(&doctor.stdout));
    assert_eq!(doctor.status.code(), Some(1));
    let run = sluice(&["run"], &unreachable());
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line.starts_with("error: could not start: ")), "{said}");
    assert!(!said.contains("hidden") && !said.contains("secret"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_to_do_about_each_dependency() {
    let world = World::new(1).await;
    let healthy = world.sluice(&["doctor"]);
    let shown = |output: &Output| {
        String::from_utf8_lossy(&output.stdout)
            .replace(&world.name, "world")
            .replace(world.stack.get("SLUICE_S3__RAW__ENDPOINT"), "http://raw")
            .replace(world.stack.get("SLUICE_S3__LAKE__ENDPOINT"), "http://lake")
            .replace(&world.folder.display().to_string(), "folder")
    };
    insta::assert_snapshot!("doctor_healthy", shown(&healthy));
    assert_eq!(healthy.status.code(), Some(0));
    let broken = [
        "--set",
        "kafka.staged_batches_topic=nowhere",
        "--set",
        "s3.raw.secret_access_key=wrong",
        "--set",
        "catalog.dsn=postgres://sluice:sluice@127.0.0.1:1/x",
    ];
    let args: Vec<&str> = ["doctor"].into_iter().chain(broken).collect();
    let failing = world.sluice(&args);
    insta::assert_snapshot!("doctor_failing", shown(&failing));
    assert_eq!(failing.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_missing_and_a_topic_that_is_missing_end_a_start_with_one_line() {
    let mut world = World::new(1).await;
    let refused = |world: &World, code: i32, what: &str| {
        let run = world.sluice(&["run", "--set", "limits.start_deadline=2s"]);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        let line = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default().to_owned();
        assert_eq!(run.status.code(), Some(code), "{said}");
        assert!(line.contains(what), "{said}");
    };
    let good = world.env["SLUICE_KAFKA__STAGED_BATCHES_TOPIC"].clone();
    world.env.insert("SLUICE_KAFKA__STAGED_BATCHES_TOPIC".into(), "nowhere".into());
    refused(&world, 1, "topic `nowhere` does not exist: create it with `sluice topics apply`");
    world.env.insert("SLUICE_KAFKA__STAGED_BATCHES_TOPIC".into(), good);
    let catalog = world.catalog().await;
    catalog.batch_execute("DROP SCHEMA catalog CASCADE").await.expect("ours");
    refused(&world, 3, "sluice migrate");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_raised_and_never_lowered() {
    let world = World::new(1).await;
    let folder = world.folder.join("topics");
    std::fs::create_dir_all(&folder).expect("the folder is ours");
    let name = format!("{}-made", world.name);
    let apply = |partitions: u32, retention: &str, flags: &[&str]| {
        let text = format!(
            "name: {name}\npartitions: {partitions}\nretention: {retention}\npayload: records\nowner: tests\ndescription: made by a test\n"
        );
        std::fs::write(folder.join("made.yaml"), text).expect("the folder is ours");
        let dir = format!("topics_dir={}", folder.display());
        let args: Vec<&str> = ["topics", "apply", "--set", &dir].into_iter().chain(flags.iter().copied()).collect();
        let output = world.sluice(&args);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said.replace(&name, "made"))
    };
    assert_eq!(apply(2, "7d", &[]), (Some(0), "made: created with 2 partitions\n".into()));
    assert_eq!(apply(2, "7d", &[]), (Some(0), "made: as it should be\n".into()));
    assert_eq!(apply(4, "7d", &[]), (Some(0), "made: partitions raised from 2 to 4\n".into()));
    let (code, said) = apply(3, "1d", &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("Kafka cannot lower them") && said.contains("keeps less data"), "{said}");
    let (code, said) = apply(4, "1d", &["--allow-lowering"]);
    assert_eq!((code, said.as_str()), (Some(0), "made: retention.ms changed from 604800000 to 86400000\n"));
}
