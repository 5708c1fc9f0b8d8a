//! The tree of commands, and the names that the program goes by.

use std::ffi::OsString;
use std::path::Path;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::complete::CompletionArgs;
use crate::daemons::{MoverArgs, OperatorArgs};
use crate::error::{Error, Exit, Result};
use crate::logs::{self, LogArgs};
use crate::output::OutputArgs;
use crate::{
    backup, check, clone, complete, daemons, install, location, node, repo, restore, schedule, scheduler, store,
    version, volume,
};

/// What ends the help of the program.
const AFTER_HELP: &str = "\
Exit codes:
  0    everything that was asked for was done
  1    something was not done, a run has failed, or a check has found something
  2    the command line cannot be understood
  3    a run has ended with something missing (Incomplete)
  4    the time given with --timeout was over before the end was seen
  130  interrupted while waiting; what runs in the cluster goes on

Results go to standard output, progress and errors to standard error.";

/// Data protection for Kubernetes: back up applications with their data, and restore them anywhere
#[derive(Debug, Parser)]
#[command(name = "orlop", version, after_help = AFTER_HELP, propagate_version = false, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    logs: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Location(location::LocationArgs),
    Backup(backup::BackupArgs),
    Schedule(schedule::ScheduleArgs),
    Restore(Box<restore::RestoreArgs>),
    Clone(clone::CloneArgs),
    Repo(Box<repo::RepoArgs>),
    Volume(Box<volume::VolumeArgs>),
    Store(store::StoreArgs),
    Node(node::NodeArgs),
    Keeper(node::KeeperArgs),
    Operator(OperatorArgs),
    Mover(MoverArgs),
    Scheduler(scheduler::SchedulerArgs),
    Install(install::InstallArgs),
    Upgrade(install::UpgradeArgs),
    Uninstall(install::UninstallArgs),
    Check(check::CheckArgs),
    /// Print the custom resource definitions
    Crds(OutputArgs),
    Completion(CompletionArgs),
    /// Print the version
    Version(OutputArgs),
}

/// The names that the program may be called by; links to it are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CalledAs {
    /// `orlop`.
    Orlop,
    /// `kubectl-orlop`, which `kubectl` runs for `kubectl orlop`.
    Plugin,
    /// `kubectl_complete-orlop`, which `kubectl` runs to complete `kubectl orlop …`.
    PluginCompletion,
}

impl CalledAs {
    fn from(program: &OsString) -> Self {
        match Path::new(program).file_name().and_then(|name| name.to_str()) {
            Some("kubectl-orlop") => Self::Plugin,
            Some("kubectl_complete-orlop") => Self::PluginCompletion,
            _ => Self::Orlop,
        }
    }

    fn command(self) -> clap::Command {
        match self {
            Self::Orlop | Self::PluginCompletion => Cli::command(),
            Self::Plugin => Cli::command().bin_name("kubectl orlop").display_name("kubectl orlop"),
        }
    }
}

/// Runs the program.
pub(crate) fn run(words: &[OsString]) -> Result<Exit> {
    let called_as = words.first().map_or(CalledAs::Orlop, CalledAs::from);
    if called_as == CalledAs::PluginCompletion {
        let words: Vec<_> = words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        complete::candidates(called_as.command(), &words)?;
        return Ok(Exit::Succeeded);
    }
    // clap writes usage errors, help and version itself, and ends with 2 or 0.
    let matches = called_as.command().get_matches_from(words);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    refuse_ignored(&matches)?;
    let is_daemon = matches!(
        cli.command,
        Command::Operator(_) | Command::Mover(_) | Command::Node(_) | Command::Keeper(_) | Command::Scheduler(_)
    );
    logs::start(&cli.logs, is_daemon)?;
    if matches!(cli.command, Command::Node(_)) {
        node::harden();
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::new("start the runtime").because(e))?;
    runtime.block_on(dispatch(cli.command))
}

/// Refuses what clap takes and no command would look at.
fn refuse_ignored(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("restore", matches)) => restore::refuse_before_verb(matches),
        _ => Ok(()),
    }
}

async fn dispatch(command: Command) -> Result<Exit> {
    match command {
        Command::Location(args) => location::run(args).await,
        Command::Backup(args) => backup::run(args).await,
        Command::Schedule(args) => schedule::run(args).await,
        Command::Restore(args) => restore::run(*args).await,
        Command::Clone(args) => clone::run(args).await,
        Command::Repo(args) => repo::run(*args).await,
        Command::Volume(args) => volume::run(*args).await,
        Command::Store(args) => store::run(args).await,
        Command::Node(args) => node::run(args).await,
        Command::Keeper(args) => node::keep(args).await,
        Command::Operator(args) => daemons::operator(args).await,
        Command::Mover(args) => daemons::mover(args).await,
        Command::Scheduler(args) => scheduler::scheduler(args).await,
        Command::Install(args) => install::install(args).await.map(|()| Exit::Succeeded),
        Command::Upgrade(args) => install::upgrade(args).await.map(|()| Exit::Succeeded),
        Command::Uninstall(args) => install::uninstall(args).await.map(|()| Exit::Succeeded),
        Command::Check(args) => check::run(args).await,
        Command::Crds(args) => version::crds(args.format()).map(|()| Exit::Succeeded),
        Command::Completion(args) => complete::script(args, Cli::command()).map(|()| Exit::Succeeded),
        Command::Version(args) => version::version(args.format()).map(|()| Exit::Succeeded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_name_says_what_is_wanted() {
        for (program, expected) in [
            ("orlop", CalledAs::Orlop),
            ("/usr/local/bin/kubectl-orlop", CalledAs::Plugin),
            ("./kubectl_complete-orlop", CalledAs::PluginCompletion),
            ("", CalledAs::Orlop),
        ] {
            assert_eq!(CalledAs::from(&program.into()), expected, "{program}");
        }
    }

    #[test]
    fn a_restore_may_leave_the_verb_out() {
        for (line, good) in [
            (&["orlop", "restore", "web", "--to", "a=b"][..], true),
            (&["orlop", "restore", "-n", "x", "list"], true),
            (&["orlop", "restore", "create", "list"], true),
            (&["orlop", "restore", "web", "--recovery-point", "p"], false),
            (&["orlop", "restore", "web", "--to", "a"], false),
            (&["orlop", "restore", "web", "--timeout", "5s"], false),
        ] {
            assert_eq!(Cli::try_parse_from(line).is_ok(), good, "{line:?}");
        }
    }

    /// Every way to say something about a new restore.
    const OF_A_NEW_RESTORE: &[&[&str]] = &[
        &["web"],
        &["--recovery-point", "p"],
        &["--backup-location", "main"],
        &["--name", "r"],
        &["--to", "a=b"],
        &["--storage-class", "a=b"],
        &["--replace-policy", "delete"],
        // Also where it is what it would be anyway.
        &["--replace-policy", "retain"],
        &["--include", "ConfigMap"],
        &["--transform", "t"],
        &["--restore-status-for", "Widget"],
        &["--hold-gitops"],
        &["--preserve-node-ports"],
        &["--preserve-cluster-ips"],
        &["--accept-incomplete"],
        &["--pre-exec-rule", "r"],
        &["--post-exec-rule", "r"],
        &["--ready-timeout", "5m"],
        &["--plan-only"],
        &["--plan-hash", "h"],
        &["--wait"],
        &["--wait", "--timeout", "5s"],
        &["--dry-run"],
    ];

    #[test]
    fn what_belongs_to_a_new_restore_is_refused_before_a_verb() {
        let refused = |words: &[&str]| {
            let matches = Cli::command().try_get_matches_from(words).expect("clap takes it");
            refuse_ignored(&matches).err().map(|e| (e.exit_code(), e.to_string()))
        };
        let verbs: [&[&str]; 5] = [&["delete", "x"], &["list"], &["show", "x"], &["create", "x"], &["plan", "x"]];
        for verb in verbs {
            for early in OF_A_NEW_RESTORE {
                let words = [&["orlop", "restore"], *early, verb].concat();
                let (exit, said) = refused(&words).unwrap_or_else(|| panic!("{words:?} is taken"));
                assert!(exit == Exit::Usage && said.contains(early[0]) && said.contains(verb[0]), "{words:?}: {said}");
            }
            let words = [&["orlop", "restore", "-n", "x", "-o", "json", "--log-format", "json"], verb].concat();
            assert_eq!(refused(&words), None, "{words:?}");
        }
        let words = ["orlop", "restore", "web", "--dry-run", "-n", "x"];
        assert_eq!(refused(&words), None, "without a verb they are what is wanted");
    }

    #[test]
    fn no_way_to_say_something_about_a_new_restore_is_forgotten() {
        let tested: Vec<_> = OF_A_NEW_RESTORE.iter().flat_map(|words| words.iter()).collect();
        for id in restore::ids_of_create() {
            let word = if id == "backup" { "web".to_owned() } else { format!("--{}", id.replace('_', "-")) };
            assert!(tested.iter().any(|tested| **tested == word), "{word}");
        }
    }
}
