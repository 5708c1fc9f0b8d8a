//! What pods run: an image with `orlop`, and one with PostgreSQL.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sandbox::{ImageConfig, Sandbox};
use tokio::process::Command;

use crate::{install, orlop};

/// The names of the images.
pub struct Images {
    /// `orlop`.
    pub orlop: String,
    /// PostgreSQL 15.
    pub postgres: String,
    /// A shell and the usual small programs.
    pub busybox: String,
}

impl Images {
    /// The images that the environment names, for clusters that have a registry.
    ///
    /// # Errors
    /// `ORLOP_IMAGE` is not set.
    pub fn given() -> anyhow::Result<Self> {
        let orlop = env::var("ORLOP_IMAGE")
            .context("ORLOP_IMAGE is not set: name an image of orlop that your clusters can pull")?;
        let postgres = env::var("DEMO_POSTGRES_IMAGE").unwrap_or_else(|_| "docker.io/library/postgres:15".into());
        let busybox = env::var("DEMO_BUSYBOX_IMAGE").unwrap_or_else(|_| "docker.io/library/busybox:1.36".into());
        Ok(Self { orlop, postgres, busybox })
    }

    /// Builds the image of `orlop` alone, under the name that the manifests have for it.
    ///
    /// # Errors
    /// It cannot be built.
    pub async fn build_orlop(sandbox: &Sandbox) -> anyhow::Result<()> {
        let root = sandbox.directory().join("orlop-image");
        orlop_image(&root).await.context("make the image of orlop")?;
        let config = ImageConfig { entrypoint: vec!["/usr/bin/orlop".into()], ..Default::default() };
        sandbox.image_from_directory(install::IMAGE_IN_MANIFESTS, &root, &config).await?;
        Ok(fs::remove_dir_all(&root)?)
    }

    /// Builds both and gives them to the nodes of the sandbox.
    ///
    /// # Errors
    /// An image cannot be built.
    pub async fn build(sandbox: &Sandbox) -> anyhow::Result<Self> {
        Self::build_orlop(sandbox).await?;
        Ok(Self {
            orlop: install::IMAGE_IN_MANIFESTS.into(),
            postgres: from_packages(sandbox, "postgres", "15").await?,
            busybox: sandbox::BUSYBOX.into(),
        })
    }
}

/// Builds the image of a database by the script of its name in `images/`, and gives it to the nodes of the sandbox.
///
/// # Errors
/// It cannot be built, such as without a mirror of Debian's packages.
pub async fn from_packages(sandbox: &Sandbox, name: &str, version: &str) -> anyhow::Result<String> {
    let root = root_from_packages(name, version).await.with_context(|| format!("make the image of {name}"))?;
    let image = format!("demo/{name}:{version}");
    sandbox.image_from_directory(&image, &root, &ImageConfig::default()).await?;
    Ok(image)
}

/// What is in the image that the project ships: the program, those that it runs, the libraries that they load, and the authorities that it trusts.
async fn orlop_image(root: &Path) -> anyhow::Result<()> {
    let script = install::deploy_dir().join("image/root");
    run(Command::new(script).arg(orlop::beside_this("orlop")?).arg(root)).await.map(drop)
}

/// Puts a program into `/usr/bin` of an image, and its libraries where it looks for them.
async fn program_into(root: &Path, program: &Path) -> anyhow::Result<()> {
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin)?;
    let target = bin.join(program.file_name().context("a program with a name")?);
    run(Command::new("strip").arg("-o").arg(&target).arg(program)).await?;
    let listed = run(Command::new("ldd").arg(program)).await?;
    listed.split_whitespace().filter_map(|word| word.strip_prefix('/')).try_for_each(|library| copy_into(root, library))
}

/// Copies a file of this machine to where it is there.
fn copy_into(root: &Path, file: &str) -> anyhow::Result<()> {
    let target = root.join(file);
    fs::create_dir_all(target.parent().context("a file in a folder")?)?;
    fs::copy(Path::new("/").join(file), &target).with_context(|| format!("copy /{file}"))?;
    Ok(())
}

/// Where the manifests get the standard sidecars from.
const SIDECARS: &str = "registry.k8s.io/sig-storage/";

/// Gives the nodes images under the names by which manifests know the standard sidecars: each is the stand-in that is called as the image is.
///
/// # Errors
/// An image cannot be built.
pub async fn stand_ins(sandbox: &Sandbox, manifests: &[String]) -> anyhow::Result<()> {
    let root = sandbox.directory().join("sidecars-image");
    program_into(&root, &orlop::beside_this("sidecars")?).await?;
    let images = manifests.iter().flat_map(|text| text.lines()).filter_map(|line| line.trim().split_once("image: "));
    let images: BTreeSet<&str> = images.map(|(_, image)| image).filter(|image| image.starts_with(SIDECARS)).collect();
    for image in images {
        let role = image.trim_start_matches(SIDECARS).split(':').next().unwrap_or_default().to_owned();
        let config = ImageConfig { entrypoint: vec!["/usr/bin/sidecars".into(), role], ..Default::default() };
        sandbox.image_from_directory(image, &root, &config).await?;
    }
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// The image of the driver that is not Orlop's, as its manifest names it.
const DIRECTORIES: &str = "localhost/directories:1";

/// Gives the nodes the image of the driver in `sandbox/directories`.
///
/// # Errors
/// It cannot be built.
pub async fn directories(sandbox: &Sandbox) -> anyhow::Result<()> {
    let root = sandbox.directory().join("directories-image");
    program_into(&root, &orlop::beside_this("directories")?).await?;
    let config = ImageConfig { entrypoint: vec!["/usr/bin/directories".into()], ..Default::default() };
    sandbox.image_from_directory(DIRECTORIES, &root, &config).await?;
    Ok(fs::remove_dir_all(&root)?)
}

/// The root of such an image, made once and kept in the cache.
async fn root_from_packages(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let root = cache.join(format!("orlop/images/{name}-{version}"));
    if root.exists() {
        return Ok(root);
    }
    fs::create_dir_all(root.parent().context("a folder")?)?;
    // Finished under another name first, so that an image that is half made is never taken for one.
    let unfinished = cache.join(format!("orlop/images/{name}-{version}.{}", std::process::id()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images").join(name);
    let made = Command::new(&script).arg(&unfinished).output().await?;
    let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    ensure!(made.status.success(), "{}: {}: {said}", script.display(), made.status);
    if let Err(e) = fs::rename(&unfinished, &root) {
        ensure!(root.exists(), "rename {}: {e}", unfinished.display());
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(root)
}

async fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
