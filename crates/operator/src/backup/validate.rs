//! Whether a backup's spec can be meant, and what it selects.

use api::{ApplicationBackup, Failure, ObjectFilter};
use application::Selection;
use kube::ResourceExt;

use crate::trust;

/// How the core group is written in a filter.
const CORE: &str = "core";

/// The word for a spec that cannot be meant.
pub(super) const INVALID_SPEC: &str = "InvalidSpec";

/// Everything that is wrong with the spec, as one text; the schema checks most of it, but not on every server.
pub(super) fn validate(run: &ApplicationBackup) -> Result<(), String> {
    let wrong = run.spec.validate(&run.namespace().unwrap_or_default());
    if wrong.is_empty() {
        return Ok(());
    }
    Err(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Why a run must not go on from where its status says that it is, if it must not. A spec that cannot be meant is refused before a run begins; but that it
/// has begun is something that its status says, and a status may come from somebody else.
pub(super) fn barred(run: &ApplicationBackup) -> Option<Failure> {
    match validate(run) {
        Ok(()) => trust::of_backup(run).err(),
        Err(message) => Some(Failure { reason: INVALID_SPEC.into(), message }),
    }
}

/// Whether the spec is another one than the run began with.
pub(super) fn was_changed(run: &ApplicationBackup) -> bool {
    let begun = run.status.as_ref().and_then(|s| s.observed_generation);
    begun.is_some_and(|generation| Some(generation) != run.metadata.generation)
}

/// What the spec selects.
pub(super) fn selection(run: &ApplicationBackup) -> Selection {
    let spec = &run.spec;
    let labels: Vec<String> = spec.selectors.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Selection {
        namespaces: spec.namespaces_or(&run.namespace().unwrap_or_default()),
        label_selector: Some(labels.join(",")).filter(|text| !text.is_empty()),
        include_resources: spec.include_resources.iter().map(filter).collect(),
        resource_types: spec.resource_types.clone(),
        exclude_resource_types: spec.exclude_resource_types.clone(),
    }
}

fn filter(filter: &ObjectFilter) -> application::ObjectFilter {
    application::ObjectFilter {
        group: filter.group.clone().map(|group| if group == CORE { String::new() } else { group }),
        kind: filter.kind.clone(),
        namespace: filter.namespace.clone(),
        name: filter.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use api::{ApplicationBackupSpec, ApplicationBackupStatus, BackupStage, VolumeBackup};

    use super::*;

    #[test]
    fn a_run_that_is_said_to_have_begun_must_be_one_that_could() {
        let check = |own: &str, of: &[&str], volumes: &[&str], word: Option<&str>| {
            let spec = ApplicationBackupSpec {
                namespaces: of.iter().map(ToString::to_string).collect(),
                backup_location: "main".into(),
                ..ApplicationBackupSpec::default()
            };
            let mut run = ApplicationBackup::new("b", spec);
            run.metadata.namespace = Some(own.into());
            let volume =
                |namespace: &&str| VolumeBackup { namespace: namespace.to_string(), ..VolumeBackup::default() };
            run.status = Some(ApplicationBackupStatus {
                stage: BackupStage::Resources,
                volumes: volumes.iter().map(volume).collect(),
                ..ApplicationBackupStatus::default()
            });
            let barred = barred(&run).map(|failure| failure.reason);
            assert_eq!(barred.as_deref(), word, "{own}: {of:?}, {volumes:?}");
        };
        check("team", &[], &["team"], None);
        check("team", &["team"], &[], None);
        check("team", &["kube-system"], &[], Some(INVALID_SPEC));
        check("team", &["team"], &["team", "victim"], Some("StatusNotOwn"));
        check(api::ADMIN_NAMESPACE, &["kube-system"], &["kube-system"], None);
        check(api::ADMIN_NAMESPACE, &[], &[], Some(INVALID_SPEC));
    }

    #[test]
    fn labels_become_one_selector_and_core_the_group_without_a_name() {
        let spec = ApplicationBackupSpec {
            selectors: [("app", "shop"), ("tier", "web")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            include_resources: vec![
                ObjectFilter { group: Some("core".into()), kind: Some("Secret".into()), ..ObjectFilter::default() },
                ObjectFilter { name: Some("web".into()), ..ObjectFilter::default() },
            ],
            ..ApplicationBackupSpec::default()
        };
        let mut run = ApplicationBackup::new("b", spec);
        run.metadata.namespace = Some("shop".into());
        let selection = selection(&run);
        assert_eq!(selection.namespaces, ["shop"]);
        assert_eq!(selection.label_selector.as_deref(), Some("app=shop,tier=web"));
        assert_eq!(selection.include_resources[0].group.as_deref(), Some(""));
        assert_eq!(selection.include_resources[1].kind, None);
    }
}
