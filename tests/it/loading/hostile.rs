//! Values that Parquet holds and PostgreSQL cannot: defined outcomes, and the loader goes on.

use serde_json::json;

use super::fixtures::{Warehouse, transaction, user};

#[tokio::test]
async fn nul_in_text_becomes_the_replacement_character_and_is_counted() {
    let warehouse = Warehouse::new().await;
    let batch =
        warehouse.batch(1, "2026-11-23T10:00:00Z", &[("users", &[user("u\0-1", "A\0n", "2026-11-23T00:00:00Z")])]);
    let counts = warehouse.load(&batch).await;
    assert_eq!(counts.repaired_value_count, 2);
    let names = "SELECT concat(user_id, '|', name) FROM warehouse.dim_users WHERE user_key > 0";
    assert_eq!(warehouse.value(names).await, "u\u{fffd}-1|A\u{fffd}n");
}

#[tokio::test]
async fn a_fact_finds_its_member_by_the_repaired_key() {
    let warehouse = Warehouse::new().await;
    let long = "x".repeat(10_000);
    warehouse
        .load_rows(
            1,
            "users",
            &[user("a\0", "Ann", "2026-11-23T00:00:00Z"), user(&long, "Long", "2026-11-23T00:00:00Z")],
        )
        .await;
    let rows: Vec<_> = ["a\0", long.as_str()]
        .iter()
        .zip(1..)
        .map(|(id, number)| {
            let mut row = transaction(number, "1.00", None);
            row["user_id"] = json!(id);
            row
        })
        .collect();
    warehouse.load_rows(2, "transactions", &rows).await;
    let joined = "SELECT name FROM warehouse.fact_transactions JOIN warehouse.dim_users USING (user_key) ORDER BY 1";
    assert_eq!(warehouse.column(joined).await, ["Ann", "Long"].map(|name| Some(name.to_owned())));
}

#[tokio::test]
async fn json_that_jsonb_cannot_hold_is_mended() {
    let warehouse = Warehouse::new().await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let values = [
        (r#"{"a":"\u0000"}"#, r#"{"a": "�"}"#.to_owned()),
        (r#""\ud800""#, r#""�""#.to_owned()),
        ("[1e400000]", r#"["1e400000"]"#.to_owned()),
        ("1e-20000", r#""1e-20000""#.to_owned()),
        (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#.to_owned()),
        (deep.as_str(), format!("\"{deep}\"")),
    ];
    let rows: Vec<_> = values
        .iter()
        .zip(1..)
        .map(|((value, _), number)| {
            let mut row = transaction(number, "1.00", None);
            row["attributes"] = json!(value);
            row
        })
        .collect();
    warehouse.load_rows(1, "transactions", &rows).await;
    let stored = warehouse.column("SELECT attributes FROM warehouse.fact_transactions ORDER BY transaction_id").await;
    let wanted: Vec<_> = values.iter().map(|(_, wanted)| Some(wanted.clone())).collect();
    assert_eq!(stored, wanted);
}

#[tokio::test]
async fn the_largest_numbers_that_stand_do_fit() {
    let warehouse = Warehouse::new().await;
    let digits = "9".repeat(131_072);
    let numbers = ["1e131071", "1e-16383", "-1.5e-16382", digits.as_str()];
    let mut row = transaction(1, "1.00", None);
    row["attributes"] = json!(format!("[{}]", numbers.join(",")));
    let batch = warehouse.batch(1, "2026-11-23T10:00:00Z", &[("transactions", &[row])]);
    assert_eq!(warehouse.load(&batch).await.repaired_value_count, 0);
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, "1");
}
