//! AWS KMS on this machine: `moto`, which checks signatures and permissions, with keys and users.
//!
//! Fault model: it refuses what real KMS refuses for a wrong signature, a missing permission, another key and another context. It
//! differs in that it says `AccessDeniedException` where a ciphertext is of another key than the one that is named.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

const SERVER: &str = include_str!("kms/server.py");

/// A user of the service.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// The id of his access key.
    pub id: String,
    /// The access key.
    pub secret: String,
}

#[derive(Debug, Deserialize)]
struct Keys {
    first: String,
    second: String,
}

#[derive(Debug, Deserialize)]
struct Users {
    both: User,
    encrypts: User,
}

#[derive(Debug, Deserialize)]
struct Ready {
    endpoint: String,
    keys: Keys,
    users: Users,
}

/// The service; it ends when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct Kms {
    child: Child,
    ready: Ready,
}

/// The interpreter that `tools/setup` installs with the package.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers/python/bin/python3")
}

/// Why it cannot be started, if so.
pub fn lacking() -> Option<String> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers/python/bin/moto_server");
    (!installed.exists()).then(|| "moto, which stands for AWS KMS, is not installed: run tools/setup".to_owned())
}

impl Kms {
    /// Starts it, and waits until it is ready.
    pub fn start() -> Result<Self> {
        let mut child = Command::new(python())
            .args(["-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start moto")?;
        let mut line = String::new();
        let output = child.stdout.take().context("moto has no output")?;
        let read = BufReader::new(output).read_line(&mut line);
        let ready = read
            .context("read what moto says")
            .and_then(|_| serde_json::from_str(&line).with_context(|| format!("understand what moto says: {line:?}")));
        match ready {
            Ok(ready) => Ok(Self { child, ready }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// The ARN of a key, which `alias/first` names too.
    pub fn first_key(&self) -> &str {
        &self.ready.keys.first
    }

    /// The ARN of another key.
    pub fn second_key(&self) -> &str {
        &self.ready.keys.second
    }

    /// A user who may encrypt and decrypt with every key.
    pub fn user(&self) -> &User {
        &self.ready.users.both
    }

    /// A user who may only encrypt.
    pub fn user_who_encrypts(&self) -> &User {
        &self.ready.users.encrypts
    }

    /// The variables with which a program uses it as a user.
    pub fn environment(&self, user: &User) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL_KMS", self.ready.endpoint.clone()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", user.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", user.secret.clone()),
        ]
    }
}

fn end(child: &mut Child) {
    // It has ended already, or ends now; there is nothing else that a failure could mean.
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Kms {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Skips the test where the service cannot be started.
#[macro_export]
macro_rules! require_kms {
    () => {
        if let Some(reason) = $crate::kms::lacking() {
            $crate::skip!("{reason}");
        }
    };
}
