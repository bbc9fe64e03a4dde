//! Whether a bucket keeps versions, asked at most once in a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::s3::{S3Client, S3Error, Versioning};

/// Versioning is switched once in the life of a bucket, if at all.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct VersioningCache {
    known: Mutex<HashMap<String, (Versioning, Instant)>>,
}

impl VersioningCache {
    /// The answer, and whether it was remembered rather than asked for just now.
    pub(super) async fn of(&self, s3: &S3Client, bucket: &str) -> Result<(Versioning, bool), S3Error> {
        if let Some(versioning) = self.remembered(bucket, Instant::now()) {
            return Ok((versioning, true));
        }
        let versioning = s3.versioning(bucket).await?;
        self.remember(bucket, versioning, Instant::now());
        Ok((versioning, false))
    }

    pub(super) fn forget(&self, bucket: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(bucket);
    }

    fn remembered(&self, bucket: &str, now: Instant) -> Option<Versioning> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(bucket).filter(|(_, at)| now.duration_since(*at) < REMEMBERED_FOR).map(|(versioning, _)| *versioning)
    }

    fn remember(&self, bucket: &str, versioning: Versioning, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(bucket.to_owned(), (versioning, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_remembered_for_a_while() {
        let cache = VersioningCache::default();
        let start = Instant::now();
        cache.remember("raw", Versioning::Enabled, start);
        assert_eq!(cache.remembered("raw", start + Duration::from_secs(29)), Some(Versioning::Enabled));
        assert_eq!(cache.remembered("raw", start + Duration::from_secs(30)), None);
        assert_eq!(cache.remembered("lake", start), None);
        cache.forget("raw");
        assert_eq!(cache.remembered("raw", start), None);
    }
}
