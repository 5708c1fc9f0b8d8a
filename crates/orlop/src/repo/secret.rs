//! What opens a repository: where it comes from, exactly one of the ways.
//!
//! What is given on the command line counts before variables that are there for other commands. Secrets are read into buffers that
//! do not grow, and are wiped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use repository::keys::{AwsKms, AwsKmsConfig};
use repository::{Passphrase, Recipient, RetryPolicy};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use zeroize::{Zeroize, Zeroizing};

use crate::cluster::{Cluster, ConnectionArgs};
use crate::error::{Error, Result};

/// The longest passphrase that is read, in bytes, with what follows it: longer ones are files that were named by mistake.
const MAX_LEN: usize = 64 << 10;
/// The entry of a Kubernetes Secret that is read when none is named; `orlop location add` writes it.
const SECRET_ENTRY: &str = "passphrase";

/// What opens the repository.
#[derive(Clone, Debug, Args)]
pub(super) struct SecretArgs {
    /// File with its passphrase; else ORLOP_PASSWORD_FILE names it, or ORLOP_PASSWORD is it
    #[arg(long, value_name = "FILE", global = true)]
    password_file: Option<PathBuf>,
    /// Command that prints its passphrase as the first line, run by sh; else ORLOP_PASSWORD_COMMAND
    #[arg(long, value_name = "COMMAND", global = true)]
    password_command: Option<String>,
    /// Kubernetes Secret with its passphrase, in the entry `passphrase` or another one, by the current kubeconfig; else
    /// ORLOP_PASSWORD_SECRET
    #[arg(long, value_name = "NAMESPACE/NAME[:ENTRY]", global = true)]
    password_secret: Option<String>,
    /// Key of a key management service that is a recipient: aws:ARN, with the variables AWS_… and, if need be, AWS_ENDPOINT_URL_KMS;
    /// else ORLOP_KMS
    #[arg(long, value_name = "KEY", global = true)]
    kms: Option<String>,
}

impl SecretArgs {
    /// The passphrase in a file.
    pub(super) fn of_file(file: &Path) -> Self {
        Self { password_file: Some(file.to_owned()), password_command: None, password_secret: None, kms: None }
    }
}

/// What a new recipient will open the repository with.
#[derive(Clone, Debug, Args)]
pub(super) struct NewSecretArgs {
    /// File with the passphrase of the new recipient
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Command that prints the passphrase of the new recipient as the first line, run by sh
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<String>,
    /// Kubernetes Secret with the passphrase of the new recipient
    #[arg(long, value_name = "NAMESPACE/NAME[:ENTRY]")]
    new_password_secret: Option<String>,
    /// Key of a key management service as the new recipient: aws:ARN
    #[arg(long, value_name = "KEY")]
    new_kms: Option<String>,
}

/// One of the ways.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable,
    Command(String),
    Secret(String),
    Kms(String),
}

/// What holds the passphrase itself.
const PASSWORD: &str = "ORLOP_PASSWORD";

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl SecretArgs {
    /// Whether anything is given, by option or variable.
    pub(super) fn is_given(&self) -> bool {
        !self.options().is_empty() || !variables(&env).is_empty()
    }

    /// Whether anything is given by option.
    pub(super) fn is_said(&self) -> bool {
        !self.options().is_empty()
    }

    /// Reads the secret, or makes a client of the service that keeps it.
    pub(super) async fn recipient(&self) -> Result<Recipient> {
        self.source(&env)?.recipient().await
    }

    fn options(&self) -> Vec<(&'static str, Source)> {
        given([
            ("--password-file", self.password_file.clone().map(Source::File)),
            ("--password-command", self.password_command.clone().map(Source::Command)),
            ("--password-secret", self.password_secret.clone().map(Source::Secret)),
            ("--kms", self.kms.clone().map(Source::Kms)),
        ])
    }

    fn source(&self, env: Env<'_>) -> Result<Source> {
        let mut found = self.options();
        if found.is_empty() {
            found = variables(env);
        }
        one(found, || {
            Error::usage("the passphrase of the repository is missing").next(
                "give one of --password-file, --password-command, --password-secret and --kms, or set ORLOP_PASSWORD_FILE",
            )
        })
    }
}

impl NewSecretArgs {
    /// Reads the secret, or makes a client of the service that keeps it.
    pub(super) async fn recipient(&self) -> Result<Recipient> {
        let found = given([
            ("--new-password-file", self.new_password_file.clone().map(Source::File)),
            ("--new-password-command", self.new_password_command.clone().map(Source::Command)),
            ("--new-password-secret", self.new_password_secret.clone().map(Source::Secret)),
            ("--new-kms", self.new_kms.clone().map(Source::Kms)),
        ]);
        let missing = || {
            Error::usage("it is not said who the new recipient is")
                .next("give one of --new-password-file, --new-password-command, --new-password-secret and --new-kms")
        };
        one(found, missing)?.recipient().await
    }
}

fn given<const N: usize>(all: [(&'static str, Option<Source>); N]) -> Vec<(&'static str, Source)> {
    all.into_iter().filter_map(|(name, source)| Some((name, source?))).collect()
}

fn variables(env: Env<'_>) -> Vec<(&'static str, Source)> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    // The passphrase itself is read when it is needed; here it is only looked for.
    let password = set(PASSWORD).map(Zeroizing::new).map(|_| Source::Variable);
    given([
        (PASSWORD, password),
        ("ORLOP_PASSWORD_FILE", set("ORLOP_PASSWORD_FILE").map(PathBuf::from).map(Source::File)),
        ("ORLOP_PASSWORD_COMMAND", set("ORLOP_PASSWORD_COMMAND").map(Source::Command)),
        ("ORLOP_PASSWORD_SECRET", set("ORLOP_PASSWORD_SECRET").map(Source::Secret)),
        ("ORLOP_KMS", set("ORLOP_KMS").map(Source::Kms)),
    ])
}

fn one(found: Vec<(&'static str, Source)>, missing: impl FnOnce() -> Error) -> Result<Source> {
    let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
    let names = names.join(" and ");
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some((_, source)), None) => Ok(source),
        (None, _) => Err(missing()),
        _ => Err(Error::usage(format!("more than one secret is given: {names}")).next("give exactly one of them")),
    }
}

impl Source {
    async fn recipient(self) -> Result<Recipient> {
        let (what, content) = match self {
            Self::File(path) => (format!("read {}", path.display()), read_file(&path).await?),
            Self::Variable => {
                let value = env(PASSWORD).unwrap_or_default();
                (format!("read the variable {PASSWORD}"), Zeroizing::new(value.into_bytes()))
            }
            Self::Command(command) => {
                ("read what the command for the passphrase prints".to_owned(), first_line(&command).await?)
            }
            Self::Secret(name) => (format!("read the passphrase in the Secret {name}"), read_secret(&name).await?),
            Self::Kms(name) => return kms(&name),
        };
        let passphrase = Passphrase::from_content(content).map_err(|e| Error::new(what).because(e))?;
        Ok(Recipient::Passphrase(passphrase))
    }
}

async fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let what = || format!("read {}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|e| Error::new(what()).because(e))?;
    read_bounded(file, &what()).await
}

/// Reads to the end, if that comes soon enough.
async fn read_bounded(from: impl tokio::io::AsyncRead + Unpin, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let limit = MAX_LEN as u64 + 1;
    // Some room more than can be needed, so that reading never has the buffer moved.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_LEN + 64));
    from.take(limit).read_to_end(&mut content).await.map_err(|e| Error::new(what).because(e))?;
    if content.len() > MAX_LEN {
        return Err(Error::new(format!("{what}: it is longer than {MAX_LEN} bytes")));
    }
    Ok(content)
}

/// What a command prints, up to the first line break. The command is not shown: it may have a secret in it.
async fn first_line(command: &str) -> Result<Zeroizing<Vec<u8>>> {
    let what = "read what the command for the passphrase prints";
    let failed = |e: std::io::Error| Error::new("run the command for the passphrase").because(e);
    let mut shell = Command::new("sh");
    let mut child = shell.arg("-c").arg(command).stdout(Stdio::piped()).kill_on_drop(true).spawn().map_err(failed)?;
    let Some(output) = child.stdout.take() else { return Err(Error::new(what)) };
    let mut content = read_bounded(output, what).await?;
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        return Err(Error::new(format!("run the command for the passphrase: it ended with {status}")));
    }
    let end = content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len());
    content.truncate(end);
    Ok(content)
}

fn parse_secret(name: &str) -> Option<(&str, &str, &str)> {
    let (namespace, rest) = name.split_once('/')?;
    let (name, entry) = rest.split_once(':').unwrap_or((rest, SECRET_ENTRY));
    let is_good = |part: &str| !part.is_empty() && !part.contains('/');
    [namespace, name, entry].into_iter().all(is_good).then_some((namespace, name, entry))
}

async fn read_secret(text: &str) -> Result<Zeroizing<Vec<u8>>> {
    let what = format!("read the Secret {text}");
    let (namespace, name, entry) = parse_secret(text)
        .ok_or_else(|| Error::usage(format!("{text:?} is not of the form NAMESPACE/NAME or NAMESPACE/NAME:ENTRY")))?;
    let cluster = Cluster::connect_to(&ConnectionArgs::default(), Some(namespace.to_owned())).await?;
    let secret = cluster.api::<Secret>().get(name).await.map_err(|e| cluster.explain(what.clone(), e))?;
    let mut content = None;
    for (key, mut value) in secret.data.unwrap_or_default() {
        match key == entry {
            true => content = Some(Zeroizing::new(value.0)),
            false => value.0.zeroize(),
        }
    }
    content.ok_or_else(|| {
        Error::new(format!("{what}: it has no entry {entry}")).next("name another one: NAMESPACE/NAME:ENTRY")
    })
}

fn kms(name: &str) -> Result<Recipient> {
    let config =
        AwsKmsConfig::from_name(name, &env).map_err(|e| Error::usage("use the key management service").because(e))?;
    let kms = AwsKms::new(config, RetryPolicy::default())
        .map_err(|e| Error::new("use the key management service").because(e))?;
    Ok(Recipient::Kms(Arc::new(kms)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SecretArgs,
    }

    fn source(line: &[&str], env: &[(&str, &str)]) -> Result<Source> {
        let args = Line::try_parse_from([&["x"], line].concat()).expect("arguments").args;
        args.source(&|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn options_count_before_variables_and_one_way_is_enough() {
        let file = ("ORLOP_PASSWORD_FILE", "f");
        let good = |line: &[&str], env: &[(&str, &str)], expected: Source| {
            assert_eq!(source(line, env).expect("one source"), expected);
        };
        good(&["--password-file", "f"], &[], Source::File("f".into()));
        good(&["--kms", "aws:x"], &[file], Source::Kms("aws:x".to_owned()));
        good(&["--password-command", "c"], &[file, ("ORLOP_PASSWORD", "p")], Source::Command("c".to_owned()));
        good(&[], &[file], Source::File("f".into()));
        good(&[], &[("ORLOP_PASSWORD", "p"), ("ORLOP_PASSWORD_FILE", "")], Source::Variable);
        good(&[], &[("ORLOP_PASSWORD_COMMAND", "c")], Source::Command("c".to_owned()));
        good(&[], &[("ORLOP_PASSWORD_SECRET", "a/b")], Source::Secret("a/b".to_owned()));
        good(&[], &[("ORLOP_KMS", "aws:x")], Source::Kms("aws:x".to_owned()));
        let bad = |line: &[&str], env: &[(&str, &str)], said: &str| {
            let error = source(line, env).expect_err("no single source").to_string();
            assert!(error.contains(said), "{error}");
        };
        bad(&[], &[], "the passphrase of the repository is missing");
        bad(&["--password-file", "f", "--kms", "aws:x"], &[], "given: --password-file and --kms\n");
        bad(&[], &[file, ("ORLOP_PASSWORD", "p")], "given: ORLOP_PASSWORD and ORLOP_PASSWORD_FILE\n");
    }

    #[test]
    fn the_name_of_a_secret_is_understood() {
        for (text, expected) in [
            ("ops/backup", Some(("ops", "backup", "passphrase"))),
            ("ops/backup:key", Some(("ops", "backup", "key"))),
            ("backup", None),
            ("/backup", None),
            ("ops/", None),
            ("ops/a/b", None),
            ("ops/a:", None),
        ] {
            assert_eq!(parse_secret(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn the_first_line_of_a_command_counts_if_it_ends_well() {
        let line = |command: &'static str| async move {
            Source::Command(command.to_owned()).recipient().await.map(|recipient| match recipient {
                Recipient::Passphrase(passphrase) => passphrase,
                Recipient::Kms(_) => panic!("no passphrase"),
            })
        };
        for command in ["echo 'a b'", "printf 'a b\\r\\nmore\\n'", "printf 'a b'"] {
            assert_eq!(line(command).await.expect(command), Passphrase::new("a b"), "{command}");
        }
        for (command, said) in [
            ("echo hidden; exit 3", "it ended with exit status: 3"),
            ("true", "it is empty"),
            ("echo; echo hidden", "it is empty"),
            ("head -c 70000 /dev/zero", "longer than"),
            ("printf '\\377'", "text in UTF-8"),
        ] {
            let error = line(command).await.expect_err(command).to_string();
            assert!(error.contains(said) && !error.contains("hidden"), "{command}: {error}");
        }
    }
}
