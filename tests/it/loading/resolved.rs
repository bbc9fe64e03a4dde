//! Names instead of keys: which member the facts get, and that it stays.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice::client::postgres;
use sluice::client::rate::RequestRate;
use sluice::client::s3::{Pin, S3Client};
use sluice::config::{Connectors, load_connectors};
use sluice::load::{
    AnswerError, BatchToLoad, DimensionName, LoadOutcome, Loader, accept, merge, open_proposals, reject, unmerge,
};
use sluice::pipeline::{IndexPolicy, Resolver};

use super::fixtures::{Warehouse, live, transaction, user};

const AT: &str = "2026-11-23T10:00:00Z";
const PRODUCTS: [(&str, &str); 6] = [
    ("p-1", "Sony Turntable - PSLX350H"),
    ("p-2", "Bose Acoustimass 5 Speaker System - AM53BK"),
    ("p-3", "Wooden garden chair"),
    ("p-4", "Apple iPod Nano 4GB Silver"),
    ("p-5", "Logitech Wireless Keyboard"),
    ("p-6", "Kitchen Aid Stand Mixer"),
];

/// The shipped connectors, but transactions name their product or user where they have no key.
fn connectors() -> Connectors {
    let folder = std::env::temp_dir().join(format!("sluice-it-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&folder).expect("the temporary folder takes files");
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors");
    for entry in std::fs::read_dir(shipped).expect("a folder of the repository") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let text = if path.ends_with("transactions.yaml") {
            text.replacen(
                "schema:\n",
                "schema:\n  - {name: email, type: utf8}\n  - {name: product_name, type: utf8}\n  - {name: user_name, type: utf8}\n",
                1,
            )
            .replace("users: {key: user_id}", "users: {key: user_id, resolve: user_name, identifiers: [email]}")
            .replace("products: {key: product_id}", "products: {key: product_id, resolve: product_name}")
            .replace("name: user_id, type: utf8, required: true", "name: user_id, type: utf8")
        } else {
            text
        };
        std::fs::write(folder.join(path.file_name().expect("named")), text).expect("writable");
    }
    let connectors = load_connectors(&folder).unwrap_or_else(|errors| panic!("{errors}"));
    std::fs::remove_dir_all(&folder).expect("ours");
    connectors
}

struct Shop {
    warehouse: Warehouse,
    offset: i64,
}

impl Shop {
    async fn new() -> Self {
        let mut warehouse = Warehouse::new().await;
        warehouse.connectors = connectors();
        warehouse.loader =
            Loader::new(warehouse.pool.clone(), &warehouse.connectors).await.expect("the schema fits").into();
        let product = |(id, name): &(&str, &str)| json!({"product_id": id, "name": name, "updated_at": AT});
        let products: Vec<Value> = PRODUCTS.iter().map(product).collect();
        warehouse.load_rows(1, "products", &products).await;
        warehouse.load_rows(2, "users", &[user("u-1", "Ann Müller-Lüdenscheidt", AT)]).await;
        Self { warehouse, offset: 2 }
    }

    fn batch(&mut self, rows: &[Value]) -> BatchToLoad {
        self.offset += 1;
        self.warehouse.batch(self.offset, AT, &[("transactions", rows)])
    }

    /// By a process that has just started.
    async fn load(&self, mut batch: BatchToLoad) -> BatchToLoad {
        let resolver = Resolver::new(self.warehouse.pool.clone(), IndexPolicy::default());
        for part in &mut batch.parts {
            resolver.prepare(part).await.expect("resolves");
        }
        self.warehouse.load(&batch).await;
        batch
    }

    async fn load_named(&mut self, number: u64, product_name: &str) {
        let batch = self.batch(&[named(number, None, Some(product_name))]);
        self.load(batch).await;
    }

    /// Natural key of the product that a transaction points at.
    async fn product_of(&self, number: u64) -> String {
        let id = super::fixtures::uuid(number);
        let sql = format!(
            "SELECT product_id FROM warehouse.fact_transactions JOIN warehouse.dim_products USING (product_key) \
             WHERE transaction_id = '{id}'"
        );
        self.warehouse.value(&sql).await
    }

    async fn verdict(&self, spelling: &str) -> String {
        let sql = format!("SELECT verdict FROM warehouse.resolution_decision WHERE spelling = '{spelling}'");
        self.warehouse.value(&sql).await
    }
}

fn named(number: u64, product_id: Option<&str>, product_name: Option<&str>) -> Value {
    let mut row = transaction(number, "1.00", None);
    row["product_id"] = json!(product_id);
    row["product_name"] = json!(product_name);
    row
}

fn products() -> DimensionName {
    DimensionName::new("products").expect("a name")
}

#[tokio::test]
async fn names_find_their_member_and_no_fact_is_held_back() {
    let mut shop = Shop::new().await;
    let rows = [
        named(1, None, Some("SONY PS-LX350H belt drive turntable")),
        named(2, None, Some("Apple iPod Nano 16GB Silver")),
        named(3, None, Some("Xylophone")),
        named(4, Some("p-2"), Some("wooden garden chair")),
        named(5, Some(""), Some("wooden  GARDEN chair!")),
        named(6, None, None),
        named(7, None, Some(" – ")),
    ];
    let batch = shop.batch(&rows);
    let batch = shop.load(batch).await;
    let mut found = Vec::new();
    for number in 1..=7 {
        found.push(shop.product_of(number).await);
    }
    assert_eq!(found, ["p-1", "name:apple ipod nano 16gb silver", "name:xylophone", "p-2", "p-3", "", ""]);
    assert_eq!(shop.verdict("apple ipod nano 16gb silver").await, "review");
    assert_eq!(shop.verdict("xylophone").await, "new");
    let inferred = "SELECT concat(inferred, name) FROM warehouse.dim_products WHERE product_id = 'name:xylophone'";
    assert_eq!(shop.warehouse.value(inferred).await, "tXylophone");
    let again = shop.warehouse.loader.load(&batch, live).await.expect("loads");
    assert_eq!(again, LoadOutcome::AlreadyLoaded);
}

#[tokio::test]
async fn the_first_decision_stands_whatever_the_members_have_become() {
    let mut shop = Shop::new().await;
    shop.load_named(1, "sony pslx350h").await;
    let renamed = json!({"product_id": "p-1", "name": "something else", "updated_at": "2026-11-24T10:00:00Z"});
    let twin = json!({"product_id": "p-9", "name": "Sony PS LX350H", "updated_at": AT});
    shop.warehouse.load_rows(90, "products", &[renamed, twin]).await;
    shop.load_named(2, "Sony PSLX350H").await;
    assert_eq!([shop.product_of(1).await, shop.product_of(2).await], ["p-1", "p-1"]);
    shop.load_named(3, "Sony PS LX350H turntable").await;
    assert_eq!(shop.product_of(3).await, "p-9");
}

#[tokio::test]
async fn of_two_loaders_that_propose_otherwise_the_first_decides_for_both() {
    let mut shop = Shop::new().await;
    let mut batches = Vec::new();
    for (number, key) in [(1, "p-3"), (2, "p-5")] {
        let mut batch = shop.batch(&[named(number, None, Some("the thing"))]);
        Resolver::new(shop.warehouse.pool.clone(), IndexPolicy::default())
            .prepare(&mut batch.parts[0])
            .await
            .expect("resolves");
        for proposal in &mut batch.parts[0].proposals {
            (proposal.natural_key, proposal.verdict) = (key.to_owned(), "automatic");
        }
        batches.push(batch);
    }
    for batch in &batches {
        shop.warehouse.load(batch).await;
    }
    assert_eq!([shop.product_of(1).await, shop.product_of(2).await], ["p-3", "p-3"]);
}

#[tokio::test]
async fn users_are_only_proposed() {
    let mut shop = Shop::new().await;
    let mut row = transaction(1, "1.00", None);
    row["user_id"] = Value::Null;
    row["user_name"] = json!("ann muller ludenscheidt");
    let batch = shop.batch(&[row]);
    shop.load(batch).await;
    let user = "SELECT user_id FROM warehouse.fact_transactions JOIN warehouse.dim_users USING (user_key)";
    assert_eq!(shop.warehouse.value(user).await, "name:ann muller ludenscheidt");
    let proposed = "SELECT concat(verdict, ' ', proposed_key) FROM warehouse.resolution_decision";
    assert_eq!(shop.warehouse.value(proposed).await, "review u-1");
}

#[tokio::test]
async fn an_accepted_proposal_merges_the_member_and_parting_takes_it_back() {
    let mut shop = Shop::new().await;
    shop.load_named(1, "Apple iPod Nano 16GB Silver").await;
    let mut client = postgres::get(&shop.warehouse.pool).await.expect("connects");
    let open = open_proposals(&client, "products", 10).await.expect("reads");
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].proposed_key.as_deref(), Some("p-4"));
    let into = accept(&mut client, &products(), &open[0].spelling, None, "test").await.expect("accepts");
    assert_eq!(into, "p-4");
    assert!(open_proposals(&client, "products", 10).await.expect("reads").is_empty());
    let now = "SELECT p.product_id FROM warehouse.fact_transactions f JOIN warehouse.product_now n ON n.fact_key = f.product_key \
               JOIN warehouse.dim_products p ON p.product_key = n.member_key";
    assert_eq!(shop.warehouse.value(now).await, "p-4");
    assert_eq!(shop.product_of(1).await, "name:apple ipod nano 16gb silver");
    let refused = accept(&mut client, &products(), &open[0].spelling, None, "test").await.expect_err("answered");
    assert!(matches!(refused, AnswerError::Answered { .. }), "{refused}");
    unmerge(&mut client, &products(), "name:apple ipod nano 16gb silver", "test").await.expect("parts");
    assert_eq!(shop.warehouse.value(now).await, "name:apple ipod nano 16gb silver");
    let history = "SELECT count(*) FROM warehouse.member_merge WHERE undone_at IS NOT NULL";
    assert_eq!(shop.warehouse.value(history).await, "1");
    assert_eq!(shop.warehouse.value("SELECT count(*) FROM warehouse.alias").await, "0");
    // the question is open again
    let open = open_proposals(&client, "products", 10).await.expect("reads");
    assert_eq!(open.len(), 1);
    let into = accept(&mut client, &products(), &open[0].spelling, Some("p-5"), "test").await.expect("accepts");
    assert_eq!(into, "p-5");
}

#[tokio::test]
async fn a_rejected_proposal_keeps_its_own_member_and_merges_make_no_chains() {
    let mut shop = Shop::new().await;
    shop.load_named(1, "Apple iPod Nano 16GB Silver").await;
    let mut client = postgres::get(&shop.warehouse.pool).await.expect("connects");
    reject(&mut client, &products(), "apple ipod nano 16gb silver", "test").await.expect("rejects");
    assert!(open_proposals(&client, "products", 10).await.expect("reads").is_empty());
    merge(&mut client, &products(), "p-5", "p-6", "one thing", "test").await.expect("merges");
    let chain = merge(&mut client, &products(), "p-1", "p-5", "no", "test").await.expect_err("p-5 is merged");
    assert!(matches!(chain, AnswerError::Merged { .. }), "{chain}");
    let chain = merge(&mut client, &products(), "p-6", "p-1", "no", "test").await.expect_err("p-6 has p-5");
    assert!(matches!(chain, AnswerError::HasMerged { .. }), "{chain}");
    let itself = merge(&mut client, &products(), "p-1", "p-1", "no", "test").await.expect_err("itself");
    assert!(matches!(itself, AnswerError::Itself), "{itself}");
    let unknown = merge(&mut client, &products(), "", "p-1", "no", "test").await.expect_err("the unknown member");
    assert!(matches!(unknown, AnswerError::NoMember { .. }), "{unknown}");
}

#[tokio::test]
async fn an_identifier_that_one_member_has_decides_even_about_users() {
    let mut shop = Shop::new().await;
    let twin = |id: &str, name: &str, email: &str| json!({"user_id": id, "name": name, "email": email, "source": "crm", "updated_at": AT});
    let users =
        [twin("u-7", "Bob", "b@b.example"), twin("u-8", "Eve", "same@b.example"), twin("u-9", "Eve", "same@b.example")];
    shop.warehouse.load_rows(70, "users", &users).await;
    let row = |number: u64, email: &str| {
        let mut row = transaction(number, "1.00", None);
        row["user_id"] = Value::Null;
        row["user_name"] = json!("Somebody Else");
        row["email"] = json!(email);
        row
    };
    let batch = shop.batch(&[row(1, "b@b.example"), row(2, "same@b.example"), row(3, "nobody@b.example")]);
    shop.load(batch).await;
    let users = "SELECT u.user_id FROM warehouse.fact_transactions JOIN warehouse.dim_users u USING (user_key) ORDER BY transaction_id";
    let users: Vec<String> = shop.warehouse.column(users).await.into_iter().flatten().collect();
    assert_eq!(users, ["u-7", "name:somebody else", "name:somebody else"]);
    let kept = "SELECT count(*) FROM warehouse.resolution_decision d WHERE d::text LIKE '%b.example%'";
    assert_eq!(shop.warehouse.value(kept).await, "0");

    // a second member with the value does not take the rows away
    shop.warehouse.load_rows(71, "users", &[twin("u-10", "Bob", "b@b.example")]).await;
    let batch = shop.batch(&[row(4, "b@b.example")]);
    shop.load(batch).await;
    let last = "SELECT u.user_id FROM warehouse.fact_transactions JOIN warehouse.dim_users u USING (user_key) \
                ORDER BY transaction_id DESC LIMIT 1";
    assert_eq!(shop.warehouse.value(last).await, "u-7");
}

/// What one process sees of members that changed after it had read them.
#[tokio::test]
async fn members_that_came_were_completed_renamed_or_merged_later_are_seen_by_a_process_that_runs() {
    let mut shop = Shop::new().await;
    let policy = IndexPolicy { changes_interval: std::time::Duration::ZERO, ..IndexPolicy::default() };
    let resolver = Resolver::new(shop.warehouse.pool.clone(), policy);
    let batch = shop.batch(&[transaction(1, "1.00", None), named(2, Some("p-9"), None)]);
    shop.load(batch).await;
    let names = ["xylophone qx9", "harp hx4", "wooden garden chair"];
    let batch = shop.batch(&names.map(|name| named(3, None, Some(name))));
    assert_eq!(keys(&resolver, &batch).await["xylophone qx9"], "name:xylophone qx9");

    let completed = json!({"product_id": "p-9", "name": "Xylophone QX9", "updated_at": AT});
    let renamed = json!({"product_id": "p-2", "name": "Harp HX4", "updated_at": "2026-11-24T10:00:00Z"});
    shop.warehouse.load_rows(91, "products", &[completed, renamed]).await;
    let mut client = postgres::get(&shop.warehouse.pool).await.expect("connects");
    merge(&mut client, &products(), "p-3", "p-6", "one thing", "test").await.expect("merges");
    let found = keys(&resolver, &batch).await;
    assert_eq!((found["xylophone qx9"].as_str(), found["harp hx4"].as_str()), ("p-9", "p-2"));
    assert_ne!(found["wooden garden chair"], "p-3", "it is merged into another");
}

#[tokio::test]
async fn rarity_is_counted_over_the_members_that_there_are_not_over_those_at_the_start() {
    let mut warehouse = Warehouse::new().await;
    warehouse.connectors = connectors();
    warehouse.loader =
        Loader::new(warehouse.pool.clone(), &warehouse.connectors).await.expect("the schema fits").into();
    let mut shop = Shop { warehouse, offset: 0 };
    let resolver = Resolver::new(shop.warehouse.pool.clone(), IndexPolicy::default());
    let batch = shop.batch(&[named(1, None, Some("Bose TV black"))]);
    let before = keys(&resolver, &batch).await;
    assert_eq!(before["bose tv black"], "name:bose tv black");
    let product =
        |(place, name): (usize, String)| json!({"product_id": format!("c-{place}"), "name": name, "updated_at": AT});
    let others = (0..40).map(|number| [format!("Loewe TV white {number}"), format!("Garden chair black {number}")]);
    let names = ["Sony TV black".to_owned()].into_iter().chain(others.flatten());
    let rows: Vec<Value> = names.enumerate().map(product).collect();
    shop.warehouse.load_rows(81, "products", &rows).await;
    let fresh = Resolver::new(shop.warehouse.pool.clone(), IndexPolicy::default());
    let wanted = keys(&fresh, &batch).await;
    assert_eq!(wanted["bose tv black"], "name:bose tv black", "not the only other black one");
    assert_eq!(keys(&resolver, &batch).await, wanted);
}

#[tokio::test]
async fn an_alias_decides_before_any_candidate() {
    let mut shop = Shop::new().await;
    let alias = "INSERT INTO warehouse.alias VALUES ('products', 'the noisy one', 'p-6', 'test')";
    shop.warehouse.execute(alias).await.expect("writes");
    shop.load_named(1, "The NOISY one").await;
    assert_eq!(shop.product_of(1).await, "p-6");
    assert_eq!(shop.verdict("the noisy one").await, "alias");
}

/// Two processes: one makes the trees and keeps them, the other takes them; both and the exact scan decide alike.
#[tokio::test]
async fn an_index_is_made_once_kept_on_the_lake_and_decides_as_the_exact_scan() {
    let mut shop = Shop::new().await;
    let catalogue = sluice::resolve::catalogue(300, 60);
    let product =
        |(place, name): (usize, &String)| json!({"product_id": format!("c-{place}"), "name": name, "updated_at": AT});
    let rows: Vec<Value> = catalogue.reference.iter().enumerate().map(product).collect();
    shop.warehouse.load_rows(80, "products", &rows).await;
    let s3 = S3Client::new("lake", &crate::objects::endpoint(), RequestRate::default());
    let bucket = format!("indexes-{}", uuid::Uuid::new_v4().simple());
    s3.sdk().create_bucket().bucket(&bucket).send().await.expect("a new bucket");
    let snapshots = Some((s3.clone(), bucket.clone()));
    let policy = IndexPolicy { exact_members_max: 100, snapshots, ..IndexPolicy::default() };
    let names = catalogue.queries.iter().enumerate();
    let rows: Vec<Value> = names.map(|(number, name)| named(number as u64, None, Some(name))).collect();
    let batch = shop.batch(&rows);
    let exact = Resolver::new(shop.warehouse.pool.clone(), IndexPolicy::default());
    let wanted = keys(&exact, &batch).await;
    assert!(wanted.values().filter(|key| key.starts_with("c-")).count() > 20, "{wanted:?}");
    let leader = postgres::get(&shop.warehouse.pool).await.expect("connects");
    for process in 0..2 {
        if process == 1 {
            // nobody else may make trees: it can but take what the first has kept
            let lock = "SELECT pg_advisory_lock(x'736c7569'::int, hashtext('products/name'))";
            leader.execute(lock, &[]).await.expect("the first is done");
        }
        let resolver = Resolver::new(shop.warehouse.pool.clone(), policy.clone());
        // without its index yet, or with it
        assert_eq!(keys(&resolver, &batch).await, wanted);
        crate::stack::wait_for("the trees", || resolver.has_trees("products")).await;
        assert_eq!(keys(&resolver, &batch).await, wanted);
    }
    assert!(s3.head(&bucket, "_resolve/products/name/current", Pin::default()).await.is_ok());
}

/// What the resolver proposes for each spelling.
async fn keys(resolver: &Resolver, batch: &BatchToLoad) -> BTreeMap<String, String> {
    let mut part = batch.parts[0].clone();
    resolver.prepare(&mut part).await.expect("resolves");
    part.proposals.into_iter().map(|proposal| (proposal.spelling, proposal.natural_key)).collect()
}
