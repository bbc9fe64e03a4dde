//! Faults on the real servers: processes die and freeze at every fail point, connections break at COMMIT,
//! requests go wrong, servers restart. Afterwards nothing is lost, doubled, invented or stale.
//!
//! `make chaos ROUNDS=…` deals as many faults as asked for; `make test` runs a fixed set. Everything that is
//! chosen comes from a seed, which the table names: `CHAOS_SEED=… make chaos ROUNDS=…` chooses the same again.

#[path = "../it/checker.rs"]
#[allow(dead_code, reason = "shared with tests/it: each uses a part of it")]
mod checker;
mod fault;
#[path = "../it/histories.rs"]
#[allow(dead_code, reason = "shared with tests/it: each uses a part of it")]
mod histories;
mod load;
mod process;
mod proxy;
mod report;
mod rounds;
#[path = "../it/stack.rs"]
#[allow(dead_code, reason = "shared with tests/it: each uses a part of it")]
mod stack;
#[path = "../it/variants.rs"]
#[allow(dead_code, reason = "shared with tests/it: each uses a part of it")]
mod variants;
mod zombie;

use tokio::sync::{Mutex, MutexGuard};

/// One test at a time: servers are restarted, and frozen processes are timed.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}
