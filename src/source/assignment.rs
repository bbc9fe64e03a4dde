//! Where an assigned topic partition starts: a pure decision over what was observed.
//!
//! The observer installs a new fence first and reads second, so whatever it read cannot be moved by
//! an older owner afterwards (FENCE-1). The table:
//!
//! | committed offset | decision |
//! |---|---|
//! | tag ours, fence in the history | start at the catalog's `next_offset` |
//! | tag ours, fence unknown (the catalog was restored) | start at min(catalog, Kafka); where that lies in committed ranges it is a replay |
//! | none | the catalog's `next_offset`, else the start of the log |
//! | no or foreign tag, before `end` | an operator's replay up to `end` |
//! | no or foreign tag, at `end` | start there; ends a replay under way |
//! | no or foreign tag, behind `end` | skip `[end, offset)`, then start; ends a replay under way |
//! | log ends before `end`, other cluster, other message at the last known offset | halt |
//! | offsets behind `end` are gone from the log | halt: they can be skipped only by an operator's reset |
//!
//! In a replay the position lies before `end`; messages that the log no longer has there are carried over.

use std::fmt;

use crate::telemetry::guarded;
use crate::types::OffsetRange;

/// Tag of the offsets that Sluice commits: `v1;cat=<uuid>;fence=<uuid>;batch=<uuid>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetTag {
    pub catalog_id: uuid::Uuid,
    pub fence: uuid::Uuid,
    /// Nil where no micro-batch was committed yet.
    pub batch: uuid::Uuid,
}

impl fmt::Display for OffsetTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1;cat={};fence={};batch={}", self.catalog_id, self.fence, self.batch)
    }
}

impl OffsetTag {
    /// `None` for anything that is not exactly such a tag.
    pub fn parse(metadata: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(metadata).ok()?;
        let mut parts = text.split(';');
        if parts.next()? != "v1" {
            return None;
        }
        let mut field =
            |name: &str| -> Option<uuid::Uuid> { parts.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok() };
        let tag = Self { catalog_id: field("cat")?, fence: field("fence")?, batch: field("batch")? };
        parts.next().is_none().then_some(tag)
    }
}

/// What the group has committed, seen from this catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    None,
    /// Carries our catalog's tag.
    Ours {
        offset: i64,
        fence_known: bool,
    },
    /// No tag, or another catalog's: an operator or another program wrote it.
    Foreign {
        offset: i64,
    },
}

impl Committed {
    /// `tag`: what the offset's metadata says; `fence_known`: whether its fence stands in the catalog's history.
    pub fn of(offset: Option<i64>, tag: Option<&OffsetTag>, catalog_id: uuid::Uuid, fence_known: bool) -> Self {
        let is_ours = tag.is_some_and(|tag| tag.catalog_id == catalog_id);
        match offset {
            None => Self::None,
            Some(offset) if !guarded!("tag") => Self::Ours { offset, fence_known: true },
            Some(offset) if is_ours => Self::Ours { offset, fence_known },
            Some(offset) => Self::Foreign { offset },
        }
    }
}

/// What was found at the last message that the catalog knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// No message known, or it is no longer in the log.
    Unknown,
    Same,
    Differs,
}

/// Everything the decision rests on, read after the fence was installed.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// `source_partition.next_offset`.
    pub next_offset: Option<i64>,
    /// End of the last live or skipped range.
    pub end: Option<i64>,
    pub committed: Committed,
    /// First offset in the log, and the first not yet readable.
    pub log_first: i64,
    pub log_end: i64,
    pub identity: Identity,
    /// The catalog knows this group and topic partition under another cluster's id.
    pub other_cluster: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The catalog's position; before `end` where a replay goes on.
    Start {
        at: i64,
    },
    /// Move the position back to `requested` (aligned to a micro-batch) and read up to `until` again.
    Replay {
        requested: i64,
        until: i64,
    },
    /// Leave the rest of a replay as it is, start at the end.
    Cancel {
        at: i64,
    },
    /// Record the range as skipped, then start at its end. Ends a replay under way.
    Skip {
        range: OffsetRange,
    },
    Halt(HaltReason),
}

/// Why a topic partition stands still until a human acts. `label` is the metric's, the text says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaltReason {
    LogTruncated {
        next_offset: i64,
        log_end: i64,
    },
    LogExpired {
        next_offset: i64,
        log_first: i64,
    },
    TopicRecreated {
        next_offset: i64,
    },
    OtherCluster,
    /// A bug: the database refused what the code believed impossible.
    InvariantViolated(String),
}

impl HaltReason {
    /// Every label.
    pub const LABELS: &[&str] =
        &["log_truncated", "log_expired", "topic_recreated", "other_cluster", "invariant_violated"];

    pub fn label(&self) -> &'static str {
        match self {
            Self::LogTruncated { .. } => "log_truncated",
            Self::LogExpired { .. } => "log_expired",
            Self::TopicRecreated { .. } => "topic_recreated",
            Self::OtherCluster => "other_cluster",
            Self::InvariantViolated(_) => "invariant_violated",
        }
    }
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogTruncated { next_offset, log_end } => write!(
                f,
                "the log ends at {log_end}, but everything up to {next_offset} is committed: the topic lost \
                 messages or was recreated; give it another name, or use another group"
            ),
            Self::LogExpired { next_offset, log_first } => write!(
                f,
                "offsets {next_offset} to {log_first} were deleted before they were read: raise the topic's \
                 retention; to go on without them reset the group's offset to {log_first}, which records them as skipped"
            ),
            Self::TopicRecreated { next_offset } => write!(
                f,
                "the message before offset {next_offset} is not the one that was committed: the topic was \
                 recreated; give it another name, or use another group"
            ),
            Self::OtherCluster => write!(
                f,
                "the catalog knows this group and topic from another Kafka cluster: use another group for this one"
            ),
            Self::InvariantViolated(what) => write!(f, "an invariant does not hold, please report it: {what}"),
        }
    }
}

/// The decision table above. Total: every observation has exactly one answer.
pub fn decide(observed: &Observed) -> Decision {
    if observed.other_cluster {
        return Decision::Halt(HaltReason::OtherCluster);
    }
    let covered = observed.end.or(observed.next_offset);
    if let Some(next_offset) = covered {
        if observed.log_end < next_offset {
            return Decision::Halt(HaltReason::LogTruncated { next_offset, log_end: observed.log_end });
        }
        if observed.identity == Identity::Differs {
            return Decision::Halt(HaltReason::TopicRecreated { next_offset });
        }
    }
    // a topic partition never seen before counts as covered up to the start of its log
    let end = covered.unwrap_or(observed.log_first);
    let position = observed.next_offset.unwrap_or(end);
    match observed.committed {
        Committed::Foreign { offset } if offset > end => skip(offset, end, observed.log_end),
        // offsets that no commit covers are gone: only a reset beyond them goes on
        _ if end < observed.log_first => {
            Decision::Halt(HaltReason::LogExpired { next_offset: end, log_first: observed.log_first })
        }
        Committed::Foreign { offset } if offset < end && covered.is_some() => {
            Decision::Replay { requested: offset, until: end }
        }
        Committed::Foreign { .. } if position < end => Decision::Cancel { at: end },
        Committed::Ours { offset, fence_known: false } if offset < position && covered.is_some() => {
            Decision::Replay { requested: offset, until: end }
        }
        Committed::None | Committed::Ours { .. } | Committed::Foreign { .. } => Decision::Start { at: position },
    }
}

fn skip(offset: i64, end: i64, log_end: i64) -> Decision {
    match OffsetRange::new(end, offset) {
        Some(range) if offset <= log_end => Decision::Skip { range },
        _ => Decision::Halt(HaltReason::LogTruncated { next_offset: offset, log_end }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        Observed {
            next_offset: Some(50),
            end: Some(50),
            committed: Committed::Ours { offset: 50, fence_known: true },
            log_first: 0,
            log_end: 80,
            identity: Identity::Same,
            other_cluster: false,
        }
    }

    #[test]
    fn a_restart_goes_on_where_the_catalog_stands_whatever_kafka_says() {
        for offset in [0, 40, 50, 60] {
            let committed = Committed::Ours { offset, fence_known: true };
            assert_eq!(decide(&Observed { committed, ..observed() }), Decision::Start { at: 50 });
        }
    }

    #[test]
    fn an_expired_group_offset_goes_on_where_the_catalog_stands() {
        let seen = Observed { committed: Committed::None, ..observed() };
        assert_eq!(decide(&seen), Decision::Start { at: 50 });
    }

    #[test]
    fn a_topic_partition_never_seen_starts_at_the_start_of_its_log() {
        let seen = Observed {
            next_offset: None,
            end: None,
            committed: Committed::None,
            identity: Identity::Unknown,
            log_first: 7,
            ..observed()
        };
        assert_eq!(decide(&seen), Decision::Start { at: 7 });
    }

    #[test]
    fn a_restored_catalog_goes_on_where_it_stands_itself() {
        let committed = Committed::Ours { offset: 60, fence_known: false };
        assert_eq!(decide(&Observed { committed, ..observed() }), Decision::Start { at: 50 });
    }

    #[test]
    fn a_reset_backward_is_a_replay_up_to_what_is_committed() {
        let replay = Decision::Replay { requested: 10, until: 50 };
        assert_eq!(decide(&Observed { committed: Committed::Foreign { offset: 10 }, ..observed() }), replay);
        let again = Observed { next_offset: Some(30), committed: Committed::Foreign { offset: 10 }, ..observed() };
        assert_eq!(decide(&again), replay, "a second reset in the middle of a replay");
        let further = Observed { next_offset: Some(5), committed: Committed::Foreign { offset: 10 }, ..observed() };
        assert_eq!(decide(&further), replay, "forward inside a replay");
    }

    #[test]
    fn a_restored_catalog_reads_again_what_kafka_has_less_of() {
        let committed = Committed::Ours { offset: 10, fence_known: false };
        assert_eq!(decide(&Observed { committed, ..observed() }), Decision::Replay { requested: 10, until: 50 });
    }

    #[test]
    fn an_offset_before_the_log_of_a_topic_partition_never_seen_is_no_replay() {
        let unseen = Observed { next_offset: None, end: None, log_first: 7, identity: Identity::Unknown, ..observed() };
        let seen = Observed { committed: Committed::Foreign { offset: 3 }, ..unseen };
        assert_eq!(decide(&seen), Decision::Start { at: 7 });
    }

    #[test]
    fn a_crash_in_the_middle_of_a_replay_goes_on() {
        let committed = Committed::Ours { offset: 10, fence_known: true };
        let seen = Observed { next_offset: Some(30), committed, ..observed() };
        assert_eq!(decide(&seen), Decision::Start { at: 30 });
        assert_eq!(decide(&Observed { committed: Committed::None, ..seen }), Decision::Start { at: 30 });
    }

    #[test]
    fn a_reset_to_the_end_or_beyond_in_the_middle_of_a_replay_ends_it() {
        let replaying = Observed { next_offset: Some(30), ..observed() };
        let to_end = Observed { committed: Committed::Foreign { offset: 50 }, ..replaying };
        assert_eq!(decide(&to_end), Decision::Cancel { at: 50 });
        let beyond = Observed { committed: Committed::Foreign { offset: 60 }, ..replaying };
        let range = OffsetRange::new(50, 60).expect("50 is before 60");
        assert_eq!(decide(&beyond), Decision::Skip { range });
    }

    #[test]
    fn messages_that_expired_below_the_end_are_carried_over_and_do_not_halt() {
        let seen = Observed { next_offset: Some(20), log_first: 40, ..observed() };
        assert_eq!(decide(&seen), Decision::Start { at: 20 });
    }

    #[test]
    fn a_reset_to_the_end_starts_there() {
        let committed = Committed::Foreign { offset: 50 };
        assert_eq!(decide(&Observed { committed, ..observed() }), Decision::Start { at: 50 });
    }

    #[test]
    fn a_reset_forward_is_a_skipped_range() {
        let range = OffsetRange::new(50, 70).expect("50 is before 70");
        let committed = Committed::Foreign { offset: 70 };
        assert_eq!(decide(&Observed { committed, ..observed() }), Decision::Skip { range });
    }

    #[test]
    fn a_first_start_at_an_operators_offset_skips_what_lies_before() {
        let seen = Observed {
            next_offset: None,
            end: None,
            committed: Committed::Foreign { offset: 20 },
            identity: Identity::Unknown,
            ..observed()
        };
        let range = OffsetRange::new(0, 20).expect("0 is before 20");
        assert_eq!(decide(&seen), Decision::Skip { range });
    }

    #[test]
    fn a_truncated_or_recreated_or_expired_log_halts() {
        let truncated = Observed { log_end: 30, ..observed() };
        assert_eq!(decide(&truncated), Decision::Halt(HaltReason::LogTruncated { next_offset: 50, log_end: 30 }));
        let recreated = Observed { identity: Identity::Differs, ..observed() };
        assert_eq!(decide(&recreated), Decision::Halt(HaltReason::TopicRecreated { next_offset: 50 }));
        let expired = Observed { log_first: 60, ..observed() };
        assert_eq!(decide(&expired), Decision::Halt(HaltReason::LogExpired { next_offset: 50, log_first: 60 }));
        let other = Observed { other_cluster: true, ..observed() };
        assert_eq!(decide(&other), Decision::Halt(HaltReason::OtherCluster));
    }

    #[test]
    fn after_an_expired_log_a_reset_to_its_start_skips_the_loss() {
        let seen = Observed { log_first: 60, committed: Committed::Foreign { offset: 60 }, ..observed() };
        let range = OffsetRange::new(50, 60).expect("50 is before 60");
        assert_eq!(decide(&seen), Decision::Skip { range });
    }

    #[test]
    fn a_tag_reads_back_and_anything_else_is_foreign() {
        let tag = OffsetTag {
            catalog_id: uuid::Uuid::from_u128(1),
            fence: uuid::Uuid::from_u128(2),
            batch: uuid::Uuid::nil(),
        };
        assert_eq!(OffsetTag::parse(tag.to_string().as_bytes()), Some(tag.clone()));
        for foreign in ["", "v1", "v2;cat=x", &format!("{tag};more=1"), &tag.to_string()[1..]] {
            assert_eq!(OffsetTag::parse(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(OffsetTag::parse(&[0xff, 0xfe]), None);
    }
}
