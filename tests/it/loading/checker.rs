//! What must be true of a warehouse after any loading, asked in SQL that shares nothing with the loader's.

use super::fixtures::Warehouse;

const FACTS: [(&str, &str); 2] = [("fact_transactions", "transaction_id"), ("fact_events", "event_id")];
const LINKS: [(&str, &str); 2] = [("user_key", "dim_users"), ("product_key", "dim_products")];
const DIMENSIONS: [(&str, &str); 2] = [("dim_users", "user_id"), ("dim_products", "product_id")];

/// Every foreign key is satisfied, declared or not; each key has one row; no row of a shadow outranks the row that stands;
/// a loser stands beside a winner; nobody's row is in both.
pub(super) async fn check(warehouse: &Warehouse) {
    for (fact, id) in FACTS {
        for (key, dimension) in LINKS {
            let dangling = format!(
                "SELECT count(*) FROM warehouse.{fact} f WHERE NOT EXISTS (SELECT FROM warehouse.{dimension} d WHERE d.{key} = f.{key})"
            );
            assert_eq!(warehouse.value(&dangling).await, "0", "{fact}.{key} names no member");
        }
        check_rows(warehouse, fact, &format!("{id}, occurred_at"), "").await;
    }
    for (dimension, id) in DIMENSIONS {
        check_rows(warehouse, dimension, id, " AND NOT t.inferred").await;
        let unknown = format!("SELECT count(*) FROM warehouse.{dimension} WHERE {id} = ''");
        assert_eq!(warehouse.value(&unknown).await, "1", "{dimension} has one unknown member");
    }
}

async fn check_rows(warehouse: &Warehouse, table: &str, identity: &str, held: &str) {
    let none = async |what: &str, sql: String| assert_eq!(warehouse.value(&sql).await, "0", "{table}: {what}");
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
