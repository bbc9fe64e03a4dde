//! Reads as much of PromQL as it takes to hold an expression against the code's list of metrics:
//! do the metrics exist, do they have the labels that matchers and aggregations name, can the label
//! values occur, and which labels can the result carry.
//!
//! Not a parser of the whole language (promtool is one): what it does not know it reports. Labels of
//! the right-hand side of `and`, `or`, `unless` and arithmetic count as labels of the result.

use std::collections::BTreeSet;

use sluice::error::ErrorKind;
use sluice::telemetry::{METRICS, MetricKind, MetricSpec};
use sluice::types::RejectReason;

/// Labels that Prometheus gives to everything it scrapes from a target.
const TARGET_LABELS: [&str; 4] = ["instance", "job", "namespace", "pod"];
/// Labels whose values are a closed set that the metric's help text lists.
const CLOSED_LABELS: [&str; 8] = ["outcome", "result", "event", "stage", "component", "dependency", "kind", "reason"];
const AGGREGATIONS: [&str; 6] = ["sum", "min", "max", "avg", "count", "topk"];
/// What comes out has the labels of what goes in.
const FUNCTIONS: [&str; 8] = ["rate", "increase", "irate", "deriv", "round", "clamp_min", "clamp_max", "max_over_time"];
const FUNCTIONS_WITHOUT_LABELS: [&str; 4] = ["absent", "vector", "scalar", "time"];
const MATCHINGS: [&str; 4] = ["on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

pub(super) type Labels = BTreeSet<String>;

/// What was found in an expression.
#[derive(Default)]
pub(super) struct Checked {
    /// Names of the list's metrics, without suffixes of histograms.
    pub(super) metrics: BTreeSet<&'static str>,
    /// What the series of the result can be told apart by.
    pub(super) labels: Labels,
    pub(super) problems: Vec<String>,
}

pub(super) fn check(expression: &str) -> Checked {
    let mut reader = Reader {
        tokens: tokens(expression),
        at: 0,
        named: Labels::new(),
        matched: Vec::new(),
        found: Checked::default(),
    };
    reader.found.labels = reader.sequence();
    if reader.at < reader.tokens.len() {
        reader.problem("a `)` too many".to_owned());
    }
    for label in std::mem::take(&mut reader.matched) {
        if !reader.named.contains(&label) {
            reader.problem(format!("no metric here has the label `{label}`, which sides are matched by"));
        }
    }
    reader.found
}

/// The metric a series name belongs to: a histogram's by its suffixes, any other by its name.
pub(super) fn metric(series: &str) -> Option<&'static MetricSpec> {
    METRICS.iter().find(|spec| match spec.kind {
        MetricKind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|suffix| series.strip_suffix(suffix).is_some_and(|name| name == spec.name)),
        MetricKind::Counter | MetricKind::Gauge => spec.name == series,
    })
}

/// Labels that texts take from a result: `{{topic}}` of a legend, `{{ $labels.topic }}` of an annotation.
pub(super) fn labels_in_text(text: &str) -> Labels {
    let inside = text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    inside
        .filter_map(|code| match code.split_once("$labels.") {
            Some((_, rest)) => Some(rest.split(|c: char| !is_word(c)).next().unwrap_or("").to_owned()),
            None => Some(code.trim().to_owned()).filter(|word| !word.is_empty() && word.chars().all(is_word)),
        })
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'a> {
    /// A name, a key word, or a variable of Grafana (`$…`).
    Word(&'a str),
    /// Without its quotes.
    Text(&'a str),
    /// A number or a duration.
    Number,
    Sign(&'a str),
}

fn tokens(expression: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let length_while = |rest: &str, inside: fn(char) -> bool| rest.find(|c| !inside(c)).unwrap_or(rest.len());
        let (token, length) = if first == '$' {
            let length = 1 + length_while(&rest[1..], is_word);
            (Token::Word(&rest[..length]), length)
        } else if first.is_ascii_digit() {
            (Token::Number, length_while(rest, |c| is_word(c) || c == '.'))
        } else if is_word(first) || first == ':' {
            let length = length_while(rest, |c| is_word(c) || c == ':');
            (Token::Word(&rest[..length]), length)
        } else if matches!(first, '"' | '\'' | '`') {
            let end = rest[1..].find(first).map_or(rest.len(), |end| end + 1);
            (Token::Text(&rest[1..end]), rest.len().min(end + 1))
        } else {
            let double = ["=~", "!~", "!=", "==", ">=", "<="].iter().any(|sign| rest.starts_with(sign));
            let length = if double { 2 } else { first.len_utf8() };
            (Token::Sign(&rest[..length]), length)
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens
}

struct Reader<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// All labels of all metrics met.
    named: Labels,
    /// Labels of `on`, `ignoring`, `group_left`, `group_right`.
    matched: Vec<String>,
    found: Checked,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, text: String) {
        self.found.problems.push(text);
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.tokens.get(self.at).copied();
        self.at += usize::from(token.is_some());
        token
    }

    fn take(&mut self, sign: &str) -> bool {
        let is_next = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(is_next);
        is_next
    }

    /// Everything up to the end or the `)` that closes what surrounds it.
    fn sequence(&mut self) -> Labels {
        let mut labels = Labels::new();
        while self.tokens.get(self.at).is_some_and(|token| *token != Token::Sign(")")) {
            match self.next() {
                Some(Token::Word(word)) if !word.starts_with('$') => labels.extend(self.word(word)),
                Some(Token::Sign("(")) => labels.extend(self.rest_of_parentheses()),
                Some(Token::Sign("[")) => while !matches!(self.next(), None | Some(Token::Sign("]"))) {},
                Some(Token::Sign("{")) => self.problem("a selector without a metric".to_owned()),
                _ => {}
            }
        }
        labels
    }

    fn rest_of_parentheses(&mut self) -> Labels {
        let labels = self.sequence();
        if !self.take(")") {
            self.problem("a `)` is missing".to_owned());
        }
        labels
    }

    fn word(&mut self, word: &'a str) -> Labels {
        if OPERATORS.contains(&word) {
            return Labels::new();
        }
        if MATCHINGS.contains(&word) {
            let labels = self.label_list();
            self.matched.extend(labels);
            return Labels::new();
        }
        if AGGREGATIONS.contains(&word) {
            return self.aggregation(word);
        }
        if !self.take("(") {
            return self.selector(word);
        }
        let mut inner = self.rest_of_parentheses();
        if word == "histogram_quantile" {
            if !inner.remove("le") {
                self.problem("histogram_quantile over series without `le`".to_owned());
            }
            inner
        } else if FUNCTIONS.contains(&word) {
            inner
        } else {
            if !FUNCTIONS_WITHOUT_LABELS.contains(&word) {
                self.problem(format!("`{word}` is no function known here"));
            }
            Labels::new()
        }
    }

    fn aggregation(&mut self, name: &str) -> Labels {
        let before = self.grouping();
        if !self.take("(") {
            self.problem(format!("`{name}` of nothing"));
            return Labels::new();
        }
        let inner = self.rest_of_parentheses();
        let Some((keep, labels)) = before.or_else(|| self.grouping()) else {
            return if name == "topk" { inner } else { Labels::new() };
        };
        for label in &labels {
            if !inner.contains(label) {
                self.problem(format!("`{name}` by `{label}`, which is no label of what it is over"));
            }
        }
        if keep { labels } else { inner.difference(&labels).cloned().collect() }
    }

    /// `by (…)` (true) or `without (…)` (false).
    fn grouping(&mut self) -> Option<(bool, Labels)> {
        let keep = match self.tokens.get(self.at)? {
            Token::Word("by") => true,
            Token::Word("without") => false,
            _ => return None,
        };
        self.at += 1;
        Some((keep, self.label_list()))
    }

    fn label_list(&mut self) -> Labels {
        let mut labels = Labels::new();
        if !self.take("(") {
            self.problem("a list of labels is missing".to_owned());
            return labels;
        }
        while let Some(token) = self.next() {
            match token {
                Token::Word(label) => _ = labels.insert(label.to_owned()),
                Token::Sign(")") => break,
                _ => {}
            }
        }
        labels
    }

    fn selector(&mut self, series: &str) -> Labels {
        let spec = metric(series);
        let mut labels: Labels = TARGET_LABELS.iter().map(|label| (*label).to_owned()).collect();
        match spec {
            Some(spec) => {
                self.found.metrics.insert(spec.name);
                labels.extend(spec.labels.iter().map(|label| (*label).to_owned()));
                labels.extend(series.ends_with("_bucket").then(|| "le".to_owned()));
            }
            None => self.problem(format!("`{series}` is no metric of Sluice")),
        }
        self.named.extend(labels.iter().cloned());
        if self.take("{") {
            self.matchers(series, spec, &labels);
        }
        labels
    }

    fn matchers(&mut self, series: &str, spec: Option<&MetricSpec>, labels: &Labels) {
        while let Some(token) = self.next() {
            let label = match token {
                Token::Sign("}") => return,
                Token::Word(label) => label,
                _ => continue,
            };
            let sign = self.next();
            let Some(Token::Text(value)) = self.next() else {
                return self.problem(format!("a matcher of `{label}` that cannot be read"));
            };
            let Some(spec) = spec else { continue };
            if !labels.contains(label) {
                self.problem(format!("`{series}` has no label `{label}`"));
            }
            let is_pattern = matches!(sign, Some(Token::Sign("=~" | "!~")));
            let values: Vec<&str> = if is_pattern { value.split('|').collect() } else { vec![value] };
            for value in values.into_iter().filter(|value| value.chars().all(is_word)) {
                if !may_be(spec, label, value) {
                    self.problem(format!("`{label}` of `{series}` is never `{value}`"));
                }
            }
        }
        self.problem("a `}` is missing".to_owned());
    }
}

/// Whether a label of a closed set can have a value; true for labels of open sets.
fn may_be(spec: &MetricSpec, label: &str, value: &str) -> bool {
    match (spec.name, label) {
        ("sluice_errors_total", "kind") => {
            use ErrorKind::{Fenced, Halt, Invalid, Poison, Transient};
            [Transient, Poison, Fenced, Invalid, Halt].iter().any(|kind| kind.as_str() == value)
        }
        ("sluice_dead_letters_total", "reason") => RejectReason::ALL.iter().any(|reason| reason.as_str() == value),
        ("sluice_partitions_halted", _) => true,
        _ if CLOSED_LABELS.contains(&label) => spec.help.split(|c: char| !is_word(c)).any(|word| word == value),
        _ => true,
    }
}
