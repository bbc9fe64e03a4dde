use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::*;

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("sluice-settings-{}-{name}.yaml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

fn load(text: &str, name: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings, String> {
    let path = file(name, text);
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flags: Vec<Override> = flags
        .iter()
        .map(|(key, value)| Override { flag: format!("--{key}"), key: (*key).to_owned(), value: (*value).to_owned() })
        .collect();
    let loaded = Settings::load(Some(&path), env, &flags);
    std::fs::remove_file(&path).unwrap();
    let folder = format!("{}/", std::env::temp_dir().display());
    let process = format!("-{}", std::process::id());
    loaded.map_err(|errors| errors.to_string().replace(&folder, "").replace(&process, ""))
}

#[test]
fn flags_go_before_environment_before_file_before_defaults() {
    let text = "kafka: {brokers: 'file:1', group: from-file}\nlimits: {drain_deadline: 10s, memory_bytes_max: 1GiB}\n";
    let env = [("SLUICE_KAFKA__BROKERS", "env:2"), ("SLUICE_LIMITS__MICRO_BATCH_ROWS_MAX", "17"), ("HOME", "/x")];
    let settings = load(text, "order", &env, &[("kafka.brokers", "flag:3")]).unwrap();
    assert_eq!(settings.kafka.brokers, "flag:3");
    assert_eq!(settings.kafka.group, "from-file");
    assert_eq!(settings.limits.drain_deadline, Duration::from_secs(10));
    assert_eq!(settings.limits.memory_bytes_max, 1 << 30);
    assert_eq!(settings.limits.micro_batch_rows_max, 17);
    assert_eq!(settings.limits.json_depth_max, 64);
    let settings = load(text, "order2", &env, &[]).unwrap();
    assert_eq!(settings.kafka.brokers, "env:2");
}

#[test]
fn values_of_the_environment_are_read_as_their_settings_type() {
    let env = [
        ("SLUICE_S3__RAW__SECRET_ACCESS_KEY", "12345"),
        ("SLUICE_S3__RAW__ACCESS_KEY_ID", "true"),
        ("SLUICE_S3__RAW__ENDPOINT", "http://localhost:7070"),
        ("SLUICE_S3__LAKE__PATH_STYLE", "false"),
        ("SLUICE_LIMITS__OBJECT_BYTES_MAX", "2MiB"),
        ("SLUICE_KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SASL_SSL"),
        ("SLUICE_WAREHOUSE__DSN", ""),
        ("SLUICE_CATALOG__DSN", "postgres://u:p@h/c"),
        ("SLUICE_TEST_ANYTHING", "x"),
        ("SLUICE_CONFIG", "x"),
    ];
    let settings = load("", "types", &env, &[]).unwrap();
    assert_eq!(settings.s3.raw.secret_access_key.expose_secret(), "12345");
    assert_eq!(settings.s3.lake.access_key_id, "true");
    assert!(settings.s3.raw.path_style && !settings.s3.lake.path_style);
    assert_eq!(settings.limits.object_bytes_max, 2 << 20);
    assert_eq!(settings.kafka.properties["security.protocol"], "SASL_SSL");
    assert_eq!(settings.warehouse.dsn.expose_secret(), "postgres://u:p@h/c");
    let errors = load("", "types2", &[("SLUICE_LIMITS__JSON_DEPTH_MAX", "deep")], &[]).unwrap_err();
    assert_eq!(
        errors,
        "environment SLUICE_LIMITS__JSON_DEPTH_MAX: `limits.json_depth_max` must be a whole number, found text"
    );
}

#[test]
fn unknown_keys_are_told_with_place_and_nearest() {
    let errors = load("kafka:\n  broker: a:1\n", "unknown", &[("SLUICE_KAFKA_BROKERS", "a:1")], &[]).unwrap_err();
    insta::assert_snapshot!(errors, @r#"
sluice-settings-unknown.yaml:2:3: unknown key `broker` in `kafka`
  help: did you mean `brokers`? known keys: brokers, group, properties, staged_batches_topic
environment SLUICE_KAFKA_BROKERS: there is no such setting
  help: did you mean `SLUICE_KAFKA__BROKERS`?
"#);
}

#[test]
fn properties_that_would_break_the_guarantee_are_refused() {
    let text = "kafka:\n  properties:\n    enable.auto.commit: true\n    fetch.min.bytes: 1\n";
    let env = [("SLUICE_KAFKA__PROPERTIES__AUTO_OFFSET_RESET", "latest")];
    insta::assert_snapshot!(load(text, "refused", &env, &[]).unwrap_err(), @r#"
sluice-settings-refused.yaml:3:5: `kafka.properties.enable.auto.commit` may not be set
  help: offsets are committed after the catalog has them, never by a timer: rows would be lost on a crash
environment SLUICE_KAFKA__PROPERTIES__AUTO_OFFSET_RESET: `kafka.properties.auto.offset.reset` may not be set
  help: where to begin is decided by the catalog; a silent jump to either end would lose or repeat rows
"#);
    let all = [
        "group.id",
        "group.instance.id",
        "isolation.level",
        "group.protocol",
        "enable.partition.eof",
        "bootstrap.servers",
        "enable.auto.offset.store",
        "partition.assignment.strategy",
    ];
    assert!(all.iter().all(|name| kafka_properties::refused(name).is_some()));
}

#[test]
fn secrets_are_never_printed() {
    let text = "kafka: {properties: {sasl.password: hunter1, sasl.username: me}}\ncatalog: {dsn: 'postgres://u:hunter2@h/c'}\n\
                s3: {raw: {secret_access_key: hunter3}}\n";
    let settings = load(text, "secrets", &[], &[]).unwrap();
    let printed = format!("{settings:?}");
    assert!(!printed.contains("hunter"), "{printed}");
    assert!(printed.contains("sasl.username"), "{printed}");
    let errors = load("catalog: {dsn: [hunter4]}\nkafka: {brokers: 3}\n", "secrets2", &[], &[]).unwrap_err();
    assert!(!errors.contains("hunter"), "{errors}");
}

#[test]
fn commands_ask_for_what_they_need() {
    let settings = load("kafka: {brokers: 'a:1'}\n", "need", &[], &[]).unwrap();
    assert!(settings.require(&[Need::Kafka]).is_ok());
    insta::assert_snapshot!(settings.require(Need::ALL).unwrap_err(), @r#"
settings: `s3.raw.access_key_id` is not set
  help: the key id for reading raw objects: set SLUICE_S3__RAW__ACCESS_KEY_ID in the environment or `s3.raw.access_key_id` in sluice.yaml
settings: `s3.raw.secret_access_key` is not set
  help: the secret of that key id: set SLUICE_S3__RAW__SECRET_ACCESS_KEY in the environment or `s3.raw.secret_access_key` in sluice.yaml
settings: `catalog.dsn` is not set
  help: postgres://user:password@host:port/database: set SLUICE_CATALOG__DSN in the environment or `catalog.dsn` in sluice.yaml
"#);
}

#[test]
fn sizes_durations_and_addresses_are_checked() {
    let text = "limits: {drain_deadline: '25', memory_bytes_max: 64M}\ntelemetry: {listen: localhost}\n\
                kafka: {brokers: localhost}\ns3: {raw: {endpoint: 'minio:9000'}}\n";
    insta::assert_snapshot!(load(text, "checked", &[], &[]).unwrap_err(), @r#"
sluice-settings-checked.yaml:1:26: `limits.drain_deadline` is no duration
  help: write a duration with its unit, such as `500ms`, `25s`, `5m`, `12h` or `7d`
sluice-settings-checked.yaml:1:50: `limits.memory_bytes_max` is no size
  help: write a number of bytes or a size such as `64MiB`, `1GiB` or `500MB`
sluice-settings-checked.yaml:2:21: `telemetry.listen` is no address
  help: an IP address and a port, such as 0.0.0.0:9464
sluice-settings-checked.yaml:3:18: `localhost` is no address of a broker
  help: comma-separated host:port, such as kafka-0:9092,kafka-1:9092
sluice-settings-checked.yaml:4:22: `s3.raw.endpoint` lacks http:// or https://
  help: write `http://minio:9000` or `https://minio:9000`
"#);
}

#[test]
fn numbers_are_held_to_their_width() {
    let text = "limits: {s3_requests_per_s: 5000000000, json_depth_max: 0, micro_batch_rows_max: many}\n";
    insta::assert_snapshot!(load(text, "width", &[], &[]).unwrap_err(), @r#"
sluice-settings-width.yaml:1:29: `limits.s3_requests_per_s` must be at most 4294967295
sluice-settings-width.yaml:1:57: `limits.json_depth_max` must be at least 1
sluice-settings-width.yaml:1:82: `limits.micro_batch_rows_max` must be a whole number, found text
"#);
}

#[test]
fn the_annotated_example_states_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/sluice.yaml");
    let example = Settings::load(Some(&example), std::iter::empty(), &[]).unwrap();
    let defaults = Settings::load(None, std::iter::empty(), &[]).unwrap();
    assert_eq!(format!("{:?}", example.limits), format!("{:?}", defaults.limits));
    assert_eq!(example.kafka.group, defaults.kafka.group);
    assert_eq!(example.s3.lake_bucket, defaults.s3.lake_bucket);
    assert_eq!(example.catalog.pool_size_max, defaults.catalog.pool_size_max);
}

const HASH_KEY: &str = "0123456789abcdef0123456789abcdef";

fn with_env(pairs: &[(&str, &str)]) -> Result<Settings, String> {
    let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(None, env, &[]).map_err(|errors| errors.to_string())
}

#[test]
fn keys_come_from_the_environment_or_from_files_and_are_not_shown() {
    use secrecy::ExposeSecret;
    let file = std::env::temp_dir().join(format!("sluice-key-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, format!("{HASH_KEY}-of-a-file\n")).unwrap();
    let path = file.to_string_lossy().into_owned();
    let settings = with_env(&[
        ("SLUICE_SECRETS__CUSTOMERS", HASH_KEY),
        ("SLUICE_SECRETS__CARD_NUMBERS__FILE", &path),
        ("SLUICE_SECRETS__UNUSED", ""),
    ]);
    std::fs::remove_file(&file).unwrap();
    let settings = settings.unwrap();
    let keys: Vec<(&str, &str)> =
        settings.secrets.iter().map(|(name, key)| (name.as_str(), key.expose_secret())).collect();
    assert_eq!(keys, [("card_numbers", "0123456789abcdef0123456789abcdef-of-a-file"), ("customers", HASH_KEY)]);
    assert!(!format!("{settings:?}").contains(HASH_KEY));
    let missing = with_env(&[("SLUICE_SECRETS__A__FILE", "/nowhere/at-all")]).unwrap_err();
    assert!(missing.contains("could not read the file of key `a`"), "{missing}");
}

#[test]
fn a_key_that_can_be_guessed_is_refused_without_showing_it() {
    let problems = with_env(&[("SLUICE_SECRETS__CUSTOMERS", "hunter2")]).unwrap_err();
    assert!(problems.contains("key `customers` is too short") && !problems.contains("hunter2"), "{problems}");
    let problems = with_env(&[("SLUICE_SECRETS__A__B", HASH_KEY)]).unwrap_err();
    assert!(problems.contains("`a__b` cannot be the name of a key") && !problems.contains(HASH_KEY), "{problems}");
}
