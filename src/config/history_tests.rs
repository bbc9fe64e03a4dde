use super::super::load_texts::load_texts;

const SOUND: &str = r"name: goods
source: {topic: raw-notifications, bucket: raw, prefix: goods/}
schema:
  - {name: good_id, type: utf8, required: true}
  - {name: category, type: utf8}
  - {name: price, type: int64}
  - {name: valid_to, type: utf8}
  - {name: updated_at, type: timestamp_ms, required: true}
staging: {type: good, time: updated_at, by: [date, hour]}
warehouse: {dimension: dim_goods, key: [good_id], newer_by: updated_at}
load:
  track_history: [price, category]
";

fn problems_of(from: &str, to: &str) -> String {
    assert_eq!(SOUND.matches(from).count(), 1, "{from}");
    load_texts(&[("a.yaml", &SOUND.replace(from, to))]).err().unwrap_or_default()
}

#[test]
fn sound_columns_are_read_sorted_and_do_not_change_the_revision() {
    let connectors = load_texts(&[("a.yaml", SOUND)]).expect("sound");
    assert_eq!(connectors.all[0].warehouse.as_ref().expect("loaded").history, ["category", "price"]);
    let without = load_texts(&[("a.yaml", SOUND.split_once("load:").expect("in it").0)]).expect("sound");
    assert_eq!(without.all[0].revision, connectors.all[0].revision, "it decides nothing of what is staged");
}

#[test]
fn problems_name_their_place() {
    insta::assert_snapshot!(problems_of("[price, category]", "[prize, good_id, valid_to, price, price]"), @r"
a.yaml:12:19: there is no column `prize`
  help: did you mean `price`? columns: good_id, category, price, valid_to, updated_at
a.yaml:12:26: `good_id` is the key and never changes
  help: it names the member, whatever else changes
a.yaml:12:35: `valid_to` is a column of the history already
  help: a history has the columns valid_from and valid_to besides
a.yaml:12:52: `price` stands twice in `load.track_history`
");
    let dimension = "{dimension: dim_goods, key: [good_id], newer_by: updated_at}";
    insta::assert_snapshot!(problems_of(dimension, "{fact: fact_goods, key: [good_id]}"), @r"
a.yaml:12:3: only a dimension has a history
  help: facts are versions already, each of its own time; write `warehouse: {dimension: dim_…, key: […]}`
");
}

#[test]
fn a_dimension_that_two_connectors_fill_has_one_history() {
    let other = |history: &str| {
        let text = SOUND.replace("name: goods", "name: other").replace("prefix: goods/", "prefix: other/");
        text.replace("load:\n  track_history: [price, category]\n", history)
    };
    for same in ["", "load: {track_history: [category, price]}\n"] {
        assert!(load_texts(&[("a.yaml", SOUND), ("b.yaml", &other(same))]).is_ok(), "{same}");
    }
    let problems = load_texts(&[("a.yaml", SOUND), ("b.yaml", &other("load: {track_history: [price]}\n"))]);
    insta::assert_snapshot!(problems.expect_err("they differ"), @r"
b.yaml:11:8: the history of `dim_goods` is [category, price] elsewhere
  help: a.yaml keeps it; a dimension has one history: leave it out here, or name the same columns
");
}
