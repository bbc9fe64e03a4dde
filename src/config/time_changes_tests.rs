use super::load_texts::load_texts;

const SOUND: &str = r"name: orders
source: {topic: raw-notifications, bucket: raw, prefix: orders/}
schema:
  - {name: order_id, type: uuid, required: true}
  - {name: occurred_at, type: timestamp_ms, required: true}
staging: {type: order, time: occurred_at, by: [date, hour]}
warehouse: {fact: fact_orders, key: [order_id], time_changes: true, newer_by: occurred_at}
";

#[test]
fn a_key_whose_time_changes_may_be_ranked_by_it_and_has_another_revision() {
    let connectors = load_texts(&[("a.yaml", SOUND)]).expect("sound");
    assert!(connectors.all[0].warehouse.as_ref().expect("loaded").time_changes);
    let plain = SOUND.replace(", newer_by: occurred_at", "");
    let (with, without) = (plain.clone(), plain.replace(", time_changes: true", ""));
    let revision = |text: &str| load_texts(&[("a.yaml", text)]).expect("sound").all[0].revision.clone();
    assert_ne!(revision(&with), revision(&without), "it decides which rows stand");
    assert_eq!(revision(&without), revision(&plain.replace("time_changes: true", "time_changes: false")));
}

#[test]
fn connectors_of_one_fact_agree_and_dimensions_have_no_event_time() {
    let other = SOUND.replace("name: orders", "name: others").replace("prefix: orders/", "prefix: others/");
    let other = other.replace(", time_changes: true, newer_by: occurred_at", "");
    let problems = load_texts(&[("a.yaml", &SOUND.replace(", newer_by: occurred_at", "")), ("b.yaml", &other)]);
    insta::assert_snapshot!(problems.expect_err("they differ"), @r"
b.yaml:7:12: `time_changes` of `fact_orders` is true elsewhere
  help: a.yaml fills `fact_orders` too; the two must agree, or rows of one key have no order
");
    let dimension = SOUND.replace("type: uuid", "type: utf8").replace("fact: fact_orders", "dimension: dim_orders");
    insta::assert_snapshot!(load_texts(&[("a.yaml", &dimension)]).expect_err("a dimension"), @r"
a.yaml:7:53: `time_changes` is about the event time of a fact
");
}
