//! How many requests a second this process sends to one server: a token bucket shared by all clones.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// A limit in requests a second, or none. Clones share the limit.
#[derive(Clone, Default)]
pub struct RequestRate {
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
}

impl RequestRate {
    /// `None` or 0: no limit. Up to one second's requests may go out at once after a pause.
    pub fn new(requests_per_s: Option<u32>) -> Self {
        let limiter = requests_per_s
            .and_then(NonZeroU32::new)
            .map(|limit| Arc::new(RateLimiter::direct(Quota::per_second(limit))));
        Self { limiter }
    }

    /// Waits until one more request may go out, and counts it. Cancellation: may be dropped at any time;
    /// a request that was not counted is not sent.
    pub async fn until_ready(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.until_ready().await;
        }
    }
}

impl fmt::Debug for RequestRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestRate").field("limited", &self.limiter.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn no_limit_never_waits() {
        let started = Instant::now();
        for rate in [RequestRate::new(None), RequestRate::new(Some(0))] {
            for _ in 0..10_000 {
                rate.until_ready().await;
            }
        }
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn clones_share_the_limit() {
        let rate = RequestRate::new(Some(50));
        let clone = rate.clone();
        let started = Instant::now();
        // 50 at once, then one every 20 ms
        for _ in 0..30 {
            rate.until_ready().await;
            clone.until_ready().await;
        }
        assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
    }
}
