//! MariaDB, which is locked against writes while the snapshot is taken.

use anyhow::{Context, Result, ensure};
use api::{ApplicationBackupStatus, HookState, Phase, PodRule};
use serde_json::json;

use super::World;
use super::journal::Journal;
use super::trial::{Cut, Kind, LATE, Trial, whole};

const KIND: Kind = Kind {
    name: "mariadb",
    port: 3306,
    files: &[("start.sh", include_str!("mariadb.sh")), ("first.sql", include_str!("mariadb.sql"))],
    variables: &[("MARIADB_ROOT_PASSWORD", "correct-horse")],
    ready: r#"MYSQL_PWD="$MARIADB_ROOT_PASSWORD" mariadb -u root -e 'SELECT 1 FROM shop.orders LIMIT 1'"#,
};
/// A row in a table of each engine, one after the other, and then its number.
const WRITE: &str = r#"export MYSQL_PWD=battery
n=0
while sleep 0.02; do
  n=$((n + 1))
  echo "INSERT INTO orders VALUES ($n); INSERT INTO notes VALUES ($n); INSERT INTO marks VALUES ($n); SELECT $n;"
done | mariadb -h "$1" -u writer -N --unbuffered shop"#;
const ROOT: &str = r#"export MYSQL_PWD="$MARIADB_ROOT_PASSWORD"; mariadb -u root -N -e"#;
/// Ends the session that has the lock, as an administrator or a timeout may.
const END_THE_HOLD: &str = r#"export MYSQL_PWD="$MARIADB_ROOT_PASSWORD"
id=$(mariadb -u root -N -e "SELECT id FROM information_schema.processlist WHERE user = 'root' AND command = 'Sleep' ORDER BY time_ms DESC LIMIT 1")
mariadb -u root -e "KILL $id""#;

pub(crate) async fn trial(world: &World, image: &str) -> Result<String> {
    let trial = Trial::begin(world, KIND, image).await?;
    let journal = trial.write(WRITE).await?;
    a_backup_that_fails_lets_go(&trial, &journal).await.context("a backup that fails while the lock is held")?;
    a_lock_that_is_lost_fails_the_backup(&trial, &journal).await.context("a lock that is lost")?;

    journal.grows(20).await?;
    let cut = trial.there_and_back().await?;
    let held = nothing_was_acknowledged_within(&trial, &cut, &journal).await?;
    let checked = trial
        .ask_restored(r#"MYSQL_PWD="$MARIADB_ROOT_PASSWORD" mariadb-check -u root --all-databases --extended 2>&1"#)
        .await?;
    let bad: Vec<_> = checked.lines().filter(|line| !line.ends_with(" OK")).collect();
    ensure!(bad.is_empty() && checked.contains("shop.notes"), "mariadb-check says {checked}");
    let log = trial.log_restored().await?;
    ensure!(!log.contains("[ERROR]"), "the server that came back says: {log}");
    let recovery = if log.contains("Starting crash recovery") { "by crash recovery" } else { "without recovery" };
    let version = trial.ask_restored(&format!("{ROOT} 'SELECT VERSION()'")).await?;
    Ok(format!("MariaDB {version}: {held}; started {recovery}; mariadb-check: {} tables OK", checked.lines().count()))
}

/// A rule with more to do in other pods once the lock is held.
async fn backup_with(trial: &Trial<'_>, name: &str, more: serde_json::Value) -> Result<ApplicationBackupStatus> {
    let mut rule = trial.rule()?;
    rule.metadata.name = Some(name.into());
    rule.spec.rules.push(serde_json::from_value::<PodRule>(more)?);
    let status = trial.back_up(&rule).await?;
    ensure!(status.phase == Phase::Failed && status.recovery_point.is_none(), "{status:#?}");
    let hook = status.hooks.first().context("the command that locks")?;
    ensure!(hook.holding_since.is_some(), "it was not held: {hook:?}");
    Ok(status)
}

async fn a_backup_that_fails_lets_go(trial: &Trial<'_>, journal: &Journal) -> Result<()> {
    let nobody = json!({"podSelector": {"app": "nobody"}, "actions": [{"type": "command", "value": "true"}]});
    let status = backup_with(trial, "mariadb-and-nobody", nobody).await?;
    let reason = status.failure.as_ref().map(|failure| failure.reason.as_str());
    ensure!(reason == Some("NoPodMatched") && status.hooks[0].state == HookState::Succeeded, "{status:#?}");
    trial.world.said("mariadb: a backup failed while it was locked, and its writer goes on");
    journal.grows(20).await
}

async fn a_lock_that_is_lost_fails_the_backup(trial: &Trial<'_>, journal: &Journal) -> Result<()> {
    let end = json!({
        "podSelector": {"app.kubernetes.io/name": "mariadb"}, "actions": [{"type": "command", "value": END_THE_HOLD}],
    });
    let status = backup_with(trial, "mariadb-without-lock", end).await?;
    let said = status.hooks[0].message.as_deref().unwrap_or_default();
    ensure!(said.contains("when it was let go") && said.contains("gone away"), "{said}");
    trial.world.said(&format!("mariadb: a lock that was lost has failed the backup: {}", said.replace('\n', " ")));
    journal.grows(20).await
}

/// The silence of the writer is from before the lock was seen to be held until after the snapshot was taken, and what came back ends with it. So nothing that was
/// acknowledged before is missing, and nothing that was acknowledged later is there.
async fn nothing_was_acknowledged_within(trial: &Trial<'_>, cut: &Cut, journal: &Journal) -> Result<String> {
    let [orders, notes, marks] =
        [("orders", "InnoDB"), ("notes", "MyISAM"), ("marks", "Aria")].map(|(table, engine)| async move {
            let rows = trial.ask_restored(&format!("{ROOT} 'SELECT n FROM shop.{table}'")).await?;
            whole(&rows).with_context(|| format!("the rows of {engine}"))
        });
    let (orders, notes, marks) = tokio::try_join!(orders, notes, marks)?;
    ensure!(
        orders >= notes && notes >= marks && marks + 1 >= orders,
        "the one row that was being written is in the first tables alone: {orders}, {notes}, {marks}"
    );
    let (before, after) = (journal.at(marks)?, journal.at(marks + 1)?);
    let seen = cut.hook.holding_since.as_ref().context("a command that held")?.0;
    let let_go = cut.hook.finished_at.as_ref().context("a command that ended")?.0;
    ensure!(before < seen + LATE, "{marks} was acknowledged at {before}, and it was locked at {seen}");
    ensure!(cut.taken <= after, "{} was acknowledged at {after}, before the snapshot at {}", marks + 1, cut.taken);
    ensure!(after < let_go + 2 * LATE, "nothing was acknowledged until {after}, and it was let go at {let_go}");
    let silence = after.duration_since(before).as_millis();
    ensure!(silence > 200, "the writer was not held: {silence} ms between {marks} and the next");
    cut.has_what_it_must(journal, orders, before)?;
    Ok(format!(
        "writers waited for {silence} ms, {marks} of {marks} rows that were acknowledged before came back, in three engines"
    ))
}
