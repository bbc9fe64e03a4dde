//! promtool and amtool accept the files of `dashboards/`, and the rules' own tests pass.
//!
//! The tools are found by `SLUICE_PROMTOOL` and `SLUICE_AMTOOL`, else on the PATH. Without them these
//! tests are skipped with a line that says so; with `CI=true` that is a failure.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{document, metrics_used, read, repository};

const PROMETHEUS: &str = "dashboards/prometheus";

/// A tool, or nothing after having said that its test is skipped.
fn tool(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
        return Some(path);
    }
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        let how = format!("run `compose/native install --monitoring` or set {variable}");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} is not installed: {how}");
        // Not `eprintln!`, which the test harness keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {name} is not installed: {how}");
    }
    found
}

/// What a tool printed, and whether it was content.
fn run(tool: &Path, arguments: &[&str], path: &Path) -> (bool, String) {
    let output = Command::new(tool).args(arguments).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", tool.display()));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn accepts(tool: &Path, arguments: &[&str], path: &Path) {
    let (content, text) = run(tool, arguments, path);
    assert!(content, "{} {arguments:?} {}:\n{text}", tool.display(), path.display());
}

/// A folder of this test's own, removed when done.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("the temporary folder can be written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn promtool_accepts_the_rules_and_the_configuration() {
    let Some(promtool) = tool("SLUICE_PROMTOOL", "promtool") else { return };
    let folder = repository(PROMETHEUS);
    accepts(&promtool, &["check", "rules"], &folder.join("rules.yaml"));
    accepts(&promtool, &["check", "config"], &folder.join("prometheus.yaml"));
}

/// Debian's Prometheus is built without the discovery of Kubernetes: all but that part is checked.
#[test]
fn promtool_accepts_the_example_for_kubernetes() {
    let Some(promtool) = tool("SLUICE_PROMTOOL", "promtool") else { return };
    let folder = repository(PROMETHEUS);
    let mut config = document(&folder.join("prometheus.kubernetes.yaml"));
    let job = config["scrape_configs"][0].as_object_mut().expect("a job to scrape");
    let discovery = job.remove("kubernetes_sd_configs").expect("pods are discovered");
    assert_eq!(discovery[0]["role"], "pod");
    assert_eq!(discovery[0]["selectors"][0]["label"], "app.kubernetes.io/name=sluice");
    let scratch = Scratch::new("prometheus-kubernetes");
    scratch.write("rules.yaml", &read(&folder.join("rules.yaml")));
    // JSON is YAML.
    accepts(&promtool, &["check", "config"], &scratch.write("prometheus.yaml", &config.to_string()));
}

/// The queries of the dashboard as rules, with something in place of Grafana's variables.
#[test]
fn promtool_accepts_the_queries_of_the_dashboard() {
    let Some(promtool) = tool("SLUICE_PROMTOOL", "promtool") else { return };
    let variables = [("$__rate_interval", "5m"), ("$__range", "3h"), ("$topic", ".*"), ("$connector", ".*")];
    let mut rules = Vec::new();
    for (index, expression) in metrics_used::dashboard_expressions().into_iter().enumerate() {
        let expression = variables.iter().fold(expression, |text, (name, value)| text.replace(name, value));
        assert!(!expression.contains('$'), "an unknown variable: {expression}");
        rules.push(serde_json::json!({"record": format!("panel:query:{index}"), "expr": expression}));
    }
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let scratch = Scratch::new("dashboard");
    accepts(&promtool, &["check", "rules"], &scratch.write("rules.yaml", &groups.to_string()));
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let Some(promtool) = tool("SLUICE_PROMTOOL", "promtool") else { return };
    accepts(&promtool, &["test", "rules"], &repository(PROMETHEUS).join("rules_test.yaml"));
}

#[test]
fn the_tests_of_the_rules_notice_a_doctored_rule() {
    let Some(promtool) = tool("SLUICE_PROMTOOL", "promtool") else { return };
    let rules = read(&repository(PROMETHEUS).join("rules.yaml"));
    let tests = read(&repository(PROMETHEUS).join("rules_test.yaml"));
    for (name, part, doctored) in [
        ("metric", "max(sluice_books_unbalanced)", "max(sluice_book_unbalanced)"),
        ("threshold", "max(sluice_batches_unloaded) > 500", "max(sluice_batches_unloaded) > 300"),
        ("sum", "max(sluice_files_pending) > 1000", "sum(sluice_files_pending) > 1000"),
    ] {
        assert!(rules.contains(part), "{part}");
        let scratch = Scratch::new(&format!("rules-{name}"));
        scratch.write("rules.yaml", &rules.replace(part, doctored));
        let (content, text) = run(&promtool, &["test", "rules"], &scratch.write("rules_test.yaml", &tests));
        assert!(!content, "{doctored} went unnoticed:\n{text}");
    }
}

#[test]
fn amtool_accepts_the_configuration_of_alertmanager() {
    let Some(amtool) = tool("SLUICE_AMTOOL", "amtool") else { return };
    accepts(&amtool, &["check-config"], &repository("dashboards/alertmanager/alertmanager.yaml"));
}
