//! All that an API server keeps, as it is in etcd.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// Changes that etcd takes at once.
const AT_ONCE: usize = 100;
/// Looks until nothing is left to restore. Controllers that are at work answer what is removed with changes of their own, but not for ever.
const LOOKS: usize = 50;
/// What the API server acts on when it hears of it.
const OF_THE_SERVER: [&str; 3] = [
    "/registry/apiextensions.k8s.io/customresourcedefinitions/",
    "/registry/admissionregistration.k8s.io/",
    "/registry/apiregistration.k8s.io/apiservices/",
];
/// What the API server keeps for itself, and changes at any time.
const ITS_OWN: [&str; 2] = ["/registry/masterleases/", "/registry/apiregistration.k8s.io/apiservices/"];

/// Keys, and their values in base64.
pub(super) struct State(BTreeMap<String, String>);

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    value: String,
}

impl State {
    /// As it is now.
    pub(super) async fn of(etcd: u16) -> Result<Self> {
        // The end of the range is the first key that does not begin so.
        let all = json!({"key": STANDARD.encode("/registry/"), "range_end": STANDARD.encode("/registry0")});
        let range: Range = ask(etcd, "range", &all).await?;
        let entries = range.kvs.into_iter().map(|entry| Ok((text(&entry.key)?, entry.value)));
        Ok(Self(entries.collect::<Result<_>>()?))
    }

    /// Makes everything as it is here. If it cannot be, since the API server itself was changed, nothing is done.
    pub(super) async fn restore(&self, etcd: u16) -> Result<bool> {
        for _ in 0..LOOKS {
            let now = Self::of(etcd).await?;
            let differing = self.differing(&now);
            if differing.is_empty() {
                return Ok(true);
            }
            let of_the_server = |key: &&str| OF_THE_SERVER.iter().any(|prefix| key.starts_with(prefix));
            if differing.iter().any(of_the_server) {
                return Ok(false);
            }
            for keys in differing.chunks(AT_ONCE) {
                let changes: Vec<Value> = keys.iter().map(|key| self.change(key)).collect();
                let _: Value = ask(etcd, "txn", &json!({"success": changes})).await?;
            }
        }
        bail!("what is in etcd was changed again and again while it was restored");
    }

    /// Keys that are here or there, or have another value. Those of namespaces first: without theirs, controllers make nothing anew.
    fn differing<'a>(&'a self, now: &'a Self) -> Vec<&'a str> {
        let changed = self.0.iter().filter(|(key, value)| now.0.get(*key) != Some(value));
        let added = now.0.keys().filter(|key| !self.0.contains_key(*key));
        let all = changed.map(|(key, _)| key).chain(added).map(String::as_str);
        let is_own = |key: &str| self.0.contains_key(key) && ITS_OWN.iter().any(|prefix| key.starts_with(prefix));
        let mut keys: Vec<&str> = all.filter(|key| !is_own(key) && !key.starts_with(ITS_OWN[0])).collect();
        keys.sort_by_key(|key| !key.starts_with("/registry/namespaces/"));
        keys
    }

    fn change(&self, key: &str) -> Value {
        let encoded = STANDARD.encode(key);
        match self.0.get(key) {
            Some(value) => json!({"requestPut": {"key": encoded, "value": value}}),
            None => json!({"requestDeleteRange": {"key": encoded}}),
        }
    }
}

fn text(encoded: &str) -> Result<String> {
    let bytes = STANDARD.decode(encoded).context("decode a key of etcd")?;
    String::from_utf8(bytes).context("read a key of etcd")
}

/// Asks etcd by the JSON that it takes instead of gRPC.
async fn ask<T: for<'de> Deserialize<'de>>(etcd: u16, method: &str, question: &Value) -> Result<T> {
    let url = format!("http://127.0.0.1:{etcd}/v3/kv/{method}");
    let answer = reqwest::Client::new().post(&url).json(question).send().await.with_context(|| format!("ask {url}"))?;
    let answer = answer.error_for_status().with_context(|| format!("ask {url}"))?;
    answer.json().await.with_context(|| format!("read what {url} answers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(entries: &[(&str, &str)]) -> State {
        State(entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_differs_is_found_and_what_the_server_keeps_for_itself_is_not() {
        let base = state(&[
            ("/registry/a", "1"),
            ("/registry/b", "1"),
            ("/registry/masterleases/x", "1"),
            ("/registry/apiregistration.k8s.io/apiservices/v1.", "1"),
        ]);
        let now = state(&[
            ("/registry/a", "2"),
            ("/registry/apiregistration.k8s.io/apiservices/v1.", "2"),
            ("/registry/apiregistration.k8s.io/apiservices/v1.example.com", "1"),
            ("/registry/masterleases/y", "1"),
            ("/registry/namespaces/n", "1"),
        ]);
        let new = "/registry/apiregistration.k8s.io/apiservices/v1.example.com";
        assert_eq!(base.differing(&now), ["/registry/namespaces/n", "/registry/a", "/registry/b", new]);
        assert_eq!(base.differing(&base), [""; 0]);
    }
}
