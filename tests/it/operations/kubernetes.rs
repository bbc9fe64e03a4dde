//! The Kubernetes manifests fit together and fit the program: labels, ports, probes, settings, limits.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kustomize::{BASE, EXAMPLE, kustomization, resources};
use super::{document, list_at, read, repository, text_at};

fn of_kind(kind: &str) -> Vec<Value> {
    resources().into_iter().filter(|resource| resource["kind"] == kind).collect()
}

/// What runs pods: name and pod template.
fn workloads() -> Vec<(String, Value)> {
    let all: Vec<(String, Value)> = resources()
        .into_iter()
        .filter(|resource| ["Deployment", "Job"].contains(&text_at(resource, "/kind")))
        .map(|resource| (text_at(&resource, "/metadata/name").to_owned(), resource["spec"]["template"].clone()))
        .collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["sluice-transform", "sluice-load", "sluice-topics"]);
    all
}

fn containers(template: &Value) -> Vec<Value> {
    [list_at(template, "/spec/initContainers"), list_at(template, "/spec/containers")].concat()
}

/// Whether a selector's labels all stand on a pod template.
fn selects(selector: &Value, template: &Value) -> bool {
    let wanted = selector.as_object().expect("a selector is a map");
    !wanted.is_empty() && wanted.iter().all(|(label, value)| template["metadata"]["labels"][label] == *value)
}

/// `NAME=value` lines.
fn env_file(path: &str) -> BTreeMap<String, String> {
    let text = read(&repository(path));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{path}: {line}")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn settings() -> BTreeMap<String, String> {
    env_file(&format!("{BASE}/settings.env"))
}

/// The names by which the environment sets something, read from the structs of `config::Settings`.
fn names_of_settings() -> BTreeSet<String> {
    let source = read(&repository("src/config/settings.rs"));
    let mut structs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut current = None;
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            current = Some(name);
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some(field)) = (current, line.trim().strip_prefix("pub "))
            && let Some((field, kind)) = field.trim_end_matches(',').split_once(": ")
        {
            structs.entry(name).or_default().push((field, kind));
        }
    }
    let mut names = BTreeSet::new();
    let mut open = vec![("Settings", "SLUICE_".to_owned())];
    while let Some((name, prefix)) = open.pop() {
        for (field, kind) in &structs[name] {
            let name = format!("{prefix}{}", field.to_uppercase());
            if structs.contains_key(kind) {
                open.push((kind, format!("{name}__")));
            } else {
                names.insert(name);
            }
        }
    }
    names
}

#[test]
fn settings_and_secrets_are_settings_of_the_program() {
    let known = names_of_settings();
    for name in ["SLUICE_KAFKA__BROKERS", "SLUICE_S3__LAKE__SECRET_ACCESS_KEY", "SLUICE_CONNECTORS_DIR"] {
        assert!(known.contains(name), "{name} is missing among {known:?}");
    }
    let mut given: Vec<String> = settings().into_keys().collect();
    given.extend(env_file(&format!("{EXAMPLE}/secrets.env")).into_keys());
    let (_, example) = kustomization(&repository(EXAMPLE));
    for literal in list_at(&example, "/configMapGenerator/0/literals") {
        let literal = literal.as_str().expect("a literal is text");
        given.push(literal.split_once('=').expect("NAME=value").0.to_owned());
    }
    for name in given {
        assert!(known.contains(&name), "there is no setting {name}");
        let is_secret = name.ends_with("__DSN") || name.contains("ACCESS_KEY");
        assert!(!is_secret || !settings().contains_key(&name), "{name} belongs into the Secret");
    }
}

#[test]
fn pods_take_their_environment_from_what_is_generated_and_nothing_else() {
    let (_, base) = kustomization(&repository(BASE));
    let (_, example) = kustomization(&repository(EXAMPLE));
    let config_map = text_at(&base, "/configMapGenerator/0/name");
    let secret = text_at(&example, "/secretGenerator/0/name");
    for (name, template) in workloads() {
        // Links to a Service `sluice` would be variables such as SLUICE_PORT, which are no settings.
        assert_eq!(template["spec"]["enableServiceLinks"], false, "{name}");
        for container in containers(&template) {
            let expected = json!([{"configMapRef": {"name": config_map}}, {"secretRef": {"name": secret}}]);
            assert_eq!(container["envFrom"], expected, "{name}");
            assert!(container["env"].is_null(), "{name}: settings stand in settings.env");
        }
    }
}

#[test]
fn selectors_match_the_labels_of_their_pods() {
    for deployment in of_kind("Deployment") {
        let (spec, name) = (&deployment["spec"], &deployment["metadata"]["name"]);
        assert!(selects(&spec["selector"]["matchLabels"], &spec["template"]), "{name}");
        assert_eq!(deployment["metadata"]["labels"], spec["template"]["metadata"]["labels"], "{name}");
        let spread = list_at(spec, "/template/spec/topologySpreadConstraints");
        assert!(!spread.is_empty(), "{name} spreads over nodes");
        for constraint in spread {
            assert!(selects(&constraint["labelSelector"]["matchLabels"], &spec["template"]), "{name}");
        }
        let others = workloads().into_iter().filter(|(other, _)| name != other);
        for (other, template) in others {
            assert!(!selects(&spec["selector"]["matchLabels"], &template), "{name} selects pods of {other}");
        }
    }
    for kind in ["Service", "NetworkPolicy"] {
        for resource in of_kind(kind) {
            let spec = &resource["spec"];
            let selector = if kind == "Service" { &spec["selector"] } else { &spec["podSelector"]["matchLabels"] };
            assert!(workloads().iter().all(|(_, template)| selects(selector, template)), "{kind}");
        }
    }
}

#[test]
fn each_deployment_has_a_disruption_budget_that_lets_one_pod_go() {
    let budgets = of_kind("PodDisruptionBudget");
    for deployment in of_kind("Deployment") {
        let template = &deployment["spec"]["template"];
        let own: Vec<&Value> =
            budgets.iter().filter(|budget| selects(&budget["spec"]["selector"]["matchLabels"], template)).collect();
        assert_eq!(own.len(), 1, "{}", deployment["metadata"]["name"]);
        assert_eq!(own[0]["spec"]["maxUnavailable"], 1);
        assert!(own[0]["spec"]["minAvailable"].is_null());
    }
}

#[test]
fn lag_scales_the_transform_pods_from_2_to_20() {
    let scaled = of_kind("ScaledObject");
    assert_eq!(scaled.len(), 1);
    let spec = &scaled[0]["spec"];
    let target = text_at(spec, "/scaleTargetRef/name");
    let deployment = of_kind("Deployment").into_iter().find(|deployment| deployment["metadata"]["name"] == target);
    let deployment = deployment.unwrap_or_else(|| panic!("there is no Deployment {target}"));
    assert!(deployment["spec"]["replicas"].is_null(), "the ScaledObject owns the number of pods");
    assert_eq!((&spec["minReplicaCount"], &spec["maxReplicaCount"]), (&json!(2), &json!(20)));
    let triggers = list_at(spec, "/triggers");
    assert!(!triggers.is_empty());
    for trigger in triggers {
        assert_eq!(trigger["type"], "kafka");
        let metadata = trigger["metadata"].as_object().expect("a trigger has metadata");
        assert!(metadata.values().all(Value::is_string), "KEDA takes text only: {metadata:?}");
        assert_eq!(metadata["offsetResetPolicy"], "earliest", "as Sluice starts without a committed offset");
        for name in ["bootstrapServersFromEnv", "consumerGroupFromEnv"] {
            let variable = metadata[name].as_str().expect("text");
            assert!(settings().contains_key(variable), "{variable} is no setting of the pods");
        }
        let topic = document(&repository(&format!("topics/{}.yaml", text_at(trigger, "/metadata/topic"))));
        assert_eq!(topic["name"], trigger["metadata"]["topic"]);
    }
}

#[test]
fn probes_and_scrapers_find_the_port_that_the_program_listens_on() {
    let listen = settings()["SLUICE_TELEMETRY__LISTEN"].clone();
    let (address, port) = listen.rsplit_once(':').expect("address:port");
    assert_eq!(address, "0.0.0.0", "probes come from outside the pod");
    let service = of_kind("Service").remove(0);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "metrics");
    assert_eq!(of_kind("NetworkPolicy")[0]["spec"]["ingress"][0]["ports"][0]["port"], "metrics");
    for deployment in of_kind("Deployment") {
        let template = &deployment["spec"]["template"];
        let annotations = &template["metadata"]["annotations"];
        let expected =
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": port, "prometheus.io/path": "/metrics"});
        assert_eq!(*annotations, expected);
        let container = &template["spec"]["containers"][0];
        assert_eq!(
            container["ports"],
            json!([{"name": "metrics", "containerPort": port.parse::<u16>().expect("a port")}])
        );
        for (probe, path) in
            [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
        {
            assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "metrics"}), "{probe}");
        }
        let startup = &container["startupProbe"];
        let patience_s = startup["periodSeconds"].as_u64().zip(startup["failureThreshold"].as_u64());
        assert!(patience_s.is_some_and(|(period, tries)| period * tries > 60), "start_deadline is 60 s");
    }
}

#[test]
fn pods_are_given_time_to_drain() {
    let drain = settings()["SLUICE_LIMITS__DRAIN_DEADLINE"].clone();
    let drain_s: u64 = drain.strip_suffix('s').and_then(|number| number.parse().ok()).expect("seconds");
    for deployment in of_kind("Deployment") {
        let grace_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
        assert!(grace_s.is_some_and(|grace_s| grace_s >= drain_s + 5), "{}", deployment["metadata"]["name"]);
        assert_eq!(deployment["spec"]["strategy"]["type"], "RollingUpdate");
    }
}

#[test]
fn containers_run_without_privileges() {
    for (name, template) in workloads() {
        let pod = &template["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert!(pod["securityContext"]["runAsUser"].as_u64().is_some_and(|user| user > 0), "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(of_kind("ServiceAccount")[0]["metadata"]["name"], pod["serviceAccountName"], "{name}");
        for container in containers(&template) {
            let expected = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(container["securityContext"], expected, "{name}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            assert_eq!(container["image"], "sluice", "{name}: the overlay names image and tag");
        }
    }
}

#[test]
fn volumes_are_mounted_where_the_settings_say() {
    let generated = |variable: &str| settings()[variable].clone();
    for (name, template) in workloads() {
        let volumes: BTreeMap<&str, &Value> =
            list_at(&template, "/spec/volumes").iter().map(|volume| (text_at(volume, "/name"), volume)).collect();
        let mut mounted = BTreeMap::new();
        for mount in list_at(&template, "/spec/containers/0/volumeMounts") {
            let volume = volumes.get(text_at(mount, "/name")).unwrap_or_else(|| panic!("{name}: {mount}"));
            mounted.insert(text_at(mount, "/mountPath"), volume["configMap"]["name"].as_str());
        }
        assert_eq!(mounted.len(), volumes.len(), "{name}: every volume is mounted");
        assert_eq!(mounted[&*generated("SLUICE_TOPICS_DIR")], Some("sluice-topics"), "{name}");
        if name != "sluice-topics" {
            assert_eq!(mounted[&*generated("SLUICE_CONNECTORS_DIR")], Some("sluice-connectors"), "{name}");
            assert!(mounted.contains_key("/tmp"), "{name}: the root file system cannot be written");
        }
    }
}

#[test]
fn the_roles_of_the_deployments_are_all_roles_once_and_the_schema_comes_first() {
    let mut roles = Vec::new();
    for deployment in of_kind("Deployment") {
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["initContainers"][0]["command"], json!(["sluice", "migrate"]));
        let command: Vec<&str> = list_at(pod, "/containers/0/command").iter().filter_map(Value::as_str).collect();
        let ["sluice", "run", "--role", role] = command[..] else { panic!("{command:?}") };
        roles.extend(role.split(',').map(str::to_owned));
    }
    roles.sort();
    assert_eq!(roles, ["load", "publish", "transform"]);
    assert_eq!(
        of_kind("Job")[0]["spec"]["template"]["spec"]["containers"][0]["command"],
        json!(["sluice", "topics", "apply"])
    );
}
