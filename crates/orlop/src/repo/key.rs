//! `orlop repo key`: who can open a repository.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use repository::RepositoryId;
use repository::keys::{self, KeyEntry, KeyInfo, KeyMethod, KeyRing, NewKey};
use serde::Serialize;

use super::PlaceArgs;
use super::open::explain;
use super::secret::NewSecretArgs;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};

/// What an erasure does not reach.
const NOT_REACHED: &str = "\
What this cannot reach: copies of the store, older versions and locked objects that the store itself keeps, what was on a disk before it
was deleted, and whoever has the master key from having opened the repository. The data itself is still there: delete it too.\n";

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the keys; without a secret too, but then they cannot be proven
    List,
    /// Let a further recipient open the repository
    Add(AddArgs),
    /// Take a key away; whoever opened the repository with it keeps what he knows
    Remove(RemoveArgs),
    /// Exchange the key in use for a new one
    Rotate(AddArgs),
    /// Destroy all keys, so that nothing opens the repository any more
    Erase(EraseArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    secret: NewSecretArgs,
    /// Whose key it is; everybody can read this who can list the store. A rotation keeps the label of the key in use
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// The key, or how it begins
    id: String,
    /// Also when it is the key in use
    #[arg(long)]
    yes: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct EraseArgs {
    /// The repository that is meant, by its id
    #[arg(long, value_name = "REPOSITORY")]
    yes_erase: Option<RepositoryId>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(place: &PlaceArgs, args: &KeyArgs, format: Format) -> Result<Exit> {
    match &args.verb {
        Verb::List => list(place, format).await,
        Verb::Add(args) => add(place, args, format).await,
        Verb::Remove(args) => remove(place, args, format).await,
        Verb::Rotate(args) => rotate(place, args, format).await,
        Verb::Erase(args) => erase(place, args, format).await,
    }
}

/// A key in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyLine {
    id: String,
    /// Its removal was begun, and is going on or was cut off.
    being_removed: bool,
    /// Why it cannot be read; then nothing else is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    known: Option<KeyFacts>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyFacts {
    label: String,
    created: Timestamp,
    /// `passphrase-argon2id`, `kms`, or another one of a later version.
    method: String,
    /// The kind of service, and its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    kms: Option<String>,
    /// The memory that Argon2id takes, in KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_kib: Option<u32>,
    /// Whether somebody made it who had the master key; absent when no secret was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    proven: Option<bool>,
    in_use: bool,
}

impl From<KeyEntry> for KeyLine {
    fn from(entry: KeyEntry) -> Self {
        let (error, known) = match entry.info {
            Ok(info) => (None, Some(KeyFacts::from(info))),
            Err(e) => (Some(e.to_string()), None),
        };
        Self { id: entry.id.to_string(), being_removed: entry.being_removed, error, known }
    }
}

impl From<KeyInfo> for KeyFacts {
    fn from(info: KeyInfo) -> Self {
        let (method, kms, memory_kib) = match info.method {
            KeyMethod::Passphrase { cost } => ("passphrase-argon2id".to_owned(), None, Some(cost.memory_kib)),
            KeyMethod::Kms { provider, key } => ("kms".to_owned(), Some(format!("{provider}:{key}")), None),
            KeyMethod::Other(method) => (method, None, None),
        };
        let KeyInfo { label, created, proven, in_use, .. } = info;
        Self { label, created, method, kms, memory_kib, proven, in_use }
    }
}

impl KeyLine {
    fn cells(&self) -> [String; 5] {
        let Some(known) = &self.known else {
            let error = format!("cannot be read: {}", self.error.clone().unwrap_or_default());
            return [self.id.clone(), "-".to_owned(), "-".to_owned(), "-".to_owned(), error];
        };
        let label = if known.label.is_empty() { "-" } else { &known.label };
        let recipient = known.kms.clone().unwrap_or_else(|| known.method.clone());
        [self.id.clone(), label.to_owned(), human::instant(known.created), recipient, self.state(known)]
    }

    fn state(&self, known: &KeyFacts) -> String {
        let states = [
            (known.in_use, "in use"),
            (known.proven == Some(true) && !known.in_use, "good"),
            (known.proven == Some(false), "FORGED: not from somebody who had the master key"),
            (known.proven.is_none(), "not tried"),
            (self.being_removed, "removal begun"),
        ];
        let states: Vec<_> = states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect();
        states.join(", ")
    }
}

/// What `list` found.
#[derive(Debug, Serialize)]
struct Listed {
    repository: String,
    keys: Vec<KeyLine>,
}

async fn list(place: &PlaceArgs, format: Format) -> Result<Exit> {
    let what = "list the keys";
    let (repository, entries) = if place.has_recipient() {
        let ring = place.keys().await?;
        (ring.repository(), ring.list().await.map_err(|e| explain(what, e))?)
    } else {
        let store = place.store()?;
        let repository = keys::identity(&store).await.map_err(|e| explain(what, e))?;
        (repository, keys::list(&store).await.map_err(|e| explain(what, e))?)
    };
    let listed = Listed { repository: repository.to_string(), keys: entries.into_iter().map(KeyLine::from).collect() };
    let header = ["KEY", "LABEL", "CREATED", "RECIPIENT", "STATE"];
    let table = || output::table(header, listed.keys.iter().map(KeyLine::cells));
    let names = || listed.keys.iter().map(|key| format!("{}\n", key.id)).collect();
    output::print(&output::render(format, &listed, table, names)?)?;
    Ok(Exit::Succeeded)
}

/// What was done with keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    repository: String,
    /// The new key; absent after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<String>,
    removed: Vec<String>,
    dry_run: bool,
}

impl Changed {
    fn new(repository: RepositoryId, dry_run: bool) -> Self {
        Self { repository: repository.to_string(), added: None, removed: Vec::new(), dry_run }
    }

    fn print(&self, format: Format, table: impl FnOnce() -> String) -> Result<Exit> {
        let names = || self.added.iter().chain(&self.removed).map(|id| format!("{id}\n")).collect();
        output::print(&output::render(format, self, table, names)?)?;
        Ok(Exit::Succeeded)
    }
}

fn new_key(label: String) -> NewKey {
    NewKey { label, created: Timestamp::now() }
}

async fn add(place: &PlaceArgs, args: &AddArgs, format: Format) -> Result<Exit> {
    let what = "add a key";
    let recipient = args.secret.recipient().await?;
    let ring = place.keys().await?;
    let mut done = Changed::new(ring.repository(), args.dry_run);
    if args.dry_run {
        ring.check_addition().await.map_err(|e| explain(what, e))?;
    } else {
        let new = new_key(args.label.clone().unwrap_or_default());
        done.added = Some(ring.add(&recipient, &new).await.map_err(|e| explain(what, e))?.to_string());
    }
    let table = || match &done.added {
        Some(id) => format!("Key {id} added.\n"),
        None => "A key would be added (dry run: nothing was changed).\n".to_owned(),
    };
    done.print(format, table)
}

async fn remove(place: &PlaceArgs, args: &RemoveArgs, format: Format) -> Result<Exit> {
    let what = format!("remove the key {}", args.id);
    let ring = place.keys().await?;
    let entries = ring.list().await.map_err(|e| explain(what.clone(), e))?;
    let matching: Vec<_> =
        entries.iter().map(|entry| entry.id).filter(|id| id.to_string().starts_with(&args.id)).collect();
    let id = match matching[..] {
        [id] => id,
        [] => {
            return Err(Error::new(format!("{what}: the repository has no such key"))
                .next("orlop repo key list shows the keys"));
        }
        _ => return Err(Error::usage(format!("{what}: more than one begins like this")).next("write more of its id")),
    };
    let result = match args.dry_run {
        true => ring.check_removal(id, args.yes).await,
        false => ring.remove(id, args.yes).await,
    };
    result.map_err(|e| explain(what, e))?;
    let mut done = Changed::new(ring.repository(), args.dry_run);
    done.removed.push(id.to_string());
    done.print(format, || match args.dry_run {
        true => format!("Key {id} would be removed (dry run: nothing was changed).\n"),
        false => format!("Key {id} removed.\n"),
    })
}

async fn rotate(place: &PlaceArgs, args: &AddArgs, format: Format) -> Result<Exit> {
    let what = "rotate the key in use";
    let recipient = args.secret.recipient().await?;
    let ring = place.keys().await?;
    let mut done = Changed::new(ring.repository(), args.dry_run);
    let in_use = ring.in_use();
    if args.dry_run {
        ring.check_addition().await.map_err(|e| explain(what, e))?;
    } else {
        let label = match &args.label {
            Some(label) => label.clone(),
            None => label_in_use(&ring).await?,
        };
        let rotated = ring.rotate(&recipient, &new_key(label)).await.map_err(|e| explain(what, e))?;
        done.added = Some(rotated.added.to_string());
    }
    done.removed.push(in_use.to_string());
    let table = || match &done.added {
        Some(id) => format!("Key {id} added, key {in_use} removed.\n"),
        None => format!("A key would be added, and key {in_use} removed (dry run: nothing was changed).\n"),
    };
    done.print(format, table)
}

async fn label_in_use(ring: &KeyRing) -> Result<String> {
    let entries = ring.list().await.map_err(|e| explain("list the keys", e))?;
    let infos = entries.into_iter().filter_map(|entry| entry.info.ok());
    Ok(infos.into_iter().find(|info| info.in_use).map(|info| info.label).unwrap_or_default())
}

async fn erase(place: &PlaceArgs, args: &EraseArgs, format: Format) -> Result<Exit> {
    let store = place.store()?;
    let what = format!("erase the keys of the repository in {}", store.place());
    let found = keys::identity(&store).await.map_err(|e| explain(what.clone(), e))?;
    if args.yes_erase != Some(found) {
        let wrong = match args.yes_erase {
            Some(other) => format!("{what}: it is {found}, not {other}"),
            None => format!("{what}: afterwards nothing opens it any more, and nobody can undo this"),
        };
        return Err(Error::usage(wrong).next(format!("if that is what you want: --yes-erase {found}")));
    }
    let mut done = Changed::new(found, args.dry_run);
    let keys = match args.dry_run {
        true => keys::list(&store).await.map(|keys| keys.into_iter().map(|key| key.id).collect()),
        false => keys::erase(&store, found).await,
    };
    done.removed = keys.map_err(|e| explain(what, e))?.iter().map(ToString::to_string).collect();
    let count = human::count(done.removed.len() as u64, "key", "keys");
    let table = || match args.dry_run {
        true => format!("{count} would be destroyed (dry run: nothing was changed).\n"),
        false => format!("{count} destroyed: nothing opens the repository {found} any more.\n{NOT_REACHED}"),
    };
    done.print(format, table)
}
