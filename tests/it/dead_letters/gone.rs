//! Re-drives of what is not there any more, of what was replaced meanwhile, and in the middle of crashes.

use super::{Letters, good, said};
use crate::replay::{count, reset, run_until_settled};

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_objects_that_are_gone_are_corrected_as_well() {
    let letters = Letters::new().await;
    letters.object("users/broken.json.gz", b"\x1f\x8b\x08\x00broken").await;
    let running = letters.mixed().await;
    letters.correct(&letters.id("wrong_type"), good("corrected").as_bytes());
    letters.correct(&letters.id("corrupt_compression"), good("mended").as_bytes());
    for key in ["users/mixed.json", "users/broken.json.gz"] {
        letters.delete(key).await;
    }
    letters.redriven(&["--since", "1h"]);
    assert_eq!(letters.users().await, ["after", "before", "corrected", "mended", "neighbour"]);
    assert_eq!(letters.reasons(), ["invalid_value"]);
    letters.world.assert_books_balance().await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_whose_messages_are_gone_are_corrected_as_well() {
    let letters = Letters::new().await;
    let event = |id: u32, kind: &str| {
        format!(
            "{{\"event_id\":\"00000000-0000-4000-8000-00000000000{id}\",\"event_type\":\"{kind}\",\"occurred_at\":\"2026-11-20T10:00:00Z\"}}"
        )
    };
    let records = letters.world.records.clone();
    for (id, kind) in [(1, "view"), (2, "dance"), (3, "click"), (4, "sleep")] {
        letters.send(&records, event(id, kind).as_bytes()).await;
    }
    let running = letters.world.run();
    letters.world.settle();
    let found = letters.listed(&["--reason", "expectation_failed"]);
    let first = found.iter().find(|letter| letter["offset"] == 1).expect("the second record");
    letters.correct(first["id"].as_str().expect("an id"), event(2, "search").as_bytes());
    let file = letters.world.folder.join("delete.json");
    let what = format!("{{\"partitions\":[{{\"topic\":\"{records}\",\"partition\":0,\"offset\":3}}],\"version\":1}}");
    std::fs::write(&file, what).expect("the folder is ours");
    letters.world.stack.kafka(&["delete-records", "--offset-json-file", &file.display().to_string()]);
    letters.redriven(&["--reason", "expectation_failed"]);
    let rows = letters
        .world
        .warehouse()
        .await
        .query("SELECT event_type FROM warehouse.fact_events ORDER BY event_id", &[])
        .await
        .expect("the warehouse answers");
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["view", "search", "click"]);
    assert_eq!(letters.reasons(), ["expectation_failed"]);
    letters.world.assert_books_balance().await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_follows_a_micro_batch_that_was_replaced_meanwhile() {
    let letters = Letters::new().await;
    assert_eq!(letters.mixed().await.terminate(), Some(0));
    let id = letters.id("wrong_type");
    for expected in ["asked for 1 micro-batch", "1 micro-batch had been asked for before"] {
        let asked = letters.command(&["redrive", &id]);
        assert!(asked.status.success() && said(&asked).contains(expected), "{}", said(&asked));
    }
    let settled = letters.world.sluice(&["settled"]);
    assert!(said(&settled).contains("1 re-drives open"), "{}", said(&settled));
    reset(&letters.world, &letters.world.notifications, &["--to-earliest"]).await;
    run_until_settled(&letters.world).await;
    let ended = "SELECT count(*) FROM catalog.redrive r JOIN catalog.micro_batch b ON b.micro_batch_id = r.replaced_by
                  WHERE r.outcome = 'done' AND b.state = 'live'";
    assert_eq!(count(&letters.world, ended).await, 1, "{}", letters.world.logs());
    assert_eq!(letters.users().await, ["after", "before", "neighbour"]);
    letters.world.assert_books_balance().await;
}

/// Where the process is built with fail points.
#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_crashes_is_carried_out_once() {
    const DEAD: &str = "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead'";
    for (point, replaced_by_the_crashed) in [("commit.before_commit", 0), ("commit.committed", 1)] {
        let letters = Letters::new().await;
        assert_eq!(letters.mixed().await.terminate(), Some(0));
        let id = letters.id("wrong_type");
        letters.correct(&id, good("corrected").as_bytes());
        assert!(letters.command(&["redrive", &id]).status.success());
        let before = count(&letters.world, DEAD).await;
        let armed = std::collections::HashMap::from([("FAILPOINTS".to_owned(), format!("{point}=return(abort)"))]);
        let mut crashing = letters.world.run_with(&armed, &[]);
        crate::stack::wait_for("the process to die in its commit", || {
            let ended = crashing.ended().is_some();
            async move { ended }
        })
        .await;
        assert_eq!(count(&letters.world, DEAD).await - before, replaced_by_the_crashed, "{point}");
        run_until_settled(&letters.world).await;
        assert_eq!(count(&letters.world, DEAD).await - before, 1, "{point}: once");
        assert_eq!(letters.users().await, ["after", "before", "corrected", "neighbour"], "{point}");
        letters.world.assert_books_balance().await;
    }
}
