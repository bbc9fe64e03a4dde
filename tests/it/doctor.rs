//! What `sluice doctor` says of what was loaded.

use crate::pipeline::plan;
use crate::replay::run_until_settled;
use crate::stack::World;

#[tokio::test(flavor = "multi_thread")]
async fn doctor_measures_what_comes_and_compares_what_is_kept() {
    let world = World::new(1).await;
    let plan = sluice_loadtest::ProducePlan { rows: 1_200, rows_per_object: 200, ..plan(&world) };
    sluice_loadtest::produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    run_until_settled(&world).await;
    let (catalog, warehouse) = (world.catalog().await, world.warehouse().await);
    // of less than a minute nothing is said
    let earlier = "UPDATE catalog.micro_batch SET committed_at = committed_at - interval '10 minutes'";
    catalog.batch_execute(earlier).await.expect("the catalog answers");
    warehouse.batch_execute("ANALYZE warehouse.fact_transactions").await.expect("the warehouse answers");
    let doctor = || {
        let output = world.sluice(&["doctor"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = doctor();
    let has = |said: &str, parts: &[&str]| said.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(
        has(&said, &["ok      transactions: ", " come into fact_transactions: ", " a day, ", " in 365 days"]),
        "{said}"
    );
    assert!(has(&said, &["ok      loading: ", "the busiest minute has loaded"]), "{said}");
    assert!(has(&said, &["ok      rollup_revenue_hourly: all "]), "{said}");
    assert!(has(&said, &["ok      dim_products_history: all "]), "{said}");
    assert_eq!(code, Some(0), "{said}");

    let damage = "UPDATE warehouse.rollup_revenue_hourly SET revenue = revenue + 1;
                  DELETE FROM warehouse.dim_products_history WHERE valid_to = 'infinity'";
    warehouse.batch_execute(damage).await.expect("the warehouse answers");
    let (code, said) = doctor();
    assert!(has(&said, &["failed  rollup_revenue_hourly: ", "restart a load role"]), "{said}");
    assert!(has(&said, &["failed  dim_products_history: ", "warehouse.dimension_history"]), "{said}");
    assert_eq!(code, Some(1), "{said}");
    // what is deleted there is made anew
    warehouse
        .batch_execute("DELETE FROM warehouse.dimension_history; DELETE FROM warehouse.rollup")
        .await
        .expect("it answers");
    run_until_settled(&world).await;
    assert_eq!(doctor().0, Some(0));
}
