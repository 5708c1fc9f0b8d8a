//! The binary as the operator and as the command line, together, on a control plane without nodes: so without volumes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::Ran;
use api::{ApplicationBackupSchedule, SchedulePolicy};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use sandbox::control_plane::ControlPlane;
use sandbox::s3::{Credentials, S3Server};
use serde_json::json;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The operator; it ends with the test.
struct Operator {
    process: Child,
    log: PathBuf,
}

impl Operator {
    fn start(kubeconfig: &Path, dir: &Path) -> Self {
        let log = dir.join("operator.log");
        let file = File::create(&log).expect("make the log");
        let process = Command::new(env!("CARGO_BIN_EXE_orlop"))
            .args(["operator", "--image", "unused", "--listen", "127.0.0.1:0", "--kubeconfig"])
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("start the operator");
        Self { process, log }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // One that has ended already cannot be killed; either way it is waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the operator's log\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

async fn install(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in api::crds::all() {
        let name = crd.metadata.name.clone().expect("a CRD has a name");
        crds.create(&PostParams::default(), &crd).await.expect("create the CRD");
        let served = await_condition(crds.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(PATIENCE, served).await.expect("in time").expect("watch the CRD");
    }
    for name in [api::ADMIN_NAMESPACE, "shop"] {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("create the namespace");
    }
}

fn settings(client: &Client, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), namespace)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_backed_up_and_restored_under_another_name() {
    sandbox::require_assets!();
    let control_plane =
        ControlPlane::builder().with_controller_manager().start().await.expect("start the control plane");
    let client = control_plane.client();
    install(&client).await;
    let mut map = ConfigMap { data: Some([("greeting".to_owned(), "hello".to_owned())].into()), ..Default::default() };
    map.metadata.name = Some("settings".to_owned());
    settings(&client, "shop").create(&PostParams::default(), &map).await.expect("create the settings");

    let dir = tempfile::tempdir().expect("a folder");
    let store = S3Server::start(dir.path().join("s3"), Credentials::generate()).expect("start the store");
    store.create_bucket("backups").expect("make the bucket");
    std::fs::write(dir.path().join("password"), "open sesame\n").expect("write the passphrase");
    let kubeconfig = control_plane.kubeconfig_path();
    let _operator = Operator::start(&kubeconfig, dir.path());

    let run = |words: &[&str], secret: &str| {
        let mut command = crate::support::orlop();
        command.env("KUBECONFIG", &kubeconfig).env("ORLOP_PASSWORD_FILE", dir.path().join("password"));
        command.env("AWS_ENDPOINT_URL", store.endpoint()).env("AWS_ACCESS_KEY_ID", &store.credentials().access_key);
        command.env("AWS_SECRET_ACCESS_KEY", secret).args(words);
        async {
            tokio::task::spawn_blocking(move || Ran::from(command.output().expect("run orlop"))).await.expect("run")
        }
    };
    let secret = store.credentials().secret_key.clone();
    let home = ["-n", api::ADMIN_NAMESPACE];
    let at_home = |words: &[&'static str]| run(&[words, &home].concat(), &secret);

    let wrong = run(&[&["location", "add", "wrong", "s3://backups/east"][..], &home].concat(), "guessed").await;
    let wrong = wrong.ended(1).says("location wrong cannot be used (AccessDenied)").stderr;
    let added = at_home(&["location", "add", "main", "s3://backups/east"]).await.good();
    assert!(added.contains("Phase:            Ready"), "{added}");
    let checked = at_home(&["location", "check", "main", "--timeout", "1m", "-o", "json"]).await.json();
    assert_eq!(checked["status"]["phase"], "Ready");
    assert!(checked["metadata"]["annotations"][api::CHECK_REQUESTED].is_string());

    let words =
        ["backup", "create", "first", "--namespaces", "shop", "--backup-location", "main", "--wait", "--timeout", "2m"];
    let backed_up = at_home(&words).await.good();
    assert!(backed_up.contains("0 missed"), "{backed_up}");
    let points = at_home(&["backup", "list", "--backup-location", "main", "-o", "json"]).await.json();
    assert_eq!((points.as_array().map(Vec::len), &points[0]["complete"]), (Some(1), &true.into()), "{points}");

    let listed = at_home(&["backup", "list", "--backup-location", "main"]).await.good();

    let words = ["restore", "first", "--to", "shop=copy", "--name", "back", "--wait", "--timeout", "2m"];
    let restored = at_home(&words).await.good();
    assert!(restored.contains("0 failed"), "{restored}");
    let copy = settings(&client, "copy").get("settings").await.expect("the settings are back");
    assert_eq!(copy.data, map.data);

    let planned = plan(&run, &secret, &settings(&client, "shop"), map).await;

    schedule(&client).await;
    let begun = at_home(&["schedule", "run", "often"]).await.good();
    assert!(begun.starts_with("applicationbackup.orlop.io/often-manual-"), "{begun}");
    let shown = at_home(&["schedule", "show", "often"]).await.good();
    assert!(shown.contains("often-manual-") && shown.contains("Suspended:"), "{shown}");
    let resumed = at_home(&["schedule", "resume", "often", "-o", "json"]).await.json();
    assert_eq!(resumed["spec"]["suspend"], false);
    let gone = at_home(&["schedule", "delete", "often"]).await.good();
    assert!(gone.contains("its runs and their recovery points stay"), "{gone}");
    at_home(&["schedule", "run", "often"]).await.ended(1).says("orlop schedule list");

    let checked = at_home_repo(&run, &secret, &["check", "--read-data", "-o", "json"]).await.json();
    assert_eq!(checked["clean"], true, "{checked}");
    let parts = one_file_through_the_location(&run, &secret, dir.path()).await;
    // Shown when the test fails, or when somebody asks for it.
    println!("{wrong}\n{added}\n{backed_up}\n{listed}\n{restored}\n{planned}\n{parts}");
}

/// What has changed since the backup is in a plan, and is changed back when just that is done. What was printed.
async fn plan<F: Future<Output = Ran>>(
    run: &impl Fn(&[&str], &str) -> F,
    secret: &str,
    settings: &Api<ConfigMap>,
    mut map: ConfigMap,
) -> String {
    let at_home = |words: &[&str]| run(&[words, &["-n", api::ADMIN_NAMESPACE]].concat(), secret);
    map.data = Some([("greeting".to_owned(), "good bye".to_owned())].into());
    settings.replace("settings", &PostParams::default(), &map).await.expect("change the settings");
    let planned = at_home(&["restore", "plan", "first", "--name", "look", "--replace-policy", "update"]).await.good();
    assert!(planned.contains("/data/greeting") && planned.contains("\"good bye\""), "{planned}");
    let look = at_home(&["restore", "show", "look", "-o", "json"]).await.json();
    let hash = look["status"]["plan"]["hash"].as_str().expect("a plan has a hash").to_owned();
    let words = ["restore", "first", "--replace-policy", "update", "--wait", "--plan-hash", &hash, "--name"];
    let done = at_home(&[&words[..], &["exact"]].concat()).await.good();
    let back = settings.get("settings").await.expect("the settings are there");
    assert_eq!(back.data.and_then(|data| data.get("greeting").cloned()).as_deref(), Some("hello"));
    let refused = at_home(&[&words[..], &["once-more"]].concat()).await.ended(1).stdout;
    assert!(refused.contains("something else would be done now than by the plan"), "{refused}");
    assert!(refused.contains("ConfigMap shop/settings (Keep, it was Update)"), "{refused}");
    format!("{planned}\n{done}\n{refused}")
}

/// A schedule that is suspended, so that it begins what it is asked for alone.
async fn schedule(client: &Client) {
    let policy = json!({"interval": {"intervalMinutes": 60, "retain": 1}});
    let policy: SchedulePolicy = serde_json::from_value(json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "SchedulePolicy", "metadata": {"name": "hourly"}, "spec": {"policy": policy},
    }))
    .expect("a policy");
    Api::all(client.clone()).create(&PostParams::default(), &policy).await.expect("create the policy");
    let template = json!({"spec": {"namespaces": ["shop"], "backupLocation": "main"}});
    let schedule: ApplicationBackupSchedule = serde_json::from_value(json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "ApplicationBackupSchedule", "metadata": {"name": "often"},
        "spec": {"schedulePolicyName": "hourly", "suspend": true, "template": template},
    }))
    .expect("a schedule");
    let schedules = Api::namespaced(client.clone(), api::ADMIN_NAMESPACE);
    schedules.create(&PostParams::default(), &schedule).await.expect("create the schedule");
}

/// A single file of a volume, by what the cluster's location says and by nothing that the machine has. What was printed.
async fn one_file_through_the_location<F: Future<Output = Ran>>(
    run: &impl Fn(&[&str], &str) -> F,
    secret: &str,
    dir: &Path,
) -> String {
    std::fs::create_dir_all(dir.join("data/orders")).expect("make a folder");
    for name in ["orders/one", "orders/two", "other"] {
        std::fs::write(dir.join("data").join(name), name).expect("write");
    }
    let text = |name: &str| dir.join(name).to_str().expect("text").to_owned();
    at_home_repo(run, secret, &["backup", &text("data"), "--id", "files"]).await.good();
    let located = |words: &[&str]| {
        let location = format!("{}/main", api::ADMIN_NAMESPACE);
        // What the machine knows is of no use, and is not used.
        run(&[&["repo", "--backup-location", &location], words].concat(), "guessed")
    };
    let done = located(&["restore", "files", &text("out"), "--path", "orders/one"]).await.good();
    assert_eq!(std::fs::read_to_string(dir.join("out/orders/one")).expect("it is there"), "orders/one");
    assert!(!dir.join("out/other").exists() && !dir.join("out/orders/two").exists(), "more than was asked for");
    located(&["restore", "files", &text("none"), "--path", "../other"]).await.ended(2);
    assert!(!dir.join("none").exists());
    let both = located(&["list", "--location", "s3://backups/west"]).await.ended(2);
    both.says("leave out --location");
    let missing = run(&["repo", "--backup-location", "orlop-system/elsewhere", "list"], secret).await.ended(1);
    missing.says("elsewhere");
    done
}

async fn at_home_repo<F: Future<Output = Ran>>(run: &impl Fn(&[&str], &str) -> F, secret: &str, words: &[&str]) -> Ran {
    run(&[&["repo", "--location", "s3://backups/east"], words].concat(), secret).await
}
