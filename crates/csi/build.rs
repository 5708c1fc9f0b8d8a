//! Compiles the two protocols, without a compiler of protocol buffers that would have to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 2] = ["csi/v1/csi.proto", "pluginregistration/v1/registration.proto"];
    for file in FILES {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    tonic_prost_build::compile_fds(protox::compile(FILES, ["proto"])?)?;
    Ok(())
}
