//! Migrations, and what is said about schemas that do not fit.

use std::sync::Arc;

use sluice::catalog::{Database, check_schema, migrate};
use sluice::client::postgres;
use sluice::error::ErrorKind;
use sluice::load::Loader;

use super::fixtures::{Warehouse, connectors, pool};
use crate::database::fresh_database;

#[tokio::test]
async fn migrating_again_does_nothing_and_the_version_is_the_newest() {
    let pool = pool(&fresh_database().await);
    for database in Database::ALL {
        let first = migrate(&pool, database).await.expect("migrates");
        assert_eq!(
            first.version,
            database.newest_version(),
            "schema_info.version of {database:?} must follow its files"
        );
        assert_eq!(first.applied.len() as i32, database.newest_version());
        let second = migrate(&pool, database).await.expect("migrates");
        assert_eq!((second.applied.len(), second.version), (0, first.version));
        let client = postgres::get(&pool).await.expect("connects");
        check_schema(&**client, database).await.expect("fits");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_migrate_at_once_and_one_does_it() {
    let pool = pool(&fresh_database().await);
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let (pool, database) = (pool.clone(), Database::ALL[number % 2]);
            tokio::spawn(async move { migrate(&pool, database).await.expect("migrates").applied.len() })
        })
        .collect();
    let mut applied = 0;
    for task in tasks {
        applied += task.await.expect("no panic") as i32;
    }
    assert_eq!(applied, Database::ALL.iter().map(|database| database.newest_version()).sum::<i32>());
}

#[tokio::test]
async fn a_schema_that_does_not_fit_is_refused_with_what_to_do() {
    let pool = pool(&fresh_database().await);
    let client = postgres::get(&pool).await.expect("connects");
    let refused = async || {
        let error = check_schema(&**client, Database::Warehouse).await.expect_err("does not fit");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    assert_eq!(refused().await, "the warehouse has no tables yet: run `sluice migrate`");

    migrate(&pool, Database::Warehouse).await.expect("migrates");
    let set = "UPDATE warehouse.schema_info SET version = $1::int, compatible_from = $2::int";
    client.execute(set, &[&1000, &999]).await.expect("updates");
    let newest = Database::Warehouse.newest_version();
    assert_eq!(
        refused().await,
        format!(
            "the warehouse's schema is version 1000, for binaries that know at least version 999; \
             this sluice knows {newest}: upgrade it"
        )
    );
    assert_eq!(migrate(&pool, Database::Warehouse).await.expect_err("is newer").kind(), ErrorKind::Invalid);

    client.execute(set, &[&1000, &newest]).await.expect("updates");
    check_schema(&**client, Database::Warehouse).await.expect("newer and compatible");
    assert_eq!(migrate(&pool, Database::Warehouse).await.expect("leaves it alone").version, 1000);

    client.execute(set, &[&(newest - 1), &0]).await.expect("updates");
    assert!(refused().await.ends_with("run `sluice migrate`"));
}

#[tokio::test]
async fn a_loader_is_not_made_for_tables_that_do_not_fit() {
    let pool = pool(&fresh_database().await);
    let refused = async || {
        let error = Loader::new(pool.clone(), &connectors()).await.expect_err("does not fit");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    assert!(refused().await.ends_with("or this user may not use it: run `sluice migrate`"));
    migrate(&pool, Database::Warehouse).await.expect("migrates");
    let client = postgres::get(&pool).await.expect("connects");
    let changes = [
        (
            "DROP VIEW warehouse.events; ALTER TABLE warehouse.fact_events DROP COLUMN _row",
            "table warehouse.fact_events lacks column `_row` (int8)",
        ),
        (
            "ALTER TABLE warehouse.fact_events ADD COLUMN _row bigint NOT NULL, ALTER COLUMN source TYPE varchar(10)",
            "column `source` is utf8 (text), but warehouse.fact_events.source is varchar(10)",
        ),
        (
            "ALTER TABLE warehouse.fact_events DROP COLUMN source; DELETE FROM warehouse.dim_users",
            "warehouse.dim_users lacks the unknown member: a row with user_key = 0 and user_id = ''",
        ),
    ];
    for (change, wanted) in changes {
        client.batch_execute(change).await.expect("changes");
        let message = refused().await;
        assert!(message.ends_with(wanted), "{message}");
    }
    let member = "INSERT INTO warehouse.dim_users (user_key, user_id) VALUES (0, '')";
    client.batch_execute(member).await.expect("inserts");
    Loader::new(pool.clone(), &connectors())
        .await
        .expect("a column that the table lacks is not loaded, and that is fine");
}

#[tokio::test]
async fn unreachable_and_unknown_databases_say_so() {
    let dsn = fresh_database().await;
    let unknown = pool(&format!("{dsn}_which_is_not_there"));
    let error = postgres::ping(&unknown).await.expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("createdb"), "{error}");
}

#[tokio::test]
async fn catalog_and_warehouse_live_in_one_database_and_in_two() {
    let warehouse = Arc::new(Warehouse::new().await);
    migrate(&warehouse.pool, Database::Catalog).await.expect("migrates");
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename IN ('sluice_catalog_migrations', 'sluice_warehouse_migrations')";
    assert_eq!(warehouse.value(tables).await, "2");
}
