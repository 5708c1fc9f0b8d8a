//! Mover pods: what one is made of, and what is read from it.
//!
//! Invariant: a mover's name follows from its run, its volume and its attempt alone, so a second one for the same attempt cannot exist,
//! whoever tries to make it. The job with its credentials is in a Secret beside the pod and goes with it; the pod has no token of the
//! cluster.

mod placement;
mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use api::RUN_LABEL;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, LocalObjectReference, PersistentVolumeClaimVolumeSource, Pod, PodSpec,
    ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Volume, VolumeDevice,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use mover::Form;

use crate::error::Error;
use crate::objects;

pub use placement::Placement;
pub use state::{MoverState, SoFar, has_ended, is_overdue, so_far, state};

/// On a mover: kind, namespace and name of its run, so that a change of the mover wakes the run.
pub const RUN_ANNOTATION: &str = "orlop.io/run-of";
/// On a mover: namespace and name of the location that it uses.
pub const LOCATION_ANNOTATION: &str = "orlop.io/location";
/// Selects movers, of all runs.
pub const SELECTOR: &str = "app.kubernetes.io/name=orlop-mover,orlop.io/run";
/// Where the volume is in a mover pod.
pub const VOLUME_PATH: &str = "/volume";
/// Where the volume is in a mover pod when it is a device.
pub const DEVICE_PATH: &str = "/dev/orlop-volume";
/// Where the job is in a mover pod.
pub const JOB_PATH: &str = "/job/job.json";
/// Entry of the Secret that holds the job.
const JOB_ENTRY: &str = "job.json";
/// Name of the only container.
pub const CONTAINER: &str = "mover";
/// What a mover may use of memory: it holds to 128 MiB of its own; the rest is for the pages of what it reads and writes.
const MEMORY_LIMIT: &str = "512Mi";
/// What a mover may use of processors: enough to hash and compress some 100 MiB/s. There is a limit at all because a quota of limits
/// refuses pods without one; it is no larger because a limit range refuses pods with a large one.
const CPU_LIMIT: &str = "1";
/// What a mover asks for: little, since a volume must be moved on a full node too.
const REQUESTS: [(&str, &str); 2] = [("cpu", "50m"), ("memory", "64Mi")];
/// How long a mover that is asked to end has for it.
const GRACE: Duration = Duration::from_secs(15);
/// Ask service meshes to put no container of their own into a mover: it would go on when the mover has ended, and what a mover sends is
/// encrypted anyway. Some versions of each look at labels, others at annotations.
const NO_SIDECARS: [(&str, &str); 2] =
    [("sidecar.istio.io/inject", "false"), ("kuma.io/sidecar-injection", "disabled")];
/// Likewise, for those that look at annotations alone.
const NO_SIDECARS_ANNOTATED: [(&str, &str); 1] = [("linkerd.io/inject", "disabled")];
/// What an API server says of a pod that the Pod Security standard of its namespace refuses.
const POD_SECURITY: &str = "violates PodSecurity";

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
    fn capabilities(self, form: Form) -> &'static [&'static str] {
        match (self, form) {
            // Opens a device whatever user of its node it belongs to, such as that of a database. The container has this device and no other one.
            (_, Form::Image) => &["DAC_OVERRIDE"],
            // Reads files of every owner. CAP_DAC_READ_SEARCH would be narrower by name, but it opens files by handle, past the mount,
            // and is outside of `baseline`; the mount is read-only, so nothing can be written with this one.
            (Self::Backup, Form::Files) => &["DAC_OVERRIDE"],
            // Gives files their owners, modes, device numbers and capabilities back.
            (Self::Restore, Form::Files) => &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
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
    /// Namespace and name of the location.
    pub location: &'a str,
    /// Index of the volume in the run's status.
    pub volume: usize,
    /// From 1.
    pub attempt: u32,
    /// Namespace of the claim.
    pub namespace: &'a str,
    /// The claim.
    pub claim: &'a str,
    /// As what it is moved: a claim for files is mounted, one for a device is not.
    pub form: Form,
    /// Where it may run.
    pub placement: &'a Placement,
    /// The image, whose entry point is `orlop`.
    pub image: &'a str,
    /// Names of Secrets in its namespace with which the image is pulled.
    pub pull_secrets: &'a [String],
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
    parse_run(pod.annotations().get(RUN_ANNOTATION)?)
}

/// The run of that kind that a value of [`RUN_ANNOTATION`] names.
#[must_use]
pub fn parse_run<K: Resource<DynamicType = ()>>(run: &str) -> Option<ObjectRef<K>> {
    let mut parts = run.splitn(3, '/');
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    (kind == K::kind(&())).then(|| ObjectRef::new(name).within(namespace))
}

/// Where a mover finds its volume.
#[must_use]
pub fn place(form: Form) -> &'static str {
    match form {
        Form::Files => VOLUME_PATH,
        Form::Image => DEVICE_PATH,
    }
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
            annotations: Some(BTreeMap::from(
                [(RUN_ANNOTATION, self.run), (LOCATION_ANNOTATION, self.location)]
                    .map(|(k, v)| (k.to_owned(), v.to_owned())),
            )),
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
        let mut spec = PodSpec {
            containers: vec![self.container()],
            volumes: Some(self.volumes()),
            restart_policy: Some("Never".into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            active_deadline_seconds: i64::try_from(self.deadline.as_secs()).ok(),
            termination_grace_period_seconds: i64::try_from(GRACE.as_secs()).ok(),
            image_pull_secrets: self.pull_secrets(),
            ..PodSpec::default()
        };
        self.placement.write(&mut spec);
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let mut metadata = self.metadata();
        metadata.labels.get_or_insert_default().extend(NO_SIDECARS.map(owned));
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.extend(NO_SIDECARS.map(owned));
        annotations.extend(NO_SIDECARS_ANNOTATED.map(owned));
        Pod { metadata, spec: Some(spec), status: None }
    }

    fn pull_secrets(&self) -> Option<Vec<LocalObjectReference>> {
        let secrets: Vec<_> =
            self.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
        (!secrets.is_empty()).then_some(secrets)
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
            volume_mounts: Some(match self.form {
                Form::Files => {
                    vec![mount("volume", VOLUME_PATH, self.direction == Direction::Backup), mount("job", "/job", true)]
                }
                Form::Image => vec![mount("job", "/job", true)],
            }),
            // There is no device that may only be read: what a backup must not do, the mover does not do.
            volume_devices: (self.form == Form::Image)
                .then(|| vec![VolumeDevice { name: "volume".into(), device_path: DEVICE_PATH.into() }]),
            resources: Some(ResourceRequirements {
                limits: Some(quantities(&[("cpu", CPU_LIMIT), ("memory", MEMORY_LIMIT)])),
                requests: Some(quantities(&REQUESTS)),
                ..ResourceRequirements::default()
            }),
            security_context: Some(self.security()),
            termination_message_policy: Some("File".into()),
            ..Container::default()
        }
    }

    fn security(&self) -> SecurityContext {
        let add = self.direction.capabilities(self.form).iter().map(|c| (*c).to_owned()).collect();
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

    /// Makes the Secret and the pod. What exists is the same, so doing it again is the same as doing it once. A Secret with another job is of somebody else, or of an operator that
    /// knew other parents: it is made anew. A pod that somebody else made and labelled as this one is taken for it: what it says that it stored is looked for.
    ///
    /// # Errors
    /// The API server did not answer, or refused; or there is something of that name that is not of this run.
    pub async fn start(&self, client: &Client) -> Result<(), Error> {
        let secret = self.secret();
        let is_another = |found: &Secret| found.data != secret.data;
        if let Some(found) = objects::create_or_find(client, &secret).await?.filter(is_another) {
            objects::delete(client, &found, None).await?;
            if objects::create_or_find(client, &secret).await?.is_some_and(|found| is_another(&found)) {
                return Err(Error::Taken(objects::title(&secret)));
            }
        }
        let pod = self.pod();
        let is_ours = |found: &Pod| found.labels().get(RUN_LABEL).is_some_and(|uid| uid == self.run_uid);
        match objects::create_or_find(client, &pod).await? {
            Some(found) if !is_ours(&found) => Err(Error::Taken(objects::title(&pod))),
            _ => Ok(()),
        }
    }
}

/// What an API server says of a mover that it refuses, with what to do about it where that does not follow from its words.
#[must_use]
pub fn explain(refusal: String) -> String {
    if !refusal.contains(POD_SECURITY) {
        return refusal;
    }
    format!(
        "the namespace enforces a Pod Security standard that movers do not meet, since they handle files of every owner: they need \
         `baseline`, so label the namespace pod-security.kubernetes.io/enforce=baseline, at least while a backup or a restore runs \
         ({refusal})"
    )
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

/// Asks a pod to end, in the time that a mover has, whatever the pod says; by force when its node is lost.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn end(client: &Client, pod: &Pod) -> Result<(), Error> {
    if pod.metadata.deletion_timestamp.is_none() {
        return objects::delete(client, pod, u32::try_from(GRACE.as_secs()).ok()).await;
    }
    if is_overdue(pod, Timestamp::now()) {
        return objects::delete(client, pod, Some(0)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static ANYWHERE: LazyLock<Placement> = LazyLock::new(Placement::anywhere);
    static SECRETS: LazyLock<Vec<String>> = LazyLock::new(|| vec!["registry".to_owned()]);

    fn mover(direction: Direction) -> Mover<'static> {
        Mover {
            run_uid: "0A1b2c3d-4e5f-0000-1111-222233334444",
            run: "ApplicationBackup/shop/nightly",
            direction,
            location: "shop/main",
            volume: 3,
            attempt: 2,
            namespace: "shop",
            claim: "data",
            form: Form::Files,
            placement: &ANYWHERE,
            image: "orlop:test",
            pull_secrets: &SECRETS,
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
    fn a_mover_of_a_device_has_that_and_nothing_to_do_with_files() {
        for direction in [Direction::Backup, Direction::Restore] {
            let spec = Mover { form: Form::Image, ..mover(direction) }.pod().spec.expect("a mover has a spec");
            let container = &spec.containers[0];
            let devices: Vec<_> =
                container.volume_devices.iter().flatten().map(|d| (d.name.as_str(), d.device_path.as_str())).collect();
            assert_eq!(devices, [("volume", DEVICE_PATH)]);
            let mounts: Vec<_> = container.volume_mounts.iter().flatten().map(|m| m.name.as_str()).collect();
            assert_eq!(mounts, ["job"]);
            let security = container.security_context.clone().expect("a mover has a security context");
            assert_eq!((security.privileged, security.allow_privilege_escalation), (Some(false), Some(false)));
            let capabilities = security.capabilities.expect("they are named");
            assert_eq!(capabilities.add, Some(vec!["DAC_OVERRIDE".to_owned()]));
            assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
        }
    }

    #[test]
    fn service_meshes_are_asked_to_leave_a_mover_alone() {
        let pod = mover(Direction::Backup).pod();
        for (map, key, value) in [
            (pod.labels(), "sidecar.istio.io/inject", "false"),
            (pod.annotations(), "sidecar.istio.io/inject", "false"),
            (pod.annotations(), "linkerd.io/inject", "disabled"),
            (pod.annotations(), "kuma.io/sidecar-injection", "disabled"),
        ] {
            assert_eq!(map.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert_eq!(pod.labels()[RUN_LABEL], mover(Direction::Backup).run_uid);
    }

    #[test]
    fn a_mover_has_limits_that_a_quota_asks_for_and_pulls_with_the_secrets_it_is_given() {
        let spec = mover(Direction::Backup).pod().spec.expect("a mover has a spec");
        let resources = spec.containers[0].resources.clone().expect("a mover has limits");
        for list in [resources.limits, resources.requests] {
            let names: Vec<String> = list.expect("both are given").into_keys().collect();
            assert_eq!(names, ["cpu", "memory"]);
        }
        let secrets: Vec<String> = spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()).collect();
        assert_eq!(secrets, ["registry"]);
    }

    #[test]
    fn a_refusal_by_pod_security_says_what_to_do() {
        let said = "pods \"m\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true";
        let explained = explain(said.into());
        assert!(
            explained.contains("pod-security.kubernetes.io/enforce=baseline") && explained.contains(said),
            "{explained}"
        );
        assert_eq!(explain("exceeded quota".into()), "exceeded quota");
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
