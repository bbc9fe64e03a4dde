//! The checker of every test, for a warehouse of these.

use sluice::client::postgres;

use super::fixtures::Warehouse;

pub(super) async fn check(warehouse: &Warehouse) {
    crate::checker::check(&postgres::get(&warehouse.pool).await.expect("connects")).await;
}
