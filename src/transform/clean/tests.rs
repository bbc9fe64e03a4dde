//! Clean steps on small tables. What a step must give is worked out here by other means than the step's own.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, RecordBatch, StringArray};
use arrow::datatypes::{Decimal128Type, Int32Type};
use proptest::prelude::*;

use super::super::tests::{concluded, connector, decoded, field, names, transformed, written};
use super::super::{TransformPlan, Transformed, apply};
use super::units::UnitParser;
use crate::config::{Clamp, CleanStep, Connector, FieldType, HashKey, Mask, OnFail, Otherwise, Unit};
use crate::error::ErrorKind;
use crate::types::RejectReason;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn cleaned(steps: Vec<CleanStep>, lines: &[&str]) -> Transformed {
    transformed(&connector(steps, &[]), lines)
}

fn changes(result: &Transformed) -> Vec<(&'static str, u64)> {
    result.changes.iter().collect()
}

fn rejects(result: &Transformed) -> Vec<(i64, RejectReason, &str, &[u8])> {
    let rejects = result.rejects.iter();
    rejects.map(|reject| (reject.row, reject.reason, reject.detail.as_str(), &reject.bytes[..])).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
}

fn clamp(column: &str, min: Option<&str>, max: Option<&str>) -> Clamp {
    Clamp { column: column.to_owned(), min: min.map(str::to_owned), max: max.map(str::to_owned) }
}

fn hash(columns: &[&str], key: HashKey) -> CleanStep {
    CleanStep::Hash { columns: names(columns), key }
}

#[test]
fn spellings_of_null_become_null_and_others_stay() {
    let nulls = CleanStep::Nulls { columns: names(&["id", "country"]), values: names(&["n/a", "-", ""]) };
    let lines = [r#"{"id":"n/a","country":"-"}"#, r#"{"id":"N/A","country":""}"#, r#"{"id":"- "}"#];
    let result = cleaned(vec![nulls.clone()], &lines);
    assert_eq!(written(&result.batches), [r#"{"_row":0}"#, r#"{"id":"N/A","_row":1}"#, r#"{"id":"- ","_row":2}"#]);
    assert_eq!(changes(&result), [("nulls", 3)]);
    let fill = CleanStep::Default(pairs(&[("country", "unknown")]));
    let result = cleaned(vec![nulls, fill], &lines[..1]);
    assert_eq!(written(&result.batches), [r#"{"country":"unknown","_row":0}"#]);
    assert_eq!(changes(&result), [("nulls", 2), ("default", 1)]);
}

#[test]
fn a_null_that_cleaning_leaves_in_a_required_column_rejects_the_row() {
    let nulls = CleanStep::Nulls { columns: names(&["id"]), values: names(&["-"]) };
    let fill = CleanStep::Default(pairs(&[("id", "x")]));
    let lines = [r#"{"id":"a"}"#, r#"{"id":"-"}"#, r#"{"id":"b"}"#];
    for (steps, expected) in [(vec![nulls.clone()], vec!["a", "b"]), (vec![nulls, fill], vec!["a", "x", "b"])] {
        let mut requires = Arc::unwrap_or_clone(connector(steps, &[]));
        requires.fields[0].required = true;
        let result = transformed(&Arc::new(requires), &lines);
        let ids: Vec<&str> =
            result.batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>()).flatten().collect();
        assert_eq!(ids, expected);
        let detail = "column `id` is required, and cleaning left it null";
        let rejected = [(1, RejectReason::MissingRequired, detail, lines[1].as_bytes())];
        assert_eq!(rejects(&result), rejected[..3 - expected.len()]);
    }
}

#[test]
fn values_beyond_a_bound_become_the_bound() {
    let bounds = vec![
        clamp("amount", Some("-1.50"), Some("10")),
        clamp("quantity", None, Some("5")),
        clamp("at", Some("2026-01-01T00:00:00Z"), None),
    ];
    let lines = [
        r#"{"amount":-1.51,"quantity":6,"at":"2025-12-31T23:59:59.999Z"}"#,
        r#"{"amount":10.01,"quantity":5,"at":"2026-01-01T00:00:00.001Z"}"#,
        r#"{"amount":-1.50,"quantity":-7}"#,
        "{}",
    ];
    let result = cleaned(vec![CleanStep::Clamp(bounds)], &lines);
    assert_eq!(
        written(&result.batches),
        [
            r#"{"amount":-1.50,"quantity":5,"at":"2026-01-01T00:00:00Z","_row":0}"#,
            r#"{"amount":10.00,"quantity":5,"at":"2026-01-01T00:00:00.001Z","_row":1}"#,
            r#"{"amount":-1.50,"quantity":-7,"_row":2}"#,
            r#"{"_row":3}"#,
        ]
    );
    assert_eq!(changes(&result), [("clamp", 4)]);
}

#[test]
fn what_lies_under_a_null_is_not_clamped() {
    let result =
        cleaned(vec![CleanStep::Clamp(vec![clamp("quantity", Some("1"), None)])], &["{}", r#"{"quantity":2}"#]);
    assert_eq!(written(&result.batches), [r#"{"_row":0}"#, r#"{"quantity":2,"_row":1}"#]);
    assert_eq!(changes(&result), []);
}

#[test]
fn every_match_is_replaced_and_groups_stand_in_the_text() {
    let replace = |pattern: &str, with: &str| CleanStep::Replace {
        columns: names(&["id"]),
        pattern: pattern.to_owned(),
        with: with.to_owned(),
    };
    for (pattern, with, from, to) in [
        (r"(\d+)-(\d+)", "${2}/$1", "10-20 und 3-4", "20/10 und 4/3"),
        (r"^(?<land>[A-Z]{2})", "<$land>", "DE12", "<DE>12"),
        (r"\s+", " ", "a \t b", "a b"),
        ("a", "$$", "aa", "$$"),
        ("x", "y", "aa", "aa"),
    ] {
        let line = serde_json::json!({ "id": from }).to_string();
        let result = cleaned(vec![replace(pattern, with)], &[&line]);
        assert_eq!(result.batches[0].column(0).as_string::<i32>().value(0), to, "{pattern}");
        assert_eq!(changes(&result).len(), usize::from(from != to), "{pattern}");
    }
}

#[test]
fn a_map_decides_what_becomes_of_values_that_it_does_not_list() {
    let map = |otherwise| CleanStep::Map {
        columns: names(&["country"]),
        values: pairs(&[("Germany", "DE"), ("FR", "FR")]),
        otherwise,
    };
    let lines = [r#"{"country":"Germany"}"#, r#"{"country":"FR"}"#, r#"{"country":"germany"}"#, "{}"];
    let listed = [r#"{"country":"DE","_row":0}"#, r#"{"country":"FR","_row":1}"#];
    let keeps = cleaned(vec![map(Otherwise::Keep)], &lines);
    assert_eq!(written(&keeps.batches)[..2], listed);
    assert_eq!(written(&keeps.batches)[2..], [r#"{"country":"germany","_row":2}"#, r#"{"_row":3}"#]);
    assert_eq!(changes(&keeps), [("map", 1)]);
    let clears = cleaned(vec![map(Otherwise::Clear)], &lines);
    assert_eq!(written(&clears.batches)[2..], [r#"{"_row":2}"#, r#"{"_row":3}"#]);
    assert_eq!(changes(&clears), [("map", 2)]);
    let rejecting = cleaned(vec![map(Otherwise::Reject)], &lines);
    assert_eq!(written(&rejecting.batches), [listed[0], listed[1], r#"{"_row":3}"#]);
    let detail = "clean step `map` of column `country`: the value is not listed";
    assert_eq!(rejects(&rejecting), [(2, RejectReason::InvalidValue, detail, lines[2].as_bytes())]);
}

#[test]
fn later_steps_and_expectations_do_not_see_a_rejected_row_and_name_the_right_bytes() {
    let map = |column: &str| CleanStep::Map {
        columns: names(&[column]),
        values: pairs(&[("a", "A")]),
        otherwise: Otherwise::Reject,
    };
    let lines = [
        r#"{"id":"x","country":"x","quantity":0}"#,
        r#"{"id":"a","country":"x","quantity":0}"#,
        r#"{"id":"a","country":"a","quantity":0}"#,
        r#"{"id":"a","country":"a","quantity":1}"#,
    ];
    let expectations = [("some", "quantity > 0", OnFail::Reject)];
    let connector = connector(vec![map("id"), map("country")], &expectations);
    let result = transformed(&connector, &lines);
    assert_eq!(written(&result.batches), [r#"{"id":"A","country":"A","quantity":1,"_row":3}"#]);
    let some = concluded(&connector, &result).next().unwrap();
    assert_eq!((some.rows_checked, some.rows_failed), (2, 1));
    let found: Vec<_> = result.rejects.iter().map(|reject| (reject.row, reject.reason, &reject.bytes[..])).collect();
    let (invalid, failed) = (RejectReason::InvalidValue, RejectReason::ExpectationFailed);
    let reasons = [invalid, invalid, failed];
    let expected: Vec<_> = (0..3).map(|row| (row as i64, reasons[row], lines[row].as_bytes())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_batch_of_which_nothing_is_left_is_no_batch() {
    let map = CleanStep::Map { columns: names(&["id"]), values: pairs(&[("a", "A")]), otherwise: Otherwise::Reject };
    let result = cleaned(vec![map], &[r#"{"id":"x"}"#]);
    assert!(result.batches.is_empty());
    assert_eq!(result.rejects.len(), 1);
}

#[test]
fn masks_keep_the_end_or_nothing() {
    let mask = |mask| vec![CleanStep::Mask { columns: names(&["id"]), mask }];
    let lines = [r#"{"id":"DE89370400"}"#, r#"{"id":"äöü€"}"#, r#"{"id":"ab"}"#, r#"{"id":""}"#, "{}"];
    let result = cleaned(mask(Mask::KeepLast(3)), &lines);
    let ids = |result: &Transformed| -> Vec<Option<String>> {
        result.batches[0].column(0).as_string::<i32>().iter().map(|id| id.map(str::to_owned)).collect()
    };
    let some = |texts: [&str; 4]| texts.map(|text| Some(text.to_owned())).into_iter().chain([None]).collect::<Vec<_>>();
    assert_eq!(ids(&result), some(["*******400", "*öü€", "**", ""]));
    assert_eq!(changes(&result), [("mask", 3)]);
    assert_eq!(ids(&cleaned(mask(Mask::Fixed("#".to_owned())), &lines)), some(["#", "#", "#", "#"]));
}

/// Source: RFC 4231, test case 2 (key `Jefe`), read 2026-11.
#[test]
fn hashes_are_those_of_the_standard_and_follow_the_key() {
    let keyed = |key: &str| HashKey::named("customers").with_secret(key.into());
    let line = [r#"{"id":"what do ya want for nothing?"}"#, "{}"];
    let result = cleaned(vec![hash(&["id"], keyed("Jefe"))], &line);
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(written(&result.batches), [format!(r#"{{"id":"{expected}","_row":0}}"#), r#"{"_row":1}"#.to_owned()]);
    assert_eq!(changes(&result), [("hash", 1)]);
    let other = cleaned(vec![hash(&["id"], keyed(KEY))], &line);
    assert_ne!(written(&other.batches)[0], written(&result.batches)[0]);
}

#[test]
fn a_key_is_shown_nowhere_and_its_absence_is_an_error_of_the_settings() {
    let key = HashKey::named("customers");
    let error = TransformPlan::new(&connector(vec![hash(&["id"], key.clone())], &[])).unwrap_err();
    assert_eq!(error.to_string(), "connector `orders` hashes by key `customers`, which the settings lack");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let keyed = connector(vec![hash(&["id"], key.with_secret(KEY.into()))], &[]);
    let shown = format!("{keyed:?} {:?}", TransformPlan::new(&keyed).unwrap());
    assert!(!shown.contains(KEY) && !shown.contains("30, 31, 32") && !shown.contains("48, 49, 50"), "{shown}");
}

fn weighing(to: FieldType, unit: &str) -> Arc<Connector> {
    let step =
        CleanStep::ParseUnits { from: "country".to_owned(), to: "quantity".to_owned(), unit: Unit::of(unit).unwrap() };
    let mut weighing = Arc::unwrap_or_clone(connector(vec![step], &[]));
    weighing.fields[3] = field("quantity", to);
    Arc::new(weighing)
}

#[test]
fn quantities_are_read_exactly_or_rejected() {
    let three = FieldType::Decimal { precision: 12, scale: 3 };
    for (to, unit, text, expected) in [
        (three, "kg", "1.5 kg", Some("1.500")),
        (three, "kg", " -250g ", Some("-0.250")),
        (three, "kg", "+0.0010 t", Some("1.000")),
        (three, "kg", "1 lb", None),
        (three, "g", "1 lb", None),
        (FieldType::Decimal { precision: 12, scale: 8 }, "kg", "1 lb", Some("0.45359237")),
        (FieldType::Int64, "B", "20 MiB", Some("20971520")),
        (FieldType::Int64, "B", "1.5 kB", Some("1500")),
        (FieldType::Int64, "B", "0.5 B", None),
        (FieldType::Int64, "s", "3 h", Some("10800")),
        (FieldType::Int64, "h", "90 min", None),
        (three, "h", "90 min", Some("1.500")),
        (three, "h", "1 min", None),
        (FieldType::Int32, "B", "2 GiB", None),
        (FieldType::Int32, "B", "2147483647 B", Some("2147483647")),
        (FieldType::Int64, "B", "99999999999999999999999999999999999999 TB", None),
        (FieldType::Int64, "B", "1e3 B", None),
        (FieldType::Int64, "B", "1,000 B", None),
        (FieldType::Int64, "B", "5", None),
        (FieldType::Int64, "B", "B", None),
        (FieldType::Int64, "B", "1. B", None),
        (FieldType::Int64, "B", "--1 B", None),
        (FieldType::Int64, "B", "3 kg", None),
        (FieldType::Int64, "B", "3 parsecs", None),
        (FieldType::Int64, "B", "", None),
    ] {
        let line = serde_json::json!({ "country": text }).to_string();
        let result = transformed(&weighing(to, unit), &[&line]);
        let Some(expected) = expected else {
            assert_eq!(result.rejects.len(), 1, "{text}");
            let detail = format!("no quantity that is a number of `{unit}` which the column can hold exactly");
            assert_eq!(result.rejects[0].detail, format!("clean step `parse_units` of column `quantity`: {detail}"));
            assert_eq!(result.rejects[0].bytes, line.as_bytes());
            continue;
        };
        assert_eq!(result.rejects.len(), 0, "{text}");
        let number = arrow::util::display::array_value_to_string(result.batches[0].column(3), 0).unwrap();
        assert_eq!(number, expected, "{text}");
        assert_eq!(changes(&result), [("parse_units", 1)], "{text}");
    }
}

#[test]
fn without_a_quantity_the_number_stays() {
    let lines = [r#"{"quantity":7}"#, r#"{"quantity":7,"country":"2 min"}"#, "{}"];
    let result = transformed(&weighing(FieldType::Int32, "s"), &lines);
    let quantities: Vec<_> = result.batches[0].column(3).as_primitive::<Int32Type>().iter().collect();
    assert_eq!(quantities, [Some(7), Some(120), None]);
    assert_eq!(changes(&result), [("parse_units", 1)]);
}

#[test]
fn a_step_that_changes_nothing_copies_nothing() {
    let of_id = || names(&["id"]);
    let steps = vec![
        CleanStep::Trim(of_id()),
        CleanStep::Lowercase(of_id()),
        CleanStep::Nulls { columns: of_id(), values: names(&["-"]) },
        CleanStep::Replace { columns: of_id(), pattern: "[0-9]".to_owned(), with: "#".to_owned() },
        CleanStep::Map { columns: of_id(), values: pairs(&[("c", "d")]), otherwise: Otherwise::Keep },
        CleanStep::Clamp(vec![clamp("quantity", Some("0"), Some("9"))]),
        CleanStep::Default(pairs(&[("id", "x"), ("quantity", "1")])),
    ];
    let connector = connector(steps, &[]);
    let input = decoded(&connector, &[&[r#"{"id":"a","quantity":3}"#, r#"{"id":"b","quantity":4}"#]]);
    let before: RecordBatch = input.batches[0].rows.clone();
    let after = apply(&TransformPlan::new(&connector).unwrap(), input).unwrap();
    for (before, after) in before.columns().iter().zip(after.batches[0].columns()) {
        assert!(Arc::ptr_eq(before, after));
    }
    assert_eq!(changes(&after), []);
}

#[test]
fn counts_of_one_kind_of_step_add_up_over_columns_steps_and_batches() {
    let trims = vec![CleanStep::Trim(names(&["id", "country"])), CleanStep::Trim(names(&["id"]))];
    let connector = connector(trims, &[]);
    let input = decoded(&connector, &[&[r#"{"id":" a","country":"b "}"#, r#"{"id":"c"}"#], &[r#"{"id":" d"}"#]]);
    let mut changes = apply(&TransformPlan::new(&connector).unwrap(), input).unwrap().changes;
    assert_eq!(changes.iter().collect::<Vec<_>>(), [("trim", 3)]);
    changes.append(&changes.clone());
    assert_eq!(changes.iter().collect::<Vec<_>>(), [("trim", 6)]);
}

proptest! {
    /// Reading a number in its own unit is reading the number; in a finer unit, its factor more.
    #[test]
    fn quantities_scale_by_their_factor(number in -999_999_i64..=999_999, thousandths in 0..1_000_i64) {
        let text = format!("{}{}.{thousandths:03} kg", if number < 0 { "-" } else { "" }, number.abs());
        let of_grams = i128::from(number.abs() * 1_000 + thousandths) * if number < 0 { -1 } else { 1 };
        let texts = StringArray::from(vec![text]);
        let three = FieldType::Decimal { precision: 20, scale: 3 };
        let column: ArrayRef = Arc::new(Decimal128Array::from(vec![None]).with_precision_and_scale(20, 3).unwrap());
        for (unit, expected) in [("kg", of_grams), ("g", of_grams * 1_000), ("mg", of_grams * 1_000_000)] {
            let applied = UnitParser::new(Unit::of(unit).unwrap(), three).apply(&texts, &column).unwrap();
            let read = applied.column.unwrap();
            prop_assert_eq!(read.as_primitive::<Decimal128Type>().value(0), expected);
        }
    }

    /// Whatever the texts are and however they are cut, text steps give what plain `str` methods give, value by value.
    #[test]
    fn text_steps_agree_with_plain_strings(
        texts in prop::collection::vec(prop::option::of("[ a-cA-C1ßÄ-]{0,4}"), 1..20),
        size in 1..20_usize,
    ) {
        let lines: Vec<String> = texts.iter().map(|text| serde_json::json!({ "id": text }).to_string()).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let steps = vec![
            CleanStep::Trim(names(&["id"])),
            CleanStep::Lowercase(names(&["id"])),
            CleanStep::Nulls { columns: names(&["id"]), values: names(&["-", ""]) },
            CleanStep::Replace { columns: names(&["id"]), pattern: "b+".to_owned(), with: "[$0]".to_owned() },
            CleanStep::Map { columns: names(&["id"]), values: pairs(&[("a", "z")]), otherwise: Otherwise::Keep },
        ];
        let connector = connector(steps, &[]);
        let expected: Vec<Option<String>> = texts.iter().map(|text| {
            let text = text.as_deref()?.trim().to_lowercase();
            if text.is_empty() || text == "-" {
                return None;
            }
            let mut replaced = String::new();
            let mut letters = text.chars().peekable();
            while let Some(letter) = letters.next() {
                if letter != 'b' {
                    replaced.push(letter);
                    continue;
                }
                replaced.push_str("[b");
                while letters.next_if_eq(&'b').is_some() {
                    replaced.push('b');
                }
                replaced.push(']');
            }
            Some(if replaced == "a" { "z".to_owned() } else { replaced })
        }).collect();
        let batches: Vec<&[&str]> = lines.chunks(size).collect();
        let result = apply(&TransformPlan::new(&connector).unwrap(), decoded(&connector, &batches)).unwrap();
        let found: Vec<Option<String>> = result.batches.iter()
            .flat_map(|batch| batch.column(0).as_string::<i32>())
            .map(|text| text.map(str::to_owned)).collect();
        prop_assert_eq!(found, expected);
    }
}
