//! The chart in `deploy/helm/orlop`: the plain manifests are what it renders (`UPDATE_FILES=1` writes them), values do what they say, and those that are wrong are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Ran, run};

/// What a render is of: files below `templates/`, with all documents of each.
type Rendered = BTreeMap<String, String>;

/// What only the chart has: files that it takes whole from `deploy/monitoring`, and what Helm is to do before it takes anything away.
const NOT_PLAIN: [&str; 2] = ["monitoring/embedded.yaml", "hooks/uninstall.yaml"];
/// The folders that are rendered, and nothing else in them.
const FOLDERS: [&str; 5] = ["csi", "disruption", "operator", "replicated", "scheduler"];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn chart() -> PathBuf {
    deploy().join("helm/orlop")
}

/// Helm, where `tools/setup` puts it, or anywhere else.
fn helm() -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    [ours].into_iter().chain(env::split_paths(&path)).map(|folder| folder.join("helm")).find(|file| file.is_file())
}

macro_rules! require_helm {
    () => {
        match crate::chart::helm() {
            Some(helm) => helm,
            None => skips::skip!("helm is missing: run tools/setup"),
        }
    };
}

// After the macro that it uses.
mod server;

fn ask(helm: &Path, verb: &[&str], values: &[&str]) -> Ran {
    let mut command = Command::new(helm);
    command.args(verb).arg(chart()).args(["--namespace", "orlop-system"]);
    for value in values {
        command.args(["--set", value]);
    }
    command.output().expect("run helm").into()
}

/// The chart with these values.
fn template(helm: &Path, values: &[&str]) -> Ran {
    ask(helm, &["template", "orlop"], values)
}

fn rendered(helm: &Path, values: &[&str]) -> Rendered {
    let text = template(helm, values).good();
    let (mut files, mut file, mut document) = (Rendered::new(), String::new(), String::new());
    for line in text.lines().chain(["---"]) {
        if line == "---" {
            keep(&mut files, &file, &document);
            document.clear();
        } else if let Some(source) = line.strip_prefix("# Source: orlop/templates/") {
            source.clone_into(&mut file);
        } else {
            document.push_str(line);
            document.push('\n');
        }
    }
    files
}

fn keep(files: &mut Rendered, file: &str, document: &str) {
    let document = document.trim_matches('\n');
    if !document.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        return;
    }
    let text = files.entry(file.to_owned()).or_default();
    text.push_str(if text.is_empty() { "" } else { "---\n" });
    text.push_str(document);
    text.push('\n');
}

/// What `deploy/` has of it: all of the driver with volumes of one copy; and in `replicated`, what is new or takes another's place for volumes with replicas.
fn plain(helm: &Path) -> Rendered {
    let with = |mode: &str| rendered(helm, &[mode, "createNamespace=true", "monitoring.enabled=true"]);
    let mut files = with("storage.mode=csi");
    for (file, text) in with("storage.mode=replicated,scheduler.enabled=true") {
        if files.get(&file) != Some(&text) {
            files.insert(file.replace("csi/", "replicated/"), text);
        }
    }
    files.retain(|file, _| !NOT_PLAIN.contains(&file.as_str()));
    let headed = |(file, text): (String, String)| {
        let template = file.replace("replicated/40", "csi/40").replace("replicated/80", "csi/80");
        let head = format!("# Rendered from deploy/helm/orlop/templates/{template}, where it is changed.\n#\n");
        (file, head + &text)
    };
    files.into_iter().map(headed).collect()
}

fn documents(rendered: &Rendered) -> Vec<Value> {
    rendered.values().flat_map(|text| text.split("\n---\n")).map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    let helm = require_helm!();
    let plain = plain(&helm);
    for (file, text) in &plain {
        let path = deploy().join(file);
        if env::var_os("UPDATE_FILES").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == *text, "{file} is not what the chart renders: UPDATE_FILES=1 writes it");
    }
    for folder in FOLDERS {
        for entry in fs::read_dir(deploy().join(folder)).unwrap() {
            let file = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
            assert!(plain.contains_key(&file), "{file} is in deploy/, and not in the chart");
        }
    }
}

#[test]
fn the_chart_is_of_the_program_and_has_no_lint() {
    let helm = require_helm!();
    let about: Value = serde_saphyr::from_str(&fs::read_to_string(chart().join("Chart.yaml")).unwrap()).unwrap();
    for field in ["version", "appVersion"] {
        assert_eq!(about[field], env!("CARGO_PKG_VERSION"), "{field} of the chart");
    }
    for mode in ["storage.mode=none", "storage.mode=csi", "storage.mode=replicated"] {
        let linted = ask(&helm, &["lint", "--strict"], &[mode, "monitoring.enabled=true"]).good();
        assert!(!linted.contains("[WARNING]"), "{linted}");
    }
}

#[test]
fn values_that_are_wrong_are_refused_by_their_names() {
    let helm = require_helm!();
    let check = |value: &str, said: &str| {
        let ran = template(&helm, &["storage.mode=replicated", value]).ended(1);
        assert!(ran.stderr.contains(said), "{value}: {said:?} is not said:\n{}", ran.stderr);
    };
    check("storage.mode=both", "/storage/mode");
    check("storage.mod=csi", "mod");
    check("operator.replicas=0", "/operator/replicas");
    check("operator.replicas=two", "/operator/replicas");
    check("operator.resources.limits.memory=much", "/operator/resources/limits/memory");
    check("operator.affinity.kind.a=b", "invalid propertyName 'kind'");
    check("operator.movers.node=-1", "/operator/movers/node");
    check("image.repository=Orlop!", "/image/repository");
    check("image.digest=sha256:0", "/image/digest");
    check("image.pullPolicy=Sometimes", "/image/pullPolicy");
    check("storage.pools[0].path=/home/pool", "/storage/pools/0");
    // A file is made with a size, and a device has the size that it has.
    check("storage.pools[0].path=/var/lib/orlop/pool", "/storage/pools/0");
    check("storage.pools[0].path=/dev/sdb,storage.pools[0].size=1TiB", "/storage/pools/0");
    check("storage.pools=null", "storage.pools is empty");
    check("storage.mode=csi,scheduler.enabled=true", "scheduler.enabled is for volumes with replicas");
    check("storage.updateStrategy=Now", "/storage/updateStrategy");
    check("storage.sidecars.resizer=csi-resizer", "/storage/sidecars/resizer");
    check("priorityClasses.node=Very High", "/priorityClasses/node");
    check("networkPolicies.metricsFrom[0].everybody=true", "/networkPolicies/metricsFrom/0");
    check("networkPolicies.schedulerFrom[0].everybody=true", "/networkPolicies/schedulerFrom/0");
    let elsewhere = ["template", "orlop", "--namespace", "default"];
    let ran: Ran = Command::new(&helm).args(elsewhere).arg(chart()).output().unwrap().into();
    ran.ended(1).says("install it with --namespace orlop-system");
}

#[test]
fn values_do_what_they_say() {
    let helm = require_helm!();
    let check = |values: &[&str], kind: &str, name: &str, pointer: &str, expected: Value| {
        let all = documents(&rendered(&helm, values));
        let is_it = |one: &&Value| one["kind"] == kind && one["metadata"]["name"] == name;
        let found = all.iter().find(is_it).map(|one| one.pointer(pointer).cloned().unwrap_or(Value::Null));
        assert_eq!(found, Some(expected), "{pointer} of {kind} {name} with {values:?}");
    };
    let (pod, first) = ("/spec/template/spec", "/spec/template/spec/containers/0");
    let operator = |values: &[&str], pointer: &str, expected: Value| {
        check(values, "Deployment", "orlop-operator", pointer, expected);
    };
    operator(&["operator.replicas=3"], "/spec/replicas", 3.into());
    let image = "registry.example.com:5000/orlop@sha256:".to_owned() + &"0a".repeat(32);
    let digest = format!("image.digest=sha256:{}", "0a".repeat(32));
    let named = [&digest, "image.repository=registry.example.com:5000/orlop"];
    operator(&named, &format!("{first}/image"), image.as_str().into());
    operator(&named, &format!("{first}/env/0/value"), image.as_str().into());
    let secrets = ["image.pullSecrets={one,two}", "storage.mode=csi"];
    operator(&secrets, &format!("{first}/env/1/value"), "one,two".into());
    operator(&secrets, &format!("{pod}/imagePullSecrets/1/name"), "two".into());
    check(&secrets, "DaemonSet", "orlop-node", &format!("{pod}/imagePullSecrets/0/name"), "one".into());
    operator(&["operator.movers.node=7"], &format!("{first}/env/1/value"), "7".into());
    operator(&["operator.resources.limits.memory=1Gi"], &format!("{first}/resources/limits/memory"), "1Gi".into());
    operator(&["priorityClasses.operator="], &format!("{pod}/priorityClassName"), Value::Null);
    let tolerates = ["operator.tolerations[0].operator=Exists"];
    operator(&tolerates, &format!("{pod}/tolerations/0/operator"), "Exists".into());
    // A list that is given takes the place of the one that would be there.
    let pools = ["storage.mode=csi", "storage.pools[0].path=/dev/disk/by-id/nvme-1"];
    check(&pools, "DaemonSet", "orlop-node", &format!("{first}/args/1"), "--pool=/dev/disk/by-id/nvme-1".into());
    let elsewhere = ["storage.mode=replicated", "storage.kubeletDir=/var/lib/k0s/kubelet"];
    check(&elsewhere, "DaemonSet", "orlop-csi", &format!("{pod}/volumes/0/hostPath/path"), {
        "/var/lib/k0s/kubelet/plugins/volumes.orlop.io".into()
    });
    check(&["storage.mode=csi"], "NetworkPolicy", "orlop-node", "/spec/policyTypes/1", "Egress".into());
    let from = ["networkPolicies.metricsFrom[0].namespaceSelector.matchLabels.name=watch"];
    let label = "/spec/ingress/0/from/0/namespaceSelector/matchLabels/name";
    check(&from, "NetworkPolicy", "orlop-operator", label, "watch".into());
    let asks = [
        "storage.mode=replicated",
        "scheduler.enabled=true",
        from[0],
        "networkPolicies.schedulerFrom[0].ipBlock.cidr=10.0.0.10/32",
    ];
    check(&asks, "NetworkPolicy", "orlop-scheduler", "/spec/ingress/0/from/0/ipBlock/cidr", "10.0.0.10/32".into());
    check(&asks, "NetworkPolicy", "orlop-scheduler", &label.replace("from/0", "from/1"), "watch".into());
    check(&asks[..3], "NetworkPolicy", "orlop-scheduler", "/spec/ingress/0/from", Value::Null);
    let found = ["monitoring.enabled=true", "monitoring.labels.release=main"];
    check(&found, "PrometheusRule", "orlop", "/metadata/labels/release", "main".into());
    check(&found, "ServiceMonitor", "orlop-operator", "/metadata/labels/release", "main".into());
    let dashboard = fs::read_to_string(deploy().join("monitoring/dashboard.json")).unwrap();
    check(&found, "ConfigMap", "orlop-dashboard", "/data/orlop.json", format!("{}\n", dashboard.trim_end()).into());
}

#[test]
fn what_is_off_is_not_there() {
    let helm = require_helm!();
    let kinds = |values: &[&str]| -> BTreeSet<String> {
        let name =
            |one: &Value| format!("{} {}", one["kind"].as_str().unwrap(), one["metadata"]["name"].as_str().unwrap());
        documents(&rendered(&helm, values)).iter().map(name).collect()
    };
    let check = |value: &str, gone: &[&str]| {
        let all = ["storage.mode=csi", "monitoring.enabled=true"];
        let (before, after) = (kinds(&all), kinds(&[&all[..], &[value]].concat()));
        let missing: Vec<_> = before.difference(&after).map(String::as_str).collect();
        assert_eq!(missing, gone, "{value}");
    };
    check(
        "operator.restores=false",
        &["ClusterRole orlop-operator-restore", "ClusterRoleBinding orlop-operator-restore"],
    );
    check("disruptionBudgets.enabled=false", {
        &["PodDisruptionBudget orlop-csi-resizer", "PodDisruptionBudget orlop-operator"]
    });
    check("storage.classes=false", &["StorageClass orlop", "StorageClass orlop-encrypted"]);
    check("storage.snapshots=false", {
        &["ClusterRole orlop-csi-snapshotter", "ClusterRoleBinding orlop-csi-snapshotter", "VolumeSnapshotClass orlop"]
    });
    let policies = kinds(&["storage.mode=csi", "networkPolicies.enabled=false"]);
    assert!(policies.iter().all(|one| !one.starts_with("NetworkPolicy")), "{policies:?}");
    // Without storage there is nothing of the other namespace.
    let alone = rendered(&helm, &["monitoring.enabled=true"]);
    assert!(documents(&alone).iter().all(|one| one["metadata"]["namespace"] != "orlop-storage"));
    assert!(alone.keys().all(|file| !file.starts_with("csi/") && !file.starts_with("replicated/")));
}

/// The paths of all values that a schema knows.
fn known(schema: &Value, path: &str, paths: &mut Vec<String>) {
    for (name, of_it) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        known(of_it, &path, paths);
        paths.push(path);
    }
}

#[test]
fn every_value_is_in_the_file_of_values_and_every_group_is_explained() {
    let read = |file: &str| fs::read_to_string(chart().join(file)).unwrap();
    let (text, schema) = (read("values.yaml"), read("values.schema.json"));
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let mut paths = Vec::new();
    known(&serde_json::from_str(&schema).unwrap(), "", &mut paths);
    assert!(paths.len() > 50, "{paths:?}");
    // Helm itself has `global`, for charts that have this one in them.
    let missing: Vec<_> = paths.iter().filter(|path| *path != "/global" && values.pointer(path).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} are in the schema and not in values.yaml");
    let lines: Vec<&str> = text.lines().collect();
    for group in values.as_object().unwrap().keys() {
        let at = lines.iter().position(|line| line.starts_with(&format!("{group}:"))).unwrap();
        assert!(lines[at - 1].starts_with("# "), "{group} is not explained");
    }
}

/// What Helm runs before it takes anything away is a command that there is, and that changes nothing.
#[test]
fn helm_asks_before_it_takes_anything_away() {
    let helm = require_helm!();
    let job = &documents(&Rendered::from([(String::new(), rendered(&helm, &[])["hooks/uninstall.yaml"].clone())]))[0];
    assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete");
    let words = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let mut words: Vec<_> = words.iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words, ["uninstall", "--dry-run"]);
    words.push("--help");
    run(&words).good();
}
