use super::super::load_texts::load_texts;
use super::*;
use crate::config::{BATCH_COLUMN, CleanStep, CsvDialect, Format, TimestampFormat};

const SOUND: &str = r#"name: orders
source: {topic: raw-notifications, bucket: raw, prefix: orders/}
schema:
  - {name: order_id, type: uuid, required: true}
  - {name: user_id, type: utf8}
  - {name: amount, type: "decimal(12,2)"}
  - {name: occurred_at, type: timestamp_ms, required: true}
  - {name: updated_at, type: timestamp_ms, formats: [rfc3339]}
clean: [{trim: user_id}, {default: {amount: 0.10}}]
expectations:
  - {name: amount_positive, expr: "amount > 0", on_fail: reject}
staging: {type: order, time: occurred_at, by: [date, hour]}
warehouse: {fact: fact_orders, key: [order_id], newer_by: updated_at, dimensions: {users: {key: user_id}}}
"#;

fn problems(files: &[(&str, &str)]) -> String {
    load_texts(files).err().unwrap_or_default()
}

fn sound(text: &str) -> Arc<Connector> {
    load_texts(&[("a.yaml", text)]).unwrap().all[0].clone()
}

/// Of the sound connector with one part replaced.
fn problems_of(from: &str, to: &str) -> String {
    assert_eq!(SOUND.matches(from).count(), 1, "{from}");
    problems(&[("a.yaml", &SOUND.replace(from, to))])
}

#[test]
fn a_sound_connector_is_read_completely() {
    let connector = sound(SOUND);
    assert_eq!(connector.clean[1], CleanStep::Default(vec![("amount".into(), "0.10".into())]));
    assert_eq!(connector.fields[3].formats, [TimestampFormat::Rfc3339, TimestampFormat::EpochMs]);
    assert_eq!(connector.fields[4].formats, [TimestampFormat::Rfc3339]);
    assert_eq!(connector.staging.file_size_bytes_target, 128 << 20);
    assert_eq!(connector.decoded_schema().fields().len(), 6);
    assert_eq!(connector.lake_schema().field(10).name(), BATCH_COLUMN);
}

#[test]
fn revision_follows_meaning_and_not_spelling() {
    let connector = sound(SOUND);
    let respelt =
        SOUND.replace("{trim: user_id}", "{trim: [\"user_id\"]}").replace("name: orders", "# x\nname: orders");
    assert_eq!(sound(&respelt).revision, connector.revision);
    let cleaned = sound(&SOUND.replace("0.10", "0.1"));
    assert_ne!(cleaned.revision, connector.revision);
    assert_eq!(cleaned.schema_revision, connector.schema_revision);
    let widened = sound(&SOUND.replace("decimal(12,2)", "decimal(14,2)"));
    assert_ne!(widened.schema_revision, connector.schema_revision);
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let text = SOUND.replace("trim: user_id", "trm: user_id").replace("key: user_id", "key: usr_id");
    let text = text.replace("by: [date, hour]", "by: [hour]").replace("amount > 0", "amont > 0");
    insta::assert_snapshot!(problems(&[("a.yaml", &text)]), @r#"
a.yaml:9:10: unknown key `trm` in `clean[0]`
  help: did you mean `trim`? known keys: clamp, dedupe, default, hash, lowercase, map, mask, nulls, parse_units, replace, trim, uppercase
a.yaml:11:36: there is no column `amont`
  help: did you mean `amount`? columns: order_id, user_id, amount, occurred_at, updated_at
a.yaml:12:48: `hour` stands without `date` before it
  help: an hour belongs to a day: write `date` before `hour`
a.yaml:13:97: there is no column `usr_id`
  help: did you mean `user_id`? utf8 columns: user_id
"#);
}

#[test]
fn names_that_belong_to_others_are_refused() {
    insta::assert_snapshot!(problems_of("name: user_id, type", "name: _offset, type"), @r#"
a.yaml:5:12: `_offset` cannot be a column's name
  help: names that begin with an underscore belong to the lineage columns
a.yaml:9:16: there is no column `user_id`
  help: did you mean `order_id`? utf8 columns: _offset
a.yaml:13:97: there is no column `user_id`
  help: did you mean `order_id`? utf8 columns: _offset
"#);
    insta::assert_snapshot!(problems_of("name: updated_at, type: timestamp_ms, formats: [rfc3339]", "name: date, type: utf8"), @r#"
a.yaml:8:12: `date` cannot be a column's name
  help: `date=` is a level of the path of staged files; call the column something like `date_name`
a.yaml:13:59: there is no column `updated_at`
  help: timestamp_ms columns: occurred_at
"#);
}

#[test]
fn expressions_depend_on_the_row_alone() {
    insta::assert_snapshot!(problems_of("amount > 0", "updated_at < now()"), @r#"
a.yaml:11:36: `now()` gives another value tomorrow
  help: a replay must make the same rows: use columns and constants only
"#);
    insta::assert_snapshot!(problems_of("amount > 0", "sum(amount) > 0"), @r#"
a.yaml:11:36: `sum()` needs more than one row
  help: an expectation looks at one row at a time
"#);
    insta::assert_snapshot!(problems_of("amount > 0", "amount > (SELECT 1)"), @r#"
a.yaml:11:36: the expression holds a query of its own
  help: an expectation looks at one row at a time
"#);
}

#[test]
fn broken_expressions_are_told_at_their_place() {
    insta::assert_snapshot!(problems_of("amount > 0", "amount >"), @r#"
a.yaml:11:36: the expression is no SQL: expected an expression, found its end
  help: a boolean SQL expression over the columns, such as `amount > 0`
"#);
    insta::assert_snapshot!(problems_of("amount > 0", "amount > 0 0"), @r#"
a.yaml:11:47: the expression is no SQL: it should end before `0`
  help: a boolean SQL expression over the columns, such as `amount > 0`
"#);
    insta::assert_snapshot!(problems_of("amount > 0", "amount > occurred_at"), @r#"
a.yaml:11:36: the expression cannot work: Cannot infer common argument type for comparison operation Decimal128(12, 2) > Timestamp(ms, "UTC")
  help: the columns: amount is decimal(12,2), occurred_at is timestamp_ms
"#);
    insta::assert_snapshot!(problems_of("amount > 0", "abz(amount) > 0"), @r#"
a.yaml:11:36: there is no function `abz`
  help: did you mean `abs`?
"#);
}

#[test]
fn columns_in_expressions_are_placed_in_every_spelling() {
    let plain = problems_of("\"amount > 0\"", "amount > 0 OR amont > 1");
    assert!(plain.starts_with("a.yaml:11:49: there is no column `amont`"), "{plain}");
    let quoted = problems_of("\"amount > 0\"", "'user_id = ''x'' OR amont > 1'");
    assert!(quoted.starts_with("a.yaml:11:55: there is no column `amont`"), "{quoted}");
    let block = "  - name: amount_positive\n    on_fail: reject\n    expr: |\n      amount > 0\n        OR amont > 1\n";
    let block = problems_of("  - {name: amount_positive, expr: \"amount > 0\", on_fail: reject}\n", block);
    assert!(block.starts_with("a.yaml:15:12: there is no column `amont`"), "{block}");
}

#[test]
fn connectors_of_one_folder_must_agree() {
    let same = problems(&[("a.yaml", SOUND), ("b.yaml", SOUND)]);
    insta::assert_snapshot!(same, @r#"
b.yaml:1:7: there are two connectors `orders`
  help: a.yaml has it; names are given once
b.yaml:2:57: two connectors want the objects of `raw/orders/`
  help: a.yaml takes them; give one of them a longer prefix, which wins
"#);
    let records = SOUND.replace("name: orders", "name: other").replace(", bucket: raw, prefix: orders/", "");
    let records = records.replace("key: [order_id]", "key: [order_id, occurred_at]");
    insta::assert_snapshot!(problems(&[("a.yaml", SOUND), ("b.yaml", &records)]), @r#"
b.yaml:2:17: topic `raw-notifications` cannot carry both notifications and records
  help: a.yaml reads it the other way; a topic carries one or the other
b.yaml:13:37: the key of `fact_orders` is [order_id] elsewhere
  help: a.yaml fills `fact_orders` too; the two must agree, or rows of one key have no order
"#);
}

#[test]
fn misuse_of_types_is_told() {
    insta::assert_snapshot!(problems_of("{trim: user_id}", "{trim: amount}"), @r#"
a.yaml:9:16: column `amount` is decimal(12,2), but `trim` works on utf8
  help: utf8 columns: user_id
"#);
    insta::assert_snapshot!(problems_of("time: occurred_at", "time: user_id"), @r#"
a.yaml:12:30: column `user_id` is utf8, but `staging.time` is a timestamp_ms column
  help: timestamp_ms columns: occurred_at, updated_at
"#);
    insta::assert_snapshot!(problems_of("by: [date, hour]", "by: [amount, date]"), @r#"
a.yaml:12:48: column `amount` is decimal(12,2), but levels of the path are utf8
  help: utf8 columns: user_id
"#);
    insta::assert_snapshot!(problems_of("{trim: user_id}", "{trim: user_id, lowercase: user_id}"), @r#"
a.yaml:9:9: `clean[0]` must have exactly one key, found 2
  help: one of: clamp, dedupe, default, hash, lowercase, map, mask, nulls, parse_units, replace, trim, uppercase
"#);
    insta::assert_snapshot!(problems_of("fact: fact_orders", "fact: orders"), @r#"
a.yaml:13:19: `orders` is no table for a fact
  help: a fact's table is called `fact_…`: lower-case letters, digits and underscores
"#);
    insta::assert_snapshot!(problems_of("clean: [", "evolution: {new_field: rescu, type_change: widen}\nclean: ["), @r#"
a.yaml:9:24: `evolution.new_field` cannot be `rescu`
  help: did you mean `rescue`? known: ignore, rescue, reject, evolve
a.yaml:9:44: `evolution.type_change` cannot be `widen`
  help: known: reject, ignore, rescue, evolve
"#);
    insta::assert_snapshot!(problems_of("staging: {type: order, time: occurred_at, by: [date, hour]}\n", ""), @r#"
a.yaml:1:1: the key `staging` is missing
  help: `staging`: How rows are laid out as Parquet files
"#);
    insta::assert_snapshot!(problems_of("name: orders", "name:"), @r#"
a.yaml:1:5: `name` must be text, found nothing
  help: write a value behind the colon
"#);
    insta::assert_snapshot!(problems_of("fact: fact_orders, key: [order_id]", "dimension: dim_users, key: [order_id]"), @r#"
a.yaml:13:40: the natural key of `dim_users` is `user_id` alone
  help: write `key: [user_id]`; facts find a member of the table by it
a.yaml:13:74: a dimension does not point at dimensions
"#);
}

#[test]
fn connectors_of_two_topics_do_not_share_objects() {
    let other = |prefix: &str| {
        SOUND
            .replace("name: orders", "name: others")
            .replace("topic: raw-notifications", "topic: more-notifications")
            .replace("prefix: orders/", &format!("prefix: {prefix}"))
    };
    assert_eq!(problems(&[("a.yaml", SOUND), ("b.yaml", &other("other/"))]), "");
    for prefix in ["orders/", "orders/eu/", "\"\""] {
        let told = problems(&[("a.yaml", SOUND), ("b.yaml", &other(prefix))]);
        assert!(told.contains("connectors of two topics want the same objects"), "{prefix}: {told}");
    }
}

#[test]
fn the_format_is_part_of_the_meaning_and_its_misuse_is_told() {
    let csv = |keys: &str| SOUND.replace("prefix: orders/}", &format!("prefix: orders/, format: csv{keys}}}"));
    let plain = sound(&csv(""));
    assert_eq!(plain.source.format, Format::Csv(CsvDialect::default()));
    assert_ne!(plain.revision, sound(SOUND).revision);
    let values = sound(&csv("").replace("format: csv", "format: json_values"));
    assert_eq!(values.source.format, Format::JsonValues);
    assert_ne!(values.revision, sound(SOUND).revision);
    assert_eq!(plain.revision, sound(&csv(", csv: {delimiter: \",\", header: true}")).revision);
    let other = sound(&csv(", csv: {header: false, delimiter: \"\\t\", quote: \"\", nulls: [\"\", N/A]}"));
    let nulls = vec![String::new(), "N/A".to_owned()];
    let dialect = CsvDialect { has_header: false, delimiter: b'\t', quote: None, nulls };
    assert_eq!(other.source.format, Format::Csv(dialect));
    let renamed = csv("").replace("name: user_id,", "name: user_id, header: User ID,");
    assert_eq!(sound(&renamed).field("user_id").unwrap().header_name(), "User ID");
    assert_ne!(sound(&renamed).schema_revision, plain.schema_revision);

    let parquet = sound(&SOUND.replace("prefix: orders/}", "prefix: orders/, format: parquet}"));
    assert_eq!(parquet.source.format, Format::Parquet);
    assert_ne!(parquet.revision, sound(SOUND).revision);

    for (text, expected) in [
        (csv(", csv: {delimiter: ab}"), "`ab` cannot be a delimiter"),
        (csv(", csv: {delimiter: \"\\n\"}"), "`\\n` cannot be a delimiter"),
        (csv(", csv: {quote: ü}"), "`ü` cannot be a quote"),
        (csv(", csv: {delimiter: \";\", quote: \";\"}"), "quote and delimiter are the same character"),
        (csv(", csv: {nulls: [x, x]}"), "`x` stands twice in one list"),
        (csv("").replace("format: csv", "csv: {}"), "`csv` means nothing for another format"),
        (csv("").replace("bucket: raw, prefix: orders/, ", ""), "only objects have this format"),
        (
            csv("").replace("bucket: raw, prefix: orders/, ", "").replace("format: csv", "format: json_values"),
            "only objects have this format",
        ),
        (csv("").replace("name: user_id,", "name: user_id, header: amount,"), "column `amount` takes the same field"),
        (csv("") + "\nevolution: {type_change: evolve}\n", "columns of CSV are not widened"),
        (renamed.replace("format: csv", "format: json"), "`header` means nothing without a CSV header"),
    ] {
        let told = problems(&[("a.yaml", &text)]);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_path_is_part_of_the_meaning_and_its_misuse_is_told() {
    let with = |path: &str| SOUND.replace("name: user_id,", &format!("name: user_id, path: {path},"));
    let inside = sound(&with("$.user.id"));
    assert_eq!(inside.field("user_id").unwrap().first_name(), "user");
    assert!(inside.reads("user") && !inside.reads("user_id"));
    assert!(sound(&with("$.userId")).reads("userId"));
    assert_ne!(inside.schema_revision, sound(SOUND).schema_revision);
    assert_eq!(inside.schema_revision, sound(&with("\"$['user']['id']\"")).schema_revision);

    for (text, expected) in [
        (with("user.id"), "`user.id` is no path to a value"),
        (with("$.amount"), "column `amount` takes the same value"),
        (
            with("\"$.a[0]\"").replace("name: amount,", "name: amount, path: $.a.b,"),
            "takes for an array what is an object",
        ),
        (
            with("$.user.id").replace("prefix: orders/}", "prefix: orders/, format: csv}"),
            "`path` means nothing for CSV",
        ),
    ] {
        let told = problems(&[("a.yaml", &text)]);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn what_files_have_besides_rows_is_part_of_the_meaning_and_its_misuse_is_told() {
    let staged = |keys: &str| SOUND.replace("by: [date, hour]}", &format!("by: [date, hour], {keys}}}"));
    let plain = sound(SOUND);
    assert_eq!(sound(&staged("sort_by: [], bloom_filter: [], page_index: true")).revision, plain.revision);
    let sorted = sound(&staged("sort_by: [user_id, occurred_at], bloom_filter: [order_id], page_index: false"));
    assert_eq!(sorted.staging.sort_by, ["user_id", "occurred_at"]);
    assert_eq!((&sorted.staging.bloom_filter[..], sorted.staging.page_index), (&["order_id".to_owned()][..], false));
    let revisions = ["sort_by: [user_id]", "sort_by: [order_id]", "bloom_filter: [order_id]", "page_index: false"]
        .map(|keys| sound(&staged(keys)).revision.clone());
    let different: std::collections::HashSet<_> = revisions.iter().chain([&plain.revision]).collect();
    assert_eq!(different.len(), 5);

    let with_json = SOUND.replace("updated_at, type: timestamp_ms, formats: [rfc3339]", "more, type: json");
    let with_json = with_json.replace(", newer_by: updated_at", "");
    for (text, expected) in [
        (staged("sort_by: [usr_id]"), "there is no column `usr_id`"),
        (staged("sort_by: [user_id, user_id]"), "`user_id` stands twice in `staging.sort_by`"),
        (staged("bloom_filter: [order]"), "there is no column `order`"),
        (with_json.replace("by: [date, hour]", "by: [date, hour], sort_by: [more]"), "column `more` is json"),
        (staged("page_index: 3"), "`staging.page_index` must be"),
    ] {
        let told = problems(&[("a.yaml", &text)]);
        assert!(told.contains(expected), "{told}");
    }
}

/// Micro-batches in catalogs name it: an option that came later must not change it where it is left out.
#[test]
fn a_connector_without_later_options_keeps_its_revision() {
    assert_eq!(sound(SOUND).revision, "23fd26c449d4ce29");
}

const SQL: &str =
    "\ntransform: {sql: \"SELECT order_id, user_id, amount * 2 AS twice, occurred_at, updated_at FROM input\"}\n";

#[test]
fn sql_gives_the_dataset_its_columns_and_is_part_of_the_revision() {
    let connector = sound(&(SOUND.replace("amount > 0", "twice > 0") + SQL));
    let dataset = connector.dataset();
    let names: Vec<&str> = dataset.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["order_id", "user_id", "twice", "occurred_at", "updated_at"]);
    assert!(dataset.field("order_id").unwrap().required);
    assert_eq!((&dataset.name, &dataset.revision), (&connector.name, &connector.revision));
    assert_ne!(dataset.schema_revision, connector.schema_revision);
    let other = sound(&(SOUND.replace("amount > 0", "twice > 0") + &SQL.replace("* 2", "* 3")));
    assert_ne!(other.revision, connector.revision);
}

#[test]
fn sql_that_cannot_keep_its_promises_is_refused_at_its_place() {
    for (from, to, expected) in [
        ("twice, occ", "twice, occ, occ", "there is no column `occ`"),
        ("SELECT order_id", "SELEC order_id", "this is no SQL"),
        ("amount * 2", "now()", "`now()` gives another value tomorrow"),
        ("FROM input", "FROM input LIMIT 3", "the SQL holds LIMIT"),
        ("SELECT order_id", "SELECT DISTINCT order_id", "the SQL holds DISTINCT"),
        (
            "FROM input",
            "FROM input JOIN (SELECT order_id AS o FROM input) other ON order_id = o",
            "a join of `input` with itself",
        ),
        ("amount * 2", "(SELECT max(amount) FROM input)", "a subquery that reads `input` again"),
        ("occurred_at, ", "", "there is no column `occurred_at`"),
        ("amount * 2 AS twice", "amount * 2 AS _twice", "names that begin with an underscore"),
    ] {
        let sql = SQL.replacen(from, to, 1);
        let told = problems(&[("a.yaml", &(SOUND.replace("amount > 0", "twice > 0") + &sql))]);
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn sql_may_stand_in_a_file_beside_the_connector_and_its_problems_are_told_there() {
    let yaml = SOUND.replace("amount > 0", "twice > 0") + "\ntransform: {sql: a.sql}\n";
    let text = "SELECT order_id, user_id, amount * 2 AS twice,\n  occurred_at, updated_at\nFROM input";
    let load = |sql: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), &yaml).unwrap();
        std::fs::write(folder.path().join("a.sql"), sql).unwrap();
        load_connectors(folder.path()).map_err(|problems| problems.to_string())
    };
    let here = sound(&(SOUND.replace("amount > 0", "twice > 0") + &format!("\ntransform: {{sql: {text:?}}}\n")));
    assert_eq!(load(text).unwrap().all[0].revision, here.revision, "the text decides, wherever it stands");
    let told = load(&text.replace("occurred_at", "occured_at")).unwrap_err();
    assert!(told.contains("a.sql:2:3") && told.contains("there is no column `occured_at`"), "{told}");
    for (name, expected) in [("b.sql", "`b.sql` cannot be read"), ("../a.sql", "is no name of a file")] {
        let told = problems(&[("a.yaml", &yaml.replace("a.sql", name))]);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn what_is_rescued_stays_where_the_sql_hands_it_on() {
    let rescuing = SOUND.replace("amount > 0", "amount IS NULL") + "\nevolution: {new_field: rescue}\n";
    let all = sound(&(rescuing.clone() + "\ntransform: {sql: \"SELECT * FROM input\"}\n"));
    assert_eq!(all.dataset().decoded_schema().fields(), all.decoded_schema().fields());
    let without = "\ntransform: {sql: \"SELECT order_id, user_id, amount, occurred_at, updated_at FROM input\"}\n";
    assert!(!sound(&(rescuing.clone() + without)).dataset().rescues());
    let other = without.replace("amount,", "amount, 5 AS _rescued,");
    let told = problems(&[("a.yaml", &(rescuing + &other))]);
    assert!(told.contains("the SQL makes something else of `_rescued`"), "{told}");
}
