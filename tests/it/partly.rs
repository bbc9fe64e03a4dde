//! A connector that loads some of its rows: the others stay in the lake.

use sluice_loadtest::{Dataset, ProducePlan};

use crate::pipeline::plan;
use crate::replay::run_until_settled;
use crate::stack::World;

fn count(world: &World, sql: &str) -> i64 {
    let output = world.sluice(&["query", sql, "--output", "csv"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("one number: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_connector_does_not_load_stay_in_the_lake_and_out_of_its_rollups() {
    let world = World::new(1).await;
    // the same for all versions of a key
    world.edit_connectors(|text| match text.contains("name: transactions\n") {
        true => text.replace("\nload:\n", "\nload:\n  rows: transaction_id < '8'\n"),
        false => text,
    });
    let plan = ProducePlan { rows: 1_200, rows_per_object: 200, datasets: vec![Dataset::Transactions], ..plan(&world) };
    sluice_loadtest::produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    run_until_settled(&world).await;
    let all = count(&world, "SELECT count(DISTINCT transaction_id) FROM transactions");
    let wanted = count(&world, "SELECT count(DISTINCT transaction_id) FROM transactions WHERE transaction_id < '8'");
    assert!(0 < wanted && wanted < all, "{wanted} of {all}");
    let client = world.warehouse().await;
    let number = async |sql: &str| client.query_one(sql, &[]).await.expect("the warehouse answers").get::<_, i64>(0);
    assert_eq!(number("SELECT count(*) FROM warehouse.fact_transactions").await, wanted);
    assert_eq!(number("SELECT sum(row_count)::bigint FROM warehouse.rollup_revenue_hourly").await, wanted);
    // every world's warehouse is looked at when its test ends: a wrong one is found
    let one = "DELETE FROM warehouse.fact_transactions
                WHERE transaction_id = (SELECT transaction_id FROM warehouse.fact_transactions LIMIT 1)";
    assert_eq!(client.execute(one, &[]).await.expect("the warehouse answers"), 1);
    let ends = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(world)));
    assert!(ends.is_err(), "a row is gone, and the checker has not seen it");
}
