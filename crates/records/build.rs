//! Compiles what is used of etcd's API, without a compiler of protocol buffers that would have to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILE: &str = "etcd.proto";
    println!("cargo:rerun-if-changed=proto/{FILE}");
    let files = protox::compile([FILE], ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
