//! Rows that SQL could not be evaluated for, corrected.

use super::{Letters, said};
use crate::replay::{reset, run_until_settled};

/// The name of a user is a number here: SQL divides by it.
const SQL: &str = "\ntransform: {sql: \"SELECT user_id, email, country, source, updated_at, \
                   CAST(100 / CAST(name AS INT) AS VARCHAR) AS name FROM input\"}\n";

fn user(id: &str, name: &str) -> String {
    format!("{{\"user_id\":\"{id}\",\"name\":\"{name}\",\"updated_at\":\"2026-11-20T10:00:00Z\"}}\n")
}

async fn names(letters: &Letters) -> Vec<(String, String)> {
    let sql = "SELECT user_id, name FROM warehouse.dim_users WHERE user_key <> 0 ORDER BY 1";
    let rows = letters.world.warehouse().await.query(sql, &[]).await.expect("the warehouse answers");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(id, name)| ((*id).to_owned(), (*name).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_sql_failed_on_is_corrected_and_goes_through_the_sql_again() {
    let letters = Letters::new().await;
    let users = letters.world.folder.join("connectors/users.yaml");
    let text = std::fs::read_to_string(&users).expect("it was written");
    std::fs::write(&users, text + SQL).expect("the folder is ours");
    let body: String = [("a", "4"), ("b", "0"), ("c", "five"), ("d", "5")].map(|(id, name)| user(id, name)).concat();
    letters.object("users/mixed.json", body.as_bytes()).await;
    let running = letters.world.run();
    letters.world.settle();
    assert_eq!(names(&letters).await, pairs(&[("a", "25"), ("d", "20")]), "{}", letters.world.logs());
    assert_eq!(letters.reasons(), ["sql_failed", "sql_failed"]);
    let listed = letters.listed(&["--reason", "sql_failed"]);
    let id_of = |row: i64| {
        let found = listed.iter().find(|letter| letter["row"] == row).expect("a dead letter");
        found["id"].as_str().expect("an id").to_owned()
    };
    let (zero, word) = (id_of(1), id_of(2));

    let shown = letters.command(&["show", &zero]);
    assert!(said(&shown).contains("a division by zero"), "{}", said(&shown));
    let refused = letters.edit(&zero, user("b", "none").as_bytes(), &[]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("sql_failed: the SQL fails: a value cannot be cast"), "{}", said(&refused));

    letters.correct(&zero, user("b", "2").as_bytes());
    letters.redriven(&[&zero]);
    assert_eq!(names(&letters).await, pairs(&[("a", "25"), ("b", "50"), ("d", "20")]));
    assert_eq!(letters.reasons(), ["sql_failed"], "the other one is still there");
    let lineage = "SELECT _row FROM warehouse.dim_users WHERE user_id = 'b'";
    let row: i64 = letters.world.warehouse().await.query_one(lineage, &[]).await.expect("it is there").get(0);
    assert_eq!(row, 1, "the lineage stays");
    let other = letters.command(&["show", "--bytes-only", &word]);
    assert_eq!(other.stdout, user("c", "five").trim_end().as_bytes(), "an id from before names the same row");
    letters.world.assert_books_balance().await;

    assert_eq!(running.terminate(), Some(0));
    reset(&letters.world, &letters.world.notifications, &["--to-earliest"]).await;
    run_until_settled(&letters.world).await;
    assert_eq!(names(&letters).await, pairs(&[("a", "25"), ("b", "50"), ("d", "20")]), "a replay reads the correction");
    assert_eq!(letters.reasons(), ["sql_failed"]);
    letters.world.assert_books_balance().await;
}
