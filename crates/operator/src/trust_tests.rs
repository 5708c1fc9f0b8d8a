//! Whose statuses are believed.

use api::{ApplicationBackupStatus, ApplicationRestoreStatus, VolumeBackup};

use super::*;

const SYSTEM: &str = "kube-system";

fn backup(own: &str, change: impl FnOnce(&mut ApplicationBackupStatus)) -> Result<(), Failure> {
    let mut run = ApplicationBackup::new("b", api::ApplicationBackupSpec::default());
    run.metadata.namespace = Some(own.into());
    change(run.status.get_or_insert_default());
    of_backup(&run)
}

fn restore(own: &str, change: impl FnOnce(&mut ApplicationRestoreStatus)) -> Result<(), Failure> {
    let mut run = ApplicationRestore::new("r", api::ApplicationRestoreSpec::default());
    run.metadata.namespace = Some(own.into());
    change(run.status.get_or_insert_default());
    of_restore(&run)
}

fn hook(namespace: &str) -> HookStatus {
    HookStatus { namespace: namespace.into(), ..HookStatus::default() }
}

fn saved(namespace: &str) -> VolumeBackup {
    VolumeBackup { namespace: namespace.into(), ..VolumeBackup::default() }
}

fn filled(namespace: &str) -> VolumeRestore {
    VolumeRestore { namespace: namespace.into(), ..VolumeRestore::default() }
}

fn assert_stray(believed: Result<(), Failure>, kind: &str) {
    let failure = believed.expect_err("it is not believed");
    assert_eq!(failure.reason, NOT_OWN);
    assert!(failure.message.contains(SYSTEM) && failure.message.contains(kind), "{failure:?}");
}

#[test]
fn a_status_of_another_namespace_is_nothing_to_go_on_from() {
    let backups: [fn(&mut ApplicationBackupStatus); 2] =
        [|status| status.hooks.push(hook(SYSTEM)), |status| status.volumes = vec![saved("shop"), saved(SYSTEM)]];
    for change in backups {
        assert_stray(backup("shop", change), "ApplicationBackup");
        assert_eq!(backup(api::ADMIN_NAMESPACE, change), Ok(()), "one of administrators acts on all");
    }
    let restores: [fn(&mut ApplicationRestoreStatus); 3] = [
        |status| status.namespaces = vec!["shop".into(), SYSTEM.into()],
        |status| status.hooks.push(hook(SYSTEM)),
        |status| status.volumes = vec![filled("shop"), filled(SYSTEM)],
    ];
    for change in restores {
        assert_stray(restore("shop", change), "ApplicationRestore");
        assert_eq!(restore(api::ADMIN_NAMESPACE, change), Ok(()), "one of administrators acts on all");
    }
}

#[test]
fn a_status_of_its_own_namespace_is_gone_on_from() {
    assert_eq!(backup("shop", |status| (status.hooks, status.volumes) = (vec![hook("")], vec![saved("shop")])), Ok(()));
    assert_eq!(
        restore("shop", |status| (status.hooks, status.volumes) = (vec![hook("shop")], vec![filled("shop")])),
        Ok(())
    );
    assert!(backup("shop", |status| status.volumes = vec![saved("")]).is_err(), "a volume is of a namespace");
}

#[test]
fn a_restore_has_the_volumes_of_its_recovery_point_in_its_order() {
    let volume =
        |claim: &&str| VolumeRestore { namespace: "shop".into(), claim: claim.to_string(), ..VolumeRestore::default() };
    let check = |claims: &[&str], good: bool| {
        let status: Vec<VolumeRestore> = claims.iter().map(volume).collect();
        let believed = of_volumes(&status, [("shop", "a"), ("shop", "b")].into_iter());
        assert_eq!(believed.is_ok(), good, "{claims:?}: {believed:?}");
    };
    check(&["a", "b"], true);
    check(&["b", "a"], false);
    check(&["a"], false);
    check(&["a", "b", "c"], false);
    check(&[], false);
}
