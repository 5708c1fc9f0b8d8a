//! The program `orlop`, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

/// A program beside this one, as `cargo build --workspace` leaves it; tests lie one folder deeper. Else one that is on the `PATH`.
///
/// # Errors
/// It is not there.
pub fn beside_this(name: &str) -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("find this program")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = me.ancestors().skip(1).take(2).map(Path::to_owned).chain(std::env::split_paths(&path));
    let found = folders.find_map(|d| Some(d.join(name)).filter(|p| p.is_file()));
    found.with_context(|| format!("no program `{name}` beside {}: run `cargo build --workspace`", me.display()))
}

/// What a command did.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code.
    pub code: i32,
    /// What it printed as its result.
    pub stdout: String,
    /// What it printed for people.
    pub stderr: String,
}

/// Runs `orlop` against a cluster, or against none.
///
/// # Errors
/// It could not be run.
pub async fn run(kubeconfig: Option<&Path>, args: &[&str], env: &[(&str, String)]) -> anyhow::Result<Finished> {
    let mut command = Command::new(beside_this("orlop")?);
    command.args(args).envs(env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let output = command.output().await.context("run orlop")?;
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs `orlop` and wants it to succeed.
///
/// # Errors
/// It could not be run, or ended with another code than 0.
pub async fn succeed(kubeconfig: Option<&Path>, args: &[&str], env: &[(&str, String)]) -> anyhow::Result<String> {
    let done = run(kubeconfig, args, env).await?;
    if done.code != 0 {
        bail!("orlop {}: exit code {}\n{}{}", args.join(" "), done.code, done.stdout, done.stderr);
    }
    Ok(done.stdout)
}
