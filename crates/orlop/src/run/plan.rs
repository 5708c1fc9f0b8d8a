//! The plan of a restore as people read it.

use std::time::Duration;

use api::{ObjectPlan, PlanCounts, PlannedAction, PlannedChange, RestorePlan, VolumePlan};

use crate::{human, output};

/// The plan: its hash, what would become of objects and volumes, and each field that would change.
pub(super) fn text(plan: &RestorePlan) -> String {
    let mut text = output::fields(head(plan));
    // What stays as it is would bury what does not.
    let shown: Vec<&ObjectPlan> = plan.items.iter().filter(|item| item.action != PlannedAction::Keep).collect();
    if !shown.is_empty() {
        text.push('\n');
        text.push_str(&output::table(["ACTION", "OBJECT", "CHANGES", "NOTE"], shown.iter().map(|item| object(item))));
    }
    if plan.unlisted > 0 {
        text.push_str(&format!("and {} more\n", human::count(plan.unlisted, "object", "objects")));
    }
    if !plan.volumes.is_empty() {
        text.push('\n');
        let header = ["ACTION", "VOLUME", "FILES", "BYTES", "NOTE"];
        text.push_str(&output::table(header, plan.volumes.iter().map(volume)));
    }
    let changes: Vec<_> =
        shown.iter().flat_map(|item| item.changes.iter().map(|one| change(&item.item, one))).collect();
    if !changes.is_empty() {
        text.push('\n');
        text.push_str(&output::table(["OBJECT", "FIELD", "FROM", "TO"], changes));
    }
    let transformed = transformed(plan, &shown);
    if !transformed.is_empty() {
        text.push('\n');
        text.push_str(&output::table(["TRANSFORMED", "FIELD", "IN THE RECOVERY POINT", "TO"], transformed));
    }
    text
}

/// What transformations make of what the recovery point has.
fn transformed(plan: &RestorePlan, shown: &[&ObjectPlan]) -> Vec<[String; 4]> {
    let objects = shown.iter().flat_map(|item| item.transformed.iter().map(|one| change(&item.item, one)));
    let volumes = plan.volumes.iter().filter(|volume| volume.action.fills()).flat_map(|volume| {
        let name = format!("PersistentVolumeClaim {}/{}", volume.namespace, volume.claim);
        volume.transformed.iter().map(move |one| change(&name, one))
    });
    objects.chain(volumes).collect()
}

fn head(plan: &RestorePlan) -> Vec<(&'static str, String)> {
    let PlanCounts { create, update, replace, keep, skip, conflict } = plan.objects;
    let counts = format!(
        "{create} to make, {update} to change, {replace} to replace, {keep} to keep, {skip} to leave out, {conflict} refused by the cluster"
    );
    let volumes = plan.filled_volumes() as u64;
    let data = format!(
        "{} to fill, {}, {}",
        human::count(volumes, "volume", "volumes"),
        human::count(plan.files, "file", "files"),
        human::bytes(plan.bytes)
    );
    let mut head = vec![("Plan", plan.hash.clone()), ("Objects", counts), ("Data", data)];
    if let Some(seconds) = plan.estimated_seconds {
        head.push((
            "Time",
            format!("some {}, at the rate of earlier restores", human::took(Duration::from_secs(seconds))),
        ));
    }
    if !plan.managed_by.is_empty() {
        head.push(("Kept by", format!("{}: may put objects back", plan.managed_by.join(", "))));
    }
    head.extend(plan.holds.iter().map(|hold| ("Held", super::view::hold(hold))));
    head.extend(plan.notes.iter().map(|note| ("Note", note.clone())));
    head
}

fn object(item: &ObjectPlan) -> [String; 4] {
    let changes = item.changes.len() as u64 + item.unlisted_changes;
    let compares = matches!(item.action, PlannedAction::Update | PlannedAction::Replace);
    let status = item.restores_status.then(|| "with its status".to_owned());
    let notes = [item.reason.clone(), status, item.managed_by.as_ref().map(|manager| format!("kept by {manager}"))];
    [
        format!("{:?}", item.action),
        item.item.clone(),
        if compares { changes.to_string() } else { human::dash() },
        notes.into_iter().flatten().collect::<Vec<_>>().join("; "),
    ]
}

fn volume(volume: &VolumePlan) -> [String; 5] {
    [
        format!("{:?}", volume.action),
        format!("{}/{}", volume.namespace, volume.claim),
        if volume.image { super::view::IMAGE.to_owned() } else { volume.files.to_string() },
        human::bytes(volume.bytes),
        volume.reason.clone().unwrap_or_default(),
    ]
}

fn change(item: &str, change: &PlannedChange) -> [String; 4] {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(human::dash);
    [item.to_owned(), change.path.clone(), value(&change.from), value(&change.to)]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn item(name: &str, action: PlannedAction) -> ObjectPlan {
        ObjectPlan {
            item: format!("ConfigMap shop/{name}"),
            action,
            reason: None,
            changes: Vec::new(),
            unlisted_changes: 0,
            transformed: Vec::new(),
            unlisted_transformed: 0,
            restores_status: false,
            managed_by: None,
        }
    }

    #[test]
    fn a_plan_shows_what_would_change_and_counts_the_rest() {
        let color =
            PlannedChange { path: "/data/color".into(), from: Some("\"red\"".into()), to: Some("\"blue\"".into()) };
        let size = PlannedChange { path: "/data/size".into(), from: Some("\"7\"".into()), to: None };
        let changed = ObjectPlan {
            changes: vec![color, size],
            unlisted_changes: 1,
            transformed: vec![PlannedChange { path: "/data/size".into(), from: Some("\"9\"".into()), to: None }],
            managed_by: Some("Flux Kustomization flux-system/shop".into()),
            ..item("settings", PlannedAction::Update)
        };
        let volume = VolumePlan {
            namespace: "shop".into(),
            claim: "data".into(),
            action: PlannedAction::Create,
            reason: None,
            image: false,
            files: 2,
            bytes: 3 << 20,
            transformed: vec![PlannedChange {
                path: "/spec/storageClassName".into(),
                from: Some("\"gold\"".into()),
                to: Some("\"slow\"".into()),
            }],
        };
        let plan = RestorePlan {
            hash: "4f1d".into(),
            made_at: Time(Timestamp::UNIX_EPOCH),
            objects: PlanCounts { create: 1, update: 1, keep: 1, ..PlanCounts::default() },
            items: vec![changed, item("new", PlannedAction::Create), item("same", PlannedAction::Keep)],
            unlisted: 0,
            volumes: vec![volume],
            files: 2,
            bytes: 3 << 20,
            estimated_seconds: Some(90),
            managed_by: vec!["Flux Kustomization flux-system/shop".into()],
            holds: Vec::new(),
            notes: vec![
                "ResourceTransformation t, transformSpecs[1] (v1/Service) is for no object that is restored".into(),
            ],
        };
        crate::golden::check("restore-plan.txt", &text(&plan));
    }
}
