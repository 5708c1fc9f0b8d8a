//! PostgreSQL, which recovers as from a crash, from a checkpoint that is not old.

use anyhow::Result;

use super::World;
use super::trial::{Kind, Trial, whole};

const KIND: Kind = Kind {
    name: "postgresql",
    port: 5432,
    files: &[("start.sh", include_str!("postgresql.sh"))],
    variables: &[("PGDATA", "/data/pg"), ("POSTGRES_USER", "shop"), ("POSTGRES_PASSWORD", "correct-horse")],
    ready: r#"PGPASSWORD="$POSTGRES_PASSWORD" psql -U shop -d postgres -qAtc "SELECT 1""#,
};
const MAKE: &str =
    r#"PGPASSWORD="$POSTGRES_PASSWORD" psql -U shop -d postgres -qc "CREATE TABLE orders (n bigint PRIMARY KEY)""#;
const WRITE: &str = r#"export PGPASSWORD="$POSTGRES_PASSWORD"
n=0
while sleep 0.02; do n=$((n + 1)); echo "INSERT INTO orders VALUES ($n) RETURNING n;"; done |
  psql -h "$1" -U shop -d postgres -qAt -v ON_ERROR_STOP=1"#;
const READ: &str = r#"PGPASSWORD="$POSTGRES_PASSWORD" psql -U shop -d postgres -qAtc "SELECT n FROM orders""#;
const CHECK: &str = r#"PGPASSWORD="$POSTGRES_PASSWORD" pg_amcheck -U shop --install-missing --heapallindexed postgres"#;

pub(crate) async fn trial(world: &World, image: &str) -> Result<String> {
    let trial = Trial::begin(world, KIND, image).await?;
    trial.ask(MAKE).await?;
    let journal = trial.write(WRITE).await?;
    let cut = trial.there_and_back().await?;
    let last = whole(&trial.ask_restored(READ).await?)?;
    cut.has_what_it_must(&journal, last, cut.taken)?;
    // It ends with another code than 0 when it finds something.
    trial.ask_restored(CHECK).await?;
    let version = trial.ask_restored("postgres --version | sed 's/.*) //; s/ .*//'").await?;
    let must = journal.by(cut.taken);
    Ok(format!(
        "PostgreSQL {version}: {must} were acknowledged before the snapshot, {last} came back; pg_amcheck finds nothing"
    ))
}
