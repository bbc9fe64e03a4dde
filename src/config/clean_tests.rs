use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::load_texts::load_texts;
use super::*;
use crate::config::{Connector, Connectors};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A connector with these clean steps.
fn load(steps: &str) -> Result<Connectors, String> {
    let text = format!(
        r#"name: orders
source: {{topic: raw-notifications, bucket: raw, prefix: orders/}}
schema:
  - {{name: order_id, type: uuid, required: true}}
  - {{name: email, type: utf8}}
  - {{name: weight, type: utf8}}
  - {{name: weight_g, type: "decimal(12,3)"}}
  - {{name: amount, type: "decimal(12,2)", required: true}}
  - {{name: share, type: float64}}
  - {{name: occurred_at, type: timestamp_ms, required: true}}
clean: {steps}
staging: {{type: order, time: occurred_at, by: [date, hour]}}
"#
    );
    load_texts(&[("a.yaml", &text)])
}

fn sound(steps: &str) -> Arc<Connector> {
    Arc::clone(&load(steps).unwrap_or_else(|problems| panic!("{problems}")).all[0])
}

#[test]
fn every_step_is_read_as_it_is_spelt() {
    let connector = sound(
        r#"
  - nulls: {columns: email, values: [n/a, "-"]}
  - clamp: {amount: {min: 0, max: 99.90}, occurred_at: {min: "2020-01-01T00:00:00Z"}}
  - replace: {columns: [email], pattern: '\+[^@]*@', with: "@"}
  - map: {columns: email, values: {b: 010, a: x}, otherwise: reject}
  - mask: {columns: email, keep_last: 4}
  - mask: {columns: email, fixed: "***"}
  - hash: {columns: email, key: customers}
  - parse_units: {from: weight, to: weight_g, unit: g}"#,
    );
    let email = || vec!["email".to_owned()];
    let clamp = |column: &str, min: &str, max: Option<&str>| Clamp {
        column: column.to_owned(),
        min: Some(min.to_owned()),
        max: max.map(str::to_owned),
    };
    let expected = [
        CleanStep::Nulls { columns: email(), values: vec!["n/a".to_owned(), "-".to_owned()] },
        CleanStep::Clamp(vec![clamp("amount", "0", Some("99.90")), clamp("occurred_at", "2020-01-01T00:00:00Z", None)]),
        CleanStep::Replace { columns: email(), pattern: r"\+[^@]*@".to_owned(), with: "@".to_owned() },
        CleanStep::Map {
            columns: email(),
            values: vec![("a".to_owned(), "x".to_owned()), ("b".to_owned(), "010".to_owned())],
            otherwise: Otherwise::Reject,
        },
        CleanStep::Mask { columns: email(), mask: Mask::KeepLast(4) },
        CleanStep::Mask { columns: email(), mask: Mask::Fixed("***".to_owned()) },
        CleanStep::Hash { columns: email(), key: HashKey::named("customers") },
        CleanStep::ParseUnits { from: "weight".to_owned(), to: "weight_g".to_owned(), unit: Unit::of("g").unwrap() },
    ];
    assert_eq!(connector.clean, expected);
}

#[test]
fn what_cannot_be_meant_is_told_with_what_to_write() {
    for (steps, expected) in [
        ("[{nulls: {columns: amount, values: [x]}}]", "column `amount` is decimal(12,2), but `nulls` works on utf8"),
        ("[{clamp: {emial: {min: 1}}}]", "there is no column `emial`"),
        ("[{clamp: {email: {min: 1}}}]", "column `email` is utf8, but this works on int32, int64, float64"),
        ("[{clamp: {amount: {}}}]", "`clamp` of `amount` names no bound"),
        ("[{clamp: {amount: {min: 1.234}}}]", "`1.234` is no value of column `amount`"),
        ("[{clamp: {amount: {min: 10, max: 9.5}}}]", "`min` of `amount` is greater than `max`"),
        ("[{clamp: {share: {min: 1.0, max: -1e3}}}]", "`min` of `share` is greater than `max`"),
        ("[{replace: {columns: email, pattern: '(', with: x}}]", "`(` is no regular expression"),
        ("[{replace: {columns: email, pattern: '(a)', with: $1b}}]", "the pattern has no group `1b`"),
        ("[{replace: {columns: email, pattern: '(?<x>a)', with: '${y}'}}]", "groups of the pattern: 0, 1, x;"),
        ("[{mask: {columns: email}}]", "`mask` names neither of `keep_last` and `fixed`"),
        ("[{mask: {columns: email, keep_last: 1, fixed: x}}]", "`mask` names both of `keep_last` and `fixed`"),
        ("[{mask: {columns: email, keep_last: 17}}]", "`mask` keeps 17 characters"),
        ("[{hash: {columns: amount, key: k}}]", "column `amount` is decimal(12,2), but `hash` works on utf8"),
        ("[{parse_units: {from: weight, to: share, unit: g}}]", "column `share` is float64, but this works on int32"),
        ("[{parse_units: {from: weight, to: amount, unit: g}}]", "column `amount` is required, and filled too late"),
        ("[{parse_units: {from: weight, to: weight_g, unit: kgs}}]", "did you mean `kg`?"),
        ("[{map: {columns: email, values: {}}}]", "values"),
    ] {
        let problems = load(steps).err().unwrap_or_default();
        assert!(problems.contains(expected) && problems.contains("a.yaml:11:"), "{steps}\n{problems}");
    }
}

#[test]
fn what_may_be_a_key_is_not_repeated() {
    let problems = load(&format!("[{{hash: {{columns: email, key: K{KEY}}}}}]")).unwrap_err();
    assert!(problems.contains("that cannot be the name of a key") && !problems.contains(KEY), "{problems}");
}

#[test]
fn each_option_of_a_step_changes_the_revision() {
    let of = |steps: &str| sound(steps).revision.clone();
    let revisions = [
        "[]",
        "[{nulls: {columns: email, values: [x]}}]",
        "[{nulls: {columns: email, values: [y]}}]",
        "[{clamp: {amount: {min: 1}}}]",
        "[{clamp: {amount: {max: 1}}}]",
        "[{replace: {columns: email, pattern: a, with: b}}]",
        "[{replace: {columns: email, pattern: b, with: a}}]",
        "[{map: {columns: email, values: {a: b}}}]",
        "[{map: {columns: email, values: {a: b}, otherwise: clear}}]",
        "[{map: {columns: email, values: {a: b}, otherwise: reject}}]",
        "[{mask: {columns: email, keep_last: 1}}]",
        "[{mask: {columns: email, fixed: \"1\"}}]",
        "[{hash: {columns: email, key: a}}]",
        "[{hash: {columns: email, key: b}}]",
        "[{parse_units: {from: weight, to: weight_g, unit: g}}]",
        "[{parse_units: {from: weight, to: weight_g, unit: kg}}]",
    ]
    .map(of);
    let mut distinct = revisions.to_vec();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), revisions.len());
    let (a, b) = ("[{map: {columns: email, values: {a: b, c: d}}}]", "[{map: {columns: email, values: {c: d, a: b}}}]");
    assert_eq!(of(a), of(b), "the order of a mapping means nothing");
}

#[test]
fn the_key_decides_the_revision_and_its_absence_is_told() {
    let hashing = || load("[{hash: {columns: email, key: customers}}]").unwrap();
    let plain = hashing();
    let problems = plain.require_keys().unwrap_err().to_string();
    assert!(problems.contains("connector `orders` hashes by key `customers`, which is not set"), "{problems}");
    assert!(problems.contains("SLUICE_SECRETS__CUSTOMERS"), "{problems}");
    let keyed = |name: &str, key: &str| hashing().with_keys(&BTreeMap::from([(name.to_owned(), key.into())]));
    let revision = |connectors: &Connectors| connectors.all[0].revision.clone();
    let (one, other) = (keyed("customers", KEY), keyed("customers", "another key of 32 bytes, or so ."));
    assert!(one.require_keys().is_ok());
    assert_ne!(revision(&one), revision(&other));
    assert_ne!(revision(&one), revision(&plain));
    assert_eq!(revision(&one), revision(&keyed("customers", KEY)));
    assert_eq!(revision(&keyed("others", KEY)), revision(&plain));
    assert!(!format!("{one:?}").contains(KEY));
}
