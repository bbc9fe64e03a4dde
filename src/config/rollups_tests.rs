use super::super::load_texts::load_texts;
use super::super::rollup_sql::aggregate;
use super::super::{Field, FieldType};

const SOUND: &str = r#"name: orders
source: {topic: raw-notifications, bucket: raw, prefix: orders/}
schema:
  - {name: order_id, type: uuid, required: true}
  - {name: user_id, type: utf8}
  - {name: amount, type: "decimal(12,2)"}
  - {name: occurred_at, type: timestamp_ms, required: true}
staging: {type: order, time: occurred_at, by: [date, hour]}
warehouse: {fact: fact_orders, key: [order_id], dimensions: {users: {key: user_id}}}
load:
  rollups:
    - name: by_user
      by: hour
      group: [user_key]
      aggregates:
        total: sum(amount)
"#;

fn problems_of(from: &str, to: &str) -> String {
    assert_eq!(SOUND.matches(from).count(), 1, "{from}");
    load_texts(&[("a.yaml", &SOUND.replace(from, to))]).err().unwrap_or_default()
}

#[test]
fn a_sound_rollup_is_read_and_does_not_change_the_revision() {
    let connectors = load_texts(&[("a.yaml", SOUND)]).expect("sound");
    let rollup = &connectors.all[0].warehouse.as_ref().expect("loaded").rollups[0];
    assert_eq!((rollup.table().as_str(), rollup.grain.as_str()), ("rollup_by_user", "hour"));
    assert_eq!(rollup.aggregates[0].sql, "sum(f.\"amount\")");
    assert_eq!(rollup.aggregates[0].columns, ["amount"]);
    let without = load_texts(&[("a.yaml", SOUND.split_once("load:").expect("in it").0)]).expect("sound");
    assert_eq!(without.all[0].revision, connectors.all[0].revision, "it decides nothing of what is staged");
}

#[test]
fn problems_name_their_place() {
    insta::assert_snapshot!(problems_of("[user_key]", "[user_id, usr_key, amount, user_id]"), @r#"
a.yaml:14:24: there is no column `usr_key`
  help: did you mean `user_key`? columns to group by: order_id, user_id, user_key
a.yaml:14:33: column `amount` is decimal(12,2), but this works on utf8, uuid, int32, int64 and boolean
  help: utf8, uuid, int32, int64 and boolean columns: order_id, user_id
a.yaml:14:41: `user_id` stands twice among the columns of the rollup
"#);
    insta::assert_snapshot!(problems_of("sum(amount)", "sum(amuont)"), @r#"
a.yaml:16:20: there is no column `amuont`
  help: did you mean `amount`? columns: order_id, user_id, amount, occurred_at, user_key
"#);
    insta::assert_snapshot!(problems_of("total: sum(amount)", "row_count: \"amount + 1\""), @r#"
a.yaml:16:9: `row_count` is a column of the rollup already
  help: the rollup has the columns hour, row_count, user_key besides
a.yaml:16:21: column `amount` has many values in a cell
  help: write `max(amount)`, or group by it
"#);
    insta::assert_snapshot!(problems_of("by_user", "By-User"), @r#"
a.yaml:12:13: `By-User` cannot be a rollup's name
  help: lower-case letters, digits and underscores, beginning with a letter, at most 52
"#);
    insta::assert_snapshot!(problems_of("hour\n", "week\n"), @r#"
a.yaml:13:11: `load.rollups[0].by` cannot be `week`
  help: known: hour, day
"#);
    insta::assert_snapshot!(problems_of("fact: fact_orders, key: [order_id], dimensions: {users: {key: user_id}}", "dimension: dim_orders, key: [order_id]"), @r#"
a.yaml:11:3: only a fact has rollups
  help: name the table of the rows: `warehouse: {fact: fact_…, key: […]}`
"#);
}

#[test]
fn rollups_of_one_name_are_the_same_of_one_fact() {
    let elsewhere = |from: &str, to: &str| {
        let other = SOUND.replace("name: orders", "name: sales").replace("prefix: orders/", "prefix: sales/");
        assert_eq!(other.matches(from).count(), 1, "{from}");
        load_texts(&[("a.yaml", SOUND), ("b.yaml", &other.replace(from, to))]).err().unwrap_or_default()
    };
    assert_eq!(elsewhere("sum(amount)", "sum(amount)"), "");
    insta::assert_snapshot!(elsewhere("sum(amount)", "max(amount)"), @r#"
b.yaml:12:13: rollup `by_user` is another one elsewhere
  help: a.yaml has it; a rollup is one table, so those of one name must be the same, of one fact
"#);
    assert!(elsewhere("fact_orders", "fact_sales").contains("another one elsewhere"));
}

#[test]
fn rows_are_filtered_by_sql_that_depends_on_the_row_alone() {
    let of = |rows: &str| load_texts(&[("a.yaml", &SOUND.replace("load:\n", &format!("load:\n  rows: {rows}\n")))]);
    let rows = |rows: &str| of(rows).expect("sound").all[0].warehouse.as_ref().expect("loaded").rows.clone();
    assert_eq!(rows("all"), None);
    assert_eq!(rows("\"amount > 5 AND user_id <> 'test'\"").as_deref(), Some("amount > 5 AND user_id <> 'test'"));
    let revision = |rows: &str| of(rows).expect("sound").all[0].revision.clone();
    assert_eq!(revision("all"), load_texts(&[("a.yaml", SOUND)]).expect("sound").all[0].revision);
    assert_ne!(revision("amount > 5"), revision("amount > 6"));
    let refused = [
        ("none", "a.yaml:11:9: a connector that loads no rows has no place in the warehouse"),
        ("amont > 5", "a.yaml:11:9: there is no column `amont`"),
        ("amount", "a.yaml:11:9: the expression gives"),
        ("occurred_at > now()", "a.yaml:11:9: `now()` gives another value tomorrow"),
    ];
    for (rows, told) in refused {
        let found = of(rows).err().unwrap_or_default();
        assert!(found.starts_with(told), "{rows}: {found}");
    }
    let nowhere = SOUND.split_once("warehouse:").expect("in it").0.to_owned() + "load: {rows: amount > 5}\n";
    let found = load_texts(&[("a.yaml", &nowhere)]).expect_err("loads nothing");
    assert!(found.starts_with("a.yaml:9:8: nothing is loaded without `warehouse`"), "{found}");
}

fn fields() -> Vec<Field> {
    let field = |(name, data_type): (&str, FieldType)| Field {
        name: name.to_owned(),
        data_type,
        required: false,
        formats: Vec::new(),
        header: None,
        path: None,
    };
    let columns = [
        ("amount", FieldType::Decimal { precision: 12, scale: 2 }),
        ("quantity", FieldType::Int32),
        ("weight", FieldType::Float64),
        ("source", FieldType::Utf8),
        ("is_gift", FieldType::Boolean),
        ("occurred_at", FieldType::TimestampMs),
        ("order_id", FieldType::Uuid),
        ("attributes", FieldType::Json),
    ];
    columns.map(field).into()
}

#[test]
fn what_is_allowed_is_written_so_that_no_row_makes_it_fail() {
    let made = |sql: &str| aggregate(sql, &fields()).expect(sql).0;
    assert_eq!(made("count(*)"), "count(*)");
    assert_eq!(made("SUM(Amount)"), "sum(f.\"amount\")");
    assert_eq!(made("sum(amount * quantity)"), "sum(((f.\"amount\")::numeric * (f.\"quantity\")::numeric))");
    assert_eq!(made("sum(amount) / count(*)"), "((sum(f.\"amount\"))::numeric / nullif((count(*))::numeric, 0))");
    assert_eq!(
        made("count(DISTINCT source) FILTER (WHERE is_gift AND quantity > 1)"),
        "count(DISTINCT f.\"source\") FILTER (WHERE (f.\"is_gift\" AND (f.\"quantity\" > 1)))"
    );
    assert_eq!(made("sum(CAST(weight AS numeric))"), "sum((f.\"weight\")::numeric)");
    assert_eq!(
        made("sum(CASE WHEN source IN ('it''s', 'web') THEN amount ELSE 0 END)"),
        "sum(CASE WHEN (f.\"source\" IN ('it''s', 'web')) THEN f.\"amount\" ELSE 0 END)"
    );
    assert_eq!(made("max(occurred_at)"), "max(f.\"occurred_at\")");
    assert_eq!(made("round(avg(coalesce(quantity, 0)), 2)"), "round((avg(coalesce(f.\"quantity\", 0)))::numeric, 2)");
    assert_eq!(made("bool_or(NOT is_gift)"), "bool_or((NOT f.\"is_gift\"))");
    assert_eq!(
        made("count(*) FILTER (WHERE occurred_at >= '2026-01-01T00:00:00Z')"),
        "count(*) FILTER (WHERE (f.\"occurred_at\" >= '2026-01-01T00:00:00Z'::timestamptz))"
    );
    let columns = aggregate("sum(quantity) + max(amount) - min(quantity)", &fields()).expect("sound").1;
    assert_eq!(columns, ["amount", "quantity"]);
}

#[test]
fn what_could_fail_or_differ_is_refused_at_its_place() {
    let told = |sql: &str| {
        let problem = aggregate(sql, &fields()).expect_err(sql);
        format!("{}:{} {}", problem.line, problem.column, problem.message)
    };
    let refused = [
        ("sum(weight)", "1:5 `weight` is float64, whose sums depend on the order of rows"),
        ("sum(amount * weight)", "1:14 `weight` is float64, whose sums depend on the order of rows"),
        ("amount", "1:1 column `amount` has many values in a cell"),
        ("1 + 2", "1:1 there is no aggregate function in it"),
        ("sum(sum(amount))", "1:5 `sum` stands inside another aggregate function"),
        ("sum(source)", "1:5 `source` is text, which `sum` does not take"),
        ("max(order_id)", "1:5 `order_id` is a uuid, which `max` does not take"),
        ("count(*) FILTER (WHERE quantity)", "1:24 `quantity` is a number, not a boolean"),
        ("count(*) FILTER (WHERE quantity = source)", "1:35 `source` is text, what it goes with is a number"),
        ("count(*) FILTER (WHERE '1' = quantity)", "1:24 `'1'` is text, what it goes with is a number"),
        ("count(*) FILTER (WHERE occurred_at > '2026-01-01')", "1:38 `'2026-01-01'` is no time with an offset"),
        ("sum(CAST(source AS numeric))", "1:10 `CAST(source AS NUMERIC)` may fail for some value"),
        ("sum(CAST(amount AS numeric(4,2)))", "1:10 `CAST(amount AS NUMERIC(4,2))` may fail for some value"),
        ("string_agg(source, ',')", "1:1 `string_agg` cannot be called in an aggregate"),
        ("max(now())", "1:5 `now` cannot be called in an aggregate"),
        ("sum(random() * amount)", "1:5 `random` cannot be called in an aggregate"),
        ("sum(amount) OVER (ORDER BY source)", "1:1 `sum` is not called plainly"),
        ("sum(amount ORDER BY source)", "1:1 `sum` is not called plainly"),
        ("sum((SELECT 1))", "1:6 `(SELECT 1)` cannot stand in an aggregate"),
        ("count(attributes->>'a')", "1:7 operator `->>` cannot stand in an aggregate"),
        ("max(source LIKE '%\\')", "1:5 `source LIKE '%\\'` cannot stand in an aggregate"),
        ("sum(amount); DROP TABLE x", "1:12 the aggregate is no SQL: it should end before `;`"),
        ("sum(f.amount)", "1:5 `f.amount` cannot stand in an aggregate"),
        ("sum(\n  amuont)", "2:3 there is no column `amuont`"),
        ("min(attributes)", "1:5 `attributes` is JSON, which `min` does not take"),
        ("round(sum(amount), quantity)", "1:1 `round` takes a number, and how many digits stay, as a literal up to 30"),
        (
            "count(*) FILTER (WHERE attributes = attributes)",
            "1:24 `attributes` is JSON, of which one value has many spellings",
        ),
    ];
    let found: Vec<(&str, String)> = refused.iter().map(|(sql, _)| (*sql, told(sql))).collect();
    let expected: Vec<(&str, String)> = refused.iter().map(|(sql, told)| (*sql, (*told).to_owned())).collect();
    assert_eq!(found, expected);
}
