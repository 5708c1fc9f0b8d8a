//! Container images: made of a directory, or given as an archive, and handed to every node.
//!
//! There is no registry. The archives lie in the sandbox's `images` directory; a node loads them when it starts, and at
//! once when it runs. An image is one layer in which everything belongs to root and has the same time, so the same
//! directory always gives the same image.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::distribution::Distribution;
use crate::error::{Error, Result};
use crate::files;
use crate::process;

/// The image that holds the namespaces of each pod.
pub(crate) const PAUSE: &str = "localhost/pause:1";
/// An image with a shell and the usual small programs, there in every sandbox.
pub const BUSYBOX: &str = "localhost/busybox:1";

/// How much of a layer is read at once while it is hashed.
const HASH_BUFFER_BYTES: usize = 1 << 20;

const OCI: &str = "application/vnd.oci.image.";

/// What an image runs and how.
#[derive(Debug, Clone, Default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// As `NAME=VALUE`.
    pub environment: Vec<String>,
    pub user: String,
    pub working_directory: String,
}

/// Makes the archive of an image of all that is in a directory, and returns its path.
pub(crate) async fn from_directory(images: &Path, name: &str, root: &Path, config: &ImageConfig) -> Result<PathBuf> {
    let name = full_name(name)?;
    if !root.is_dir() {
        return Err(Error::input(format!("{} is not a directory: an image is made of one", root.display())));
    }
    files::create_dir(images)?;
    let work = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(images)
        .map_err(Error::file("make a directory in", images))?;
    let blobs = work.path().join("blobs/sha256");
    files::create_dir(&blobs)?;
    let layer = work.path().join("layer");
    archive(root, &layer).await?;
    let (layer_digest, layer_size) = hash_file(&layer)?;
    fs::rename(&layer, blobs.join(&layer_digest)).map_err(Error::file("move", &layer))?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": runtime_config(config),
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
    });
    let config = put_blob(&blobs, "config.v1+json", &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": format!("{OCI}manifest.v1+json"),
        "config": config,
        "layers": [{"mediaType": format!("{OCI}layer.v1.tar"), "digest": format!("sha256:{layer_digest}"), "size": layer_size}],
    });
    let mut manifest = put_blob(&blobs, "manifest.v1+json", &manifest)?;
    manifest["platform"] = json!({"architecture": architecture(), "os": "linux"});
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    files::write_json(&work.path().join("index.json"), &index, files::PUBLIC)?;
    files::write(&work.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#, files::PUBLIC)?;
    let made = images.join(format!("{}.new", file_name(&name)));
    archive(work.path(), &made).await?;
    let target = images.join(file_name(&name));
    fs::rename(&made, &target).map_err(Error::file("move", &made))?;
    Ok(target)
}

/// Writes the archive of an image of all that is in a directory, for whoever takes it.
///
/// # Errors
/// The directory cannot be read, or the file not written.
pub async fn to_archive(file: &Path, name: &str, root: &Path, config: &ImageConfig) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let work = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(folder)
        .map_err(Error::file("make a directory in", folder))?;
    let made = from_directory(work.path(), name, root, config).await?;
    fs::rename(&made, file).map_err(Error::file("move", &made))
}

/// Takes an archive that another tool has made, of the OCI's or Docker's form.
pub(crate) fn take_archive(images: &Path, archive: &Path) -> Result<PathBuf> {
    let stem = archive.file_stem().unwrap_or_default().to_string_lossy();
    let target = images.join(file_name(&stem));
    files::create_dir(images)?;
    fs::copy(archive, &target).map_err(Error::file("copy", archive))?;
    Ok(target)
}

/// The two images that every sandbox has.
pub(crate) async fn make_basic(images: &Path, programs: &Distribution) -> Result<()> {
    if [PAUSE, BUSYBOX].iter().all(|name| images.join(file_name(name)).exists()) {
        return Ok(());
    }
    let work = tempfile::tempdir().map_err(Error::file("make a directory in", &std::env::temp_dir()))?;
    let root = work.path();
    for name in ["bin", "etc", "tmp", "root", "dev", "proc", "sys", "usr/bin", "var"] {
        files::create_dir(&root.join(name))?;
    }
    let busybox = programs.program("busybox");
    let copy = root.join("bin/busybox");
    fs::copy(&busybox, &copy).map_err(Error::file("copy", &busybox))?;
    let names = process::run(Command::new(&busybox).arg("--list"), "").await?;
    for name in names.lines().filter(|name| *name != "busybox") {
        let link = root.join("bin").join(name);
        symlink("busybox", &link).map_err(Error::file("link", &link))?;
    }
    files::write(
        &root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        files::PUBLIC,
    )?;
    files::write(&root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n", files::PUBLIC)?;
    let shell = ImageConfig { command: vec!["sh".into()], ..ImageConfig::default() };
    from_directory(images, BUSYBOX, root, &shell).await?;
    // It ends as soon as it is told to, and takes leave of orphans where a pod shares its process namespace.
    let wait = "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done";
    let pause = ImageConfig { entrypoint: ["/bin/sh", "-c", wait].map(String::from).into(), ..ImageConfig::default() };
    from_directory(images, PAUSE, root, &pause).await?;
    Ok(())
}

/// The archives of a sandbox, in order.
pub(crate) fn archives(images: &Path) -> Result<Vec<PathBuf>> {
    let names = files::list(images)?.into_iter().filter(|name| name.ends_with(".tar"));
    Ok(names.map(|name| images.join(name)).collect())
}

async fn archive(directory: &Path, target: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .args(["--create", "--format=gnu", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"])
        .arg("--file")
        .arg(target)
        .arg("--directory")
        .arg(directory)
        .args(["--exclude=./.making-*", "."]);
    process::run(&mut command, "").await?;
    Ok(())
}

fn runtime_config(config: &ImageConfig) -> Value {
    let mut environment = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    environment.extend(config.environment.iter().cloned());
    let mut value = json!({"Env": environment});
    for (key, list) in [("Entrypoint", &config.entrypoint), ("Cmd", &config.command)] {
        if !list.is_empty() {
            value[key] = json!(list);
        }
    }
    for (key, text) in [("User", &config.user), ("WorkingDir", &config.working_directory)] {
        if !text.is_empty() {
            value[key] = json!(text);
        }
    }
    value
}

/// What Go, and with it the world of containers, calls this machine's kind of processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn put_blob(blobs: &Path, kind: &str, value: &Value) -> Result<Value> {
    let text = value.to_string();
    let digest = hex(digest(&SHA256, text.as_bytes()).as_ref());
    files::write(&blobs.join(&digest), &text, files::PUBLIC)?;
    Ok(json!({"mediaType": format!("{OCI}{kind}"), "digest": format!("sha256:{digest}"), "size": text.len()}))
}

fn hash_file(path: &Path) -> Result<(String, u64)> {
    let failed = || Error::file("read", path);
    let mut file = fs::File::open(path).map_err(failed())?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    let mut size = 0;
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer).map_err(failed())?;
        if read == 0 {
            return Ok((hex(context.finish().as_ref()), size));
        }
        size += read as u64;
        context.update(&buffer[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name that containerd knows an image by: with its registry, as kubelets ask for it.
fn full_name(name: &str) -> Result<String> {
    let last = name.rsplit('/').next().unwrap_or(name);
    if !matches!(last.split_once(':'), Some((image, tag)) if !image.is_empty() && !tag.is_empty()) {
        return Err(Error::input(format!("an image's name needs a tag, as in example/server:1: {name:?}")));
    }
    let is_registry = |first: &str| first.contains(['.', ':']) || first == "localhost";
    Ok(match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if is_registry(first) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    })
}

fn file_name(name: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' }
    };
    format!("{}.tar", name.chars().map(safe).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<&str>) {
        assert_eq!(full_name(name).ok().as_deref(), expected, "{name}");
    }

    #[test]
    fn names_are_completed_as_kubelets_do() {
        check("busybox:1", Some("docker.io/library/busybox:1"));
        check("orlop/orlop:dev", Some("docker.io/orlop/orlop:dev"));
        check("localhost/pause:1", Some("localhost/pause:1"));
        check("reg.example:5000/a:1", Some("reg.example:5000/a:1"));
        check("busybox", None);
        check("reg.example:5000/a", None);
    }

    #[tokio::test]
    async fn the_same_directory_gives_the_same_image() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let root = work.path().join("root");
        files::write(&root.join("program"), "#!/bin/sh\n", files::PROGRAM).expect("written");
        let config = ImageConfig { entrypoint: vec!["/program".into()], ..ImageConfig::default() };
        let mut made = Vec::new();
        for images in ["one", "two"] {
            let images = work.path().join(images);
            let path = from_directory(&images, "test:1", &root, &config).await.expect("made");
            assert_eq!(archives(&images).expect("listed"), std::slice::from_ref(&path));
            made.push(fs::read(path).expect("read"));
        }
        assert!(made[0] == made[1]);
    }
}
