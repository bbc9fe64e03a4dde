//! Raw clean steps → [`CleanStep`]s: their columns are there and of the right type, their values can be read.

use std::cmp::Ordering;
use std::time::Duration;

use chrono::DateTime;
use regex::Regex;

use super::check_columns::{Columns, parse_value, type_name};
use super::check_connector::{Report, is_name};
use super::error::did_you_mean;
use super::quantity::parse_duration;
use super::raw_clean::{
    RawClamp, RawCleanStep, RawDedupe, RawDedupeWithin, RawHash, RawMap, RawMask, RawNulls, RawOtherwise,
    RawParseUnits, RawReplace,
};
use super::raw_connector::Names;
use super::yaml::Step;
use super::yaml::Step::{Index, Key};
use super::{Clamp, CleanStep, Connector, DedupeWindow, Field, FieldType, HashKey, Mask, Otherwise, SourceKind, Unit};
use crate::types::Overwrite;

/// More of a value than that shows who it was.
const MASK_KEEP_MAX: u32 = 16;

/// More would be read whenever a topic partition is taken over.
const DEDUPE_WINDOW_MAX: Duration = Duration::from_hours(366 * 24);
/// About 100 MiB: 49 bytes for each of 2^21 slots.
const DEDUPE_ROWS_MAX_DEFAULT: u64 = 1_000_000;

/// That the window of `dedupe` can be kept: rows that it has passed must stay.
pub(super) fn window(connector: &Connector, report: &mut Report<'_>) {
    let windows = |step: &CleanStep| matches!(step, CleanStep::DedupeWithin(_));
    let Some(index) = connector.clean.iter().position(windows) else { return };
    let at = [Key("clean"), Index(index), Key("dedupe")];
    if let SourceKind::Objects { overwrite, .. } = connector.source.kind
        && overwrite != Overwrite::Append
    {
        let help =
            "write `overwrite: append` in `source`: else a row could be left out for one that is hidden with its \
                    object later"
                .to_owned();
        report.add(&at, "rows of an object that may be replaced cannot be deduped within a window", help);
    }
    if connector.clean.iter().filter(|step| step.kind() == "dedupe").count() > 1 {
        let help = "keep one `dedupe` step".to_owned();
        report.add(&at, "a `dedupe` step with a window must be the only one", help);
    }
}

pub(super) fn clean(steps: &[RawCleanStep], columns: &Columns, report: &mut Report<'_>) -> Vec<CleanStep> {
    let mut checked = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        StepCheck { index, columns, report }.check(step, &mut checked);
    }
    checked
}

/// Of one element of `clean`.
struct StepCheck<'a, 'b> {
    index: usize,
    columns: &'a Columns,
    report: &'a mut Report<'b>,
}

impl StepCheck<'_, '_> {
    fn check(&mut self, step: &RawCleanStep, checked: &mut Vec<CleanStep>) {
        if let Some(names) = &step.trim {
            checked.push(CleanStep::Trim(self.texts(names, &["trim"])));
        }
        if let Some(names) = &step.lowercase {
            checked.push(CleanStep::Lowercase(self.texts(names, &["lowercase"])));
        }
        if let Some(names) = &step.uppercase {
            checked.push(CleanStep::Uppercase(self.texts(names, &["uppercase"])));
        }
        if let Some(values) = &step.default {
            let names = values.keys().map(String::as_str);
            let at = [Key("clean"), Index(self.index), Key("default")];
            checked.push(CleanStep::Default(self.columns.check_defaults(names, &at, self.report)));
        }
        if let Some(RawNulls { columns, values }) = &step.nulls {
            let columns = self.texts(columns, &["nulls", "columns"]);
            checked.push(CleanStep::Nulls { columns, values: values.list().to_vec() });
        }
        if let Some(bounds) = &step.clamp {
            checked.push(CleanStep::Clamp(bounds.iter().map(|(column, raw)| self.clamp(column, raw)).collect()));
        }
        if let Some(raw) = &step.replace {
            checked.push(self.replace(raw));
        }
        if let Some(raw) = &step.map {
            checked.push(self.map(raw));
        }
        if let Some(raw) = &step.mask {
            checked.push(self.mask(raw));
        }
        if let Some(raw) = &step.hash {
            checked.push(self.hash(raw));
        }
        if let Some(raw) = &step.parse_units {
            checked.extend(self.parse_units(raw));
        }
        match &step.dedupe {
            Some(RawDedupe::Batch(names)) => {
                let at = self.at(&["dedupe"]);
                checked.push(CleanStep::Dedupe(self.columns.check_list(names.list(), &at, None, "", self.report)));
            }
            Some(RawDedupe::Within(raw)) => checked.push(self.dedupe_within(raw)),
            None => {}
        }
    }

    fn at<'k>(&self, keys: &[&'k str]) -> Vec<Step<'k>> {
        [Key("clean"), Index(self.index)].into_iter().chain(keys.iter().map(|key| Key(key))).collect()
    }

    /// utf8 columns, each once.
    fn texts(&mut self, names: &Names, keys: &[&str]) -> Vec<String> {
        let rule = format!("`{}` works on", keys[0]);
        let at = self.at(keys);
        self.columns.check_list(names.list(), &at, Some(FieldType::Utf8), &rule, self.report)
    }

    fn dedupe_within(&mut self, raw: &RawDedupeWithin) -> CleanStep {
        let at = self.at(&["dedupe", "by"]);
        let columns = self.columns.check_list(raw.by.list(), &at, None, "", self.report);
        let at = self.at(&["dedupe", "window"]);
        let window = parse_duration(&raw.window).and_then(|window| {
            let fits = !window.is_zero() && window <= DEDUPE_WINDOW_MAX;
            fits.then_some(window).ok_or_else(|| "a window is longer than nothing and no longer than `366d`".to_owned())
        });
        let window = window.unwrap_or_else(|help| {
            self.report.add(&at, format!("`{}` is no window", raw.window), help);
            DEDUPE_WINDOW_MAX
        });
        let rows_max = raw.max_rows.unwrap_or(DEDUPE_ROWS_MAX_DEFAULT);
        if rows_max == 0 {
            let at = self.at(&["dedupe", "max_rows"]);
            self.report.add(&at, "a window of no rows holds nothing", "write at least 1".to_owned());
        }
        CleanStep::DedupeWithin(DedupeWindow { columns, window_ms: window.as_millis() as i64, rows_max })
    }

    fn clamp(&mut self, column: &str, raw: &RawClamp) -> Clamp {
        let at = self.at(&["clamp", column]);
        let field = self.columns.check_fitting(
            column,
            &at,
            has_order,
            "int32, int64, float64, decimal or timestamp_ms",
            self.report,
        );
        if raw.min.is_none() && raw.max.is_none() {
            self.report.add(
                &at,
                format!("`clamp` of `{column}` names no bound"),
                "write `min`, `max` or both".to_owned(),
            );
        }
        let mut bound = |key: &'static str, given: bool| {
            let at: Vec<Step<'_>> = at.iter().copied().chain([Key(key)]).collect();
            let text = self.report.root.find(&at).scalar_text();
            if let (Some(field), true) = (field, given)
                && let Err(expected) = parse_value(field, &text)
            {
                let message =
                    format!("`{text}` is no value of column `{column}`, which is {}", type_name(field.data_type));
                self.report.add(&at, message, format!("expected {expected}"));
            }
            given.then_some(text)
        };
        let (min, max) = (bound("min", raw.min.is_some()), bound("max", raw.max.is_some()));
        if let (Some(field), Some(min), Some(max)) = (field, &min, &max)
            && compare(field, min, max) == Some(Ordering::Greater)
        {
            let help = "no value lies between them".to_owned();
            self.report.add(&at, format!("`min` of `{column}` is greater than `max`"), help);
        }
        Clamp { column: column.to_owned(), min, max }
    }

    fn replace(&mut self, raw: &RawReplace) -> CleanStep {
        match Regex::new(&raw.pattern) {
            Err(error) => {
                let at = self.at(&["replace", "pattern"]);
                // the first lines draw the pattern with a caret
                let problem = error.to_string();
                let problem = problem.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let help = format!("{problem}; syntax: https://docs.rs/regex/latest/regex/#syntax");
                self.report.add(&at, format!("`{}` is no regular expression", raw.pattern), help);
            }
            Ok(pattern) => {
                let at = self.at(&["replace", "with"]);
                let known: Vec<String> = (0..pattern.captures_len()).map(|number| number.to_string()).collect();
                let known: Vec<&str> =
                    known.iter().map(String::as_str).chain(pattern.capture_names().flatten()).collect();
                for group in groups(&raw.with).into_iter().filter(|group| !known.contains(group)) {
                    let help = format!(
                        "groups of the pattern: {}; write `${{1}}a` where a letter follows, `$$` for a dollar sign",
                        known.join(", ")
                    );
                    self.report.add(&at, format!("the pattern has no group `{group}`"), help);
                }
            }
        }
        CleanStep::Replace {
            columns: self.texts(&raw.columns, &["replace", "columns"]),
            pattern: raw.pattern.clone(),
            with: raw.with.clone(),
        }
    }

    fn map(&mut self, raw: &RawMap) -> CleanStep {
        let columns = self.texts(&raw.columns, &["map", "columns"]);
        let mut values = Vec::new();
        for from in raw.values.keys() {
            let at = self.at(&["map", "values", from]);
            values.push((from.clone(), self.report.root.find(&at).scalar_text()));
        }
        let otherwise = match raw.otherwise {
            RawOtherwise::Keep => Otherwise::Keep,
            RawOtherwise::Clear => Otherwise::Clear,
            RawOtherwise::Reject => Otherwise::Reject,
        };
        CleanStep::Map { columns, values, otherwise }
    }

    fn mask(&mut self, raw: &RawMask) -> CleanStep {
        let columns = self.texts(&raw.columns, &["mask", "columns"]);
        let mask = match (raw.keep_last, &raw.fixed) {
            (Some(count), None) => {
                if count > MASK_KEEP_MAX {
                    let at = self.at(&["mask", "keep_last"]);
                    let help = format!("at most {MASK_KEEP_MAX} characters: more would show the value");
                    self.report.add(&at, format!("`mask` keeps {count} characters"), help);
                }
                Mask::KeepLast(count as usize)
            }
            (None, Some(text)) => Mask::Fixed(text.clone()),
            (kept, _) => {
                let found = if kept.is_some() { "both" } else { "neither" };
                let at = self.at(&["mask"]);
                let help = "write `keep_last: 4`, or `fixed: \"***\"` for all values alike".to_owned();
                self.report.add_at_key(&at, format!("`mask` names {found} of `keep_last` and `fixed`"), help);
                Mask::Fixed(String::new())
            }
        };
        CleanStep::Mask { columns, mask }
    }

    fn hash(&mut self, raw: &RawHash) -> CleanStep {
        if !is_name(&raw.key, &['_']) || raw.key.contains("__") {
            let at = self.at(&["hash", "key"]);
            let help = "this is its name, never the key itself: lower-case letters, digits and single underscores; \
                        SLUICE_SECRETS__<NAME> holds it"
                .to_owned();
            // it may be a key that somebody has put here: do not repeat it
            self.report.add(&at, "that cannot be the name of a key", help);
        }
        CleanStep::Hash {
            columns: self.texts(&raw.columns, &["hash", "columns"]),
            key: HashKey::named(raw.key.clone()),
        }
    }

    fn parse_units(&mut self, raw: &RawParseUnits) -> Option<CleanStep> {
        let (from, to) = (self.at(&["parse_units", "from"]), self.at(&["parse_units", "to"]));
        self.columns.check_one(&raw.from, &from, Some(FieldType::Utf8), "`parse_units` reads", self.report);
        let target = self.columns.check_fitting(&raw.to, &to, is_exact, "int32, int64 or decimal", self.report);
        if target.is_some_and(|field| field.required) {
            let help = "a row is asked for its required columns before it is cleaned; leave `required` out".to_owned();
            self.report.add(&to, format!("column `{}` is required, and filled too late", raw.to), help);
        }
        let unit = Unit::of(&raw.unit);
        if unit.is_none() {
            let at = self.at(&["parse_units", "unit"]);
            let help = did_you_mean(&raw.unit, "units", Unit::symbols());
            self.report.add(&at, format!("there is no unit `{}`", raw.unit), help);
        }
        Some(CleanStep::ParseUnits { from: raw.from.clone(), to: raw.to.clone(), unit: unit? })
    }
}

fn has_order(data_type: FieldType) -> bool {
    is_exact(data_type) || matches!(data_type, FieldType::Float64 | FieldType::TimestampMs)
}

fn is_exact(data_type: FieldType) -> bool {
    matches!(data_type, FieldType::Int32 | FieldType::Int64 | FieldType::Decimal { .. })
}

/// Of two values of a column; `None` where one is none, which is told elsewhere.
fn compare(field: &Field, a: &str, b: &str) -> Option<Ordering> {
    match field.data_type {
        FieldType::Float64 => a.parse::<f64>().ok()?.partial_cmp(&b.parse().ok()?),
        FieldType::TimestampMs => Some(milliseconds(a)?.cmp(&milliseconds(b)?)),
        FieldType::Decimal { scale, .. } => Some(scaled(a, scale)?.cmp(&scaled(b, scale)?)),
        _ => Some(a.parse::<i64>().ok()?.cmp(&b.parse().ok()?)),
    }
}

fn milliseconds(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).map_or_else(|_| text.parse().ok(), |time| Some(time.timestamp_millis()))
}

/// A decimal in units of its last digit.
fn scaled(text: &str, scale: i8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<width$}", width = scale.unsigned_abs() as usize).parse().ok()
}

/// The groups that a replacement names, as `regex` reads it: the longest name it can have.
fn groups(with: &str) -> Vec<&str> {
    let mut groups = Vec::new();
    let mut rest = with;
    while let Some(place) = rest.find('$') {
        rest = &rest[place + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some((group, after)) = rest.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            groups.push(group);
            rest = after;
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            groups.extend((end > 0).then_some(&rest[..end]));
            rest = &rest[end..];
        }
    }
    groups
}

#[cfg(test)]
#[path = "clean_tests.rs"]
mod tests;
