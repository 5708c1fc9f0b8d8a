//! What pods run: an image with `orlop`, and one with PostgreSQL.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sandbox::{ImageConfig, Sandbox};
use tokio::process::Command;

use crate::orlop;

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

    /// Builds both and gives them to the nodes of the sandbox.
    ///
    /// # Errors
    /// An image cannot be built.
    pub async fn build(sandbox: &Sandbox) -> anyhow::Result<Self> {
        let images = Self {
            orlop: "orlop/orlop:0.1.0".into(),
            postgres: "demo/postgres:15".into(),
            busybox: sandbox::BUSYBOX.into(),
        };
        let orlop_root = sandbox.directory().join("orlop-image");
        orlop_image(&orlop_root).await.context("make the image of orlop")?;
        let run_orlop = ImageConfig { entrypoint: vec!["/usr/bin/orlop".into()], ..Default::default() };
        sandbox.image_from_directory(&images.orlop, &orlop_root, &run_orlop).await?;
        fs::remove_dir_all(&orlop_root)?;
        let postgres_root = postgres_root().await.context("make the image of PostgreSQL")?;
        sandbox.image_from_directory(&images.postgres, &postgres_root, &ImageConfig::default()).await?;
        Ok(images)
    }
}

/// Where programs look for the authorities that sign certificates.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

/// The program, the libraries that it loads, and the authorities that it trusts.
async fn orlop_image(root: &Path) -> anyhow::Result<()> {
    let program = orlop::beside_this("orlop")?;
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(root.join("tmp"))?;
    run(Command::new("strip").arg("-o").arg(bin.join("orlop")).arg(&program)).await?;
    let listed = run(Command::new("ldd").arg(&program)).await?;
    let libraries = listed.split_whitespace().filter_map(|word| word.strip_prefix('/'));
    for file in libraries.chain([AUTHORITIES]) {
        let target = root.join(file);
        fs::create_dir_all(target.parent().context("a file in a folder")?)?;
        fs::copy(Path::new("/").join(file), &target).with_context(|| format!("copy /{file}"))?;
    }
    Ok(())
}

/// The root of the PostgreSQL image, made once and kept in the cache.
async fn postgres_root() -> anyhow::Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let root = cache.join("orlop/images/postgres-15");
    if !root.join("usr/lib/postgresql/15/bin/postgres").exists() {
        fs::create_dir_all(root.parent().context("a folder")?)?;
        // Finished under another name first, so that an image that is half made is never taken for one.
        let unfinished = root.with_extension(format!("{}", std::process::id()));
        run(Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("images/postgres")).arg(&unfinished)).await?;
        if let Err(e) = fs::rename(&unfinished, &root) {
            ensure!(root.exists(), "rename {}: {e}", unfinished.display());
            fs::remove_dir_all(&unfinished)?;
        }
    }
    Ok(root)
}

async fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
