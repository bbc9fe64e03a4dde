//! Dashboard, alert rules and provisioning use the metrics of `sluice::telemetry`, all of them and no other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluice::telemetry::METRICS;

use super::promql::{self, check, labels_in_text};
use super::{document, files_below, list_at, read, repository, text_at};

const DASHBOARD: &str = "dashboards/grafana/dashboards/sluice.json";
const RULES: &str = "dashboards/prometheus/rules.yaml";
const RULES_TEST: &str = "dashboards/prometheus/rules_test.yaml";
const GRAFANA_RULES: &str = "dashboards/grafana/provisioning/alerting/rules.yaml";

/// Metrics that neither the dashboard nor a rule uses, each with the reason.
const NOT_DRAWN: &[(&str, &str)] = &[
    ("sluice_dedupe_keys", "for whoever sizes the memory of a window"),
    ("sluice_dedupe_rebuild_seconds", "a part of the time to take a topic partition over, which shows as lag"),
];

/// A query with the texts that take labels from its result.
struct Query {
    place: String,
    expression: String,
    texts: Vec<String>,
}

/// Panels of the dashboard, those inside collapsed rows too.
fn panels() -> Vec<Value> {
    let dashboard = document(&repository(DASHBOARD));
    let mut panels = Vec::new();
    for panel in list_at(&dashboard, "/panels") {
        panels.push(panel.clone());
        panels.extend_from_slice(list_at(panel, "/panels"));
    }
    panels
}

fn dashboard_queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in panels() {
        for target in list_at(&panel, "/targets") {
            queries.push(Query {
                place: format!("panel \"{}\", {}", text_at(&panel, "/title"), text_at(target, "/refId")),
                expression: text_at(target, "/expr").to_owned(),
                texts: vec![text_at(target, "/legendFormat").to_owned()],
            });
        }
    }
    queries
}

pub(super) fn dashboard_expressions() -> Vec<String> {
    dashboard_queries().into_iter().map(|query| query.expression).collect()
}

/// Queries of rules in groups; `name` and `expression` are where a rule has them.
fn rule_queries(path: &str, name: &str, expression: &str) -> Vec<(Query, Value)> {
    let mut queries = Vec::new();
    for group in list_at(&document(&repository(path)), "/groups") {
        for rule in list_at(group, "/rules") {
            let texts = rule["annotations"].as_object().expect("a rule has annotations");
            let query = Query {
                place: text_at(rule, name).to_owned(),
                expression: text_at(rule, expression).to_owned(),
                texts: texts.values().map(|text| text.as_str().expect("an annotation is text").to_owned()).collect(),
            };
            queries.push((query, rule.clone()));
        }
    }
    assert!(!queries.is_empty(), "{path} holds rules");
    queries
}

fn prometheus_rules() -> Vec<(Query, Value)> {
    rule_queries(RULES, "/alert", "/expr")
}

fn grafana_rules() -> Vec<(Query, Value)> {
    rule_queries(GRAFANA_RULES, "/title", "/data/0/model/expr")
}

fn all_queries() -> Vec<Query> {
    let rules = prometheus_rules().into_iter().chain(grafana_rules()).map(|(query, _)| query);
    dashboard_queries().into_iter().chain(rules).collect()
}

fn problems_of(query: &Query) -> Vec<String> {
    let checked = check(&query.expression);
    let mut problems = checked.problems;
    if checked.metrics.is_empty() {
        problems.push("there is no metric in it".to_owned());
    }
    for label in query.texts.iter().flat_map(|text| labels_in_text(text)) {
        if !checked.labels.contains(&label) {
            problems.push(format!("a text shows `{label}`, which the result lacks"));
        }
    }
    problems.into_iter().map(|problem| format!("{}: {problem}\n    {}", query.place, query.expression)).collect()
}

#[test]
fn queries_name_metrics_labels_and_values_that_the_code_exports() {
    let queries = all_queries();
    assert!(queries.len() > 60, "only {} queries were found", queries.len());
    let problems: Vec<String> = queries.iter().flat_map(problems_of).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn doctored_expressions_are_caught() {
    let sound = r#"sum by (topic) (rate(sluice_offsets_total{topic=~"$topic", outcome="decoded"}[$__rate_interval]))"#;
    assert!(check(sound).problems.is_empty(), "{:?}", check(sound).problems);
    assert_eq!(check(sound).labels, ["topic".to_owned()].into());
    for (doctored, told) in [
        ("sum(rate(sluice_offset_total[5m]))", "`sluice_offset_total` is no metric of Sluice"),
        ("max(slucie_books_unbalanced) > 0", "`slucie_books_unbalanced` is no metric of Sluice"),
        ("rate(sluice_load_seconds[5m])", "`sluice_load_seconds` is no metric of Sluice"),
        ("rate(sluice_offsets_total_sum[5m])", "`sluice_offsets_total_sum` is no metric of Sluice"),
        ("sum by (connector) (rate(sluice_offsets_total[5m]))", "by `connector`"),
        ("sum(rate(sluice_offsets_total[5m])) by (connector)", "by `connector`"),
        ("sum without (connector) (sluice_files_pending)", "by `connector`"),
        ("sum by (topic) (sum by (outcome) (sluice_offsets_total))", "by `topic`"),
        (r#"sluice_offsets_total{connector="events"}"#, "has no label `connector`"),
        (r#"sluice_offsets_total{outcome="decodet"}"#, "is never `decodet`"),
        (r#"sluice_rows_in_total{outcome=~"passed|rejectd"}"#, "is never `rejectd`"),
        (r#"sluice_errors_total{kind="fatal"}"#, "is never `fatal`"),
        (r#"sluice_dead_letters_total{reason="bad_json"}"#, "is never `bad_json`"),
        ("histogram_quantile(0.9, sum(rate(sluice_load_seconds_bucket[5m])))", "without `le`"),
        ("sum by (le, stage) (rate(sluice_load_seconds_bucket[5m]))", "by `stage`"),
        ("sluice_files_pending / on (topic) sluice_outbox_pending", "label `topic`"),
        ("rat(sluice_offsets_total[5m])", "`rat` is no function"),
        ("sum(sluice_files_pending", "`)` is missing"),
        ("sluice_files_pending)", "`)` too many"),
    ] {
        let problems = check(doctored).problems;
        assert!(problems.iter().any(|problem| problem.contains(told)), "{doctored}: {problems:?}");
    }
}

#[test]
fn a_legend_or_annotation_may_show_only_labels_of_the_result() {
    let query = |text: &str| Query {
        place: String::new(),
        expression: "sum by (topic) (sluice_offsets_total)".to_owned(),
        texts: vec![text.to_owned()],
    };
    for sound in ["{{topic}}", "{{ $labels.topic }} and {{ $value | humanize }}", "{{ $$labels.topic }}", "plain"] {
        assert!(problems_of(&query(sound)).is_empty(), "{sound}: {:?}", problems_of(&query(sound)));
    }
    for wrong in ["{{connector}}", "{{ $labels.outcome }}", "{{ $labels.outcome | title }}", "{{ $$labels.outcome }}"] {
        assert_eq!(problems_of(&query(wrong)).len(), 1, "{wrong}");
    }
}

#[test]
fn every_metric_is_drawn_or_excused() {
    let used: BTreeSet<&str> = all_queries().iter().flat_map(|query| check(&query.expression).metrics).collect();
    for spec in METRICS {
        let excuse = NOT_DRAWN.iter().find(|(name, _)| *name == spec.name);
        match (used.contains(spec.name), excuse) {
            (false, None) => panic!("{} is on no panel and in no rule: draw it, or excuse it in NOT_DRAWN", spec.name),
            (true, Some(_)) => panic!("{} is used: take it out of NOT_DRAWN", spec.name),
            _ => {}
        }
    }
    for (name, reason) in NOT_DRAWN {
        assert!(METRICS.iter().any(|spec| spec.name == *name), "NOT_DRAWN: {name} is no metric");
        assert!(!reason.is_empty(), "NOT_DRAWN: {name} has no reason");
    }
}

/// Descriptions, comments, and series of the rules' tests too.
#[test]
fn every_word_that_looks_like_a_metric_is_one() {
    let mut problems = Vec::new();
    for path in files_below(&repository("dashboards")) {
        let text = read(&path);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("sluice_")) {
            if promql::metric(word).is_none() && !METRICS.iter().any(|spec| spec.name == word) {
                problems.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(problems.is_empty(), "no metrics of Sluice:\n{}", problems.join("\n"));
}

#[test]
fn variables_of_the_dashboard_are_values_of_labels() {
    let dashboard = document(&repository(DASHBOARD));
    let mut names = BTreeSet::new();
    for variable in list_at(&dashboard, "/templating/list") {
        let name = text_at(variable, "/name");
        names.insert(name);
        if text_at(variable, "/type") != "query" {
            continue;
        }
        let query = text_at(variable, "/query/query");
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(")"));
        let (series, label) = inside.and_then(|inside| inside.split_once(", ")).expect("label_values(metric, label)");
        let spec = promql::metric(series).unwrap_or_else(|| panic!("${name}: `{series}` is no metric"));
        assert!(spec.labels.contains(&label), "${name}: `{series}` has no label `{label}`");
        assert_eq!(text_at(variable, "/definition"), query);
    }
    assert_eq!(names, ["connector", "datasource", "topic"].into());
}

#[test]
fn panels_are_described_have_units_and_thresholds_and_do_not_overlap() {
    let mut ids = BTreeSet::new();
    let mut cells: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for panel in panels() {
        let title = text_at(&panel, "/title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap_or_else(|| panic!("{title}: no {name}"));
        assert!(side("x") + side("w") <= 24, "{title} is beyond the right edge");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                if let Some(other) = cells.insert((x, y), title.to_owned()) {
                    panic!("{title} lies on {other}");
                }
            }
        }
        if text_at(&panel, "/type") == "row" {
            continue;
        }
        assert!(text_at(&panel, "/description").len() > 30, "{title} wants a description");
        assert!(!text_at(&panel, "/fieldConfig/defaults/unit").is_empty(), "{title} wants a unit");
        assert!(!list_at(&panel, "/fieldConfig/defaults/thresholds/steps").is_empty(), "{title} wants thresholds");
        assert!(!list_at(&panel, "/targets").is_empty(), "{title} wants a query");
        assert_eq!(text_at(&panel, "/datasource/uid"), "${datasource}", "{title}");
    }
}

#[test]
fn rules_say_how_bad_it_is_and_what_to_do() {
    for (query, rule) in prometheus_rules().iter().chain(&grafana_rules()) {
        let severity = text_at(rule, "/labels/severity");
        assert!(["critical", "warning"].contains(&severity), "{}: severity {severity}", query.place);
        for annotation in ["summary", "description", "runbook"] {
            let text = text_at(rule, &format!("/annotations/{annotation}"));
            assert!(text.len() > 20, "{}: {annotation} says too little", query.place);
        }
    }
}

#[test]
fn rules_managed_by_grafana_are_those_of_prometheus() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let prometheus: BTreeMap<String, (Query, Value)> =
        prometheus_rules().into_iter().map(|rule| (rule.0.place.clone(), rule)).collect();
    for (query, rule) in grafana_rules() {
        let name = &query.place;
        let (other, its_rule) = prometheus.get(name).unwrap_or_else(|| panic!("{name} is no rule of {RULES}"));
        assert_eq!(words(&query.expression), words(&other.expression), "{name}");
        assert_eq!(rule["labels"], its_rule["labels"], "{name}");
        assert_eq!(text_at(&rule, "/for"), its_rule["for"].as_str().unwrap_or("0s"), "{name}");
        for annotation in ["summary", "description", "runbook"] {
            let at = format!("/annotations/{annotation}");
            let as_grafana =
                text_at(its_rule, &at).replace("$labels", "$$labels").replace("$value", "$$values.A.Value");
            assert_eq!(words(text_at(&rule, &at)), words(&as_grafana), "{name}");
        }
    }
}

#[test]
fn every_alert_is_seen_firing_and_seen_quiet() {
    let text = read(&repository(RULES_TEST));
    let cases = document(&repository(RULES_TEST));
    let mut quiet = 0;
    for case in list_at(&cases, "/tests") {
        quiet += list_at(case, "/promql_expr_test").iter().filter(|t| list_at(t, "/exp_samples").is_empty()).count();
    }
    assert!(quiet > 10, "only {quiet} checks expect silence");
    for (query, _) in prometheus_rules() {
        let label = format!("alertname=\"{}\"", query.place);
        assert!(text.contains(&label), "no test sees {} firing", query.place);
    }
}

#[test]
fn contact_points_and_policies_send_critical_to_slack_and_mail_and_warnings_to_slack() {
    let points = document(&repository("dashboards/grafana/provisioning/alerting/contact-points.yaml"));
    let mut types: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for point in list_at(&points, "/contactPoints") {
        let receivers = list_at(point, "/receivers").iter().map(|receiver| text_at(receiver, "/type"));
        types.insert(text_at(point, "/name"), receivers.collect());
    }
    let policies = document(&repository("dashboards/grafana/provisioning/alerting/notification-policies.yaml"));
    let policy = &list_at(&policies, "/policies")[0];
    assert_eq!(types[text_at(policy, "/receiver")], ["slack"].into());
    let critical = &list_at(policy, "/routes")[0];
    assert_eq!(critical["object_matchers"], serde_json::json!([["severity", "=", "critical"]]));
    assert_eq!(types[text_at(critical, "/receiver")], ["email", "slack"].into());
    let text = read(&repository("dashboards/grafana/provisioning/alerting/contact-points.yaml"));
    for variable in ["url: $SLACK_WEBHOOK_URL", "addresses: $ALERT_EMAIL_ADDRESSES"] {
        assert!(text.contains(variable), "{variable}");
    }
    let sources = document(&repository("dashboards/grafana/provisioning/datasources/prometheus.yaml"));
    for (query, rule) in grafana_rules() {
        let uid = text_at(&rule, "/data/0/datasourceUid");
        assert_eq!(uid, text_at(&sources, "/datasources/0/uid"), "{}", query.place);
    }
}
