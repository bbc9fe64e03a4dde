//! What must be true of a warehouse after any loading, asked in SQL that shares nothing with the loader's.

use serde_json::Value;
use tokio_postgres::Client;

use crate::histories::check_histories;

const FACTS: [(&str, &str); 2] = [("fact_transactions", "transaction_id"), ("fact_events", "event_id")];
const LINKS: [(&str, &str); 2] = [("user_key", "dim_users"), ("product_key", "dim_products")];
const DIMENSIONS: [(&str, &str); 2] = [("dim_users", "user_id"), ("dim_products", "product_id")];

/// Every foreign key is satisfied, declared or not; each key has one row; no row of a shadow outranks the row that stands;
/// a loser stands beside a winner; nobody's row is in both; times of keys that are kept are those of the rows; every rollup is what the rows of its fact make, and
/// every history what the versions of its members make, without gap or overlap.
///
/// Tables that no connector has asked for yet, and keys that its connector has not, are not looked for.
pub(crate) async fn check(client: &Client) {
    for (fact, id) in FACTS {
        if !has(client, fact, "_row").await {
            continue;
        }
        for (key, dimension) in LINKS {
            if !has(client, fact, key).await {
                continue;
            }
            let dangling = format!(
                "SELECT count(*) FROM warehouse.{fact} f WHERE NOT EXISTS (SELECT FROM warehouse.{dimension} d WHERE d.{key} = f.{key})"
            );
            assert_eq!(count(client, &dangling).await, 0, "{fact}.{key} names no member");
        }
        // of a key whose time may change one row stands, whatever its time
        let is_mapped = format!("SELECT count(*) FROM warehouse.key_map WHERE fact = '{fact}'");
        if count(client, &is_mapped).await == 0 {
            check_rows(client, fact, &format!("{id}, occurred_at"), "").await;
            continue;
        }
        check_rows(client, fact, id, "").await;
        let (is, should) = (
            format!("SELECT {id}, occurred_at FROM warehouse.{fact}_keys"),
            format!("SELECT {id}, occurred_at FROM warehouse.{fact}"),
        );
        let differ =
            format!("SELECT count(*) FROM (({is} EXCEPT ALL {should}) UNION ALL ({should} EXCEPT ALL {is})) q");
        assert_eq!(count(client, &differ).await, 0, "{fact}: times of keys");
    }
    for (dimension, id) in DIMENSIONS {
        if !has(client, dimension, "_row").await {
            continue;
        }
        check_rows(client, dimension, id, " AND NOT t.inferred").await;
        let unknown = format!("SELECT count(*) FROM warehouse.{dimension} WHERE {id} = ''");
        assert_eq!(count(client, &unknown).await, 1, "{dimension} has one unknown member");
    }
    check_rollups(client).await;
    check_histories(client).await;
}

/// Recomputes every rollup from its fact, by what its connector declares. Returns how many cells there are.
pub(crate) async fn check_rollups(client: &Client) -> i64 {
    let mut cells = 0;
    let sql = "SELECT name, definition::text FROM warehouse.rollup";
    for row in client.query(sql, &[]).await.expect("the warehouse answers") {
        let (name, definition): (String, String) = (row.get(0), row.get(1));
        let definition: Value = serde_json::from_str(&definition).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let list = |key: &str| definition[key].as_array().expect("a list").clone();
        let (grain, time, fact) = (text(&definition["grain"]), text(&definition["time"]), text(&definition["fact"]));
        let (mut columns, mut should) = (vec![grain.clone()], Vec::new());
        should.push(format!("date_trunc('{grain}', {time} AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"));
        for group in list("group") {
            let column = text(&group["name"]);
            should.push(if group["type_name"] == "text" { format!("left({column}, 64)") } else { column.clone() });
            columns.push(column);
        }
        let groups = (1..=should.len()).map(|place| place.to_string()).collect::<Vec<_>>().join(", ");
        for aggregate in list("aggregates") {
            columns.push(text(&aggregate["name"]));
            should.push(text(&aggregate["declared"]));
        }
        columns.push("row_count".to_owned());
        should.push("count(*)".to_owned());
        let is = format!("SELECT {} FROM warehouse.{name}", columns.join(", "));
        let should = format!("SELECT {} FROM warehouse.{fact} GROUP BY {groups}", should.join(", "));
        let differ = format!(
            "SELECT concat('is ', a) FROM ({is} EXCEPT ALL {should}) a UNION ALL SELECT concat('should be ', b) FROM ({should} EXCEPT ALL {is}) b"
        );
        let found = client.query(&differ, &[]).await.unwrap_or_else(|error| panic!("{differ}: {error:?}"));
        let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        assert!(found.is_empty(), "{} cells of {name} are wrong: {:#?}", found.len(), &found[..found.len().min(10)]);
        cells += count(client, &format!("SELECT count(*) FROM ({is}) q")).await;
    }
    cells
}

async fn has(client: &Client, table: &str, column: &str) -> bool {
    let found = format!(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'warehouse' AND (table_name, column_name) = ('{table}', '{column}')"
    );
    count(client, &found).await == 1
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

async fn check_rows(client: &Client, table: &str, identity: &str, held: &str) {
    let none = async |what: &str, sql: String| assert_eq!(count(client, &sql).await, 0, "{table}: {what}");
    none(
        "a key has two rows",
        format!("SELECT count(*) FROM (SELECT FROM warehouse.{table} GROUP BY {identity} HAVING count(*) > 1) q"),
    )
    .await;
    none(
        "a loser outranks the winner",
        format!(
            "SELECT count(*) FROM warehouse.{table} t JOIN warehouse.{table}_shadow s USING ({identity}) \
             WHERE (s._newer_at, s._object_time, s._object_hash, s._row) > (t._newer_at, t._object_time, t._object_hash, t._row){held}"
        ),
    )
    .await;
    none(
        "a loser has no winner",
        format!(
            "SELECT count(*) FROM warehouse.{table}_shadow s LEFT JOIN warehouse.{table} t USING ({identity}) WHERE t._row IS NULL"
        ),
    )
    .await;
    none(
        "a row stands in the table and in its shadow",
        format!(
            "SELECT count(*) FROM warehouse.{table} t JOIN warehouse.{table}_shadow s USING ({identity}, _source, _offset, _record, _row)"
        ),
    )
    .await;
}
