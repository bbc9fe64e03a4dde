//! The ledgers are guarded twice: in the code (unit tests of `commit::ledger`) and by the database at COMMIT.

use secrecy::SecretString;
use sluice::catalog::{self, ClaimQuestion, install_fence};
use sluice::client::postgres;
use sluice::commit::{CommitError, CommitOutcome};
use sluice::config::PostgresSettings;
use sluice::types::{
    Fence, MicroBatchId, ObjectClaim, ObjectLocation, ObjectOutcome, ObjectVersion, OffsetOutcome, Overwrite,
};

use crate::owner::Owner;
use crate::stack::World;

struct Books {
    world: World,
    owner: Owner,
}

impl Books {
    async fn new() -> Self {
        let world = World::new(1).await;
        let dsn = SecretString::from(world.env["SLUICE_CATALOG__DSN"].clone());
        let pool = postgres::pool(&PostgresSettings { dsn, pool_size_max: 4 }, "test").expect("a valid DSN");
        Self { owner: Owner::of(pool, 0).await, world }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_commits_once_and_again_only_by_its_id() {
    let Books { world, owner } = Books::new().await;
    let proposal = owner.proposal(0, 5);
    assert_eq!(owner.commit(&proposal).await.expect("balanced"), CommitOutcome::Committed);
    assert_eq!(
        owner.commit(&proposal).await.expect("looked up"),
        CommitOutcome::Committed,
        "outcome unknown: ask again"
    );
    assert_eq!(
        owner.commit(&owner.proposal(0, 5)).await.expect("no error"),
        CommitOutcome::Fenced,
        "the position moved on"
    );
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_fence_cannot_commit() {
    let Books { world: _world, owner } = Books::new().await;
    let proposal = owner.proposal(0, 5);
    let client = postgres::get(&owner.pool).await.expect("the catalog answers");
    install_fence(&client, &owner.key, Fence::generate(), "newer").await.expect("the catalog answers");
    assert_eq!(owner.commit(&proposal).await.expect("no error"), CommitOutcome::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_count_broken_by_hand_is_refused_before_the_database_is_asked() {
    let Books { world: _world, owner } = Books::new().await;
    let mut proposal = owner.proposal(0, 5);
    proposal.ledgers.offset(OffsetOutcome::Decoded, 1);
    let refused = owner.commit(&proposal).await;
    assert!(matches!(refused, Err(CommitError::Unbalanced { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_books_that_do_not_balance_and_overlapping_batches() {
    let Books { world, owner } = Books::new().await;
    assert_eq!(owner.commit(&owner.proposal(0, 5)).await.expect("balanced"), CommitOutcome::Committed);
    let catalog = world.catalog().await;
    let broken = catalog.batch_execute("UPDATE catalog.outcome_count SET item_count = item_count + 1").await;
    let broken = broken.expect_err("the trigger refuses");
    assert_eq!(broken.as_db_error().and_then(|error| error.constraint()), Some("books_balance"));
    let overlapping = catalog
        .execute(
            "INSERT INTO catalog.micro_batch (micro_batch_id, source_partition_id, offsets, state, fence, object_count, row_in_count, row_out_count)
             VALUES (gen_random_uuid(), $1, int8range(4, 6), 'live', $2, 0, 0, 0)",
            &[&owner.partition.0, &owner.fence.0],
        )
        .await
        .expect_err("the exclusion constraint refuses");
    assert_eq!(overlapping.as_db_error().and_then(|error| error.constraint()), Some("one_live_batch_per_offset"));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_told_apart_however_many_are_asked_for_at_once() {
    let Books { world: _world, owner } = Books::new().await;
    let location = |key: &str| ObjectLocation { bucket: "raw".to_owned(), key: key.to_owned() };
    let mut proposal = owner.proposal(0, 5);
    for (record, (key, version)) in [("a", "1"), ("a", "3"), ("b", "2")].into_iter().enumerate() {
        proposal.ledgers.object("things", ObjectOutcome::Emitted);
        proposal.totals.objects += 1;
        proposal.claims.push(ObjectClaim {
            version: ObjectVersion {
                location: location(key),
                version: version.to_owned(),
                etag: "etag".to_owned(),
                last_modified: chrono::DateTime::UNIX_EPOCH,
                size_bytes: 1,
            },
            message_offset: 0,
            record: record as i32,
            connector: "things".to_owned(),
            quarantined: false,
            announced_at: chrono::DateTime::UNIX_EPOCH,
            overwrite: Overwrite::Append,
        });
    }
    assert_eq!(owner.commit(&proposal).await.expect("balanced"), CommitOutcome::Committed);
    let question = |key: &str, versions: &[&str], replaced| ClaimQuestion {
        location: location(key),
        versions: versions.iter().map(|version| (*version).to_owned()).collect(),
        replaced,
    };
    let questions = [
        question("a", &["1", "2", "3"], None),
        question("b", &["1", "2", "3"], None),
        question("c", &["1"], None),
        question("a", &[], None),
        question("a", &["1", "3"], Some(proposal.id)),
        question("a", &["3"], Some(MicroBatchId::generate())),
    ];
    let client = postgres::get(&owner.pool).await.expect("the catalog answers");
    let claimed = async |group: &str| {
        let claimed = catalog::claimed(&client, &owner.key.cluster_id, group, &questions).await;
        claimed.expect("the catalog answers").into_iter().map(|versions| {
            let mut versions: Vec<String> = versions.into_iter().collect();
            versions.sort();
            versions.concat()
        })
    };
    let ours: Vec<String> = claimed(&owner.key.consumer_group).await.collect();
    assert_eq!(ours, ["13", "2", "", "", "", "3"]);
    assert!(claimed("another").await.all(|versions| versions.is_empty()));
}
