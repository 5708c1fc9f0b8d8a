//! Redis, whose dump is written before the snapshot is taken, and whose append-only file goes to the volume.

use anyhow::{Context, Result, ensure};

use super::World;
use super::trial::{Kind, Trial, whole};

const KIND: Kind = Kind {
    name: "redis",
    port: 6379,
    files: &[("start.sh", include_str!("redis.sh"))],
    variables: &[("REDIS_PASSWORD", "correct-horse")],
    ready: r#"REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli PING | grep -q PONG"#,
};
/// Keys for the dump to take its time with.
const FILL: &str = r#"i=0; while [ $i -lt 50 ]; do i=$((i + 1)); echo "SET filler:$i x"; done | REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli | uniq"#;
/// The answer to a push is the length of the list, which is the number.
const WRITE: &str = r#"export REDISCLI_AUTH="$REDIS_PASSWORD"
n=0
while sleep 0.02; do n=$((n + 1)); echo "RPUSH acknowledged $n"; done | redis-cli -h "$1""#;
const READ: &str = r#"REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli LRANGE acknowledged 0 -1"#;
/// A server that has nothing but the dump that came back.
const READ_DUMP: &str = r#"mkdir /tmp/alone && cp /tmp/came-back.rdb /tmp/alone/dump.rdb
redis-server --port 6390 --dir /tmp/alone --save '' --daemonize yes >/dev/null
until redis-cli -p 6390 PING 2>/dev/null | grep -q PONG; do sleep 0.1; done
redis-cli -p 6390 LRANGE acknowledged 0 -1
redis-cli -p 6390 SHUTDOWN NOSAVE >/dev/null 2>&1 || true"#;

pub(crate) async fn trial(world: &World, image: &str) -> Result<String> {
    let trial = Trial::begin(world, KIND, image).await?;
    ensure!(trial.ask(FILL).await? == "OK", "keys are made");
    let journal = trial.write(WRITE).await?;
    let cut = trial.there_and_back().await?;
    let [log, dump] = [trial.ask_restored(READ).await?, trial.ask_restored(READ_DUMP).await?];
    let (log, dump) = (whole(&log).context("the append-only file")?, whole(&dump).context("the dump")?);
    cut.has_what_it_must(&journal, log, cut.begun).context("the append-only file")?;
    cut.has_what_it_must(&journal, dump, cut.begun).context("the dump")?;
    let checked = trial.ask_restored("redis-check-aof /data/redis/appendonlydir/appendonly.aof.manifest").await?;
    ensure!(checked.contains("All AOF files and manifest are valid"), "redis-check-aof says {checked}");
    let checked = trial.ask_restored("redis-check-rdb /tmp/came-back.rdb").await?;
    ensure!(checked.contains("RDB looks OK"), "redis-check-rdb says {checked}");
    let version = trial.ask_restored("redis-server --version | sed 's/.* v=//; s/ .*//'").await?;
    let must = journal.by(cut.begun);
    Ok(format!(
        "Redis {version}: {must} were acknowledged before the rule began; {log} came back in the append-only file, {dump} in the dump; redis-check-aof and redis-check-rdb find nothing"
    ))
}
