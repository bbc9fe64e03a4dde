//! Which object versions this process is reading or has read and not yet committed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::types::ObjectLocation;

type Table = Arc<Mutex<HashMap<ObjectLocation, KeyState>>>;

/// Clones share the table.
#[derive(Debug, Clone, Default)]
pub(super) struct Reservations {
    table: Table,
}

/// Kept while somebody resolves, reads or has read a version of the key.
#[derive(Debug, Default)]
struct KeyState {
    resolving: Arc<tokio::sync::Mutex<()>>,
    /// Locks held or awaited.
    user_count: usize,
    /// How often each version is reserved.
    reserved: HashMap<String, usize>,
}

impl Reservations {
    /// Waits until nobody else resolves this key.
    pub(super) async fn lock(&self, location: &ObjectLocation) -> KeyLock {
        let resolving = {
            let mut table = entries(&self.table);
            let state = table.entry(location.clone()).or_default();
            state.user_count += 1;
            Arc::clone(&state.resolving)
        };
        // made before the wait, so that a dropped wait is counted back
        let user = User { table: Arc::clone(&self.table), location: location.clone() };
        KeyLock { _guard: resolving.lock_owned().await, user }
    }
}

/// The right to resolve one key, until dropped.
pub(super) struct KeyLock {
    _guard: OwnedMutexGuard<()>,
    user: User,
}

impl KeyLock {
    /// Versions of the key that are reserved now.
    pub(super) fn reserved(&self) -> HashSet<String> {
        let table = entries(&self.user.table);
        table.get(&self.user.location).map(|state| state.reserved.keys().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn reserve(&self, version: &str) -> Reservation {
        Reservation::make(&self.user.table, &self.user.location, version)
    }
}

struct User {
    table: Table,
    location: ObjectLocation,
}

impl Drop for User {
    fn drop(&mut self) {
        let mut table = entries(&self.table);
        if let Some(state) = table.get_mut(&self.location) {
            state.user_count -= 1;
        }
        forget_if_idle(&mut table, &self.location);
    }
}

/// That a version is being read, or was read by a micro-batch that is not committed yet. Keep it until the
/// micro-batch is committed or dropped; dropping it sets the version free.
#[must_use]
pub struct Reservation {
    table: Table,
    location: ObjectLocation,
    version: String,
}

impl Reservation {
    fn make(table: &Table, location: &ObjectLocation, version: &str) -> Self {
        let mut keys = entries(table);
        *keys.entry(location.clone()).or_default().reserved.entry(version.to_owned()).or_default() += 1;
        drop(keys);
        Self { table: Arc::clone(table), location: location.clone(), version: version.to_owned() }
    }

    /// One more of the same.
    pub(super) fn again(&self) -> Self {
        Self::make(&self.table, &self.location, &self.version)
    }

    /// The version turned out to be this one.
    pub(super) fn rename(&mut self, version: &str) {
        *self = Self::make(&self.table, &self.location, version);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut table = entries(&self.table);
        if let Some(state) = table.get_mut(&self.location)
            && let Some(count) = state.reserved.get_mut(&self.version)
        {
            *count -= 1;
            if *count == 0 {
                state.reserved.remove(&self.version);
            }
        }
        forget_if_idle(&mut table, &self.location);
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation")
            .field("location", &self.location)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

fn forget_if_idle(table: &mut HashMap<ObjectLocation, KeyState>, location: &ObjectLocation) {
    if table.get(location).is_some_and(|state| state.user_count == 0 && state.reserved.is_empty()) {
        table.remove(location);
    }
}

/// Nothing panics while it holds the table; were it so, the counts would still be whole.
fn entries(table: &Table) -> MutexGuard<'_, HashMap<ObjectLocation, KeyState>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn location(key: &str) -> ObjectLocation {
        ObjectLocation { bucket: "raw".into(), key: key.into() }
    }

    #[tokio::test]
    async fn a_version_stays_reserved_until_its_last_holder_is_gone() {
        let reservations = Reservations::default();
        let key = reservations.lock(&location("a")).await;
        let first = key.reserve("v1");
        let second = key.reserve("v1");
        assert_eq!(key.reserved(), HashSet::from(["v1".to_owned()]));
        drop(first);
        assert_eq!(key.reserved().len(), 1);
        drop(second);
        assert!(key.reserved().is_empty());
        drop(key);
        assert!(entries(&reservations.table).is_empty());
    }

    #[tokio::test]
    async fn renaming_moves_the_reservation() {
        let reservations = Reservations::default();
        let key = reservations.lock(&location("a")).await;
        let mut reservation = key.reserve("");
        reservation.rename("etag@time");
        assert_eq!(key.reserved(), HashSet::from(["etag@time".to_owned()]));
    }

    #[tokio::test]
    async fn one_key_is_resolved_by_one_at_a_time_and_others_do_not_wait() {
        let reservations = Reservations::default();
        let inside = Arc::new(AtomicUsize::new(0));
        let held_elsewhere = reservations.lock(&location("other")).await;
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (reservations, inside) = (reservations.clone(), Arc::clone(&inside));
                tokio::spawn(async move {
                    let key = reservations.lock(&location("a")).await;
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(key);
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no task panics");
        }
        drop(held_elsewhere);
        assert!(entries(&reservations.table).is_empty());
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_leaves_nothing_behind() {
        let reservations = Reservations::default();
        let key = location("a");
        let held = reservations.lock(&key).await;
        let mut waiting = Box::pin(reservations.lock(&key));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(waiting);
        drop(held);
        assert!(entries(&reservations.table).is_empty());
    }
}
