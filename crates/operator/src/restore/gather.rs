//! What is known of a restore before anything is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{ApplicationRestore, ApplicationRestoreStatus, HookTime, ReplacePolicy, RestoreStage};
use application::readiness::{self, Readiness};
use application::{ObjectKey, Patience, discover};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::OwnedMutexGuard;

use super::point::{self, Point};
use super::transforms::{self, Transforms};
use super::validate::{self, NamespaceState, PointFacts, Source, TargetFacts, Verdict};
use super::volume::observe::{Seen, claim_users, observe};
use super::volume::step::is_control_planes_turn;
use super::{Restores, Trouble};
use crate::admission;
use crate::context::Context;
use crate::error::{During, Error};
use crate::objects;
use crate::rules::{self, Acting, Named, Next, RuleFacts};
use crate::trust;

/// What is known of a restore.
pub(super) struct Gathered {
    /// As it is now.
    pub(super) restore: ApplicationRestore,
    pub(super) uid: String,
    pub(super) scene: Scene,
    pub(super) now: Timestamp,
    /// For how long the recovery point could not be had.
    pub(super) without_point: Duration,
}

/// What is known beside the restore itself; which, depends on where it is.
#[allow(clippy::large_enum_variant, reason = "there is one of them in a reconcile")]
pub(super) enum Scene {
    /// It is over.
    Over,
    /// It is being deleted.
    Ending(Vec<Seen>),
    /// It has not begun.
    Fresh(Box<Fresh>),
    /// It has.
    Begun(Begun),
}

/// What is known of a restore that has not begun.
pub(super) struct Fresh {
    /// The verdict on its spec alone, and on the rules that it names; if that is bad, nothing more was looked at.
    pub(super) spec: Verdict,
    pub(super) source: Option<Result<Arc<Point>, Source>>,
    pub(super) target: TargetFacts,
    /// No other run that makes objects can begin until this one has, or waits.
    _admission: Option<OwnedMutexGuard<()>>,
}

/// What is known of a restore that has begun.
pub(super) struct Begun {
    pub(super) spec: Verdict,
    /// Not looked for when the spec is not the one that the run began with, nor where commands of a rule run or workloads are waited for.
    pub(super) point: Option<Result<Arc<Point>, Source>>,
    pub(super) seen: Vec<Seen>,
    /// The rule that runs at this stage.
    pub(super) rule: Option<RuleFacts>,
    /// How the workloads are that were made, where they are waited for.
    pub(super) workloads: Vec<(ObjectKey, Readiness)>,
}

impl Scene {
    fn lacks_point(&self) -> bool {
        match self {
            Self::Fresh(fresh) => matches!(&fresh.source, Some(Err(_))),
            Self::Begun(begun) => matches!(&begun.point, Some(Err(_))),
            Self::Over | Self::Ending(_) => false,
        }
    }
}

impl Gathered {
    /// The status, as it was last written.
    pub(super) fn status(&self) -> ApplicationRestoreStatus {
        self.restore.status.clone().unwrap_or_default()
    }
}

/// Looks at a restore and at what its stage depends on; nothing if it is gone.
pub(super) async fn gather(restores: &Restores, cached: &ApplicationRestore) -> Result<Option<Gathered>, Error> {
    let context = &restores.context;
    let namespace = cached.namespace().unwrap_or_default();
    let Some(restore) = objects::read::<ApplicationRestore>(&context.client, &namespace, &cached.name_any()).await?
    else {
        return Ok(None);
    };
    let uid = objects::uid(&restore)?;
    let now = Timestamp::now();
    let status = restore.status.clone().unwrap_or_default();
    let believed = trust::of_restore(&restore);
    let volumes = if believed.is_ok() { &status.volumes[..] } else { &[] };
    let look = async || {
        let mut seen = observe(&context.client, &uid, volumes, context.limits(), now).await?;
        seen.iter_mut().for_each(|seen| seen.view.waited = restores.waited(&uid, seen, now));
        Ok::<_, Error>(seen)
    };
    let scene = if status.phase.is_final() {
        Scene::Over
    } else if restore.metadata.deletion_timestamp.is_some() {
        Scene::Ending(look().await?)
    } else if status.stage <= RestoreStage::Preparing {
        Scene::Fresh(Box::new(fresh(restores, &restore, &uid).await?))
    } else {
        let spec = validate::spec(&restore);
        let time = rule_time(status.stage);
        let (spec, transforms) = match transforms::of(status.transforms.clone()) {
            Ok(transforms) => (spec, transforms),
            Err(refusal) => (Verdict::Refuse(refusal), Transforms::default()),
        };
        let spec = believed.map_or_else(|failure| Verdict::Refuse(failure.into()), |()| spec);
        let rule = match time {
            Some(time) => Some(rule(context, &restore, &uid, time).await?),
            None => None,
        };
        // Pods are looked for where the spec and the recovery point say. What was made is known by the mark that it bears.
        let finds_pods =
            |rule: &RuleFacts| matches!(rule.next(&status.hooks, now, context.limits()), Next::List { .. });
        let needs_point =
            spec == Verdict::Go && status.stage != RestoreStage::Ready && rule.as_ref().is_none_or(finds_pods);
        let point = if needs_point { Some(restores.point(&restore, &uid, transforms).await?) } else { None };
        let seen = if status.stage == RestoreStage::Volumes { look().await? } else { Vec::new() };
        let workloads = match status.stage {
            RestoreStage::Ready if spec == Verdict::Go => workloads(context, &status.namespaces, &uid).await?,
            _ => Vec::new(),
        };
        Scene::Begun(Begun { spec, point, seen, rule, workloads })
    };
    let without_point = if scene.lacks_point() {
        restores.troubled_for(&uid, Trouble::Point, now)
    } else {
        restores.recovered(&uid, Trouble::Point);
        Duration::ZERO
    };
    Ok(Some(Gathered { restore, uid, scene, now, without_point }))
}

/// Which rule a stage is for.
fn rule_time(stage: RestoreStage) -> Option<HookTime> {
    match stage {
        RestoreStage::PreExecRule => Some(HookTime::Pre),
        RestoreStage::PostExecRule => Some(HookTime::Post),
        _ => None,
    }
}

/// The rule of a restore that is to run then. There is nothing that it could hold until: volumes are filled before anybody has them.
fn named<'a>(restore: &'a ApplicationRestore, namespace: &'a str, time: HookTime) -> Option<Named<'a>> {
    let name = match time {
        HookTime::Pre => &restore.spec.pre_exec_rule,
        HookTime::Post => &restore.spec.post_exec_rule,
    };
    Some(Named { namespace, name: name.as_deref()?, time, may_hold: false })
}

async fn rule(context: &Context, restore: &ApplicationRestore, uid: &str, time: HookTime) -> Result<RuleFacts, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let hooks = restore.status.as_ref().map(|status| status.hooks.as_slice()).unwrap_or_default();
    rules::gather(&context.client, named(restore, &namespace, time), &acting(context, restore, uid), hooks).await
}

/// On whose behalf commands of rules run.
pub(super) fn acting<'a>(context: &'a Context, restore: &'a ApplicationRestore, uid: &'a str) -> Acting<'a> {
    let scope = objects::scope(restore);
    Acting { containers: &*context.config.containers, limits: context.limits(), uid, scope }
}

/// Looks at the workloads that the run made.
async fn workloads(context: &Context, namespaces: &[String], uid: &str) -> Result<Vec<(ObjectKey, Readiness)>, Error> {
    let looked = readiness::look(context.client.clone(), Patience::default(), namespaces, uid).await;
    looked.map_err(|failure| Error::Application { doing: "look at the workloads".into(), source: failure.into() })
}

/// What is wrong with a restore by itself, and with the rules that it names.
async fn spec_and_rules(context: &Context, restore: &ApplicationRestore) -> Result<Verdict, Error> {
    let spec = validate::spec(restore);
    if spec != Verdict::Go {
        return Ok(spec);
    }
    let namespace = restore.namespace().unwrap_or_default();
    let all = [HookTime::Pre, HookTime::Post].into_iter().filter_map(|time| named(restore, &namespace, time));
    Ok(match rules::are_fit(&context.client, all).await? {
        Ok(()) => Verdict::Go,
        Err(failure) => Verdict::Refuse(failure.into()),
    })
}

async fn fresh(restores: &Restores, restore: &ApplicationRestore, uid: &str) -> Result<Fresh, Error> {
    let spec = spec_and_rules(&restores.context, restore).await?;
    let nothing = |spec| Fresh { spec, source: None, target: TargetFacts::default(), _admission: None };
    if spec != Verdict::Go {
        return Ok(nothing(spec));
    }
    let transforms = match transforms::read(&restores.context.client, restore).await? {
        Ok(transforms) => transforms,
        Err(refusal) => return Ok(nothing(Verdict::Refuse(refusal))),
    };
    let source = restores.point(restore, uid, transforms).await?;
    let Ok(point) = &source else {
        return Ok(Fresh { spec, source: Some(source), target: TargetFacts::default(), _admission: None });
    };
    // A plan keeps nobody from beginning. And nobody waits here, in a place that others need to go on with what they have begun.
    let admission = match (restore.spec.plan_only, restores.context.admission.clone().try_lock_owned()) {
        (true, _) => None,
        (false, Ok(admission)) => Some(admission),
        (false, Err(_)) => {
            return Ok(nothing(Verdict::Wait("another run is beginning just now".into())));
        }
    };
    let target = look_at_target(&restores.context, restore, &point.facts).await?;
    Ok(Fresh { spec, source: Some(source), target, _admission: admission })
}

impl Restores {
    /// For how long it has been seen that the control plane has something to do for a volume.
    fn waited(&self, uid: &str, seen: &Seen, now: Timestamp) -> Duration {
        let trouble = Trouble::ControlPlane(seen.index);
        if is_control_planes_turn(&seen.view) {
            return self.troubled_for(uid, trouble, now);
        }
        self.recovered(uid, trouble);
        Duration::ZERO
    }

    /// The recovery point of a restore. It cannot change, so it is kept for as long as what it was read for stays the same.
    async fn point(
        &self,
        restore: &ApplicationRestore,
        uid: &str,
        transforms: Transforms,
    ) -> Result<Result<Arc<Point>, Source>, Error> {
        let read_for = (restore.metadata.generation, transforms.kept.clone());
        if let Some(point) = self.points.get(uid, &read_for) {
            return Ok(Ok(point));
        }
        let found = point::find(&self.context, restore, transforms).await?.map(Arc::new);
        if let Ok(point) = &found {
            self.points.keep(uid, read_for, point.clone());
        }
        Ok(found)
    }
}

/// Looks at the target: first at what the restore may have to wait for, and at the rest only when it need not.
async fn look_at_target(
    context: &Context,
    restore: &ApplicationRestore,
    point: &PointFacts,
) -> Result<TargetFacts, Error> {
    let client = &context.client;
    let mut target = TargetFacts::default();
    for namespace in validate::namespaces(&restore.spec, &point.sources) {
        target.namespaces.insert(namespace.clone(), namespace_state(client, &namespace).await?);
    }
    target.others = admission::others(client, restore).await?;
    if validate::waits(&restore.spec, &admission::age(restore), point, &target).is_some() {
        return Ok(target);
    }
    target.catalog = discover(client, &Patience::default()).await.map_err(|failure| Error::Application {
        doing: "ask what kinds the cluster has".into(),
        source: failure.into(),
    })?;
    let classes = Api::<StorageClass>::all(client.clone()).list(&ListParams::default()).await;
    target.classes = classes.during(|| "list the storage classes".into())?.iter().map(ResourceExt::name_any).collect();
    if restore.spec.replace_policy == ReplacePolicy::Delete {
        target.users = users(client, target.namespaces.keys()).await?;
    }
    target.claims = claims(client, target.namespaces.keys()).await?;
    Ok(target)
}

pub(crate) async fn namespace_state(client: &Client, name: &str) -> Result<NamespaceState, Error> {
    let found = Api::<Namespace>::all(client.clone()).get_opt(name).await;
    Ok(match found.during(|| format!("read the namespace {name}"))? {
        None => NamespaceState::Absent,
        Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => NamespaceState::Terminating,
        Some(_) => NamespaceState::Active,
    })
}

/// The claims of some namespaces that are there to stay.
async fn claims(
    client: &Client,
    namespaces: impl Iterator<Item = &String>,
) -> Result<BTreeSet<(String, String)>, Error> {
    let mut claims = BTreeSet::new();
    for namespace in namespaces {
        let of_namespace = objects::list::<PersistentVolumeClaim>(client, namespace).await?;
        let stay = of_namespace.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none());
        claims.extend(stay.map(|claim| (namespace.clone(), claim.name_any())));
    }
    Ok(claims)
}

async fn users(
    client: &Client,
    namespaces: impl Iterator<Item = &String>,
) -> Result<BTreeMap<(String, String), Vec<String>>, Error> {
    let mut users = BTreeMap::new();
    for namespace in namespaces {
        let of_namespace = claim_users(client, namespace).await?;
        users.extend(of_namespace.into_iter().map(|(claim, pods)| ((namespace.clone(), claim), pods)));
    }
    Ok(users)
}
