//! The recovery points in a location of the cluster, read from here.

use operator::repositories::{AsLocated, Repositories};

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::output::{self, Format};
use crate::repo::{PointLine, explain, lines_table};

/// Lists what is in a location, whichever cluster made it.
///
/// The Secrets of the location are read with the rights of the person, and the store is asked from here: neither goes through the
/// operator, so this works for whoever could open the repository anyway.
pub(crate) async fn list_in(cluster: &Cluster, location: &str, format: Format) -> Result<()> {
    let what = format!("list the recovery points in {location}");
    let repositories = Repositories::new(std::sync::Arc::new(AsLocated));
    let opened = repositories.open_named(&cluster.client(), cluster.namespace(), location).await;
    let opened = opened.map_err(|e| Error::new(&what).because(e))?.map_err(|e| Error::new(&what).because(e))?;
    let lines = PointLine::all(&opened.repository).await.map_err(|e| explain(&what, e))?;
    if lines.is_empty() && format == Format::Table {
        eprintln!("There are no recovery points in {location}.");
        return Ok(());
    }
    let names = || lines.iter().map(|line| format!("{}\n", line.id())).collect();
    output::print(&output::render(format, &lines, || lines_table(&lines), names)?)
}
