//! The kustomizations below `compose/kubernetes` as files: what they name exists, and nothing lies about unused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{document, documents, files_below, list_at, repository, text_at};

pub(super) const BASE: &str = "compose/kubernetes/base";
pub(super) const EXAMPLE: &str = "compose/kubernetes/overlays/example";

/// Kustomize's file in a folder. Source: kustomize v5, konfig.RecognizedKustomizationFileNames.
pub(super) fn kustomization(folder: &Path) -> (PathBuf, Value) {
    let names = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
    let files: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    assert_eq!(files.len(), 1, "{} holds one kustomization", folder.display());
    (files[0].clone(), document(&files[0]))
}

/// Every file and folder that a kustomization names.
fn named(folder: &Path, kustomization: &Value) -> BTreeSet<PathBuf> {
    let mut names: Vec<&str> = list_at(kustomization, "/resources").iter().filter_map(Value::as_str).collect();
    names.extend(list_at(kustomization, "/patches").iter().filter_map(|patch| patch["path"].as_str()));
    for generator in ["/configMapGenerator", "/secretGenerator"] {
        for map in list_at(kustomization, generator) {
            let files = list_at(map, "/envs").iter().chain(list_at(map, "/files"));
            names.extend(files.filter_map(Value::as_str));
        }
    }
    names
        .into_iter()
        .map(|name| {
            let path = folder.join(name);
            path.canonicalize().unwrap_or_else(|error| panic!("{} is named, but: {error}", path.display()))
        })
        .collect()
}

/// Resources of the base, without what generators make.
pub(super) fn resources() -> Vec<Value> {
    let base = repository(BASE);
    let (_, kustomization) = kustomization(&base);
    let names = list_at(&kustomization, "/resources").iter().filter_map(Value::as_str);
    names.map(|name| base.join(name)).filter(|path| path.is_file()).flat_map(|path| documents(&path)).collect()
}

#[test]
fn every_file_is_named_and_every_named_file_exists() {
    for folder in [BASE, EXAMPLE] {
        let folder = repository(folder);
        let (own_file, kustomization) = kustomization(&folder);
        let mut named = named(&folder, &kustomization);
        named.insert(own_file.canonicalize().expect("it was read"));
        for file in files_below(&folder) {
            let file = file.canonicalize().expect("it was listed");
            assert!(named.contains(&file), "{} is in no kustomization", file.display());
        }
    }
}

#[test]
fn every_document_says_what_it_is() {
    for file in files_below(&repository("compose/kubernetes")) {
        if file.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        for document in documents(&file) {
            let place = file.display();
            assert!(document["apiVersion"].is_string() && document["kind"].is_string(), "{place}: {document}");
            if document["kind"] != "Kustomization" {
                assert!(document["metadata"]["name"].is_string(), "{place}: {document}");
                assert!(document["metadata"]["namespace"].is_null(), "{place}: a namespace is the overlay's business");
            }
        }
    }
}

#[test]
fn kind_and_name_identify_a_resource() {
    let mut seen = BTreeSet::new();
    for resource in resources() {
        let (kind, name) = (text_at(&resource, "/kind"), text_at(&resource, "/metadata/name"));
        assert!(seen.insert(format!("{kind}/{name}")), "{kind}/{name} stands there twice");
    }
}

#[test]
fn the_config_maps_hold_every_connector_and_every_topic() {
    let (_, base) = kustomization(&repository(BASE));
    for (folder, config_map) in [("connectors", "sluice-connectors"), ("topics", "sluice-topics")] {
        let included = format!("../../../{folder}");
        assert!(list_at(&base, "/resources").iter().any(|name| *name == *included), "the base includes {folder}/");
        let (_, kustomization) = kustomization(&repository(folder));
        let map = &kustomization["configMapGenerator"][0];
        assert_eq!(map["name"], config_map);
        let listed: BTreeSet<&str> = list_at(map, "/files").iter().filter_map(Value::as_str).collect();
        let entries = std::fs::read_dir(repository(folder)).expect("the folder is part of the repository");
        let names: Vec<String> =
            entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
        let there: BTreeSet<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| Path::new(name).extension().is_some_and(|end| end == "yaml"))
            .collect();
        assert_eq!(listed, there, "{folder}/Kustomization lists the files of its folder");
    }
}

#[test]
fn an_overlay_changes_only_what_the_base_has() {
    let (_, base) = kustomization(&repository(BASE));
    let (_, example) = kustomization(&repository(EXAMPLE));
    let generated: BTreeSet<&str> =
        list_at(&base, "/configMapGenerator").iter().map(|map| text_at(map, "/name")).collect();
    for map in list_at(&example, "/configMapGenerator") {
        assert_eq!(map["behavior"], "merge", "{map}");
        assert!(generated.contains(text_at(map, "/name")), "{map}");
    }
    for patch in list_at(&example, "/patches") {
        let (kind, name) = (text_at(patch, "/target/kind"), text_at(patch, "/target/name"));
        assert!(resources().iter().any(|of| of["kind"] == kind && of["metadata"]["name"] == name), "{kind}/{name}");
    }
    for image in list_at(&example, "/images") {
        assert_eq!(image["name"], "sluice");
    }
}
