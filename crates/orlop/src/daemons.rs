#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArgs {}
#[derive(Debug, clap::Args)]
pub(crate) struct MoverArgs {}
pub(crate) async fn operator(_: OperatorArgs) -> crate::error::Result<crate::error::Exit> {
    Ok(crate::error::Exit::Failed)
}
pub(crate) async fn mover(_: MoverArgs) -> crate::error::Result<crate::error::Exit> {
    Ok(crate::error::Exit::Failed)
}
