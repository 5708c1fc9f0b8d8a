pub(crate) async fn list_in(
    _: &crate::cluster::Cluster,
    _: &str,
    _: crate::output::Format,
) -> crate::error::Result<()> {
    Ok(())
}
