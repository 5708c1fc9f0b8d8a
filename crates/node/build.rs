//! Compiles the control API, without a compiler of protocol buffers that would have to be installed.

use prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILE: &str = "orlop/node/v1/node.proto";
    println!("cargo:rerun-if-changed=proto/{FILE}");
    let files = protox::compile([FILE], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Servers tell clients with it what they can be asked.
    std::fs::write(out.join("node.bin"), files.encode_to_vec())?;
    tonic_prost_build::compile_fds(files)?;
    Ok(())
}
