//! `sluice topics plan|apply`: the Kafka topics against `topics/*.yaml`.
//!
//! Never deletes a topic. Lowers nothing without `--allow-lowering`, and partition counts not even then: Kafka cannot.

use std::collections::BTreeMap;
use std::io::Write;

use super::{EXIT_DONE, EXIT_REFUSED, SettingsArgs};
use crate::client::kafka_admin::{ActualTopic, KafkaAdmin};
use crate::config::{Need, TopicSpec, load_topics};

#[derive(Debug, Clone, clap::Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    pub action: TopicsAction,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum TopicsAction {
    /// Show what `apply` would do
    Plan,
    /// Create topics, raise partition counts, change settings
    Apply {
        /// Also apply settings that keep less data: lower retention
        #[arg(long)]
        allow_lowering: bool,
    },
}

/// One difference between a topic and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Create {
        partitions: i32,
    },
    RaisePartitions {
        from: i32,
        to: i32,
    },
    Change {
        setting: String,
        from: String,
        to: String,
        lowers: bool,
    },
    /// Shown, never changed.
    Drift(String),
}

/// What to do about one topic: pure.
pub fn plan(spec: &TopicSpec, actual: Option<&ActualTopic>) -> Vec<Step> {
    let Some(actual) = actual else { return vec![Step::Create { partitions: spec.partitions }] };
    let mut steps = Vec::new();
    if spec.partitions > actual.partitions {
        steps.push(Step::RaisePartitions { from: actual.partitions, to: spec.partitions });
    }
    if spec.partitions < actual.partitions {
        steps.push(Step::Drift(format!(
            "has {} partitions, the file says {}: Kafka cannot lower them",
            actual.partitions, spec.partitions
        )));
    }
    if i32::from(spec.replication_factor) != actual.replication_factor {
        steps.push(Step::Drift(format!(
            "has replication factor {}, the file says {}: reassign with kafka-reassign-partitions",
            actual.replication_factor, spec.replication_factor
        )));
    }
    for (setting, to) in &spec.config {
        let from = actual.config.get(setting).cloned().unwrap_or_default();
        if from != *to {
            let lowers = keeps_less(setting, &from, to);
            steps.push(Step::Change { setting: setting.clone(), from, to: to.clone(), lowers });
        }
    }
    for setting in &actual.overridden {
        if !spec.config.contains_key(setting) {
            let value = actual.config.get(setting).map_or("", String::as_str);
            steps.push(Step::Drift(format!("sets {setting}={value}, the file does not")));
        }
    }
    steps
}

/// Whether changing a setting can delete data that is kept now; -1 means for ever.
fn keeps_less(setting: &str, from: &str, to: &str) -> bool {
    match setting {
        "retention.ms" | "retention.bytes" | "delete.retention.ms" => {
            let limit =
                |text: &str| text.parse::<i64>().map_or(i64::MAX, |value| if value < 0 { i64::MAX } else { value });
            limit(to) < limit(from)
        }
        "cleanup.policy" => true,
        _ => false,
    }
}

/// Exit code 3 where something is left because it would lower.
pub async fn run(settings: &SettingsArgs, args: &TopicsArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let settings = settings.load(&[Need::Kafka])?;
    let specs = load_topics(&settings.topics_dir)?;
    let admin = KafkaAdmin::new(&settings.kafka)?;
    let (apply, allow_lowering) = match args.action {
        TopicsAction::Plan => (false, false),
        TopicsAction::Apply { allow_lowering } => (true, allow_lowering),
    };
    let mut refused = 0;
    for spec in &specs {
        let actual = admin.describe(&spec.name).await?;
        let steps = plan(spec, actual.as_ref());
        if steps.is_empty() {
            writeln!(out, "{}: as it should be", spec.name)?;
        }
        for step in &steps {
            writeln!(out, "{}: {}", spec.name, describe(step, apply, allow_lowering))?;
            refused += usize::from(matches!(step, Step::Change { lowers: true, .. }) && !allow_lowering);
        }
        if apply {
            change(&admin, spec, actual.as_ref(), &steps, allow_lowering).await?;
        }
    }
    if apply && refused > 0 {
        writeln!(out, "{refused} settings left as they are: they would keep less data; --allow-lowering applies them")?;
        return Ok(EXIT_REFUSED);
    }
    Ok(EXIT_DONE)
}

fn describe(step: &Step, apply: bool, allow_lowering: bool) -> String {
    let verb = |plan: &str, done: &str| if apply { done.to_owned() } else { format!("would {plan}") };
    match step {
        Step::Create { partitions } => format!("{} with {partitions} partitions", verb("be created", "created")),
        Step::RaisePartitions { from, to } => {
            format!("partitions {} from {from} to {to}", verb("be raised", "raised"))
        }
        Step::Change { setting, from, to, lowers: true } if !allow_lowering => {
            format!("{setting} left at {from}: {to} keeps less data")
        }
        Step::Change { setting, from, to, .. } => {
            format!("{setting} {} from {from} to {to}", verb("be changed", "changed"))
        }
        Step::Drift(what) => format!("drift: {what}"),
    }
}

async fn change(
    admin: &KafkaAdmin,
    spec: &TopicSpec,
    actual: Option<&ActualTopic>,
    steps: &[Step],
    allow_lowering: bool,
) -> anyhow::Result<()> {
    let mut changed: BTreeMap<String, String> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Create { .. } => admin.create(spec).await?,
            Step::RaisePartitions { to, .. } => admin.raise_partitions(&spec.name, *to).await?,
            Step::Change { setting, to, lowers, .. } if !lowers || allow_lowering => {
                changed.insert(setting.clone(), to.clone());
            }
            Step::Change { .. } | Step::Drift(_) => {}
        }
    }
    if let (Some(actual), false) = (actual, changed.is_empty()) {
        for setting in &actual.overridden {
            let kept = actual.config.get(setting).cloned().unwrap_or_default();
            changed.entry(setting.clone()).or_insert(kept);
        }
        admin.set_config(&spec.name, &changed).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Payload;

    fn spec() -> TopicSpec {
        TopicSpec {
            name: "raw-notifications".into(),
            partitions: 8,
            replication_factor: 1,
            config: BTreeMap::from([("retention.ms".into(), "1000".into())]),
            key: None,
            payload: Payload::Notifications,
            owner: "data".into(),
            description: String::new(),
        }
    }

    fn actual() -> ActualTopic {
        let config = BTreeMap::from([("retention.ms".into(), "1000".into()), ("max.message.bytes".into(), "5".into())]);
        ActualTopic { partitions: 8, replication_factor: 1, config, overridden: vec!["retention.ms".into()] }
    }

    #[test]
    fn a_topic_as_it_should_be_needs_nothing() {
        assert_eq!(plan(&spec(), Some(&actual())), []);
    }

    #[test]
    fn partitions_are_raised_and_never_lowered() {
        let few = ActualTopic { partitions: 2, ..actual() };
        assert_eq!(plan(&spec(), Some(&few)), [Step::RaisePartitions { from: 2, to: 8 }]);
        let many = ActualTopic { partitions: 16, ..actual() };
        assert!(matches!(plan(&spec(), Some(&many)).as_slice(), [Step::Drift(_)]));
    }

    #[test]
    fn shorter_retention_is_marked_as_lowering() {
        let mut longer = actual();
        longer.config.insert("retention.ms".into(), "-1".into());
        let steps = plan(&spec(), Some(&longer));
        assert!(matches!(steps.as_slice(), [Step::Change { lowers: true, .. }]), "{steps:?}");
        let mut shorter = actual();
        shorter.config.insert("retention.ms".into(), "10".into());
        let steps = plan(&spec(), Some(&shorter));
        assert!(matches!(steps.as_slice(), [Step::Change { lowers: false, .. }]), "{steps:?}");
    }

    #[test]
    fn settings_that_the_file_lacks_are_drift() {
        let mut more = actual();
        more.overridden.push("max.message.bytes".into());
        assert!(matches!(plan(&spec(), Some(&more)).as_slice(), [Step::Drift(_)]));
    }
}
