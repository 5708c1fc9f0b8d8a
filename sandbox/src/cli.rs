//! The commands of `sandbox`.

mod show;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use sandbox::{Cluster, Daemon, Forwarder, ImageConfig, Node, ProcessOne, Provisioner, Sandbox};

/// Real Kubernetes clusters on one machine, and their faults
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Where everything is kept; on ext4, xfs or btrfs [default: .sandbox]
    #[arg(long, env = "SANDBOX_DIR", global = true, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find the programs that clusters are made of, or build them once
    Build {
        /// Build even when all of them are found
        #[arg(long)]
        force: bool,
    },
    /// Start a cluster, or go on with one that was taken down
    Up {
        /// One to eight letters, as in east
        name: String,
        /// How many nodes it has [default: 3]
        #[arg(long)]
        nodes: Option<u8>,
    },
    /// End clusters: those named, or all
    Down {
        names: Vec<String>,
        /// Remove their state too
        #[arg(long)]
        wipe: bool,
    },
    /// Show clusters, nodes, daemons, cuts and forwards
    List,
    /// Print lines for a shell: eval "$(sandbox env east)"
    Env { name: String },
    /// Start a node, as east1, a control plane, as east, or a daemon, as east1/kubelet
    Start { target: String },
    /// End one in order
    Stop { target: String },
    /// End one in order and start it again
    Restart { target: String },
    /// Kill one at once: a daemon by SIGKILL, a node as by a power cut
    Kill { target: String },
    /// Cut a node from everything, or two nodes from each other
    Net { action: Cut, node: String, other: Option<String> },
    /// Cut two clusters from each other
    Link { action: Cut, cluster: String, other: String },
    /// Lead TCP connections in or out of a cluster
    #[command(subcommand)]
    Forward(ForwardCommand),
    /// Make an image of a directory, or take archives, and give it to every node
    Image(ImageArguments),
    /// Run a command on a node, as root
    Exec {
        node: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Print the log of a daemon, as of east1/kubelet
    Log {
        target: String,
        /// Print the path of the file instead
        #[arg(long)]
        path: bool,
    },
    /// Serve S3 out of a directory
    S3(sandbox::s3::Arguments),
    /// Lend API servers to tests, one after another; they end with this
    Lend {
        /// The socket that tests find in ORLOP_CONTROL_PLANES
        socket: PathBuf,
    },
    #[command(hide = true)]
    ProcessOne(ProcessOne),
    #[command(hide = true)]
    Forwarder(Forwarder),
    #[command(hide = true)]
    Provisioner(Provisioner),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cut {
    Cut,
    Heal,
}

#[derive(Debug, Subcommand)]
enum ForwardCommand {
    /// A server on this machine, for nodes and pods: they find it at the control plane's address
    In {
        cluster: String,
        port: u16,
        /// Where the server is [default: the same port of 127.0.0.1]
        dial: Option<SocketAddr>,
    },
    /// An address inside, for this machine: it is found at this port of 127.0.0.1
    Out { cluster: String, port: u16, dial: SocketAddr },
    /// End either
    End { cluster: String, port: u16 },
}

#[derive(Debug, clap::Args)]
struct ImageArguments {
    /// Archives, of the OCI's or Docker's form, instead of a directory
    #[arg(long, num_args = 1.., conflicts_with_all = ["name", "directory"])]
    load: Vec<PathBuf>,
    /// The image's name with its tag, as in example/server:1
    #[arg(required_unless_present = "load")]
    name: Option<String>,
    #[arg(required_unless_present = "load")]
    directory: Option<PathBuf>,
    /// Write the image to this archive, of the OCI's form, and give it to no node
    #[arg(long, value_name = "FILE", conflicts_with = "load")]
    to: Option<PathBuf>,
    /// The program and its first arguments, separated by blanks
    #[arg(long, value_name = "'PROGRAM ARGUMENT…'", default_value = "")]
    entrypoint: String,
    /// Further arguments, which a pod may replace, separated by blanks
    #[arg(long, value_name = "'ARGUMENT…'", default_value = "")]
    cmd: String,
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[arg(long, default_value = "")]
    user: String,
    #[arg(long, default_value = "")]
    workdir: String,
}

impl Cli {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let command = match self.command {
            // These enter or have entered namespaces, which are a thread's: they make their runtime themselves.
            Command::ProcessOne(one) => return Ok(one.run().map(|()| ExitCode::SUCCESS)?),
            Command::Forwarder(forwarder) => {
                return Ok(forwarder.run().map(|()| ExitCode::SUCCESS)?);
            }
            command => command,
        };
        tracing_subscriber::fmt()
            .with_env_filter(
                tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "sandbox=info".into()),
            )
            .with_writer(std::io::stderr)
            .without_time()
            .with_level(false)
            .with_target(false)
            .init();
        let directory = self.dir.unwrap_or_else(Sandbox::default_directory);
        let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
        runtime.block_on(run(command, &directory))
    }
}

async fn run(command: Command, directory: &std::path::Path) -> Result<ExitCode> {
    if let Command::Image(image) = &command
        && let (Some(name), Some(content), Some(file)) = (&image.name, &image.directory, &image.to)
    {
        sandbox::image_archive(file, name, content, &image.config()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    match command {
        Command::Build { force } => return build(directory, force).await,
        Command::S3(arguments) => {
            sandbox::s3::run(arguments).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Provisioner(provisioner) => {
            provisioner.run().await?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Lend { socket } => {
            sandbox::control_plane::lend(&socket).await?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let program = std::env::current_exe().context("find this program's file")?;
    let sandbox = Sandbox::open_with(directory, program)?;
    match command {
        Command::Up { name, nodes } => {
            let cluster = Cluster::up(&sandbox, &name, nodes).await?;
            show::environment(&cluster).await?;
        }
        Command::Down { names, wipe } => down(&sandbox, &names, wipe).await?,
        Command::List => show::list(&sandbox)?,
        Command::Env { name } => show::environment(&sandbox.cluster(&name)?).await?,
        Command::Start { target } => change(&sandbox, &target, &[Change::Start]).await?,
        Command::Stop { target } => change(&sandbox, &target, &[Change::Stop]).await?,
        Command::Restart { target } => change(&sandbox, &target, &[Change::Stop, Change::Start]).await?,
        Command::Kill { target } => change(&sandbox, &target, &[Change::Kill]).await?,
        Command::Net { action, node, other } => net(&sandbox, action, &node, other.as_deref()).await?,
        Command::Link { action, cluster, other } => {
            let (cluster, other) = (sandbox.cluster(&cluster)?, sandbox.cluster(&other)?);
            match action {
                Cut::Cut => cluster.cut_link(&other).await?,
                Cut::Heal => cluster.heal_link(&other).await?,
            }
        }
        Command::Forward(command) => forward(&sandbox, command).await?,
        Command::Image(arguments) => image(&sandbox, &arguments).await?,
        Command::Exec { node, command } => return exec(&sandbox, &node, &command).await,
        Command::Log { target, path } => log(&sandbox, &target, path)?,
        Command::Build { .. }
        | Command::S3(_)
        | Command::Lend { .. }
        | Command::ProcessOne(_)
        | Command::Forwarder(_)
        | Command::Provisioner(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn build(directory: &std::path::Path, force: bool) -> Result<ExitCode> {
    if force || sandbox::Distribution::find(directory).is_err() {
        sandbox::build::build().await?;
    }
    show::origin(&sandbox::Distribution::find(directory)?);
    Ok(ExitCode::SUCCESS)
}

async fn down(sandbox: &Sandbox, names: &[String], wipe: bool) -> Result<()> {
    if names.is_empty() && wipe {
        return Ok(sandbox.wipe().await?);
    }
    let clusters = if names.is_empty() {
        sandbox.clusters()?
    } else {
        names.iter().map(|name| sandbox.cluster(name)).collect::<Result<_, _>>()?
    };
    for cluster in clusters {
        if wipe {
            cluster.destroy().await?;
        } else {
            cluster.down().await?;
        }
    }
    Ok(())
}

/// What a target on the command line names: a cluster's control plane or node, and perhaps one of its daemons.
struct Target {
    cluster: Cluster,
    number: Option<u8>,
    daemon: Option<Daemon>,
}

impl Target {
    fn parse(sandbox: &Sandbox, text: &str) -> Result<Self> {
        let (cluster, number, daemon) = parts(text)?;
        let target = Self { cluster: sandbox.cluster(cluster)?, number, daemon };
        target.node()?;
        Ok(target)
    }

    fn node(&self) -> Result<Node<'_>> {
        Ok(match self.number {
            Some(number) => self.cluster.node(number)?,
            None => self.cluster.control_plane(),
        })
    }
}

/// The cluster, the number of the node, and the daemon that a target is made of.
fn parts(text: &str) -> Result<(&str, Option<u8>, Option<Daemon>)> {
    let (node, daemon) = match text.split_once('/') {
        Some((node, daemon)) => (node, Some(daemon.parse()?)),
        None => (text, None),
    };
    let cluster = node.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &node[cluster.len()..];
    let number = (!digits.is_empty()).then(|| digits.parse()).transpose();
    let number = number.with_context(|| format!("{node} has a number that no node has"))?;
    Ok((cluster, number, daemon))
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Start,
    Stop,
    Kill,
}

async fn change(sandbox: &Sandbox, target: &str, changes: &[Change]) -> Result<()> {
    let target = Target::parse(sandbox, target)?;
    let node = target.node()?;
    for change in changes {
        match (change, target.daemon) {
            (Change::Start, None) => node.start().await?,
            (Change::Stop, None) => node.stop().await?,
            (Change::Kill, None) => node.kill().await?,
            (Change::Start, Some(daemon)) => node.start_daemon(daemon).await?,
            (Change::Stop, Some(daemon)) => node.stop_daemon(daemon).await?,
            (Change::Kill, Some(daemon)) => node.kill_daemon(daemon).await?,
        }
    }
    Ok(())
}

async fn net(sandbox: &Sandbox, action: Cut, node: &str, other: Option<&str>) -> Result<()> {
    let target = Target::parse(sandbox, node)?;
    let node = target.node()?;
    let other = other.map(|other| Target::parse(sandbox, other)).transpose()?;
    match (action, &other) {
        (Cut::Cut, None) => node.cut().await?,
        (Cut::Heal, None) => node.heal().await?,
        (Cut::Cut, Some(other)) => node.cut_from(&other.node()?).await?,
        (Cut::Heal, Some(other)) => node.heal_with(&other.node()?).await?,
    }
    Ok(())
}

async fn forward(sandbox: &Sandbox, command: ForwardCommand) -> Result<()> {
    match command {
        ForwardCommand::In { cluster, port, dial } => {
            let dial = dial.unwrap_or_else(|| ([127, 0, 0, 1], port).into());
            let at = sandbox.cluster(&cluster)?.forward_in(port, dial).await?;
            println!("{dial} is at {at} in {cluster}");
        }
        ForwardCommand::Out { cluster, port, dial } => {
            let at = sandbox.cluster(&cluster)?.forward_out(port, dial).await?;
            println!("{dial} in {cluster} is at {at}");
        }
        ForwardCommand::End { cluster, port } => sandbox.cluster(&cluster)?.end_forward(port).await?,
    }
    Ok(())
}

impl ImageArguments {
    fn config(&self) -> ImageConfig {
        let words = |text: &str| text.split_whitespace().map(String::from).collect();
        ImageConfig {
            entrypoint: words(&self.entrypoint),
            command: words(&self.cmd),
            environment: self.env.clone(),
            user: self.user.clone(),
            working_directory: self.workdir.clone(),
        }
    }
}

async fn image(sandbox: &Sandbox, arguments: &ImageArguments) -> Result<()> {
    for archive in &arguments.load {
        sandbox.load_image(archive).await?;
    }
    let (Some(name), Some(directory)) = (&arguments.name, &arguments.directory) else {
        return Ok(());
    };
    Ok(sandbox.image_from_directory(name, directory, &arguments.config()).await?)
}

async fn exec(sandbox: &Sandbox, node: &str, command: &[String]) -> Result<ExitCode> {
    let target = Target::parse(sandbox, node)?;
    if target.daemon.is_some() {
        bail!("a command runs on a node, not in a daemon: {node}");
    }
    let status = target.node()?.command(command)?.status().await.context("run nsenter")?;
    // A command that a signal has ended has no code of its own.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn log(sandbox: &Sandbox, target: &str, path: bool) -> Result<()> {
    let parsed = Target::parse(sandbox, target)?;
    let Some(daemon) = parsed.daemon else {
        bail!("a log is a daemon's, as of {target}/kube-proxy");
    };
    let file = parsed.node()?.log(daemon);
    if path {
        println!("{}", file.display());
        return Ok(());
    }
    let content = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    std::io::stdout().write_all(&content).context("print the log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_cluster_and_perhaps_a_node_and_a_daemon() {
        for (text, expected) in [
            ("east", ("east", None, None)),
            ("east2", ("east", Some(2), None)),
            ("east/etcd", ("east", None, Some(Daemon::Etcd))),
            ("east12/kubelet", ("east", Some(12), Some(Daemon::Kubelet))),
            // That there is no such cluster or node is found when they are looked for.
            ("", ("", None, None)),
            ("7", ("", Some(7), None)),
        ] {
            assert_eq!(parts(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn a_target_that_cannot_be_understood_is_named() {
        for (text, said) in [
            ("east300", "east300 has a number that no node has"),
            ("east1/kublet", "no daemon is called \"kublet\""),
            ("east1/", "no daemon is called \"\""),
            ("east1/kubelet/x", "no daemon is called \"kubelet/x\""),
        ] {
            let error = format!("{:#}", parts(text).expect_err(text));
            assert!(error.contains(said), "{error}");
        }
    }
}
