//! Raw expectations → [`Expectation`]s: their SQL can be planned, their columns are there, their bounds make sense.

use super::check_columns::Columns;
use super::check_connector::{Report, is_name};
use super::expression::Expressions;
use super::quantity;
use super::raw_expectation::{RawCheckStage, RawExpectation, RawNullShare, RawOnFail, RawRowCount};
use super::yaml::Step;
use super::yaml::Step::{Index, Key};
use super::{Check, CheckStage, Connector, Expectation, OnFail};

/// Keys of which an expectation has one.
const CHECKS: &str = "`expr`, `null_share`, `row_count`, `unique` or `freshness`";

/// What rows look like at the stages: as they are decoded, and as they are staged.
pub(super) struct Stages<'a> {
    pub(super) decoded: (&'a Connector, &'a Columns),
    pub(super) transformed: (&'a Connector, &'a Columns),
}

pub(super) fn expectations(
    raw: &[RawExpectation],
    stages: &Stages<'_>,
    expressions: &Expressions,
    report: &mut Report<'_>,
) -> Vec<Expectation> {
    let mut checked: Vec<Expectation> = Vec::new();
    for (index, expectation) in raw.iter().enumerate() {
        let at = [Key("expectations"), Index(index), Key("name")];
        if !is_name(&expectation.name, &['_']) {
            let help = "lower-case letters, digits and underscores, beginning with a letter".to_owned();
            report.add(&at, format!("`{}` cannot be an expectation's name", expectation.name), help);
        }
        if checked.iter().any(|earlier| earlier.name == expectation.name) {
            let help = "dead letters name the expectation that failed: give each its own name".to_owned();
            report.add(&at, format!("there are two expectations `{}`", expectation.name), help);
        }
        let (connector, columns) = match expectation.stage {
            Some(RawCheckStage::AfterDecode) => stages.decoded,
            _ => stages.transformed,
        };
        let mut check = ExpectationCheck { index, columns, report };
        checked.extend(check.expectation(expectation, connector, expressions));
    }
    checked
}

/// Of one element of `expectations`.
struct ExpectationCheck<'a, 'b> {
    index: usize,
    columns: &'a Columns,
    report: &'a mut Report<'b>,
}

impl ExpectationCheck<'_, '_> {
    fn at<'k>(&self, keys: &[&'k str]) -> Vec<Step<'k>> {
        [Key("expectations"), Index(self.index)].into_iter().chain(keys.iter().map(|key| Key(key))).collect()
    }

    fn expectation(
        &mut self,
        raw: &RawExpectation,
        connector: &Connector,
        expressions: &Expressions,
    ) -> Option<Expectation> {
        let mut checks = Vec::new();
        if let Some(sql) = &raw.expr {
            let at = self.at(&["expr"]);
            expressions.check(connector, sql, &at, self.report);
            checks.push(Check::Row(sql.clone()));
        }
        checks.extend(raw.null_share.as_ref().map(|share| self.null_share(share)));
        checks.extend(raw.row_count.as_ref().map(|count| self.row_count(count)));
        checks.extend(raw.unique.as_ref().map(|names| {
            let at = self.at(&["unique"]);
            Check::Unique(self.columns.check_list(names.list(), &at, None, "", self.report))
        }));
        checks.extend(raw.freshness.as_ref().map(|freshness| {
            let max = quantity::parse_duration(&freshness.max).unwrap_or_else(|help| {
                let at = self.at(&["freshness", "max"]);
                self.report.add(&at, "`freshness.max` is no duration", help);
                std::time::Duration::ZERO
            });
            // it was read as milliseconds of 63 bits
            Check::Freshness { max_ms: max.as_millis() as i64 }
        }));
        if checks.len() != 1 {
            let at = self.at(&[]);
            let found = if checks.is_empty() { "nothing" } else { "several things" };
            let help = format!("write one of {CHECKS}; each expectation has a name of its own");
            self.report.add(&at, format!("expectation `{}` asks for {found}", raw.name), help);
            return None;
        }
        let check = checks.pop()?;
        let stage = self.stage(raw, &check);
        let on_fail = self.on_fail(raw.on_fail, &check);
        Some(Expectation { name: raw.name.clone(), stage, check, on_fail })
    }

    fn stage(&mut self, raw: &RawExpectation, check: &Check) -> CheckStage {
        let stage = match (raw.stage, check) {
            (Some(RawCheckStage::AfterDecode), _) => CheckStage::AfterDecode,
            (Some(RawCheckStage::AfterTransform), _) | (None, Check::Row(_)) => CheckStage::AfterTransform,
            (Some(RawCheckStage::BeforeLoad) | None, _) => CheckStage::BeforeLoad,
        };
        if let (CheckStage::AfterDecode, Check::Unique(_)) = (stage, check) {
            let at = self.at(&["stage"]);
            let help = "the rows of a micro-batch are together `after_transform` and `before_load`".to_owned();
            self.report.add(&at, "`unique` cannot be asked after decoding", help);
        }
        stage
    }

    fn on_fail(&mut self, raw: RawOnFail, check: &Check) -> OnFail {
        if !matches!(check, Check::Row(_)) && matches!(raw, RawOnFail::Drop | RawOnFail::Reject) {
            let at = self.at(&["on_fail"]);
            let help = "`warn` counts it, `fail` parks the connector".to_owned();
            self.report.add(&at, "there is no row to drop or to reject where all of them are asked together", help);
        }
        match raw {
            RawOnFail::Warn => OnFail::Warn,
            RawOnFail::Drop => OnFail::Drop,
            RawOnFail::Reject => OnFail::Reject,
            RawOnFail::Fail => OnFail::Fail,
        }
    }

    fn null_share(&mut self, raw: &RawNullShare) -> Check {
        let at = self.at(&["null_share", "column"]);
        self.columns.check_one(&raw.column, &at, None, "", self.report);
        if !(0.0..1.0).contains(&raw.max) {
            let at = self.at(&["null_share", "max"]);
            let help = "from 0 (no null at all) to less than 1; one in twenty is 0.05".to_owned();
            self.report.add(&at, format!("`null_share.max` is {}, no share", raw.max), help);
        }
        Check::NullShare { column: raw.column.clone(), max: raw.max }
    }

    fn row_count(&mut self, raw: &RawRowCount) -> Check {
        let at = self.at(&["row_count"]);
        let is_share = |share: &f64| share.is_finite() && *share >= 0.0;
        if raw.min.is_none() && raw.max.is_none() {
            let help = "write `min: 0.5` for at least half of the mean, `max: 2` for at most twice as many".to_owned();
            self.report.add_at_key(&at, "`row_count` names no bound", help);
        } else if !raw.min.iter().chain(&raw.max).all(is_share) || raw.min.zip(raw.max).is_some_and(|(a, b)| a > b) {
            let help = "shares of the mean: 0 or more, `min` not greater than `max`".to_owned();
            self.report.add_at_key(&at, "no number of rows lies within the bounds of `row_count`", help);
        }
        Check::RowCount { last: raw.last, min: raw.min, max: raw.max }
    }
}

#[cfg(test)]
#[path = "expectations_tests.rs"]
mod tests;
