//! Arguments, help, names that the program goes by, completion: what needs neither a cluster nor a repository.

use crate::support::golden;
use crate::support::{called, run};

#[test]
fn help_is_as_it_was_last_looked_at() {
    let helps: &[&[&str]] = &[
        &[],
        &["location"],
        &["location", "add"],
        &["location", "check"],
        &["backup"],
        &["backup", "create"],
        &["backup", "list"],
        &["backup", "delete"],
        &["schedule"],
        &["schedule", "run"],
        &["restore"],
        &["repo"],
        &["repo", "backup"],
        &["repo", "restore"],
        &["repo", "check"],
        &["repo", "prune"],
        &["repo", "verify"],
        &["repo", "repair"],
        &["repo", "copy"],
        &["repo", "diff"],
        &["repo", "dump"],
        &["repo", "serve"],
        &["repo", "forget"],
        &["repo", "pin"],
        &["repo", "key"],
        &["repo", "key", "list"],
        &["repo", "key", "add"],
        &["repo", "key", "remove"],
        &["repo", "key", "rotate"],
        &["repo", "key", "erase"],
        &["repo", "export"],
        &["store"],
        &["store", "format"],
        &["volume", "delete"],
        &["node"],
        &["operator"],
        &["mover"],
        &["scheduler"],
        &["install"],
        &["upgrade"],
        &["uninstall"],
        &["check"],
    ];
    for words in helps {
        let help = run(&[words, &["--help"][..]].concat()).good();
        let name = ["help", "orlop"].into_iter().chain(words.iter().copied()).collect::<Vec<_>>().join("-");
        golden::check(&format!("{name}.txt"), &help);
    }
}

#[test]
fn what_cannot_be_understood_ends_with_2_and_names_it() {
    let check = |words: &[&str], said: &str| {
        let ran = run(words).ended(2).says(said);
        assert_eq!(ran.stdout, "", "{words:?}");
    };
    check(&["backups"], "unrecognized subcommand 'backups'");
    check(&["backup", "create", "x"], "--backup-location");
    check(&["backup", "create", "x", "--backup-location", "m", "--timeout", "5s"], "--wait");
    check(
        &["backup", "create", "x", "--backup-location", "m", "--wait", "--timeout", "soon"],
        "\"soon\" is not a time",
    );
    check(&["backup", "create", "x", "--backup-location", "m", "-l", "app"], "\"app\" is not of the form NAME=VALUE");
    check(&["backup", "create", "x", "--backup-location", "m", "--include", "/x"], "KIND[.GROUP][/NAME]");
    check(&["backup", "create", "x", "--backup-location", "m", "-l", "a=b,a=c"], "--selector names a twice");
    check(&["backup", "list", "-o", "xml"], "[possible values: table, json, yaml, name]");
    check(&["restore"], "it is not said what to restore");
    check(&["restore", "--recovery-point", "p"], "give --backup-location");
    check(&["restore", "web", "list"], "web before the verb list has no effect on it");
    check(&["restore", "--dry-run", "delete", "web"], "--dry-run before the verb delete has no effect on it");
    check(&["restore", "web", "--to", "a=b,a=c"], "--to names a twice");
    check(&["location", "add", "main", "backups"], "backups is not the URL of a bucket");
    check(&["location", "add", "main", "s3://backups"], "the access key id is missing");
    check(&["location", "add", "main", "s3://b", "--secret", "s"], "spec.path: \"b\" is not allowed");
    check(&["location", "add", "main", "s3://b", "--secret", "s", "--ca-file", "f"], "cannot be used with");
    check(&["operator", "--image", "i", "-n", "x"], "unexpected argument '-n'");
    check(&["repo", "dump", "p", "file", "-o", "json"], "leave --output out");
    let place = ["--location", "file:///nowhere"];
    check(&[&["repo", "list"], &place[..]].concat(), "the passphrase of the repository is missing");
    let both = ["--password-file", "a", "--kms", "b"];
    check(&[&["repo", "list"], &place[..], &both].concat(), "more than one secret is given: --password-file and --kms");
    check(&[&["repo", "key", "add"], &place[..]].concat(), "it is not said who the new recipient is");
    check(&["repo", "list", "--kms", "gcp:x"], "it is not aws: and the ARN of a key");
    check(&["repo", "list", "--password-secret", "x"], "\"x\" is not of the form NAMESPACE/NAME");
    check(&["repo", "key", "erase", "--yes-erase", "x"], "invalid value 'x'");
    check(&["repo", "check", "--sample", "5", "--read-data"], "cannot be used with");
    check(&["repo", "check", "--sample", "0"], "it is not more than 0 and at most 100");
    check(&["repo", "check", "--seed", "1"], "--sample");
    check(&["repo", "list", "-o", "yaml", "--json"], "cannot be used with");
    check(&["repo", "dump", "p", "file", "--json"], "leave --output out");
    check(&["repo", "export", "p", "--to", "/x", "--to-password-file", "f"], "write restic:PATH");
    check(&["backup", "delete", "x", "--no-wait", "--timeout", "5s"], "cannot be used with");
}

#[test]
fn a_kubeconfig_that_is_not_there_is_named() {
    run(&["backup", "list", "--kubeconfig", "/nowhere/config"])
        .ended(1)
        .says("/nowhere/config")
        .says("next: name a kubeconfig");
}

#[test]
fn a_cluster_that_does_not_answer_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("config");
    // Port 1 is reserved, and nothing listens there.
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "x", "user": {}}],
    });
    std::fs::write(&path, config.to_string()).expect("write the kubeconfig");
    let path = path.to_str().expect("the path is text");
    run(&["backup", "list", "--kubeconfig", path])
        .ended(1)
        .says("list backups: the API server at http://127.0.0.1:1/ cannot be reached")
        .says("next: check that the cluster runs");
    run(&["backup", "list", "--kubeconfig", path, "--context", "y"]).ended(1).says("kubectl config get-contexts");
}

#[test]
fn as_a_plug_in_it_calls_itself_kubectl_orlop() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut plugin = called(dir.path(), "kubectl-orlop");
    let help: crate::support::Ran =
        plugin.args(["backup", "create", "--help"]).output().expect("run the plug-in").into();
    let help = help.good();
    assert!(help.contains("Usage: kubectl orlop backup create"), "{help}");
    let mut plugin = called(dir.path(), "kubectl-orlop");
    let error: crate::support::Ran = plugin.args(["backup", "make"]).output().expect("run the plug-in").into();
    error.ended(2).says("Usage: kubectl orlop backup");
}

#[test]
fn it_is_installed_with_the_names_that_kubectl_looks_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let tool = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/install");
    // A second time, it takes the place of the first.
    for _ in 0..2 {
        let installed = assert_cmd::Command::new(&tool).arg(env!("CARGO_BIN_EXE_orlop")).arg(dir.path()).output();
        crate::support::Ran::from(installed.expect("install")).good();
    }
    let run = |name: &str, words: &[&str]| {
        let ran = assert_cmd::Command::new(dir.path().join("bin").join(name)).args(words).output().expect("run it");
        crate::support::Ran::from(ran).good()
    };
    assert_eq!(run("orlop", &["version", "-o", "name"]), format!("{}\n", env!("CARGO_PKG_VERSION")));
    assert!(run("kubectl-orlop", &["backup", "--help"]).contains("Usage: kubectl orlop backup"));
    assert!(run("kubectl_complete-orlop", &["ba"]).contains("backup\t"));
}

#[test]
fn kubectl_gets_candidates() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut plugin = called(dir.path(), "kubectl_complete-orlop");
    let ran: crate::support::Ran = plugin.args(["backup", ""]).output().expect("run the plug-in").into();
    let text = ran.good();
    assert!(text.contains("create\tBack up namespaces, once\n"), "{text}");
    assert!(text.ends_with(":4\n"), "{text}");
}

#[test]
fn the_completion_script_is_valid_bash() {
    let script = run(&["completion", "bash"]).good();
    let checked: crate::support::Ran = assert_cmd::Command::new("bash")
        .args(["-n", "/dev/stdin"])
        .write_stdin(script)
        .output()
        .expect("run bash")
        .into();
    assert_eq!(checked.ended(0).stderr, "");
    for shell in ["zsh", "fish"] {
        assert!(run(&["completion", shell]).good().contains("backup-location"), "{shell}");
    }
}

#[test]
fn the_crds_are_those_of_the_types() {
    let text = run(&["crds"]).good();
    let documents: Vec<_> = text.split("---\n").collect();
    assert_eq!(documents.len(), api::crds::all().len());
    for (document, crd) in documents.iter().zip(api::crds::all()) {
        assert_eq!(*document, serde_saphyr::to_string(&crd).expect("a CRD is plain data"));
    }
    assert_eq!(
        run(&["crds", "-o", "name"]).good().lines().next(),
        Some("customresourcedefinition.apiextensions.k8s.io/applicationbackups.orlop.io")
    );
}

#[test]
fn the_version_can_be_read_by_programs() {
    let version = run(&["version", "-o", "json"]).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["apiVersion"], "orlop.io/v1alpha1");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bash: crate::support::Ran = assert_cmd::Command::new("bash")
        .args(["-c", "set -o pipefail; \"$0\" completion bash | head -n 1", env!("CARGO_BIN_EXE_orlop")])
        .output()
        .expect("run bash")
        .into();
    assert_eq!(bash.ended(0).stderr, "");
}

#[test]
fn a_bad_filter_of_logs_is_named() {
    let ran: crate::support::Ran =
        crate::support::orlop().env("RUST_LOG", "a=b=c").arg("version").output().expect("run").into();
    ran.ended(2).says("RUST_LOG: \"a=b=c\" cannot be understood");
}
