//! Which of librdkafka's properties may not be set: exactly-once rests on them.

/// Why a property is refused; `None` where it may be set.
/// Names as in librdkafka 2.x, CONFIGURATION.md, read 2026-11.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "bootstrap.servers" | "metadata.broker.list" => "it is `kafka.brokers`",
        "group.id" => "it is `kafka.group`, part of the identity of every committed offset",
        "enable.auto.commit" | "auto.commit.enable" | "auto.commit.interval.ms" => {
            "offsets are committed after the catalog has them, never by a timer: rows would be lost on a crash"
        }
        "enable.auto.offset.store" | "offset.store.method" | "offset.store.path" | "offset.store.sync.interval.ms" => {
            "an offset is stored once its micro-batch is committed, not when it is read"
        }
        "auto.offset.reset" => {
            "where to begin is decided by the catalog; a silent jump to either end would lose or repeat rows"
        }
        "partition.assignment.strategy" => {
            "it is cooperative-sticky: fences and drains are built on incremental rebalances"
        }
        "group.protocol" | "group.remote.assignor" => {
            "it is the classic protocol: starting offsets are given inside its rebalance callback"
        }
        "group.instance.id" => "static membership would keep a dead process's partitions from its successor",
        "isolation.level" => "it is read_committed: rows of aborted transactions are not rows",
        "enable.partition.eof" => "ends of partitions are read from the broker; the flag changes what a poll returns",
        "transactional.id" => {
            "the commit is a PostgreSQL transaction; a transactional producer would refuse plain sends"
        }
        "plugin.library.paths" => "it loads foreign code into the process",
        _ => return None,
    })
}

/// Properties whose values are never shown.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", ".pem", "oauthbearer.config", "jaas"].iter().any(|part| name.contains(part))
}
