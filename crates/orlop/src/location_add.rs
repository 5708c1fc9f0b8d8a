//! `orlop location add`: the Secret with the credentials, then the location, then what the operator finds.
//!
//! The order makes each step safe to lose: the server first tries the location without making it, so that a wrong one leaves no Secret
//! behind; the Secret is made before the location, so that the operator never sees one without the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::location::Encryption;
use api::{BackupLocation, BackupLocationSpec, LocationPhase, LocationType, S3Config, SecretKeyRef};
use clap::Args;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};

use crate::cluster::Cluster;
use crate::error::{Error, Exit, Result};
use crate::human::parse_duration;
use crate::location::{described, nobody_answers, verdict};
use crate::output::{self, Format};
use crate::run::watch_until;
use crate::select::valid;
use crate::verbs::dry;

/// The bucket and how to get in.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The name of the location
    name: String,
    /// The bucket, and the begin of the names in it: s3://bucket or s3://bucket/prefix
    #[arg(required_unless_present = "bucket")]
    url: Option<String>,
    /// The bucket, instead of the URL
    #[arg(long, conflicts_with = "url")]
    bucket: Option<String>,
    /// The begin of the names in the bucket
    #[arg(long, requires = "bucket")]
    prefix: Option<String>,
    /// URL of the service, with its scheme; else AWS's own
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL", hide_env_values = true)]
    endpoint: Option<String>,
    /// Region
    #[arg(long, env = "AWS_REGION", hide_env_values = true)]
    region: Option<String>,
    /// Whether the bucket is in the path of URLs; else it is when there is an endpoint
    #[arg(long, value_name = "true|false")]
    path_style: Option<bool>,
    /// Certificates (PEM) of authorities that may have signed the service's certificate
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The access key id; else AWS_ACCESS_KEY_ID
    #[arg(long, value_name = "ID")]
    access_key_id: Option<String>,
    /// File with the secret access key; else AWS_SECRET_ACCESS_KEY has it. A token in AWS_SESSION_TOKEN is taken only with both keys of
    /// the environment, which it belongs to
    #[arg(long, value_name = "FILE")]
    secret_access_key_file: Option<PathBuf>,
    /// File with the passphrase of the repository; else ORLOP_PASSWORD_FILE names it. Keep a copy elsewhere: without it nothing can be
    /// restored
    #[arg(long, alias = "passphrase-file", value_name = "FILE")]
    password_file: Option<PathBuf>,
    // What is given on the command line is refused beside it; variables that are there for other commands are not.
    /// Use a Secret that exists, with access-key-id, secret-access-key and passphrase, instead of making one
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["access_key_id", "secret_access_key_file", "password_file", "ca_file"]
    )]
    secret: Option<String>,
    /// The Secret also has certificates of authorities, in ca.crt
    #[arg(long, requires = "secret")]
    ca_in_secret: bool,
    /// Do not wait until the operator has probed it
    #[arg(long)]
    no_wait: bool,
    /// Wait at most this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2m")]
    timeout: Duration,
    /// Only say what would happen: the server checks the resources and changes nothing
    #[arg(long)]
    dry_run: bool,
}

/// What will be made.
#[derive(Debug)]
pub(crate) struct Plan {
    location: BackupLocation,
    /// None when an existing one is named.
    secret: Option<Secret>,
}

/// Bears the name of the location that a Secret was made for.
const LOCATION_LABEL: &str = "orlop.io/location";
const ACCESS_KEY_ID: &str = "access-key-id";
const SECRET_ACCESS_KEY: &str = "secret-access-key";
const SESSION_TOKEN: &str = "session-token";
const PASSPHRASE: &str = "passphrase";
const CA: &str = "ca.crt";

/// Decides what to make, from arguments, environment and files. Names everything that is missing.
pub(crate) fn plan(args: &AddArgs, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan> {
    let what = format!("add location {}", args.name);
    let (bucket, prefix) = match (&args.url, &args.bucket) {
        (Some(url), _) => bucket_of(url)?,
        (None, bucket) => (bucket.clone().unwrap_or_default(), args.prefix.clone()),
    };
    let secret_name = args.secret.clone().unwrap_or_else(|| format!("orlop-location-{}", args.name));
    let entry = |key: &str| SecretKeyRef { name: secret_name.clone(), key: key.to_owned() };
    let s3 = S3Config {
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        force_path_style: args.path_style,
        ca_secret_ref: (args.ca_file.is_some() || args.ca_in_secret).then(|| entry(CA)),
    };
    let spec = BackupLocationSpec {
        type_: LocationType::S3,
        path: bucket,
        prefix,
        s3: (s3 != S3Config::default()).then_some(s3),
        credentials_secret: secret_name.clone(),
        encryption: Encryption { secret_ref: entry(PASSPHRASE) },
    };
    valid(&what, &spec.validate())?;
    let secret = match args.secret {
        Some(_) => None,
        None => Some(secret(secret_name, &args.name, entries(&what, args, env)?)),
    };
    Ok(Plan { location: BackupLocation::new(&args.name, spec), secret })
}

fn bucket_of(url: &str) -> Result<(String, Option<String>)> {
    let Some(path) = url.strip_prefix("s3://") else {
        return Err(Error::usage(format!("{url} is not the URL of a bucket"))
            .next("write s3://bucket or s3://bucket/prefix; the address of the service goes into --endpoint"));
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    Ok(match path.split_once('/') {
        Some((bucket, prefix)) => (bucket.to_owned(), Some(prefix.to_owned())),
        None => (path.to_owned(), None),
    })
}

type Entries = BTreeMap<String, ByteString>;

fn entries(what: &str, args: &AddArgs, env: &dyn Fn(&str) -> Option<String>) -> Result<Entries> {
    let missing = |thing: &str, how: &str| Error::usage(format!("{what}: {thing} is missing")).next(how);
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let key_id = args.access_key_id.clone().or_else(|| set("AWS_ACCESS_KEY_ID")).ok_or_else(|| {
        missing("the access key id", "give --access-key-id or AWS_ACCESS_KEY_ID, or an existing Secret with --secret")
    })?;
    let secret_key = match &args.secret_access_key_file {
        Some(path) => read_secret(path)?,
        None => set("AWS_SECRET_ACCESS_KEY").map(String::into_bytes).ok_or_else(|| {
            missing("the secret access key", "give --secret-access-key-file or AWS_SECRET_ACCESS_KEY")
        })?,
    };
    let passphrase = args.password_file.clone().or_else(|| set("ORLOP_PASSWORD_FILE").map(PathBuf::from));
    let passphrase = passphrase.ok_or_else(|| {
        missing(
            "the passphrase of the repository",
            "give --password-file; to make a new one: head -c 32 /dev/urandom | base64 > passphrase (keep it safe)",
        )
    })?;
    let mut entries = Entries::new();
    let mut put = |key: &str, value: Vec<u8>| entries.insert(key.to_owned(), ByteString(value));
    put(ACCESS_KEY_ID, key_id.into_bytes());
    put(SECRET_ACCESS_KEY, secret_key);
    put(PASSPHRASE, read_secret(&passphrase)?);
    let both_of_environment = args.access_key_id.is_none() && args.secret_access_key_file.is_none();
    if let Some(token) = set("AWS_SESSION_TOKEN").filter(|_| both_of_environment) {
        put(SESSION_TOKEN, token.into_bytes());
    }
    if let Some(path) = &args.ca_file {
        put(CA, read(path)?);
    }
    Ok(entries)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::new(format!("read {}", path.display())).because(e))
}

/// A file's content without the line end that editors add; an empty secret is a mistake.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>> {
    let mut secret = read(path)?;
    while secret.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        secret.pop();
    }
    if secret.is_empty() {
        return Err(Error::new(format!("read {}: it is empty", path.display())));
    }
    Ok(secret)
}

fn secret(name: String, location: &str, entries: Entries) -> Secret {
    let mut secret = Secret { data: Some(entries), type_: Some("Opaque".to_owned()), ..Default::default() };
    secret.metadata.name = Some(name);
    secret.metadata.labels = Some([(LOCATION_LABEL.to_owned(), location.to_owned())].into());
    secret
}

/// Makes what was planned, and waits for the operator's answer.
pub(crate) async fn run(cluster: &Cluster, args: &AddArgs, plan: Plan, format: Format) -> Result<Exit> {
    let what = format!("add location {}", args.name);
    let api = cluster.api::<BackupLocation>();
    let tried = create_location(cluster, &plan.location, &what, true).await?;
    let made_secret = match &plan.secret {
        Some(secret) => ensure_secret(cluster, secret, &what, args.dry_run).await?,
        None => false,
    };
    if args.dry_run {
        output::print(&output::resource(format, &tried, || created(&tried, &plan, true))?)?;
        return Ok(Exit::Succeeded);
    }
    let made = match create_location(cluster, &plan.location, &what, false).await {
        Ok(made) => made,
        Err(e) => {
            if made_secret && let Some(secret) = &plan.secret {
                take_back(cluster, secret).await;
            }
            return Err(e);
        }
    };
    if args.no_wait {
        output::print(&output::resource(format, &made, || created(&made, &plan, false))?)?;
        return Ok(Exit::Succeeded);
    }
    let wait = format!("wait for location {}", args.name);
    let probed = |state: Option<BackupLocation>| match state {
        Some(location) => Ok((phase(&location) != LocationPhase::Pending).then_some(location)),
        None => Err(Error::new(format!("{wait}: it was deleted meanwhile"))),
    };
    let end = watch_until(cluster, api, &args.name, &wait, Some(args.timeout), probed).await.map_err(nobody_answers)?;
    output::print(&output::resource(format, &end, || described(&end))?)?;
    verdict(&end)
}

fn phase(location: &BackupLocation) -> LocationPhase {
    location.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

fn created(location: &BackupLocation, plan: &Plan, dry_run: bool) -> String {
    let mut text = String::new();
    if let Some(name) = plan.secret.as_ref().and_then(|secret| secret.metadata.name.as_ref()) {
        text.push_str(&format!("secret/{name} created{}\n", dry(dry_run)));
    }
    text.push_str(&format!("{} created{}\n", output::resource_name(location), dry(dry_run)));
    text
}

async fn create_location(
    cluster: &Cluster,
    location: &BackupLocation,
    what: &str,
    dry_run: bool,
) -> Result<BackupLocation> {
    let params = PostParams { dry_run, ..Default::default() };
    cluster.api().create(&params, location).await.map_err(|e| cluster.explain(what, e))
}

/// Makes the Secret; one of an earlier try with the same content is taken as it is. Says whether it was made now.
async fn ensure_secret(cluster: &Cluster, secret: &Secret, what: &str, dry_run: bool) -> Result<bool> {
    let api = cluster.api::<Secret>();
    let name = secret.metadata.name.clone().unwrap_or_default();
    let params = PostParams { dry_run, ..Default::default() };
    match api.create(&params, secret).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let there = api.get(&name).await.map_err(|e| cluster.explain(what, e))?;
            if there.data == secret.data {
                return Ok(false);
            }
            Err(Error::new(format!("{what}: there is a Secret {name} with other content")).next(format!(
                "use it with --secret {name}, or remove it: kubectl delete secret {name} -n {}",
                cluster.namespace()
            )))
        }
        Err(e) => Err(cluster.explain(format!("{what}: create the Secret {name}"), e)),
    }
}

/// Removes the Secret that was made for a location that could not be made.
async fn take_back(cluster: &Cluster, secret: &Secret) {
    let name = secret.metadata.name.clone().unwrap_or_default();
    if let Err(e) = cluster.api::<Secret>().delete(&name, &DeleteParams::default()).await {
        let e = cluster.explain(format!("remove the Secret {name} again"), e);
        eprintln!("orlop: {e}");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AddArgs,
    }

    fn planned(line: &[&str], env: &[(&str, &str)]) -> Result<Plan> {
        let args = Line::try_parse_from([&["add"], line].concat()).expect("arguments").args;
        plan(&args, &|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    /// A location for tests.
    pub(crate) fn location() -> BackupLocation {
        planned(&["main", "s3://backups/east", "--secret", "keys"], &[]).expect("a plan").location
    }

    #[test]
    fn a_url_is_a_bucket_and_a_prefix() {
        for (url, expected) in [
            ("s3://backups", Some(("backups", None))),
            ("s3://backups/", Some(("backups", None))),
            ("s3://backups/east/prod", Some(("backups", Some("east/prod")))),
            ("https://backups", None),
            ("backups", None),
        ] {
            let found = bucket_of(url).ok();
            let found = found.as_ref().map(|(bucket, prefix)| (bucket.as_str(), prefix.as_deref()));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn a_bucket_may_be_named_by_itself() {
        let plan =
            planned(&["main", "--bucket", "backups", "--prefix", "east", "--secret", "keys"], &[]).expect("a plan");
        assert_eq!(plan.location.spec, location().spec);
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_to_give_it() {
        let key = ("AWS_SECRET_ACCESS_KEY", "x");
        let check = |line: &[&str], env: &[(&str, &str)], expected: &str| {
            let line = [&["main", "s3://backups"], line].concat();
            let error = planned(&line, env).expect_err("something is missing").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], &[], "the access key id is missing");
        check(&["--access-key-id", "a"], &[], "the secret access key is missing");
        check(&["--access-key-id", "a"], &[key], "the passphrase of the repository is missing");
    }

    #[test]
    fn a_token_is_taken_with_the_keys_that_it_belongs_to_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let (password, secret) = (dir.path().join("password"), dir.path().join("secret"));
        std::fs::write(&password, "secret\n").expect("write");
        std::fs::write(&secret, "y\n").expect("write");
        let (password, secret) = (password.to_str().expect("UTF-8"), secret.to_str().expect("UTF-8"));
        let env = [
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_SESSION_TOKEN", "t"),
            ("ORLOP_PASSWORD_FILE", password),
        ];
        let check = |line: &[&str], expected: &[(&str, &str)]| {
            let plan = planned(&[&["main", "s3://backups"], line].concat(), &env).expect("a plan");
            let data = plan.secret.and_then(|s| s.data).expect("a Secret");
            let text = |v: &ByteString| String::from_utf8(v.0.clone()).expect("text");
            let shown: Vec<_> = data.iter().map(|(k, v)| (k.as_str(), text(v))).collect();
            let expected: Vec<_> = expected.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            assert_eq!(shown, expected, "{line:?}");
        };
        let with_token =
            [("access-key-id", "a"), ("passphrase", "secret"), ("secret-access-key", "x"), ("session-token", "t")];
        check(&[], &with_token);
        check(&["--access-key-id", "b"], &[("access-key-id", "b"), with_token[1], with_token[2]]);
        let of_file = [with_token[0], with_token[1], ("secret-access-key", "y")];
        check(&["--secret-access-key-file", secret], &of_file);
    }

    #[test]
    fn nothing_goes_into_a_secret_that_exists() {
        let given = ["main", "s3://backups", "--secret", "keys"];
        for more in ["--access-key-id", "--secret-access-key-file", "--password-file", "--passphrase-file", "--ca-file"]
        {
            let line = [&["add"], &given[..], &[more, "x"]].concat();
            assert!(Line::try_parse_from(line).is_err(), "{more}");
        }
        // Variables that are there for other commands say nothing about this Secret.
        let env = [("AWS_ACCESS_KEY_ID", "a"), ("ORLOP_PASSWORD_FILE", "/nowhere")];
        let plan = planned(&[&given[..], &["--ca-in-secret"]].concat(), &env).expect("a plan");
        let ca = plan.location.spec.s3.and_then(|s3| s3.ca_secret_ref).expect("the certificates are named");
        assert_eq!((ca.name.as_str(), ca.key.as_str(), plan.secret.is_none()), ("keys", "ca.crt", true));
        assert!(Line::try_parse_from(["add", "main", "s3://backups", "--ca-in-secret"]).is_err());
    }

    #[test]
    fn a_bad_endpoint_is_refused_before_anything_is_made() {
        let error =
            planned(&["main", "s3://backups", "--secret", "s", "--endpoint", "minio:9000"], &[]).expect_err("bad");
        assert_eq!(error.exit_code(), Exit::Usage);
        assert!(error.to_string().contains("spec.s3.endpoint"), "{error}");
    }
}
