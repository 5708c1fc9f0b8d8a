//! Mover pods: what one is made of, and what is read from it.
//!
//! Invariant: a mover's name follows from its run, its volume and its attempt alone, so a second one for the same attempt cannot exist,
//! whoever tries to make it. The job with its credentials is in a Secret beside the pod and goes with it; the pod has no token of the
//! cluster.

mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use api::RUN_LABEL;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolumeClaimVolumeSource, Pod, PodSpec, ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource,
    SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};

use crate::error::Error;
use crate::objects;

pub use state::{MoverState, SoFar, is_overdue, so_far, state};

/// On a mover: kind, namespace and name of its run, so that a change of the mover wakes the run.
pub const RUN_ANNOTATION: &str = "orlop.io/run-of";
/// Where the volume is in a mover pod.
pub const VOLUME_PATH: &str = "/volume";
/// Where the job is in a mover pod.
pub const JOB_PATH: &str = "/job/job.json";
/// Entry of the Secret that holds the job.
const JOB_ENTRY: &str = "job.json";
/// Name of the only container.
pub const CONTAINER: &str = "mover";
/// What a mover may use: it holds to 128 MiB of its own; the rest is for the pages of what it reads and writes.
const MEMORY_LIMIT: &str = "512Mi";
/// What a mover asks for: little, since a volume must be moved on a full node too.
const REQUESTS: [(&str, &str); 2] = [("cpu", "50m"), ("memory", "64Mi")];
/// Seconds for which a mover stays on a node that is not ready or cannot be reached; then another attempt is better.
const LOST_NODE_SECONDS: i64 = 60;
/// Seconds a mover that is asked to end gets for it.
const GRACE_SECONDS: i64 = 15;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the volume into the repository.
    Backup,
    /// From the repository into the volume.
    Restore,
}

impl Direction {
    fn letter(self) -> char {
        match self {
            Self::Backup => 'b',
            Self::Restore => 'r',
        }
    }

    /// Capabilities beside none. All of them are within the `baseline` pod security standard.
    fn capabilities(self) -> &'static [&'static str] {
        match self {
            // Reads files of every owner. CAP_DAC_READ_SEARCH would be narrower by name, but it opens files by handle, past the mount,
            // and is outside of `baseline`; the mount is read-only, so nothing can be written with this one.
            Self::Backup => &["DAC_OVERRIDE"],
            // Gives files their owners, modes, device numbers and capabilities back.
            Self::Restore => &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
        }
    }
}

/// One mover: this and nothing else decides what is made.
#[derive(Clone, Debug)]
pub struct Mover<'a> {
    /// Uid of the run's resource.
    pub run_uid: &'a str,
    /// Kind, namespace and name of the run, from [`run_annotation`].
    pub run: &'a str,
    /// Which way.
    pub direction: Direction,
    /// Index of the volume in the run's status.
    pub volume: usize,
    /// From 1.
    pub attempt: u32,
    /// Namespace of the claim.
    pub namespace: &'a str,
    /// The claim.
    pub claim: &'a str,
    /// The node that has the volume, if a pod there uses it; else the scheduler chooses.
    pub node: Option<&'a str>,
    /// The image, whose entry point is `orlop`.
    pub image: &'a str,
    /// How long it may work.
    pub deadline: Duration,
    /// `mover::Job` as JSON.
    pub job: &'a [u8],
}

/// The value of [`RUN_ANNOTATION`] for a run.
pub fn run_annotation<K: Resource<DynamicType = ()>>(run: &K) -> String {
    format!("{}/{}/{}", K::kind(&()), run.meta().namespace.as_deref().unwrap_or_default(), run.name_any())
}

/// The run of that kind that a mover belongs to.
pub fn run_of<K: Resource<DynamicType = ()>>(pod: &Pod) -> Option<ObjectRef<K>> {
    let mut parts = pod.annotations().get(RUN_ANNOTATION)?.splitn(3, '/');
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    (kind == K::kind(&())).then(|| ObjectRef::new(name).within(namespace))
}

/// The name of a mover and of its Secret.
#[must_use]
pub fn name(run_uid: &str, direction: Direction, volume: usize, attempt: u32) -> String {
    format!("orlop-{}-{}{volume}-{attempt}", short(run_uid), direction.letter())
}

/// The first eight digits of a uid, as names have them.
#[must_use]
pub fn short(uid: &str) -> String {
    uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect::<String>().to_ascii_lowercase()
}

impl Mover<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.run_uid, self.direction, self.volume, self.attempt)
    }

    fn metadata(&self) -> ObjectMeta {
        let labels = [
            (RUN_LABEL, self.run_uid),
            ("app.kubernetes.io/name", "orlop-mover"),
            ("app.kubernetes.io/managed-by", "orlop"),
        ];
        ObjectMeta {
            name: Some(self.name()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            annotations: Some(BTreeMap::from([(RUN_ANNOTATION.to_owned(), self.run.to_owned())])),
            ..ObjectMeta::default()
        }
    }

    /// The Secret with its job.
    #[must_use]
    pub fn secret(&self) -> Secret {
        Secret {
            metadata: self.metadata(),
            data: Some(BTreeMap::from([(JOB_ENTRY.to_owned(), ByteString(self.job.to_vec()))])),
            type_: Some("Opaque".into()),
            ..Secret::default()
        }
    }

    /// The pod.
    #[must_use]
    pub fn pod(&self) -> Pod {
        let spec = PodSpec {
            containers: vec![self.container()],
            volumes: Some(self.volumes()),
            restart_policy: Some("Never".into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            active_deadline_seconds: i64::try_from(self.deadline.as_secs()).ok(),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            tolerations: Some(tolerations()),
            affinity: self.node.map(on_node),
            ..PodSpec::default()
        };
        Pod { metadata: self.metadata(), spec: Some(spec), status: None }
    }

    fn container(&self) -> Container {
        let mount = |name: &str, path: &str, read_only| VolumeMount {
            name: name.into(),
            mount_path: path.into(),
            read_only: Some(read_only),
            ..VolumeMount::default()
        };
        let quantities =
            |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect();
        Container {
            name: CONTAINER.into(),
            image: Some(self.image.to_owned()),
            image_pull_policy: Some("IfNotPresent".into()),
            args: Some(["mover", "--job", JOB_PATH].map(Into::into).into()),
            volume_mounts: Some(vec![
                mount("volume", VOLUME_PATH, self.direction == Direction::Backup),
                mount("job", "/job", true),
            ]),
            resources: Some(ResourceRequirements {
                limits: Some(quantities(&[("memory", MEMORY_LIMIT)])),
                requests: Some(quantities(&REQUESTS)),
                ..ResourceRequirements::default()
            }),
            security_context: Some(self.security()),
            termination_message_policy: Some("File".into()),
            ..Container::default()
        }
    }

    fn security(&self) -> SecurityContext {
        let add = self.direction.capabilities().iter().map(|c| (*c).to_owned()).collect();
        SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            privileged: Some(false),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { add: Some(add), drop: Some(vec!["ALL".into()]) }),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
            ..SecurityContext::default()
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        // Read-only by the mount, not by the claim: some drivers attach a claim that is asked for read-only in another way, and then
        // refuse it to a node that has it already.
        let claim = PersistentVolumeClaimVolumeSource { claim_name: self.claim.to_owned(), read_only: Some(false) };
        let job = SecretVolumeSource {
            secret_name: Some(self.name()),
            default_mode: Some(0o400),
            ..SecretVolumeSource::default()
        };
        vec![
            Volume { name: "volume".into(), persistent_volume_claim: Some(claim), ..Volume::default() },
            Volume { name: "job".into(), secret: Some(job), ..Volume::default() },
        ]
    }

    /// Makes the Secret and the pod. What exists is the same, so doing it again is the same as doing it once.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn start(&self, client: &Client) -> Result<(), Error> {
        objects::create(client, &self.secret()).await?;
        objects::create(client, &self.pod()).await
    }
}

/// Everything is tolerated, as the volume may be on any node; but a node that is lost only for a while. The first toleration that fits
/// a taint counts, so the narrow ones come first.
fn tolerations() -> Vec<Toleration> {
    let lost = |key: &str| Toleration {
        key: Some(key.into()),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(LOST_NODE_SECONDS),
        ..Toleration::default()
    };
    let all = Toleration { operator: Some("Exists".into()), ..Toleration::default() };
    vec![lost("node.kubernetes.io/not-ready"), lost("node.kubernetes.io/unreachable"), all]
}

/// By affinity and not by `nodeName`: the scheduler then counts the pod, and says why it does not fit.
fn on_node(node: &str) -> Affinity {
    let field = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), ..NodeSelectorTerm::default() };
    let required = Some(NodeSelector { node_selector_terms: vec![term] });
    let node_affinity =
        NodeAffinity { required_during_scheduling_ignored_during_execution: required, ..NodeAffinity::default() };
    Affinity { node_affinity: Some(node_affinity), ..Affinity::default() }
}

/// Whether a pod that is not over uses a claim, and has a node.
#[must_use]
pub fn uses(pod: &Pod, claim: &str) -> bool {
    let over = matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    let spec = pod.spec.clone().unwrap_or_default();
    let names = |v: &Volume| v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == claim);
    !over && spec.node_name.is_some() && spec.volumes.iter().flatten().any(names)
}

/// Removes a mover and its Secret; by force when its node is lost, which shows in a pod that should have ended long ago.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn remove(client: &Client, pod: &Pod) -> Result<(), Error> {
    end(client, pod).await?;
    let namespace = pod.namespace().unwrap_or_default();
    match objects::read::<Secret>(client, &namespace, &pod.name_any()).await? {
        Some(secret) if secret.labels().get(RUN_LABEL) == pod.labels().get(RUN_LABEL) => {
            objects::delete(client, &secret, None).await
        }
        _ => Ok(()),
    }
}

/// Asks a pod to end; by force when its node is lost.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn end(client: &Client, pod: &Pod) -> Result<(), Error> {
    if pod.metadata.deletion_timestamp.is_none() {
        return objects::delete(client, pod, None).await;
    }
    if is_overdue(pod, Timestamp::now()) {
        return objects::delete(client, pod, Some(0)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mover(direction: Direction) -> Mover<'static> {
        Mover {
            run_uid: "0A1b2c3d-4e5f-0000-1111-222233334444",
            run: "ApplicationBackup/shop/nightly",
            direction,
            volume: 3,
            attempt: 2,
            namespace: "shop",
            claim: "data",
            node: Some("node-1"),
            image: "orlop:test",
            deadline: Duration::from_secs(60),
            job: b"{}",
        }
    }

    #[test]
    fn the_name_follows_from_run_volume_and_attempt() {
        assert_eq!(mover(Direction::Backup).name(), "orlop-0a1b2c3d-b3-2");
        assert_eq!(mover(Direction::Restore).pod().name_any(), "orlop-0a1b2c3d-r3-2");
        assert_eq!(mover(Direction::Backup).secret().name_any(), "orlop-0a1b2c3d-b3-2");
    }

    #[test]
    fn a_mover_can_do_no_more_than_it_must() {
        for (direction, read_only) in [(Direction::Backup, true), (Direction::Restore, false)] {
            let spec = mover(direction).pod().spec.expect("a mover has a spec");
            assert_eq!(spec.automount_service_account_token, Some(false));
            assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
            let container = &spec.containers[0];
            let volume = container.volume_mounts.iter().flatten().find(|m| m.mount_path == VOLUME_PATH);
            assert_eq!(volume.and_then(|m| m.read_only), Some(read_only));
            let security = container.security_context.as_ref().expect("a mover has a security context");
            assert_eq!(security.capabilities.as_ref().and_then(|c| c.drop.clone()), Some(vec!["ALL".to_owned()]));
            assert_eq!((security.privileged, security.read_only_root_filesystem), (Some(false), Some(true)));
        }
    }

    #[test]
    fn a_lost_node_is_tolerated_for_a_while_and_everything_else_for_ever() {
        let tolerations = tolerations();
        let (all, lost) = tolerations.split_last().expect("there are some");
        assert_eq!((all.key.as_deref(), all.toleration_seconds), (None, None));
        assert!(lost.iter().all(|t| t.toleration_seconds == Some(LOST_NODE_SECONDS)));
    }

    #[test]
    fn a_mover_leads_back_to_its_run_of_the_right_kind() {
        let pod = mover(Direction::Backup).pod();
        let expected = ObjectRef::new("nightly").within("shop");
        assert_eq!(run_of::<api::ApplicationBackup>(&pod), Some(expected));
        assert_eq!(run_of::<api::ApplicationRestore>(&pod), None);
        assert_eq!(run_of::<api::ApplicationBackup>(&Pod::default()), None);
    }
}
