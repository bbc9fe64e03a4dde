//! The decoder against serde_json, on arbitrary documents and on damaged ones.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const NAMES: [&str; 9] = ["text", "small", "large", "float", "flag", "amount", "at", "id", "any"];

fn all_types(new_field: NewField) -> Arc<Connector> {
    let fields = vec![
        field("text", FieldType::Utf8, true),
        field("small", FieldType::Int32, false),
        field("large", FieldType::Int64, false),
        field("float", FieldType::Float64, false),
        field("flag", FieldType::Boolean, false),
        field("amount", FieldType::Decimal { precision: 6, scale: 2 }, false),
        field("at", FieldType::TimestampMs, false),
        field("id", FieldType::Uuid, false),
        field("any", FieldType::Json, false),
    ];
    connector(fields, new_field)
}

/// A scalar that has a fair chance to fit some column.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => any::<i64>().prop_map(Value::from),
        2 => any::<i16>().prop_map(Value::from),
        2 => (-999_999_i64..=999_999).prop_map(|hundredths| Value::from(hundredths as f64 / 100.0)),
        1 => (-1e3..1e3).prop_map(Value::from),
        3 => "\\PC{0,20}".prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => "[0-9]{1,5}(\\.[0-9]{1,3})?".prop_map(Value::from),
        1 => any::<u128>().prop_map(|bits| Value::from(uuid::Uuid::from_u128(bits).to_string())),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z\"\\\\ü]{0,3}", inner), 0..4).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}

fn pairs() -> impl Strategy<Value = Vec<(String, Value)>> {
    let name = prop_oneof![12 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => "[a-z\\\\\"]{0,4}"];
    let others = prop::collection::vec((name, value()), 0..5);
    // mostly with the required field, so that most rows get further than that
    (prop::option::weighted(0.9, "\\PC{0,12}"), others).prop_map(|(text, mut pairs)| {
        if let Some(text) = text {
            let place = text.len() % (pairs.len() + 1);
            pairs.insert(place, ("text".to_owned(), Value::from(text)));
        }
        pairs
    })
}

fn written(pairs: &[(String, Value)]) -> String {
    let fields: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
    format!("{{{}}}", fields.join(","))
}

/// What a value is in its column, as [`rows`] prints it.
fn expected_value(name: &str, value: &Value) -> Result<String, &'static str> {
    let text = value.to_string();
    match (name, value) {
        (_, Value::Null) => Ok("∅".to_owned()),
        ("any", _) => Ok(text),
        ("text", Value::String(text)) => Ok(text.clone()),
        ("flag", Value::Bool(_)) => Ok(text),
        ("small", Value::Number(number)) if !number.is_f64() => {
            number.as_i64().and_then(|n| i32::try_from(n).ok()).map(|n| n.to_string()).ok_or("invalid_value")
        }
        ("large", Value::Number(number)) if !number.is_f64() => Ok(number.to_string()),
        ("float", Value::Number(number)) => Ok(format!("{:?}", number.as_f64().unwrap())),
        ("at", Value::Number(number)) if !number.is_f64() => number
            .as_i64()
            .filter(|ms| (0..7_258_118_400_000).contains(ms))
            .map(|ms| shown(chrono::DateTime::from_timestamp_millis(ms).unwrap()))
            .ok_or("invalid_value"),
        ("at", Value::String(_)) => Err("invalid_value"),
        ("id", Value::String(text)) => match uuid::Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 => Ok(id.to_string()),
            _ => Err("invalid_value"),
        },
        ("amount", Value::Number(_)) => expected_amount(&text),
        ("amount", Value::String(text)) => expected_amount(text),
        _ => Err("wrong_type"),
    }
}

fn shown(at: chrono::DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// By the text, without exponents.
fn expected_amount(text: &str) -> Result<String, &'static str> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = whole == "0" || !whole.starts_with('0');
    if !is_number(whole) || !is_number(fraction) || !is_plain || whole.len() > 4 || fraction.len() > 2 {
        return Err("invalid_value");
    }
    let sign = if digits.bytes().all(|byte| matches!(byte, b'0' | b'.')) { "" } else { sign };
    Ok(format!("{sign}{whole}.{fraction:0<2}"))
}

fn expected(pairs: &[(String, Value)], new_field: NewField) -> String {
    let mut row: Vec<Option<String>> = vec![None; NAMES.len()];
    let mut unknown: Vec<(&str, &Value)> = Vec::new();
    for (name, value) in pairs {
        let Some(column) = NAMES.iter().position(|known| known == name) else {
            if unknown.iter().any(|(earlier, _)| earlier == name) {
                return "duplicate_field".to_owned();
            }
            if new_field == NewField::Reject {
                return "unknown_field".to_owned();
            }
            unknown.push((name, value));
            continue;
        };
        if row[column].is_some() {
            return "duplicate_field".to_owned();
        }
        match expected_value(name, value) {
            Ok(text) => row[column] = Some(text),
            Err(reason) => return reason.to_owned(),
        }
    }
    if row[0].as_deref().is_none_or(|text| text == "∅" && !pairs.iter().any(|(n, v)| n == "text" && v.is_string())) {
        return "missing_required".to_owned();
    }
    let mut columns: Vec<String> = row.into_iter().map(|text| text.unwrap_or_else(|| "∅".to_owned())).collect();
    if new_field == NewField::Rescue {
        let kept: Vec<(String, Value)> =
            unknown.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect();
        columns.push(if kept.is_empty() { "∅".to_owned() } else { written(&kept) });
    }
    columns.join("|")
}

/// Damage: at places given as fractions of the length, bytes cut out or tokens put in.
fn damaged(text: &str, edits: &[(f64, usize, &str)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (place, cut, token) in edits {
        let at = (place * bytes.len() as f64) as usize;
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, token.bytes());
    }
    bytes
}

const TOKENS: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "d83d",
    "\\ude00",
    "\\n",
    "\\x",
    "true",
    "null",
    "nul",
    "0",
    "-",
    "1",
    ".",
    "e",
    "E+",
    " ",
    "\t",
    "\n",
    "\r",
    "\u{1}",
    "ü",
    "\"text\":\"x\"",
    "",
];

fn syntax_agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
    let reason = fate(&all_types(NewField::Ignore), bytes);
    match std::str::from_utf8(bytes) {
        Err(_) => prop_assert_eq!(reason, "invalid_utf8"),
        Ok(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) if !value.is_object() => prop_assert_eq!(reason, "not_an_object"),
            Ok(_) => prop_assert!(!["malformed_json", "not_an_object", "invalid_utf8"].contains(&reason.as_str())),
            // its only objection that is none of syntax
            Err(error) if error.to_string().contains("number out of range") => {}
            Err(error) => prop_assert_eq!(reason, "malformed_json", "{}", error),
        },
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn values_agree_with_serde_json(pairs in pairs(), rescues in any::<bool>()) {
        let new_field = if rescues { NewField::Rescue } else { NewField::Reject };
        let record = written(&pairs);
        prop_assert_eq!(fate(&all_types(new_field), &record), expected(&pairs, new_field), "{}", record);
    }

    #[test]
    fn syntax_agrees_with_serde_json_on_damaged_records(
        pairs in pairs(),
        edits in prop::collection::vec((0.0..1.0, 0..3_usize, prop::sample::select(&TOKENS[..])), 1..3),
    ) {
        syntax_agrees(&damaged(&written(&pairs), &edits))?;
    }

    #[test]
    fn syntax_agrees_with_serde_json_on_loose_tokens(
        tokens in prop::collection::vec(prop::sample::select(&TOKENS[..]), 0..12),
    ) {
        syntax_agrees(tokens.concat().as_bytes())?;
        syntax_agrees(format!("{{\"any\":{}}}", tokens.concat()).as_bytes())?;
        syntax_agrees(format!("{{\"text\":\"12345{}\"}}", tokens.concat()).as_bytes())?;
    }

    #[test]
    fn any_bytes_at_all_are_accounted_for(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let connector = all_types(NewField::Rescue);
        match decode_object(&connector, Bytes::copy_from_slice(&bytes), &LIMITS) {
            // Two bytes are enough to look like gzip: one object in 65,536.
            Err(fault) => prop_assert_eq!(fault.reason(), RejectReason::CorruptCompression),
            Ok(decoded) if decoded.unpacked_bytes == bytes.len() as u64 => check(&connector, &bytes, &decoded),
            Ok(_) => {}
        }
        fate(&connector, &bytes);
    }
}
