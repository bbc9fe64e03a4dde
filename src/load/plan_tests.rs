use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::plan::{LINEAGE_COLUMNS, LoadTable, TablePlan};
use super::warehouse_table::{TableColumn, WarehouseTable};
use super::{merge_sql, reconcile_sql};
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
    let rows_of = |columns: &[&'static str]| -> Vec<&'static str> {
        let own = |text: &&&str| {
            !(text.starts_with("inferred") || text.contains("_key") && columns.contains(&"inferred bool!"))
        };
        columns.iter().filter(own).copied().collect()
    };
    BTreeMap::from([
        ("dim_users_shadow".to_owned(), table(&rows_of(&users), &[], None)),
        ("fact_events_shadow".to_owned(), table(&rows_of(&events), &[], None)),
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

fn load_table(plan: &TablePlan) -> LoadTable {
    LoadTable::new(plan, &star()).expect("its shadow fits")
}

#[test]
fn a_fact_is_merged_by_key_and_time_and_takes_member_keys() {
    let plan = plan("events", &star()).expect("fits");
    insta::assert_snapshot!(merge_sql::create_temporary(&plan, 0), @r#"CREATE TEMPORARY TABLE sluice_load_0 ("event_id" uuid, "user_id" text, "product_id" text, "event_type" text, "occurred_at" timestamptz, "properties" jsonb, "_source" int8, "_offset" int8, "_record" int4, "_row" int8, "_newer_at" timestamptz, "_object_time" timestamptz, "_object_hash" int8) ON COMMIT DROP"#);
    let table = load_table(&plan);
    insta::assert_snapshot!(merge_sql::resolve(&plan, &table, 0), @r#"
    INSERT INTO pg_temp."sluice_rows_0" ("event_id", "event_type", "occurred_at", "properties", "product_key", "user_key", "_source", "_offset", "_record", "_row", "_newer_at", "_object_time", "_object_hash")
    SELECT s."event_id", s."event_type", s."occurred_at", s."properties", d0."product_key", d1."user_key", s."_source", s."_offset", s."_record", s."_row", s."_newer_at", s."_object_time", s."_object_hash" FROM pg_temp.sluice_load_0 s
    LEFT JOIN warehouse."dim_products" d0 ON d0."product_id" = coalesce(s."product_id"::text, '')
    LEFT JOIN warehouse."dim_users" d1 ON d1."user_id" = coalesce(s."user_id"::text, '')
    "#);
    insta::assert_snapshot!(reconcile_sql::shadow_outranked(&table), @r#"
    WITH older AS (DELETE FROM warehouse."fact_events" t USING pg_temp."sluice_rows_0" r WHERE t."event_id" = r."event_id" AND t."occurred_at" = r."occurred_at" AND (r."_newer_at", r."_object_time", r."_object_hash", r."_row") > (t."_newer_at", t."_object_time", t."_object_hash", t."_row") RETURNING t."_newer_at", t."_object_hash", t."_object_time", t."_offset", t."_record", t."_row", t."_source", t."event_id", t."event_type", t."occurred_at", t."product_key", t."properties", t."user_key")
    INSERT INTO warehouse."fact_events_shadow" ("_newer_at", "_object_hash", "_object_time", "_offset", "_record", "_row", "_source", "event_id", "event_type", "occurred_at", "product_key", "properties", "user_key") SELECT "_newer_at", "_object_hash", "_object_time", "_offset", "_record", "_row", "_source", "event_id", "event_type", "occurred_at", "product_key", "properties", "user_key" FROM older
    "#);
}

#[test]
fn a_dimension_is_merged_by_its_natural_key_and_spares_the_unknown_member() {
    let plan = plan("users", &star()).expect("fits");
    let table = load_table(&plan);
    insta::assert_snapshot!(merge_sql::resolve(&plan, &table, 1), @r#"
    INSERT INTO pg_temp."sluice_rows_0" ("user_id", "email", "updated_at", "_source", "_offset", "_record", "_row", "_newer_at", "_object_time", "_object_hash")
    SELECT s."user_id", s."email", s."updated_at", s."_source", s."_offset", s."_record", s."_row", s."_newer_at", s."_object_time", s."_object_hash" FROM pg_temp.sluice_load_1 s
    WHERE s."user_id" <> ''
    "#);
}

#[test]
fn a_table_without_its_shadow_is_refused() {
    let mut tables = star();
    let users = plan("users", &tables).expect("fits");
    tables.remove("dim_users_shadow");
    let problem = LoadTable::new(&users, &tables).expect_err("the shadow is missing");
    assert!(problem.contains("dim_users_shadow") && problem.contains("sluice migrate"), "{problem}");
    let narrow = table(&["user_id text!", "updated_at timestamptz"], &[], None);
    tables.insert("dim_users_shadow".to_owned(), narrow);
    let problem = LoadTable::new(&users, &tables).expect_err("a column is missing");
    assert!(problem.contains("lacks column `email`"), "{problem}");
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
fn a_dimension_whose_attribute_must_not_be_null_is_refused() {
    let columns = ["product_key int8!", "product_id text!", "inferred bool!", "price numeric(12,2)!"];
    let tables = BTreeMap::from([("dim_products".to_owned(), table(&columns, &["product_id"], None))]);
    let refused = plan("products", &tables).expect_err("it could not be emptied");
    insta::assert_snapshot!(refused, @"connector `products` does not fit the warehouse: warehouse.dim_products.price is NOT NULL, so that a member whose row a replay takes away could not stay as an inferred one");
}

#[test]
fn a_narrower_number_is_refused() {
    let columns = ["product_key int8!", "product_id text!", "inferred bool!", "price numeric(10,2)"];
    let tables = BTreeMap::from([("dim_products".to_owned(), table(&columns, &["product_id"], None))]);
    insta::assert_snapshot!(plan("products", &tables).expect_err("too narrow"), @"connector `products` does not fit the warehouse: column `price` is decimal(12,2) (numeric as wide), but warehouse.dim_products.price is numeric(10,2)");
}
