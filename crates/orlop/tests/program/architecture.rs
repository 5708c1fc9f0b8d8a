//! The rules of `ARCHITECTURE.md` about what does not depend on what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every crate that may be used by others of this workspace's product, and by whom.
const ALLOWED: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("application", &[]),
    ("bench", &["repository", "sandbox"]),
    ("bench-block", &["block", "cluster", "fuse", "nbd", "node", "replicas", "replication", "volume"]),
    ("block", &[]),
    ("cluster", &["api", "csi", "node", "placement", "records", "replicas", "replication"]),
    ("csi", &["node"]),
    ("directories", &[]),
    ("fuse", &["block"]),
    ("mover", &["repository"]),
    ("nbd", &["block"]),
    ("node", &["block", "fuse", "nbd", "replicas", "replication", "volume"]),
    ("operator", &["api", "application", "mover", "recovery", "repository"]),
    (
        "orlop",
        &[
            "api",
            "application",
            "block",
            "cluster",
            "csi",
            "fuse",
            "mover",
            "nbd",
            "node",
            "operator",
            "records",
            "replicas",
            "replication",
            "repository",
            "restic",
            "scheduler",
            "volume",
        ],
    ),
    ("placement", &[]),
    ("records", &["api", "replication"]),
    ("recovery", &[]),
    ("replicas", &["block", "replication", "volume"]),
    ("replication", &[]),
    ("repository", &[]),
    ("restic", &["repository"]),
    ("sandbox", &["skips"]),
    ("scenarios", &["api", "sandbox"]),
    ("scheduler", &["api", "cluster", "placement"]),
    ("sidecars", &[]),
    ("skips", &[]),
    ("volume", &[]),
];

/// Crates that are not product.
const SUPPORT: &[&str] = &["bench", "bench-block", "directories", "sandbox", "scenarios", "sidecars", "skips"];

/// Crates that have unsafe code: for calls of the kernel that have no safe wrapper.
const UNSAFE: &[&str] = &["fuse", "volume"];

/// What a crate must not use from outside of the workspace, by itself.
const BANNED: &[(&str, &[&str])] = &[
    ("api", &["tokio", "reqwest", "object_store", "rand", "tracing"]),
    ("application", &["object_store", "axum"]),
    ("block", &["tokio", "futures"]),
    ("csi", &["kube", "k8s-openapi", "object_store", "axum"]),
    ("fuse", &["tokio", "futures", "kube", "object_store"]),
    ("mover", &["kube", "k8s-openapi"]),
    ("nbd", &["kube", "object_store", "axum"]),
    ("node", &["kube", "k8s-openapi", "object_store"]),
    (
        "placement",
        &["tokio", "futures", "kube", "k8s-openapi", "object_store", "reqwest", "rand", "jiff", "tracing", "rustix"],
    ),
    ("records", &["object_store", "axum"]),
    ("recovery", &["tokio", "futures", "kube", "k8s-openapi", "rand", "tracing"]),
    ("replicas", &["kube", "k8s-openapi", "object_store", "axum"]),
    (
        "replication",
        &["tokio", "futures", "kube", "k8s-openapi", "object_store", "reqwest", "rand", "jiff", "tracing", "rustix"],
    ),
    ("repository", &["kube", "k8s-openapi", "axum"]),
    ("restic", &["kube", "k8s-openapi", "object_store", "reqwest"]),
    ("volume", &["tokio", "futures", "kube", "k8s-openapi", "object_store", "reqwest", "rand", "jiff", "tracing"]),
];

struct Member {
    normal: BTreeSet<String>,
    manifest: String,
}

fn members() -> BTreeMap<String, Member> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    packages.iter().map(|p| (text(&p["name"]), member(p))).collect()
}

fn member(package: &Value) -> Member {
    let dependencies = package["dependencies"].as_array().expect("a list");
    let normal = dependencies.iter().filter(|d| d["kind"].is_null()).map(|d| text(&d["name"])).collect();
    Member { normal, manifest: text(&package["manifest_path"]) }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let members = members();
    let known: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(members.keys().map(String::as_str).collect::<Vec<_>>(), known, "a new crate needs a line in this test");
    for (name, allowed) in ALLOWED {
        let used = members[*name].normal.iter().map(String::as_str).filter(|d| known.contains(d));
        let wrong: Vec<_> = used.filter(|d| !allowed.contains(d)).collect();
        assert!(wrong.is_empty(), "{name} must not use {wrong:?}");
        assert!(SUPPORT.contains(name) || allowed.iter().all(|a| !SUPPORT.contains(a)), "{name} is product");
    }
    for (name, banned) in BANNED {
        let wrong: Vec<_> = members[*name].normal.iter().filter(|d| banned.contains(&d.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not use {wrong:?}");
    }
}

#[test]
fn the_format_of_restic_knows_nothing_of_orlop() {
    let folder = Path::new(&members()["restic"].manifest).with_file_name("src").join("format");
    for entry in std::fs::read_dir(folder).expect("there is a folder") {
        let path = entry.expect("list").path();
        let text = std::fs::read_to_string(&path).expect("read");
        let uses = ["use ::repository", "repository::", "crate::export"].iter().any(|used| text.contains(used));
        assert!(!uses || path.ends_with("format/mod.rs"), "{} uses what it must not know", path.display());
    }
}

#[test]
fn every_crate_has_the_workspaces_lints_and_says_what_it_is() {
    for (name, member) in members() {
        let manifest = std::fs::read_to_string(&member.manifest).expect("read the manifest");
        // Who needs unsafe code denies it, and allows it where it is.
        let own = UNSAFE.contains(&name.as_str()) && manifest.contains("unsafe_code = \"deny\"\n");
        assert!(own || manifest.contains("[lints]\nworkspace = true"), "{name} has lints of its own");
        assert!(manifest.contains("description = "), "{name} does not say what it is");
        let folder = Path::new(&member.manifest).parent().expect("a folder").join("src");
        let root = ["lib.rs", "main.rs"].iter().find_map(|f| std::fs::read_to_string(folder.join(f)).ok());
        assert!(root.is_some_and(|r| r.starts_with("//!")), "{name}: its first file does not begin with what it is");
    }
}

#[test]
fn pure_crates_have_lints_against_clocks_and_disks() {
    for pure in ["api", "placement", "replication", "volume"] {
        let manifest = &members()[pure].manifest;
        let clippy = Path::new(manifest).with_file_name("clippy.toml");
        let rules = std::fs::read_to_string(clippy).unwrap_or_else(|e| panic!("{pure} has a clippy.toml: {e}"));
        for method in ["Instant::now", "SystemTime::now", "Timestamp::now", "tokio::spawn", "tokio::time::sleep"] {
            assert!(rules.contains(method), "{method} is not forbidden in {pure}");
        }
    }
}
