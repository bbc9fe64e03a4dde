//! What to do when a server does not answer: try again, later and later, for ever or to a deadline.
//!
//! # Retries
//! Only [`ErrorKind::Transient`] is tried again; any other error returns at once. Waits grow
//! exponentially to a cap, each with jitter, so that many processes do not come back together.
//!
//! # Cancellation
//! The operation itself is never interrupted: a stop signal ends the waiting between two tries and
//! the last error returns. Dropping the future drops the running try.
//!
//! The only user of the crate `backoff`.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{ErrorKind, chain};
use crate::telemetry::metrics;

/// The first wait is logged, then the log falls silent for this long, doubling up to [`LOG_INTERVAL_MAX`].
const LOG_INTERVAL_MIN: Duration = Duration::from_secs(5);
const LOG_INTERVAL_MAX: Duration = Duration::from_mins(5);

/// How long to wait between tries, and when to give up. The default: 100 ms doubling to 15 s, for ever.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Mean of the first wait.
    pub wait_min: Duration,
    /// Mean of the longest wait.
    pub wait_max: Duration,
    /// Counted from the first try; `None`: for ever. No try starts after it.
    pub deadline: Option<Duration>,
    /// Give up with the last error as soon as this is true or its sender is gone.
    pub stop: Option<watch::Receiver<bool>>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { wait_min: Duration::from_millis(100), wait_max: Duration::from_secs(15), deadline: None, stop: None }
    }
}

impl RetryPolicy {
    /// For start-up: gives up when `deadline` has passed.
    pub fn until(deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    /// For ever, or until `stop` becomes true.
    pub fn unless(stop: watch::Receiver<bool>) -> Self {
        Self { stop: Some(stop), ..Self::default() }
    }
}

/// Runs `operation` until it succeeds, fails with anything but [`ErrorKind::Transient`], or the policy ends it.
/// `component` is the label of `sluice_retries_total` and `sluice_errors_total`. An error that is retried is
/// handled here: logged (at first, then ever more seldom) and counted; the error that returns is the caller's.
pub async fn retry<T, E, F, Fut>(
    policy: &RetryPolicy,
    component: &'static str,
    kind_of: impl Fn(&E) -> ErrorKind,
    mut operation: F,
) -> Result<T, E>
where
    E: Error + 'static,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut waits = ExponentialBackoffBuilder::new()
        .with_initial_interval(policy.wait_min)
        .with_max_interval(policy.wait_max)
        .with_multiplier(2.0)
        .with_randomization_factor(0.5)
        .with_max_elapsed_time(None)
        .build();
    let started = Instant::now();
    let mut complaints = Complaints::default();
    let mut attempt = 1_u64;
    loop {
        let error = match operation().await {
            Ok(value) => {
                complaints.over(component, attempt);
                return Ok(value);
            }
            Err(error) if kind_of(&error) != ErrorKind::Transient => return Err(error),
            Err(error) => error,
        };
        let wait = waits.next_backoff().unwrap_or(policy.wait_max);
        let too_late = policy.deadline.is_some_and(|deadline| started.elapsed() + wait > deadline);
        if too_late || is_stopped(policy) {
            return Err(error);
        }
        complaints.about(component, attempt, &error);
        metrics().errors.with_label_values(&[component, ErrorKind::Transient.as_str()]).inc();
        if !wait_unless_stopped(policy, wait).await {
            return Err(error);
        }
        metrics().retries.with_label_values(&[component]).inc();
        attempt += 1;
    }
}

fn is_stopped(policy: &RetryPolicy) -> bool {
    policy.stop.as_ref().is_some_and(|stop| *stop.borrow())
}

/// False where the stop signal ended the wait.
async fn wait_unless_stopped(policy: &RetryPolicy, wait: Duration) -> bool {
    let Some(mut stop) = policy.stop.clone() else {
        tokio::time::sleep(wait).await;
        return true;
    };
    tokio::select! {
        () = tokio::time::sleep(wait) => true,
        _ = stop.wait_for(|stopped| *stopped) => false,
    }
}

/// When to say something about an operation that keeps failing.
#[derive(Default)]
struct Complaints {
    silent_until: Option<Instant>,
    silence: Duration,
}

impl Complaints {
    fn about(&mut self, component: &'static str, attempt: u64, error: &(dyn Error + 'static)) {
        let now = Instant::now();
        if self.silent_until.is_some_and(|until| now < until) {
            return;
        }
        tracing::warn!(component, attempt, error = %chain(error), "trying again");
        self.silence = (self.silence * 2).clamp(LOG_INTERVAL_MIN, LOG_INTERVAL_MAX);
        self.silent_until = Some(now + self.silence);
    }

    fn over(&self, component: &'static str, attempt: u64) {
        if self.silent_until.is_some() {
            tracing::info!(component, attempt, "succeeded after retries");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed with kind {}", .0.as_str())]
    struct Failed(ErrorKind);

    fn fast() -> RetryPolicy {
        RetryPolicy { wait_min: Duration::from_millis(1), wait_max: Duration::from_millis(4), ..RetryPolicy::default() }
    }

    async fn count_tries(policy: &RetryPolicy, kind: ErrorKind, succeed_at: u32) -> (u32, Result<u32, Failed>) {
        let tries = AtomicU32::new(0);
        let result = retry(
            policy,
            "test",
            |error: &Failed| error.0,
            || async {
                let this = tries.fetch_add(1, Ordering::Relaxed) + 1;
                if this >= succeed_at { Ok(this) } else { Err(Failed(kind)) }
            },
        )
        .await;
        (tries.load(Ordering::Relaxed), result)
    }

    #[tokio::test]
    async fn transient_errors_are_tried_until_they_stop() {
        let before = metrics().retries.with_label_values(&["test"]).get();
        let (tries, result) = count_tries(&fast(), ErrorKind::Transient, 6).await;
        assert_eq!((tries, result.expect("succeeds at the sixth try")), (6, 6));
        assert!(metrics().retries.with_label_values(&["test"]).get() >= before + 5);
    }

    #[tokio::test]
    async fn other_errors_return_at_once() {
        for kind in [ErrorKind::Poison, ErrorKind::Fenced, ErrorKind::Invalid, ErrorKind::Halt] {
            let (tries, result) = count_tries(&fast(), kind, 2).await;
            assert_eq!(tries, 1);
            assert_eq!(result.expect_err("not retried").0, kind);
        }
    }

    #[tokio::test]
    async fn the_deadline_ends_it() {
        let policy = RetryPolicy { deadline: Some(Duration::from_millis(40)), ..fast() };
        let started = Instant::now();
        let (tries, result) = count_tries(&policy, ErrorKind::Transient, u32::MAX).await;
        assert!(result.is_err() && tries > 1, "{tries}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_stop_signal_ends_the_wait() {
        let (sender, stop) = watch::channel(false);
        let policy = RetryPolicy {
            wait_min: Duration::from_mins(10),
            wait_max: Duration::from_mins(10),
            ..RetryPolicy::unless(stop)
        };
        let waiting = count_tries(&policy, ErrorKind::Transient, u32::MAX);
        let (outcome, ()) = tokio::join!(waiting, async move {
            sender.send_replace(true);
            drop(sender);
        });
        assert_eq!(outcome.0, 1);
        assert!(outcome.1.is_err());
    }

    #[tokio::test]
    async fn nothing_is_tried_again_after_the_stop() {
        let (_sender, stop) = watch::channel(true);
        let (tries, result) = count_tries(&RetryPolicy::unless(stop), ErrorKind::Transient, u32::MAX).await;
        assert!(result.is_err());
        assert_eq!(tries, 1);
    }
}
