#[derive(Debug, clap::Args)]
pub(crate) struct RepoArgs {}
pub(crate) async fn run(_: RepoArgs) -> crate::error::Result<crate::error::Exit> {
    Ok(crate::error::Exit::Failed)
}
