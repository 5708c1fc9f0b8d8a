//! The image of Orlop, as `deploy/image/build` makes it: an archive of the OCI's form, in which the program and those that it runs find all that they need.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use scenarios::{install, orlop};
use serde_json::Value;

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// A part of an image, which is what its name says.
fn blob(folder: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let name = descriptor["digest"].as_str().and_then(|name| name.strip_prefix("sha256:")).context("a digest")?;
    let file = folder.join("blobs/sha256").join(name);
    let (bytes, hash) = (fs::read(&file)?, run(Command::new("sha256sum").arg(&file))?);
    ensure!(
        hash.starts_with(name) && descriptor["size"] == bytes.len(),
        "{descriptor} is {hash} of {} bytes",
        bytes.len()
    );
    Ok(bytes)
}

#[test]
fn the_image_is_an_archive_in_which_every_program_runs() -> Result<()> {
    skips::require_root!();
    let work = tempfile::tempdir()?;
    let (archive, layout, root) = (work.path().join("orlop.tar"), work.path().join("layout"), work.path().join("root"));
    let build = install::deploy_dir().join("image/build");
    let said = run(Command::new(build).arg(orlop::beside_this("orlop")?).arg(&archive))?;
    ensure!(said.contains(install::IMAGE_IN_MANIFESTS), "{said}");
    for folder in [&layout, &root] {
        fs::create_dir(folder)?;
    }
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&layout))?;
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let named = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
    ensure!(named == &format!("docker.io/{}", install::IMAGE_IN_MANIFESTS), "it is {named}");
    let manifest: Value = serde_json::from_slice(&blob(&layout, &index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(&blob(&layout, &manifest["config"])?)?;
    ensure!(config["config"]["Entrypoint"] == serde_json::json!(["/usr/bin/orlop"]), "{config}");
    let layer = work.path().join("layer.tar");
    fs::write(&layer, blob(&layout, &manifest["layers"][0])?)?;
    run(Command::new("tar").arg("-xf").arg(&layer).arg("-C").arg(&root))?;
    let inside = |words: &[&str]| run(Command::new("chroot").arg(&root).args(words));
    let version = inside(&["/usr/bin/orlop", "version"])?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    for entry in fs::read_dir(root.join("usr/bin"))? {
        let name = entry?.file_name().into_string().ok().context("a name")?;
        // One that lacks a library says so, and never comes to its options.
        let ended = Command::new("chroot").arg(&root).arg(format!("/usr/bin/{name}")).arg("--help").output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(ended.status.code() != Some(127) && !said.contains("shared librar"), "{name}: {said}");
    }
    ensure!(
        root.join("etc/ssl/certs/ca-certificates.crt").exists()
            || !Path::new("/etc/ssl/certs/ca-certificates.crt").exists()
    );
    ensure!(!root.join("bin/sh").exists() && !root.join("usr/bin/sh").exists(), "there is a shell in it");
    Ok(())
}
