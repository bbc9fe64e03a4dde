//! Columns that are read by a path, against a look-up in serde_json's tree.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::config::{JsonPath, PathStep, TypeChange};

fn at(name: &str, data_type: FieldType, required: bool, path: &str) -> Field {
    Field { path: Some(JsonPath::parse(path).unwrap()), ..field(name, data_type, required) }
}

fn orders(new_field: NewField, type_change: TypeChange) -> Arc<Connector> {
    let fields = vec![
        at("order_id", FieldType::Utf8, true, "$.orderId"),
        at("user_id", FieldType::Int64, false, "$.user.id"),
        at("city", FieldType::Utf8, false, "$.user['home address'].city"),
        at("first_sku", FieldType::Utf8, false, "$.items[0].sku"),
        at("items", FieldType::Json, false, "$.items"),
        field("note", FieldType::Utf8, false),
    ];
    let evolution = Evolution { new_field, type_change, ..Evolution::default() };
    Arc::new(Connector { evolution, ..Connector::of_objects("things", fields, "at") })
}

#[test]
fn a_value_is_found_where_its_path_leads_and_null_where_it_leads_nowhere() {
    let orders = orders(NewField::Ignore, TypeChange::Reject);
    for (record, expected) in [
        (
            r#"{"orderId":"o1","user":{"id":7,"home address":{"city":"Köln"}},"items":[{"sku":"a"},{"sku":"b"}],"note":"n"}"#,
            r#"o1|7|Köln|a|[{"sku":"a"},{"sku":"b"}]|n"#,
        ),
        (r#"{"orderId":"o1"}"#, "o1|∅|∅|∅|∅|∅"),
        (r#"{"user":null,"items":null,"orderId":"o1"}"#, "o1|∅|∅|∅|∅|∅"),
        (r#"{"orderId":"o1","user":{"home address":null},"items":[]}"#, "o1|∅|∅|∅|[]|∅"),
        (r#"{"orderId":"o1","items":[null,{"sku":"b"}]}"#, r#"o1|∅|∅|∅|[null,{"sku":"b"}]|∅"#),
        (r#" { "orderId" : "o1" , "user" : { "id" : 7 } } "#, "o1|7|∅|∅|∅|∅"),
        (r#"{"orderId":"o1","us\u0065r":{"\u0069d":8}}"#, "o1|8|∅|∅|∅|∅"),
        // fields of the columns' own names are none of theirs
        (r#"{"orderId":"o1","user_id":1,"city":"x","order_id":"o2"}"#, "o1|∅|∅|∅|∅|∅"),
        (r#"{"order_id":"o1"}"#, "missing_required"),
        (r#"{"orderId":"o1","user":{"id":"seven"}}"#, "wrong_type"),
        (r#"{"orderId":"o1","user":7}"#, "wrong_type"),
        (r#"{"orderId":"o1","items":{"0":1}}"#, "wrong_type"),
        (r#"{"orderId":"o1","user":{"id":7,"id":8}}"#, "duplicate_field"),
        (r#"{"orderId":"o1","user":{},"user":{}}"#, "duplicate_field"),
        (r#"{"orderId":"o1","orderId":"o2"}"#, "duplicate_field"),
        (r#"{"orderId":"o1","user":{"id":7}"#, "malformed_json"),
        (r#"{"orderId":"o1","user":{"id":07}}"#, "malformed_json"),
    ] {
        assert_eq!(fate(&orders, record), expected, "{record}");
    }
}

#[test]
fn what_no_path_leads_to_follows_the_policies_under_its_own_path() {
    let record = r#"{"orderId":"o1","user":{"id":7,"age":30,"odd one":[1]},"items":[{"sku":"a","n":2},5],"x":1}"#;
    let kept = r#"{"$.user.age":30,"$.user['odd one']":[1],"$.items[0].n":2,"$.items[1]":5,"x":1}"#;
    let orders_of = |new_field| orders(new_field, TypeChange::Rescue);
    let whole = r#"o1|7|∅|a|[{"sku":"a","n":2},5]|∅"#;
    assert_eq!(fate(&orders_of(NewField::Ignore), record), whole.to_owned() + "|∅");
    assert_eq!(fate(&orders_of(NewField::Rescue), record), format!("{whole}|{kept}"));
    assert_eq!(fate(&orders_of(NewField::Reject), record), "unknown_field");
    let wrong = r#"{"orderId":"o1","user":5,"items":"none"}"#;
    let kept = r#"{"$.user":5,"$.items":"none"}"#;
    assert_eq!(fate(&orders_of(NewField::Rescue), wrong), format!("o1|∅|∅|∅|\"none\"|∅|{kept}"));
    assert_eq!(fate(&orders(NewField::Ignore, TypeChange::Ignore), wrong), "o1|∅|∅|∅|\"none\"|∅");
}

/// Documents over few names, so that paths often lead somewhere.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ab\\\\\"ü]{0,3}".prop_map(Value::from),
    ];
    let name = prop_oneof![Just("a"), Just("b"), Just("c d")].prop_map(ToOwned::to_owned);
    leaf.prop_recursive(4, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..4)
                .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Paths of which none wants an object where another wants an array.
fn paths() -> impl Strategy<Value = Vec<String>> {
    let all =
        ["$.a.a", "$.a.b", "$.a.b.a", "$.a['c d'][1].b", "$.a['c d'][0]", "$.b[0]", "$.b[2].a", "$.b", "$['c d']"];
    proptest::sample::subsequence(all.to_vec(), 1..=all.len())
        .prop_map(|paths| paths.into_iter().map(ToOwned::to_owned).collect())
}

/// The value, if any; an error where something else stands than what the path goes through.
fn look_up(record: &Value, path: &JsonPath) -> Result<Option<Value>, ()> {
    let mut value = record.get(path.first());
    for step in path.rest() {
        value = match (value, step) {
            (None | Some(Value::Null), _) => None,
            (Some(Value::Object(fields)), PathStep::Name(name)) => fields.get(name),
            (Some(Value::Array(items)), PathStep::Index(index)) => items.get(*index),
            _ => return Err(()),
        };
    }
    Ok(value.filter(|value| !value.is_null()).cloned())
}

proptest! {
    #[test]
    fn a_column_has_what_a_look_up_finds(
        fields in proptest::collection::btree_map(prop_oneof![Just("a"), Just("b"), Just("c d")], document(), 0..4),
        paths in paths(),
    ) {
        let record = Value::from(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>());
        let columns: Vec<Field> = paths.iter().enumerate()
            .map(|(index, path)| at(&format!("c{index}"), FieldType::Json, false, path)).collect();
        let expected: Result<Vec<Option<Value>>, ()> =
            columns.iter().map(|column| look_up(&record, column.path.as_ref().unwrap())).collect();
        let connector = connector(columns, NewField::Ignore);
        let decoded = decode_record(&connector, Bytes::from(record.to_string()), &LIMITS);
        match expected {
            Err(()) => prop_assert_eq!(decoded.rejects[0].reason.as_str(), "wrong_type"),
            Ok(expected) => {
                prop_assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
                let batch = &decoded.batches[0].rows;
                for (index, value) in expected.iter().enumerate() {
                    let column = arrow::array::AsArray::as_string::<i32>(batch.column(index).as_ref());
                    let found = arrow::array::Array::is_valid(column, 0).then(|| column.value(0));
                    let found: Option<Value> = found.map(|text| serde_json::from_str(text).unwrap());
                    prop_assert_eq!(&found, value);
                }
            }
        }
    }
}
