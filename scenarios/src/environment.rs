//! Two clusters and a store for their backups: the sandbox's, or those that the environment names.
//!
//! `KUBECONFIG_EAST` and `KUBECONFIG_WEST`, or one `KUBECONFIG` for both, name clusters that are there. They need a default storage
//! class, and what the sandbox would make must then be named too: see `scenarios/README.md`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rand::distr::{Alphanumeric, SampleString};
use sandbox::{Cluster, Sandbox};

use crate::images::Images;
use crate::server::S3Process;
use crate::state::{Given, State};
use crate::tidy;

/// Nodes of each of the sandbox's clusters.
const NODES: u8 = 3;
const BUCKET: &str = "backups";
/// Characters of a generated key or passphrase.
const SECRET_LENGTH: usize = 32;
/// Characters that tell one run from others.
const RUN_LENGTH: usize = 8;

/// One cluster.
pub struct Site {
    /// What it is called in the report.
    pub name: String,
    /// How the program `orlop` gets there.
    pub kubeconfig: PathBuf,
    /// How this program gets there.
    pub client: Client,
    /// How its pods get to the store.
    pub s3_endpoint: String,
}

/// The store of the backups.
pub struct S3 {
    /// How this machine gets there.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// Where in the bucket.
    pub prefix: String,
    /// Who may.
    pub access_key: String,
    /// The proof.
    pub secret_key: String,
    /// A file with the passphrase of the repository.
    pub passphrase_file: PathBuf,
    /// Where the objects are files, when the store is this machine's.
    pub directory: Option<PathBuf>,
}

impl S3 {
    /// The repository's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }

    /// The credentials as environment variables.
    #[must_use]
    pub fn credentials(&self) -> Vec<(&'static str, String)> {
        vec![("AWS_ACCESS_KEY_ID", self.access_key.clone()), ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone())]
    }
}

/// Everything that the job needs.
pub struct Environment {
    /// Where the application lives and is lost.
    pub east: Site,
    /// Where it comes back.
    pub west: Site,
    /// Where it is kept meanwhile.
    pub s3: S3,
    /// What pods run.
    pub images: Images,
    /// What this run is known by.
    pub run: String,
    directory: PathBuf,
    sandbox: Option<Sandbox>,
}

impl Environment {
    /// The directory of the demo. It is not the sandbox's own, so that neither ends what the other has started.
    #[must_use]
    pub fn default_directory() -> PathBuf {
        Sandbox::default_directory().join("demo")
    }

    /// Starts what is not given, in `directory`, which must not be another run's.
    ///
    /// # Errors
    /// Something does not start, what is given is not whole, or an earlier run has left something.
    pub async fn start(directory: &Path) -> anyhow::Result<(String, Self)> {
        let run = Alphanumeric.sample_string(&mut rand::rng(), RUN_LENGTH).to_lowercase();
        match given_kubeconfigs() {
            Some(given) => Self::given(State { run, given: Some(given) }, directory).await,
            None => Self::in_sandbox(State { run, given: None }, directory).await,
        }
    }

    /// Whether the environment names clusters, so that none is started.
    #[must_use]
    pub fn is_given() -> bool {
        given_kubeconfigs().is_some()
    }

    /// Two clusters of three nodes and a store, all in `directory`.
    ///
    /// # Errors
    /// Something does not start.
    async fn in_sandbox(state: State, directory: &Path) -> anyhow::Result<(String, Self)> {
        let State { run, .. } = state.claim(directory)?;
        match Self::fill(directory).await {
            Ok((sandbox, east, west, s3, images)) => {
                let note = format!("east and west, {NODES} nodes each, and S3 on {}", s3.endpoint);
                let directory = directory.to_owned();
                Ok((note, Self { east, west, s3, images, run, directory, sandbox: Some(sandbox) }))
            }
            Err(e) => {
                Self::end_left_over(directory).await.with_context(|| format!("clean up after: {e:#}"))?;
                Err(e)
            }
        }
    }

    async fn fill(directory: &Path) -> anyhow::Result<(Sandbox, Site, Site, S3, Images)> {
        let sandbox = Sandbox::open(directory)?;
        let images = Images::build(&sandbox).await?;
        let s3 = start_s3(sandbox.directory()).await?;
        let (east, west) = tokio::join!(site(&sandbox, "east", &s3), site(&sandbox, "west", &s3));
        Ok((sandbox, east?, west?, s3, images))
    }

    /// Clusters that are there. Nothing is written down, let alone made, before it is known that nothing of theirs is in the way.
    async fn given(state: State, directory: &Path) -> anyhow::Result<(String, Self)> {
        let Some(Given { east, west }) = state.given.clone() else { bail!("no clusters are given") };
        let s3 = given_s3()?;
        let images = Images::given()?;
        let endpoint = env::var("DEMO_S3_ENDPOINT_FOR_PODS").unwrap_or_else(|_| s3.endpoint.clone());
        let (east, west) = (given_site("east", &east, &endpoint).await?, given_site("west", &west, &endpoint).await?);
        if State::load(directory)?.is_none() {
            for site in [&east, &west] {
                tidy::refuse_existing(&site.client).await.with_context(|| format!("the cluster {}", site.name))?;
            }
        }
        let State { run, .. } = state.claim(directory)?;
        let note = format!("given: {}, {}, S3 on {endpoint}", east.kubeconfig.display(), west.kubeconfig.display());
        Ok((note, Self { east, west, s3, images, run, directory: directory.to_owned(), sandbox: None }))
    }

    /// Ends what was started, and leaves nothing of it.
    ///
    /// # Errors
    /// Something could not be ended.
    pub async fn end(&self) -> anyhow::Result<()> {
        Self::end_left_over(&self.directory).await
    }

    /// Ends what a run has left that was started in `directory`, by what is written down there alone.
    ///
    /// # Errors
    /// Something could not be ended.
    pub async fn end_left_over(directory: &Path) -> anyhow::Result<()> {
        let Some(state) = State::load(directory)? else { return Ok(()) };
        match &state.given {
            None => end_sandbox(directory).await?,
            Some(given) => {
                for kubeconfig in [&given.east, &given.west] {
                    let client = client_of(kubeconfig).await?;
                    let removed = tidy::remove(&client, &state.run).await;
                    removed.with_context(|| format!("tidy up in the cluster of {}", kubeconfig.display()))?;
                }
            }
        }
        State::forget(directory)
    }

    /// The sandbox that the clusters are in, if they are in one.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    /// Lines for a person who wants to see for himself.
    #[must_use]
    pub fn how_to_look_around(&self) -> String {
        let bin = env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default();
        format!(
            "export KUBECONFIG={}   # east\nexport KUBECONFIG={}   # west\nexport PATH={}:$PATH   # orlop, sandbox\n\
             export ORLOP_LOCATION={} ORLOP_PASSWORD_FILE={} AWS_ENDPOINT_URL={} AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}\n\
             make demo-down   # ends it all",
            self.east.kubeconfig.display(),
            self.west.kubeconfig.display(),
            bin.display(),
            self.s3.url(),
            self.s3.passphrase_file.display(),
            self.s3.endpoint,
            self.s3.access_key,
            self.s3.secret_key
        )
    }

    /// The environment that `orlop repo` needs to get at the repository.
    #[must_use]
    pub fn repo_env(&self) -> Vec<(&'static str, String)> {
        let mut env = self.s3.credentials();
        env.push(("ORLOP_LOCATION", self.s3.url()));
        env.push(("ORLOP_PASSWORD_FILE", self.s3.passphrase_file.display().to_string()));
        env.push(("AWS_ENDPOINT_URL", self.s3.endpoint.clone()));
        env
    }
}

async fn end_sandbox(directory: &Path) -> anyhow::Result<()> {
    S3Process::end_left_over(directory).await?;
    Ok(Sandbox::open(directory)?.wipe().await?)
}

async fn site(sandbox: &Sandbox, name: &str, s3: &S3) -> anyhow::Result<Site> {
    let cluster = Cluster::up(sandbox, name, Some(NODES)).await.with_context(|| format!("start the cluster {name}"))?;
    let server = s3
        .endpoint
        .strip_prefix("http://")
        .context("an endpoint with http://")?
        .parse()
        .context("read the endpoint")?;
    let std::net::SocketAddr::V4(address) = server else { bail!("the S3 server is not at an IPv4 address") };
    let inside = cluster.forward_in(address.port(), server).await?;
    Ok(Site {
        name: name.into(),
        kubeconfig: cluster.kubeconfig_path(),
        client: cluster.client().await?,
        s3_endpoint: format!("http://{inside}"),
    })
}

async fn start_s3(state: &Path) -> anyhow::Result<S3> {
    fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
    let secret = || Alphanumeric.sample_string(&mut rand::rng(), SECRET_LENGTH);
    let passphrase_file = fs::canonicalize(state)?.join("passphrase");
    fs::write(&passphrase_file, secret()).with_context(|| format!("write {}", passphrase_file.display()))?;
    let (access_key, secret_key) = (secret(), secret());
    let server = S3Process::start(state, BUCKET, &access_key, &secret_key).await?;
    Ok(S3 {
        endpoint: server.endpoint,
        bucket: BUCKET.into(),
        prefix: "demo".into(),
        access_key,
        secret_key,
        passphrase_file,
        directory: Some(server.root.join(BUCKET).join("demo")),
    })
}

fn given_kubeconfigs() -> Option<Given> {
    // The full path, since what is written down is read from wherever `make demo-down` is called.
    let full = |path: PathBuf| fs::canonicalize(&path).unwrap_or(path);
    let named = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from).map(full);
    let both = named("KUBECONFIG");
    let east = named("KUBECONFIG_EAST").or_else(|| both.clone())?;
    let west = named("KUBECONFIG_WEST").or(both).unwrap_or_else(|| east.clone());
    Some(Given { east, west })
}

async fn client_of(kubeconfig: &Path) -> anyhow::Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn given_site(name: &str, kubeconfig: &Path, endpoint: &str) -> anyhow::Result<Site> {
    let client = client_of(kubeconfig).await?;
    client.apiserver_version().await.with_context(|| format!("reach the cluster of {}", kubeconfig.display()))?;
    Ok(Site { name: name.into(), kubeconfig: kubeconfig.into(), client, s3_endpoint: endpoint.into() })
}

fn given_s3() -> anyhow::Result<S3> {
    let variable = |name: &str| {
        env::var(name).with_context(|| {
            format!("{name} is not set: with clusters of your own the demo needs DEMO_S3_ENDPOINT, DEMO_S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and DEMO_PASSPHRASE_FILE")
        })
    };
    Ok(S3 {
        endpoint: variable("DEMO_S3_ENDPOINT")?,
        bucket: variable("DEMO_S3_BUCKET")?,
        prefix: format!("demo-{}", Alphanumeric.sample_string(&mut rand::rng(), 8).to_lowercase()),
        access_key: variable("AWS_ACCESS_KEY_ID")?,
        secret_key: variable("AWS_SECRET_ACCESS_KEY")?,
        passphrase_file: variable("DEMO_PASSPHRASE_FILE")?.into(),
        directory: None,
    })
}
