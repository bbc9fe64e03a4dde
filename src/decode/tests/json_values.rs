//! JSON values that follow each other or stand in an array, against serde_json's stream of them.

use std::io::Cursor;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn of_values(data_type: FieldType) -> Arc<Connector> {
    let mut connector = one(data_type);
    Arc::make_mut(&mut connector).source.format = Format::JsonValues;
    connector
}

/// Each row's bytes or, behind `!`, those of its reject, in their order; however the object comes.
fn fates(object: &str) -> Vec<String> {
    let connector = of_values(FieldType::Json);
    let decoded = decode(&connector, object);
    let stream = ObjectDecoder::of_stream(&connector, Cursor::new(object.as_bytes()), &LIMITS).unwrap();
    let mut stream = stream.with_block_bytes(7);
    let mut streamed = Decoded::default();
    while let Some(block) = stream.next_block().unwrap() {
        streamed.append(block);
    }
    assert_eq!((rows(&streamed), &streamed.rejects), (rows(&decoded), &decoded.rejects));
    let mut fates = Vec::new();
    for batch in &decoded.batches {
        let numbers = batch.rows.columns().last().unwrap().as_any();
        let numbers = numbers.downcast_ref::<arrow::array::Int64Array>().unwrap().values();
        let text = |index| String::from_utf8(batch.row_bytes(index).to_vec()).unwrap();
        fates.extend(numbers.iter().enumerate().map(|(index, number)| (*number, text(index))));
    }
    for reject in &decoded.rejects {
        fates.push((reject.row, format!("!{}", String::from_utf8_lossy(&reject.bytes))));
    }
    fates.sort();
    fates.into_iter().map(|(_, fate)| fate).collect()
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![any::<i32>().prop_map(Value::from), "[\\PC\n\"{}\\[\\],\\\\]{0,8}".prop_map(Value::from)];
    let value = scalar.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[a-z\"{}\\\\]{0,2}", inner), 0..3).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    });
    value.prop_map(|value| serde_json::json!({ "v": value }))
}

fn spelt(value: &Value, is_pretty: bool) -> String {
    if is_pretty { serde_json::to_string_pretty(value).unwrap() } else { value.to_string() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn values_are_those_of_a_stream_and_of_an_array(
        values in prop::collection::vec((value(), any::<bool>(), prop::sample::select(&["", " ", "\n", "\r\n\t"][..])), 0..8),
        has_mark in any::<bool>(),
    ) {
        let texts: Vec<String> = values.iter().map(|(value, is_pretty, _)| spelt(value, *is_pretty)).collect();
        let follow: String = texts.iter().zip(&values).map(|(text, (_, _, space))| format!("{text}{space}")).collect();
        let oracle: Vec<Value> =
            serde_json::Deserializer::from_str(&follow).into_iter().collect::<Result<_, _>>().unwrap();
        let mark = if has_mark { "\u{feff}" } else { "" };
        let found = fates(&format!("{mark}{follow}"));
        prop_assert_eq!(&found, &texts);
        prop_assert_eq!(found.len(), oracle.len());
        let array = format!("{mark}\n[{}]\n", texts.join(" ,\n"));
        prop_assert_eq!(&fates(&array), &texts);
    }

    #[test]
    fn lines_between_broken_ones_come_through(
        lines in prop::collection::vec(
            prop_oneof![
                2 => value().prop_map(|value| value.to_string()),
                1 => prop::sample::select(&[
                    "{\"v\":", "{\"v\":[1,", "{\"v\":\"open", "{", "{]", "{\"v\":01}", "{\"v\":1}}", "nope", "\"x", "]", ",",
                    "{\"v\":[[[[[[[[[[1]]]]]]]]]]}",
                ][..]).prop_map(str::to_owned),
            ],
            0..10,
        ),
    ) {
        let object = lines.join("\n");
        let is_good = |line: &&String| serde_json::from_str::<Value>(line).is_ok() && !line.contains("[[[[[[[[[");
        let expected: Vec<&String> = lines.iter().filter(is_good).collect();
        // a reject of one line may hold no other's value, and nothing of the object is in no row
        let found = fates(&object);
        let good: Vec<&String> = found.iter().filter(|fate| !fate.starts_with('!')).collect();
        for line in expected {
            prop_assert!(good.contains(&line), "{line} of {object} is in {found:?}");
        }
        let kept: usize = found.iter().map(|fate| fate.trim_start_matches('!').split_whitespace().map(str::len).sum::<usize>()).sum();
        let all: usize = object.split_whitespace().map(str::len).sum();
        prop_assert_eq!(kept, all, "{:?}", found);
    }

    #[test]
    fn any_text_at_all_is_accounted_for(tokens in prop::collection::vec(
        prop::sample::select(&["{", "}", "[", "]", ",", ":", "\"", "\\", "\n", " ", "\"v\":1", "{\"v\":1}", "1", "x"][..]),
        0..40,
    )) {
        fates(&tokens.concat());
    }
}

#[test]
fn broken_values_are_rejects_between_their_neighbours() {
    for (object, expected) in [
        ("{\"v\":1}{\"v\":01}{\"v\":2}", &["{\"v\":1}", "!{\"v\":01}", "{\"v\":2}"][..]),
        ("[{\"v\":1},{\"v\":NaN},1,[2],{\"v\":3}]", &["{\"v\":1}", "!{\"v\":NaN}", "!1", "![2]", "{\"v\":3}"]),
        ("[{\"v\":1},,{\"v\":2},]", &["{\"v\":1}", "!,", "{\"v\":2}", "!,"]),
        ("[{\"v\":1},\n{\"v\":2}", &["{\"v\":1}", "{\"v\":2}", "!["]),
        ("{\"v\":1}\n{\"v\":\n{\"v\":2}\n", &["{\"v\":1}", "!{\"v\":", "{\"v\":2}"]),
        ("", &[]),
        (" \n", &[]),
        ("[]", &[]),
        ("{\n  \"v\": [\n    1\n  ]\n}\n", &["{\n  \"v\": [\n    1\n  ]\n}"]),
    ] {
        assert_eq!(fates(object), expected, "{object:?}");
    }
}

#[test]
fn many_broken_values_take_no_longer_than_one_pass_each() {
    let object = "{1}".repeat(300_000);
    assert_eq!(decode(&of_values(FieldType::Json), &object).rejects.len(), 300_000);
    let object = "{\"v\":[".repeat(200_000);
    assert_eq!(decode(&of_values(FieldType::Json), &object[..9_000]).rejects.len(), 1);
}
