//! What people who query find: views that say what is meant, comments, and rights.

use tokio_postgres::NoTls;

use crate::pipeline::plan;
use crate::replay::run_until_settled;
use crate::stack::World;

/// What members of the role `sluice_reader` may read, and more.
const READABLE: [&str; 7] =
    ["transactions", "events", "users", "products", "fact_transactions", "transactions_as_of", "dim_products_history"];

async fn strings(client: &tokio_postgres::Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn views_say_what_is_meant_and_a_reader_may_read_them_alone() {
    let world = World::new(1).await;
    let plan = sluice_loadtest::ProducePlan { rows: 1_200, rows_per_object: 200, ..plan(&world) };
    sluice_loadtest::produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    run_until_settled(&world).await;
    let owner = world.warehouse().await;

    let bare = "SELECT format('%s.%s', c.relname, a.attname)
                  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                 WHERE c.relnamespace = 'warehouse'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
                   AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)";
    assert_eq!(strings(&owner, bare).await, Vec::<String>::new(), "without a comment");

    // every fact once, with the members that its keys mean
    for (view, fact) in [("transactions", "fact_transactions"), ("events", "fact_events")] {
        let sums = |table: &str| {
            format!("SELECT count(*)::text || md5(string_agg(t.id::text, ',' ORDER BY t.id)) FROM ({table}) t")
        };
        let id = format!("{}_id AS id", view.trim_end_matches('s'));
        let shown = strings(&owner, &sums(&format!("SELECT {id} FROM warehouse.{view}"))).await;
        assert_eq!(shown, strings(&owner, &sums(&format!("SELECT {id} FROM warehouse.{fact}"))).await);
    }
    let sold = "SELECT product_id FROM warehouse.transactions WHERE product_id IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 2";
    let [kept, merged] = strings(&owner, sold).await.try_into().expect("two products");
    let count = |key: &str| format!("SELECT count(*)::text FROM warehouse.transactions WHERE product_id = '{key}'");
    let number = async |key: &str| strings(&owner, &count(key)).await[0].parse::<u64>().expect("a count");
    let (before, others) = (number(&kept).await, number(&merged).await);
    let merging = world.sluice(&["resolve", "merge", "products", &merged, "--into", &kept, "--reason", "one thing"]);
    assert!(merging.status.success(), "{}", String::from_utf8_lossy(&merging.stderr));
    assert_eq!((number(&kept).await, number(&merged).await), (before + others, 0));
    let unknown =
        "SELECT count(*)::text FROM warehouse.transactions t JOIN warehouse.fact_transactions f USING (transaction_id)
                    WHERE f.product_key = 0 AND (t.product_id IS NOT NULL OR t.product_name IS NOT NULL)";
    assert_eq!(strings(&owner, unknown).await, ["0"]);

    let reader = format!("reader_{}", world.name);
    owner
        .batch_execute(&format!("CREATE ROLE {reader} LOGIN PASSWORD 'secret' IN ROLE sluice_reader"))
        .await
        .expect("the tests' user may make roles");
    let dsn = world.env["SLUICE_WAREHOUSE__DSN"].clone();
    let mut config: tokio_postgres::Config = dsn.parse().expect("an address");
    config.user(&reader).password("secret");
    let (client, connection) = config.connect(NoTls).await.expect("the reader may come in");
    let driver = tokio::spawn(connection);
    for view in READABLE {
        client.query(&format!("SELECT * FROM warehouse.{view} LIMIT 1"), &[]).await.expect(view);
    }
    for refused in [
        "SELECT email FROM warehouse.dim_users",
        "SELECT * FROM warehouse.fact_transactions_shadow",
        "SELECT * FROM warehouse.resolution_decision",
        "DELETE FROM warehouse.fact_events",
        "INSERT INTO warehouse.alias VALUES ('products', 'x', 'y', 'z')",
    ] {
        let error = client.execute(refused, &[]).await.expect_err(refused);
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE), "{refused}");
    }
    drop(client);
    driver.await.expect("not cancelled").expect("ends well");
    owner.batch_execute(&format!("DROP ROLE {reader}")).await.expect("it owns nothing");
}
