//! etcd, of which the volume gets a snapshot of its own beside the data directory.

use anyhow::{Context, Result, ensure};

use super::World;
use super::trial::{Kind, Trial, whole};

const KIND: Kind = Kind {
    name: "etcd",
    port: 2379,
    files: &[("start.sh", include_str!("etcd.sh"))],
    variables: &[("ETCD_DATA_DIR", "/data/etcd"), ("ETCDCTL_API", "3")],
    ready: "etcdctl endpoint health",
};
const WRITE: &str = r#"export ETCDCTL_ENDPOINTS="http://$1:2379"
n=0
while sleep 0.02; do n=$((n + 1)); etcdctl put "acknowledged/$n" x >/dev/null && echo $n || exit 1; done"#;
const READ: &str = "etcdctl get --prefix acknowledged/ --keys-only | sed -n 's|^acknowledged/||p'";
const REVISION: &str = r#"etcdctl endpoint status -w json | sed 's/.*"revision":\([0-9]*\).*/\1/'"#;
/// A new cluster of the snapshot that came back, on other ports.
const FROM_SNAPSHOT: &str = r#"cd /tmp && {
  etcdctl snapshot restore "$ETCD_DATA_DIR/orlop-snapshot.db" --data-dir /tmp/again
  unset ETCD_DATA_DIR
  etcd --data-dir /tmp/again --listen-client-urls http://127.0.0.1:4379 --advertise-client-urls http://127.0.0.1:4379 --listen-peer-urls http://127.0.0.1:4380 &
} >/tmp/again.log 2>&1 </dev/null
export ETCDCTL_ENDPOINTS=http://127.0.0.1:4379
until etcdctl endpoint health >/dev/null 2>&1; do kill -0 $! || { cat /tmp/again.log; exit 1; }; done"#;

/// What all keys were at a revision.
fn hash(revision: &str) -> String {
    format!("etcdctl endpoint hashkv --rev {revision} | sed 's/.*, //'")
}

pub(crate) async fn trial(world: &World, image: &str) -> Result<String> {
    let trial = Trial::begin(world, KIND, image).await?;
    let journal = trial.write(WRITE).await?;
    let revision = trial.ask(REVISION).await?;
    let cut = trial.there_and_back().await?;
    let hash = hash(&revision);
    let expected = trial.ask(&hash).await?;
    ensure!(expected.parse::<u64>().is_ok(), "no hash: {expected}");

    let member = whole(&trial.ask_restored(READ).await?).context("the member")?;
    cut.has_what_it_must(&journal, member, cut.taken).context("the member")?;
    let found = trial.ask_restored(&hash).await?;
    ensure!(found == expected, "at the revision {revision} the keys had the hash {expected}, and have {found}");
    let after: u64 = trial.ask_restored(REVISION).await?.parse()?;
    ensure!(after >= revision.parse()?, "it came back with the revision {after}, and had {revision}");

    let again = trial.ask_restored(&format!("{FROM_SNAPSHOT}; {hash}; {READ}; kill $!")).await?;
    let (found, keys) = again.split_once('\n').with_context(|| format!("the new cluster says {again}"))?;
    let snapshot = whole(keys).context("the new cluster")?;
    cut.has_what_it_must(&journal, snapshot, cut.begun).context("the new cluster")?;
    ensure!(
        found == expected,
        "at the revision {revision} the keys had the hash {expected}, and in the new cluster {found}"
    );
    let version = trial.ask_restored("etcdctl version | sed -n 's/etcdctl version: //p'").await?;
    Ok(format!(
        "etcd {version}: {} were acknowledged before the snapshot; {member} came back in the member, {snapshot} in a new cluster; hashkv is the same",
        journal.by(cut.taken)
    ))
}
