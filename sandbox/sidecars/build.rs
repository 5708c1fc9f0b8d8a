//! Compiles the protocol: its text alone is shared with the driver.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FOLDER: &str = "../../crates/csi/proto";
    const FILE: &str = "csi/v1/csi.proto";
    println!("cargo:rerun-if-changed={FOLDER}/{FILE}");
    tonic_prost_build::configure().build_server(false).compile_fds(protox::compile([FILE], [FOLDER])?)?;
    Ok(())
}
