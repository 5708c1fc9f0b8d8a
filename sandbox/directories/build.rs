//! Compiles the protocols: their text alone is shared with Orlop's driver. What the driver here does not answer is answered for it, with `UNIMPLEMENTED`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FOLDER: &str = "../../crates/csi/proto";
    const FILES: [&str; 2] = ["csi/v1/csi.proto", "pluginregistration/v1/registration.proto"];
    for file in FILES {
        println!("cargo:rerun-if-changed={FOLDER}/{file}");
    }
    let builder = tonic_prost_build::configure().build_client(false).generate_default_stubs(true);
    builder.compile_fds(protox::compile(FILES, [FOLDER])?)?;
    Ok(())
}
