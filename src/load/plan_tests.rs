use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::merge_sql;
use super::plan::{LINEAGE_COLUMNS, TablePlan};
use super::warehouse_table::{TableColumn, WarehouseTable};
use crate::config::{Connector, load_connectors};

fn connector(name: &str) -> Connector {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors");
    let connectors = load_connectors(&folder).expect("the shipped connectors are valid");
    Connector::clone(connectors.by_name(name).expect("shipped"))
}

/// `name type[!]`, as in `amount numeric(12,2)!`; the lineage columns come along.
fn table(columns: &[&str], unique: &[&str], range: Option<&str>) -> WarehouseTable {
    let lineage = LINEAGE_COLUMNS.iter().map(|(name, sql)| format!("{name} {sql}"));
    let columns = columns.iter().map(|text| (*text).to_owned()).chain(lineage);
    let column = |text: String| {
        let (name, rest) = text.split_once(' ').expect("name and type");
        let (type_name, arguments) = rest
            .trim_end_matches('!')
            .trim_end_matches(')')
            .split_once('(')
            .unwrap_or((rest.trim_end_matches('!'), ""));
        let mut numbers = arguments.split(',').filter_map(|number| number.parse().ok());
        let first = numbers.next();
        let column = TableColumn {
            type_name: type_name.to_owned(),
            nullable: !rest.ends_with('!'),
            has_default: name.ends_with("_key") && range.is_none() || name == "inferred",
            numeric_precision: first.filter(|_| type_name == "numeric"),
            numeric_scale: numbers.next(),
            text_length_max: first.filter(|_| type_name == "varchar"),
        };
        (name.to_owned(), column)
    };
    WarehouseTable {
        columns: columns.map(column).collect(),
        unique_keys: vec![unique.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>()],
        range_column: range.map(ToOwned::to_owned),
    }
}

fn star() -> BTreeMap<String, WarehouseTable> {
    let users = ["user_key int8!", "user_id text!", "inferred bool!", "email text", "updated_at timestamptz"];
    let products = ["product_key int8!", "product_id text!", "inferred bool!"];
    let events = [
        "event_id uuid!",
        "occurred_at timestamptz!",
        "user_key int8!",
        "product_key int8!",
        "event_type text!",
        "properties jsonb",
    ];
    BTreeMap::from([
        ("dim_users".to_owned(), table(&users, &["user_id"], None)),
        ("dim_products".to_owned(), table(&products, &["product_id"], None)),
        ("fact_events".to_owned(), table(&events, &["event_id", "occurred_at"], Some("occurred_at"))),
    ])
}

fn plan(name: &str, tables: &BTreeMap<String, WarehouseTable>) -> Result<TablePlan, String> {
    let connector = connector(name);
    let warehouse = connector.warehouse.as_ref().expect("it has a table");
    TablePlan::new(&connector, warehouse, tables).map_err(|error| error.to_string())
}

#[test]
fn a_fact_is_merged_by_key_and_time_and_takes_member_keys() {
    let plan = plan("events", &star()).expect("fits");
    insta::assert_snapshot!(merge_sql::create_temporary(&plan, 0), @r#"CREATE TEMPORARY TABLE sluice_load_0 ("event_id" uuid, "user_id" text, "product_id" text, "event_type" text, "occurred_at" timestamptz, "properties" jsonb, "_source" int8, "_offset" int8, "_record" int4, "_row" int8, "_newer_at" timestamptz, "_object_time" timestamptz, "_object_hash" int8) ON COMMIT DROP"#);
    insta::assert_snapshot!(merge_sql::merge(&plan, 0), @r#"
INSERT INTO warehouse."fact_events" AS t ("event_id", "event_type", "occurred_at", "properties", "product_key", "user_key", "_source", "_offset", "_record", "_row", "_newer_at", "_object_time", "_object_hash")
SELECT DISTINCT ON (s."event_id", s."occurred_at") s."event_id", s."event_type", s."occurred_at", s."properties", d0."product_key", d1."user_key", s."_source", s."_offset", s."_record", s."_row", s."_newer_at", s."_object_time", s."_object_hash"
FROM pg_temp.sluice_load_0 s
LEFT JOIN warehouse."dim_products" d0 ON d0."product_id" = coalesce(s."product_id"::text, '')
LEFT JOIN warehouse."dim_users" d1 ON d1."user_id" = coalesce(s."user_id"::text, '')
ORDER BY s."event_id", s."occurred_at", s."_newer_at" DESC, s."_object_time" DESC, s."_object_hash" DESC, s."_row" DESC
ON CONFLICT ("event_id", "occurred_at") DO UPDATE SET "event_type" = EXCLUDED."event_type", "properties" = EXCLUDED."properties", "product_key" = EXCLUDED."product_key", "user_key" = EXCLUDED."user_key", "_source" = EXCLUDED."_source", "_offset" = EXCLUDED."_offset", "_record" = EXCLUDED."_record", "_row" = EXCLUDED."_row", "_newer_at" = EXCLUDED."_newer_at", "_object_time" = EXCLUDED."_object_time", "_object_hash" = EXCLUDED."_object_hash"
WHERE t."_newer_at" IS NULL OR (EXCLUDED."_newer_at", EXCLUDED."_object_time", EXCLUDED."_object_hash", EXCLUDED."_row") > (t."_newer_at", t."_object_time", t."_object_hash", t."_row")
"#);
}

#[test]
fn a_dimension_is_merged_by_its_natural_key_and_spares_the_unknown_member() {
    let plan = plan("users", &star()).expect("fits");
    insta::assert_snapshot!(merge_sql::merge(&plan, 1), @r#"
INSERT INTO warehouse."dim_users" AS t ("user_id", "email", "updated_at", "inferred", "_source", "_offset", "_record", "_row", "_newer_at", "_object_time", "_object_hash")
SELECT DISTINCT ON (s."user_id" COLLATE "C") s."user_id", s."email", s."updated_at", false, s."_source", s."_offset", s."_record", s."_row", s."_newer_at", s."_object_time", s."_object_hash"
FROM pg_temp.sluice_load_1 s
WHERE s."user_id" <> ''
ORDER BY s."user_id" COLLATE "C", s."_newer_at" DESC, s."_object_time" DESC, s."_object_hash" DESC, s."_row" DESC
ON CONFLICT ("user_id") DO UPDATE SET "email" = EXCLUDED."email", "updated_at" = EXCLUDED."updated_at", "inferred" = EXCLUDED."inferred", "_source" = EXCLUDED."_source", "_offset" = EXCLUDED."_offset", "_record" = EXCLUDED."_record", "_row" = EXCLUDED."_row", "_newer_at" = EXCLUDED."_newer_at", "_object_time" = EXCLUDED."_object_time", "_object_hash" = EXCLUDED."_object_hash"
WHERE t."_newer_at" IS NULL OR (EXCLUDED."_newer_at", EXCLUDED."_object_time", EXCLUDED."_object_hash", EXCLUDED."_row") > (t."_newer_at", t."_object_time", t."_object_hash", t."_row")
"#);
}

#[test]
fn members_are_looked_for_and_inferred() {
    let plan = plan("events", &star()).expect("fits");
    let link = plan.links().iter().find(|link| link.table == "dim_users").expect("linked");
    insta::assert_snapshot!(merge_sql::missing_members(link), @r#"SELECT k FROM unnest($1::text[]) AS k WHERE NOT EXISTS (SELECT FROM warehouse."dim_users" d WHERE d."user_id" = k)"#);
    insta::assert_snapshot!(merge_sql::insert_members(link), @r#"INSERT INTO warehouse."dim_users" ("user_id", "inferred") SELECT k, true FROM unnest($1::text[]) WITH ORDINALITY AS m (k, n) ORDER BY n ON CONFLICT ("user_id") DO NOTHING"#);
    insta::assert_snapshot!(merge_sql::unknown_member_exists(link), @r#"SELECT EXISTS (SELECT FROM warehouse."dim_users" WHERE "user_key" = 0 AND "user_id" = '')"#);
}

#[test]
fn identifiers_are_quoted() {
    assert_eq!(merge_sql::quoted("a\"b; DROP"), "\"a\"\"b; DROP\"");
}

#[test]
fn tables_are_locked_in_the_order_given() {
    let tables = ["dim_a".to_owned(), "dim_b".to_owned()];
    assert_eq!(
        merge_sql::lock_tables(tables.iter(), "ROW EXCLUSIVE").expect("two"),
        "LOCK TABLE warehouse.\"dim_a\", warehouse.\"dim_b\" IN ROW EXCLUSIVE MODE"
    );
    assert_eq!(merge_sql::lock_tables([].iter(), "ROW EXCLUSIVE"), None);
}

fn edit(tables: &mut BTreeMap<String, WarehouseTable>, table: &str, column: &str, type_name: &str) {
    let columns = &mut tables.get_mut(table).expect("there").columns;
    columns.get_mut(column).expect("there").type_name = type_name.to_owned();
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_change() {
    let problem = |change: fn(&mut BTreeMap<String, WarehouseTable>)| {
        let mut tables = star();
        change(&mut tables);
        plan("events", &tables).expect_err("does not fit")
    };
    let problems = [
        problem(|tables| drop(tables.remove("fact_events"))),
        problem(|tables| drop(tables.remove("dim_users"))),
        problem(|tables| tables.get_mut("fact_events").expect("there").range_column = None),
        problem(|tables| tables.get_mut("fact_events").expect("there").unique_keys.clear()),
        problem(|tables| drop(tables.get_mut("fact_events").expect("there").columns.remove("event_id"))),
        problem(|tables| drop(tables.get_mut("fact_events").expect("there").columns.remove("user_key"))),
        problem(|tables| drop(tables.get_mut("fact_events").expect("there").columns.remove("_row"))),
        problem(|tables| edit(tables, "fact_events", "properties", "int4")),
        problem(|tables| edit(tables, "fact_events", "occurred_at", "timestamp")),
        problem(|tables| {
            let columns = &mut tables.get_mut("fact_events").expect("there").columns;
            let amount = TableColumn { nullable: false, ..columns["properties"].clone() };
            columns.insert("amount".to_owned(), amount);
        }),
        problem(|tables| {
            tables.get_mut("dim_users").expect("there").columns.get_mut("email").expect("there").nullable = false
        }),
    ];
    insta::assert_snapshot!(problems.join("\n"), @r#"
connector `events` does not fit the warehouse: there is no table warehouse.fact_events, or this user may not use it: run `sluice migrate`
connector `events` does not fit the warehouse: there is no table warehouse.dim_users, or this user may not use it: run `sluice migrate`
connector `events` does not fit the warehouse: table warehouse.fact_events must be PARTITION BY RANGE (occurred_at)
connector `events` does not fit the warehouse: table warehouse.fact_events needs a unique key on (event_id, occurred_at)
connector `events` does not fit the warehouse: table warehouse.fact_events lacks column `event_id`, which names its rows
connector `events` does not fit the warehouse: table warehouse.fact_events lacks column `user_key` (int8)
connector `events` does not fit the warehouse: table warehouse.fact_events lacks column `_row` (int8)
connector `events` does not fit the warehouse: column `properties` is json (jsonb or text), but warehouse.fact_events.properties is int4
connector `events` does not fit the warehouse: column `occurred_at` is timestamp_ms (timestamptz), but warehouse.fact_events.occurred_at is timestamp
connector `events` does not fit the warehouse: warehouse.fact_events.amount is jsonb NOT NULL: add a required column `amount` to the connector
connector `events` does not fit the warehouse: warehouse.dim_users.email is NOT NULL, so that no inferred member can be made
"#);
}

#[test]
fn a_narrower_number_is_refused() {
    let columns = ["product_key int8!", "product_id text!", "inferred bool!", "price numeric(10,2)"];
    let tables = BTreeMap::from([("dim_products".to_owned(), table(&columns, &["product_id"], None))]);
    insta::assert_snapshot!(plan("products", &tables).expect_err("too narrow"), @"connector `products` does not fit the warehouse: column `price` is decimal(12,2) (numeric as wide), but warehouse.dim_products.price is numeric(10,2)");
}
