//! The demo's application, in `manifests/shop.yaml`: a PostgreSQL with a volume and a client that keeps writing to it.
//!
//! The client prints the number of each order after the database has acknowledged it. So what must come back is known from outside of
//! the database: every order acknowledged before the cut, each row equal to the one that was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams};

use crate::{install, pods, tidy};

/// The namespace that the manifests name.
pub const NAMESPACE: &str = "shop";
const MANIFESTS: &str = include_str!("../manifests/shop.yaml");
const PSQL: [&str; 9] = ["/usr/lib/postgresql/15/bin/psql", "-h", "/tmp", "-U", "shop", "-d", "shop", "-qAt", "-c"];
/// For a database to be made, or to recover after a crash, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// The application in one cluster and namespace.
pub struct Shop {
    client: Client,
    namespace: String,
}

/// Rows by the number of the order, as PostgreSQL prints them.
pub type Rows = BTreeMap<u64, String>;

impl Shop {
    /// The application in `namespace`, however it came there.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.into() }
    }

    /// Makes the application, with 200,000 orders, and waits until its client writes. Its namespace bears the mark of the run.
    ///
    /// # Errors
    /// A manifest is refused, or the application does not start.
    pub async fn deploy(client: Client, image: &str, run: &str) -> anyhow::Result<Self> {
        let manifests = tidy::marked(&MANIFESTS.replace("POSTGRES_IMAGE", image), run);
        install::create(&client, &manifests).await?;
        let shop = Self::new(client, NAMESPACE);
        let db = shop.db().await?;
        let mut psql = PSQL[..8].to_vec();
        psql.extend(["-f", "/etc/db/schema.sql"]);
        pods::run(&shop.client, NAMESPACE, &db, &psql).await.context("make the orders")?;
        shop.wait_for_writes().await?;
        Ok(shop)
    }

    async fn db(&self) -> anyhow::Result<String> {
        pods::ready_pod(&self.client, &self.namespace, "app=db", START_LIMIT).await
    }

    async fn sql(&self, statement: &str) -> anyhow::Result<String> {
        let mut command = PSQL.to_vec();
        command.push(statement);
        pods::run(&self.client, &self.namespace, &self.db().await?, &command).await
    }

    /// Waits until the client has had at least ten more orders acknowledged than it had at first.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn wait_for_writes(&self) -> anyhow::Result<u64> {
        let first =
            pods::wait_for("a first order by the client", START_LIMIT, || async { self.acknowledged().await }).await?;
        pods::wait_for("more orders by the client", START_LIMIT, || async {
            Ok(self.acknowledged().await?.filter(|now| *now >= first + 10))
        })
        .await
    }

    /// The last order that was acknowledged to the client.
    ///
    /// # Errors
    /// The client's log cannot be read.
    pub async fn acknowledged(&self) -> anyhow::Result<Option<u64>> {
        let pod = pods::ready_pod(&self.client, &self.namespace, "app=client", START_LIMIT).await?;
        let log = pods::log(&self.client, &self.namespace, &pod, Some(20)).await?;
        Ok(log.lines().rev().find_map(|l| l.trim().parse().ok()))
    }

    /// Every order that was placed in `written_in`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn rows(&self, written_in: &str) -> anyhow::Result<Rows> {
        let text = self
            .sql(&format!("COPY (SELECT * FROM orders WHERE written_in = '{written_in}' ORDER BY id) TO STDOUT"))
            .await?;
        let row = |line: &str| {
            let id = line
                .split('\t')
                .next()
                .unwrap_or_default()
                .parse()
                .with_context(|| format!("read the row {line:?}"))?;
            Ok((id, line.to_owned()))
        };
        text.lines().map(row).collect()
    }

    /// Has PostgreSQL's own checker look at every page of every table and index.
    ///
    /// # Errors
    /// It found damage, or could not run.
    pub async fn check_database(&self) -> anyhow::Result<()> {
        let checker = [
            "/usr/lib/postgresql/15/bin/pg_amcheck",
            "-h",
            "/tmp",
            "-U",
            "shop",
            "--install-missing",
            "--heapallindexed",
            "shop",
        ];
        pods::run(&self.client, &self.namespace, &self.db().await?, &checker).await.map(drop)
    }

    /// Deletes the namespace with all that is in it, and waits until it is gone.
    ///
    /// # Errors
    /// It is not gone in time.
    pub async fn destroy(&self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.context("delete the namespace")?;
        pods::wait_for("the end of the namespace", Duration::from_secs(120), || async {
            Ok(namespaces.get_opt(&self.namespace).await?.is_none().then_some(()))
        })
        .await
    }
}

/// Compares what came back with what was there, row by row.
///
/// `lost` is the last state seen before the end, which may have rows that are younger than the cut; `acknowledged` is the last order
/// acknowledged before the cut began.
///
/// # Errors
/// A row is missing, differs, or came from nowhere.
pub fn compare(lost: &Rows, back: &Rows, acknowledged: u64) -> anyhow::Result<()> {
    for (id, row) in back {
        match lost.get(id) {
            None => bail!("order {id} was never there: {row}"),
            Some(was) if was != row => bail!("order {id} differs:\n  was {was}\n  is  {row}"),
            Some(_) => {}
        }
    }
    let last = back.keys().next_back().copied().unwrap_or_default();
    ensure!(
        last >= acknowledged,
        "order {acknowledged} was acknowledged before the cut, the last that came back is {last}"
    );
    if let Some(id) = lost.keys().take_while(|id| **id <= last).find(|id| !back.contains_key(id)) {
        bail!("order {id} did not come back, though later ones did");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ids: &[u64]) -> Rows {
        ids.iter().map(|id| (*id, format!("{id}\tshop"))).collect()
    }

    #[test]
    fn the_comparison_sees_every_difference() {
        let lost = rows(&[1, 2, 3, 5, 6]);
        let check =
            |back: &Rows, acknowledged, good| assert_eq!(compare(&lost, back, acknowledged).is_ok(), good, "{back:?}");
        check(&rows(&[1, 2, 3, 5]), 5, true);
        check(&rows(&[1, 2, 3, 5, 6]), 5, true);
        check(&rows(&[1, 2, 3]), 5, false);
        check(&rows(&[1, 2, 5]), 5, false);
        check(&rows(&[1, 2, 3, 4, 5]), 5, false);
        check(&rows(&[]), 1, false);
        let mut changed = rows(&[1, 2, 3, 5]);
        changed.insert(2, "2\tother".into());
        check(&changed, 5, false);
    }
}
