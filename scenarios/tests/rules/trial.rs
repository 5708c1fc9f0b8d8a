//! One database with its rule: it is made, written to, backed up under the rule, and restored beside the one that it was.

use anyhow::{Context, Result, ensure};
use api::{ApplicationBackup, ApplicationBackupStatus, ConsistencyLevel, HookState, HookStatus, Phase, Rule};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, AttachParams, PostParams};
use scenarios::{install, orlop, pods};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::journal::Journal;
use super::{CLIENTS, HOME, LIMIT, World};

/// What tells databases from each other.
pub(crate) struct Kind {
    /// Of the rule in `deploy/rules`, and what is made bears it.
    pub(crate) name: &'static str,
    /// Where clients reach it.
    pub(crate) port: u16,
    /// Files that it is started with; `start.sh` does it.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// What a user fills in for the rule, and what the server itself looks at.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// Succeeds when it can be used.
    pub(crate) ready: &'static str,
}

/// A database that runs, and a pod for its clients that is not in any backup.
pub(crate) struct Trial<'a> {
    pub(crate) world: &'a World,
    pub(crate) kind: Kind,
    /// The namespace that it comes back in.
    pub(crate) restored: String,
}

impl<'a> Trial<'a> {
    /// Makes it, and waits until it can be used.
    pub(crate) async fn begin(world: &'a World, kind: Kind, image: &str) -> Result<Self> {
        for object in objects(&kind, image) {
            install::create(&world.client, &object.to_string()).await?;
        }
        let trial = Self { world, restored: format!("{}-restored", kind.name), kind };
        let (name, client) = (trial.kind.name, &world.client);
        pods::ready_pod(client, name, &format!("app.kubernetes.io/name={name}"), LIMIT).await?;
        pods::ready_pod(client, CLIENTS, &format!("client-of={name}"), LIMIT).await?;
        Ok(trial)
    }

    async fn ask_in(&self, namespace: &str, script: &str) -> Result<String> {
        let said = pods::run(&self.world.client, namespace, "db-0", &["sh", "-c", script]).await?;
        Ok(said.trim().to_owned())
    }

    /// Runs something beside the server.
    pub(crate) async fn ask(&self, script: &str) -> Result<String> {
        self.ask_in(self.kind.name, script).await
    }

    /// Runs something beside the server that has come back.
    pub(crate) async fn ask_restored(&self, script: &str) -> Result<String> {
        self.ask_in(&self.restored, script).await
    }

    /// What the server that has come back says of itself.
    pub(crate) async fn log_restored(&self) -> Result<String> {
        pods::log(&self.world.client, &self.restored, "db-0", None).await
    }

    /// Starts a writer, which has the server's address in `$1` and says each number once that is acknowledged.
    pub(crate) async fn write(&self, script: &str) -> Result<Journal> {
        let services: Api<Service> = Api::namespaced(self.world.client.clone(), self.kind.name);
        let address = services.get("db").await?.spec.and_then(|spec| spec.cluster_ip).context("an address")?;
        let pods: Api<Pod> = Api::namespaced(self.world.client.clone(), CLIENTS);
        let params = AttachParams::default().stdin(false).stdout(true).stderr(false);
        let script = format!("exec 2>&1; {script}");
        let mut process = pods.exec(self.kind.name, ["sh", "-c", &script, "sh", &address], &params).await?;
        let mut lines = BufReader::new(process.stdout().context("no standard output")?).lines();
        let journal = Journal::default();
        let noted = journal.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                noted.note(&line);
            }
            noted.note("nothing more");
            drop(process);
        });
        journal.grows(50).await?;
        Ok(journal)
    }

    /// The rule as it is in `deploy/rules`, in the namespace of the backups.
    pub(crate) fn rule(&self) -> Result<Rule> {
        let file = install::deploy_dir().join("rules").join(self.kind.name).with_extension("yaml");
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let mut rule: Rule = serde_saphyr::from_str(&text)?;
        rule.metadata.namespace = Some(HOME.into());
        Ok(rule)
    }

    /// Makes a backup under a rule, whatever comes of it; both have the name of the rule.
    pub(crate) async fn back_up(&self, rule: &Rule) -> Result<ApplicationBackupStatus> {
        let (client, name) = (self.world.client.clone(), rule.name_any());
        Api::<Rule>::namespaced(client.clone(), HOME).create(&PostParams::default(), rule).await?;
        let words = [
            &["backup", "create", &name, "-n", HOME, "--namespaces", self.kind.name, "--backup-location", "vault"][..],
            &["--pre-exec-rule", &name, "--volumes", "snapshot", "--wait", "--timeout", "3m"],
        ];
        let said = orlop::run(Some(&self.world.cluster.kubeconfig_path()), &words.concat(), &[]).await?;
        let status = Api::<ApplicationBackup>::namespaced(client, HOME).get(&name).await?.status;
        status.filter(|status| status.phase.is_final()).with_context(|| format!("the backup did not end: {said:?}"))
    }

    /// Makes the backup under the ready rule, and restores it beside the database, which goes on.
    pub(crate) async fn there_and_back(&self) -> Result<Cut> {
        let status = self.back_up(&self.rule()?).await?;
        let cut = Cut::of(&status)?;
        let to = format!("{}={}", self.kind.name, self.restored);
        let words = ["restore", self.kind.name, "--name", self.kind.name, "-n", HOME, "--to", &to, "--wait"];
        orlop::succeed(Some(&self.world.cluster.kubeconfig_path()), &words, &[]).await?;
        pods::ready_pod(
            &self.world.client,
            &self.restored,
            &format!("app.kubernetes.io/name={}", self.kind.name),
            LIMIT,
        )
        .await?;
        self.world.said(&format!("{} was backed up, and has come back", self.kind.name));
        Ok(cut)
    }
}

/// What is heard of the writer after what it tells of, and what Kubernetes cuts off instants: it keeps them to the second.
pub(crate) const LATE: SignedDuration = SignedDuration::from_secs(2);

/// When what happened in a backup, or a bit later: see [`LATE`].
pub(crate) struct Cut {
    /// The command of the rule.
    pub(crate) hook: HookStatus,
    /// When it was begun.
    pub(crate) begun: Timestamp,
    /// The snapshot was taken.
    pub(crate) taken: Timestamp,
}

impl Cut {
    fn of(status: &ApplicationBackupStatus) -> Result<Self> {
        ensure!(status.phase == Phase::Succeeded, "{:?}: {:?}", status.phase, status.message);
        let consistency = status.consistency.as_ref().context("what is known of the data")?;
        ensure!(consistency.level == ConsistencyLevel::ApplicationConsistent, "{consistency:?}");
        let ([hook], [volume]) = (&status.hooks[..], &status.volumes[..]) else {
            anyhow::bail!("one command and one volume: {:?}, {:?}", status.hooks, status.volumes)
        };
        ensure!(hook.state == HookState::Succeeded, "{hook:?}");
        let taken = volume.cut_at.as_ref().context("a volume of which a snapshot was taken")?.0;
        let begun = hook.started_at.as_ref().context("a command that was begun")?.0;
        Ok(Self { hook: hook.clone(), begun, taken })
    }

    /// What came back is all that had been acknowledged by `instant`, and nothing that was begun after the snapshot.
    pub(crate) fn has_what_it_must(&self, journal: &Journal, last: usize, instant: Timestamp) -> Result<()> {
        let must = journal.by(instant);
        ensure!(last >= must, "{must} were acknowledged by {instant}, and {last} came back");
        // The writer begins with one when it was told of the one before.
        let began = journal.at(last - 1)?;
        ensure!(began < self.taken + LATE, "{last} was begun at {began}, and the snapshot taken at {}", self.taken);
        Ok(())
    }
}

/// The last of numbers that came back, which are all from 1 on, once each.
pub(crate) fn whole(numbers: &str) -> Result<usize> {
    let mut found: Vec<usize> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    found.sort_unstable();
    let wrong = found.iter().zip(1..).find(|(found, expected)| *found != expected);
    ensure!(wrong.is_none() && found.len() > 1, "of {} numbers this one is not the next: {wrong:?}", found.len());
    Ok(found.len())
}

/// The database in a namespace of its own, and the pod of its clients in [`CLIENTS`].
fn objects(kind: &Kind, image: &str) -> [serde_json::Value; 5] {
    let (name, labels) = (kind.name, json!({"app.kubernetes.io/name": kind.name}));
    let metadata = json!({"name": "db", "namespace": name});
    let path = ("PATH", "/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let env: Vec<_> = [path].iter().chain(kind.variables).map(|(k, v)| json!({"name": k, "value": v})).collect();
    let files: serde_json::Map<_, _> = kind.files.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    let user = json!({"runAsUser": 999, "runAsGroup": 999});
    let data = json!({"name": "data", "mountPath": "/data"});
    let owner = json!({
        "name": "owner", "image": image, "command": ["chown", "999:999", "/data"],
        "securityContext": {"runAsUser": 0}, "volumeMounts": [data],
    });
    let server = json!({
        "name": "server", "image": image, "command": ["sh", "/etc/db/start.sh"], "env": env,
        "securityContext": user, "ports": [{"containerPort": kind.port}],
        "readinessProbe": {"exec": {"command": ["sh", "-c", kind.ready]}, "periodSeconds": 1, "timeoutSeconds": 5},
        "volumeMounts": [data, {"name": "files", "mountPath": "/etc/db"}],
    });
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "orlop", "resources": {"requests": {"storage": "512Mi"}}},
    });
    let pod = json!({
        "terminationGracePeriodSeconds": 1, "initContainers": [owner], "containers": [server],
        "volumes": [{"name": "files", "configMap": {"name": "db"}}],
    });
    let client =
        json!({"name": "client", "image": image, "command": ["sleep", "1000000"], "env": env, "securityContext": user});
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": [{"port": kind.port}]}}),
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata,
            "spec": {
                "serviceName": "db", "selector": {"matchLabels": labels}, "volumeClaimTemplates": [claim],
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": CLIENTS, "labels": {"client-of": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [client]},
        }),
    ]
}
