//! Restoring under other names: namespaces and storage classes are renamed in an object and in everything that it refers to.
//!
//! Rewritten are the fields in which Kubernetes itself means a namespace or a class: an object's own namespace, subjects and user
//! names in bindings, services behind webhooks, conversions and aggregated APIs, selectors of namespaces by name, and the classes
//! of claims and claim templates. Not rewritten is free text, such as DNS names in environment variables or configuration
//! (`db.shop.svc`): what it means is the application's affair, and a wrong guess would be worse than none.
//!
//! Bindings, webhook configurations and aggregated APIs are of cluster scope, so the original's object may be in the same
//! cluster under the same name. The first two get the new namespace as a suffix when the mapping changes them, so that the
//! original's is not touched; the name of an aggregated API is its meaning and cannot change, so an existing one is kept.
//!
//! What calls a service by TLS is not restored when the service moves to another namespace ([`Mapping::loss`]): the certificate in the
//! backup is for the old name, so no call would succeed, and a webhook that must not fail would then refuse every object that it is for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    json,
    key::{Nameless, ObjectKey},
    pods,
    rules::Rule,
};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// Annotations of cert-manager that name a certificate or a secret as `namespace/name`.
const INJECTIONS: [&str; 2] = [INJECTION, "cert-manager.io/inject-ca-from-secret"];
/// The one of them by which cert-manager puts in what belongs to a certificate that it makes anew.
const INJECTION: &str = "cert-manager.io/inject-ca-from";
const ACCOUNT_USER: &str = "system:serviceaccount:";
const ACCOUNTS_GROUP: &str = "system:serviceaccounts:";

/// What is called otherwise in the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Namespaces: from the name in the backup to the name in the target.
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes, likewise.
    pub storage_classes: BTreeMap<String, String>,
}

/// A mapping that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// A namespace that the backup does not have.
    #[error("namespaceMapping names {from:?}, which is not in the backup: it has {}", known.join(", "))]
    UnknownNamespace {
        /// What was named.
        from: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Not the name of a namespace.
    #[error(
        "namespaceMapping maps {from:?} to {to:?}, which cannot name a namespace: at most 63 of a-z, 0-9 and '-', with none at the ends"
    )]
    InvalidName {
        /// The namespace that is mapped.
        from: String,
        /// What it is mapped to.
        to: String,
    },
    /// Two namespaces would become one.
    #[error("the namespaces {first:?} and {second:?} would both become {to:?}: map each to a name of its own")]
    Collision {
        /// One namespace.
        first: String,
        /// Another one.
        second: String,
        /// What both would become.
        to: String,
    },
}

/// What a mapping takes away from an object, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub rule: Rule,
    /// The object is not to be made at all; otherwise it is made without a part.
    pub is_whole: bool,
}

impl Mapping {
    /// Refuses a mapping that names what the backup does not have, or that would mix two namespaces.
    pub fn check(&self, namespaces: &[String]) -> Result<(), MappingError> {
        for (from, to) in &self.namespaces {
            if !namespaces.contains(from) {
                return Err(MappingError::UnknownNamespace { from: from.clone(), known: namespaces.to_vec() });
            }
            if !is_dns_label(to) {
                return Err(MappingError::InvalidName { from: from.clone(), to: to.clone() });
            }
        }
        let mut taken: BTreeMap<&str, &String> = BTreeMap::new();
        for from in namespaces {
            let to = self.namespace(from);
            if let Some(first) = taken.insert(to, from).filter(|first| *first != from) {
                return Err(MappingError::Collision { first: first.clone(), second: from.clone(), to: to.into() });
            }
        }
        Ok(())
    }

    /// What a namespace is called in the target.
    pub fn namespace<'a>(&'a self, name: &'a str) -> &'a str {
        self.namespaces.get(name).map_or(name, String::as_str)
    }

    /// What a storage class is called in the target.
    pub fn storage_class<'a>(&'a self, name: &'a str) -> &'a str {
        self.storage_classes.get(name).map_or(name, String::as_str)
    }

    /// Renames in an object, and gives its key in the target. To be applied once: a mapping that swaps two names would swap them
    /// back.
    pub fn apply(&self, object: &mut Value) -> Result<ObjectKey, Nameless> {
        let key = ObjectKey::of(object)?;
        self.rename_own(&key, object);
        for annotation in INJECTIONS {
            self.rename_prefix(object, &["metadata", "annotations", annotation]);
        }
        match (key.group.as_str(), key.kind.as_str()) {
            ("", "PersistentVolumeClaim") => self.claim(object),
            ("rbac.authorization.k8s.io", "RoleBinding") => {
                self.subjects(object);
            }
            ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
                let changed = self.subjects(object);
                add_suffix(object, &changed);
            }
            ("admissionregistration.k8s.io", _) => {
                let changed = self.webhooks(object);
                add_suffix(object, &changed);
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") if self.loss(&key, object).is_some() => {
                drop_conversion(object);
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                self.rename(object, &["spec", "conversion", "webhook", "clientConfig", "service", "namespace"]);
            }
            ("apiregistration.k8s.io", "APIService") => {
                self.rename(object, &["spec", "service", "namespace"]);
            }
            ("networking.k8s.io" | "extensions", "NetworkPolicy") => self.network_policy(object),
            _ => {}
        }
        for template in json::list_mut(object, &["spec", "volumeClaimTemplates"]) {
            self.claim(template);
        }
        if let Some(spec) = pods::spec_mut(object) {
            self.pod(spec);
        }
        ObjectKey::of(object)
    }

    /// What is not made of an object, since it calls a service that this mapping moves: webhook configurations and aggregated APIs as
    /// a whole, and the conversion of a definition. To be asked before [`Mapping::apply`], which leaves the conversion out.
    ///
    /// It is made where nobody checks the certificate, or where cert-manager has yet to put one in.
    pub fn loss(&self, key: &ObjectKey, object: &Value) -> Option<Loss> {
        let is_injected = json::at(object, &["metadata", "annotations", INJECTION]).is_some();
        let is_stranded = |call: &&Value| {
            let namespace = json::text(call, &["service", "namespace"]);
            self.namespace(namespace) != namespace
                && !(is_injected && json::text(call, &["caBundle"]).is_empty())
                && !json::is_true(call, &["insecureSkipTLSVerify"])
        };
        let is_whole = !key.is("apiextensions.k8s.io", "CustomResourceDefinition");
        calls(key, object).iter().any(is_stranded).then_some(Loss { rule: Rule::MovedService, is_whole })
    }

    /// The object's own place: the namespace that it is, or is in.
    fn rename_own(&self, key: &ObjectKey, object: &mut Value) {
        let moved = if key.is("", "Namespace") {
            self.rename(object, &["metadata", "labels", NAME_LABEL]);
            self.rename(object, &["metadata", "name"])
        } else {
            self.rename(object, &["metadata", "namespace"])
        };
        if moved.is_some() {
            json::remove_keys(object, &["metadata", "annotations"], |name| name == LAST_APPLIED);
        }
    }

    /// Renames the namespace at a path; gives the new name if it is another one.
    fn rename(&self, value: &mut Value, path: &[&str]) -> Option<String> {
        let old = json::text(value, path);
        let new = self.namespaces.get(old).filter(|new| *new != old)?.clone();
        json::set(value, path, new.clone().into());
        Some(new)
    }

    /// Renames the namespace in a text of the form `namespace/name`.
    fn rename_prefix(&self, value: &mut Value, path: &[&str]) {
        let Some((namespace, name)) = json::text(value, path).split_once('/') else {
            return;
        };
        if let Some(new) = self.namespaces.get(namespace) {
            let renamed = format!("{new}/{name}");
            json::set(value, path, renamed.into());
        }
    }

    /// Renames in the subjects of a binding; gives the new names that it now has.
    fn subjects(&self, binding: &mut Value) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for subject in json::list_mut(binding, &["subjects"]) {
            let new = match json::text(subject, &["kind"]) {
                "ServiceAccount" => self.rename(subject, &["namespace"]),
                "User" => self.rename_user(subject),
                "Group" => self.rename_group(subject),
                _ => None,
            };
            changed.extend(new);
        }
        changed
    }

    fn rename_user(&self, subject: &mut Value) -> Option<String> {
        let account = json::text(subject, &["name"]).strip_prefix(ACCOUNT_USER)?;
        let (namespace, name) = account.split_once(':')?;
        let new = self.namespaces.get(namespace).filter(|new| *new != namespace)?.clone();
        let user = format!("{ACCOUNT_USER}{new}:{name}");
        json::set(subject, &["name"], user.into());
        Some(new)
    }

    fn rename_group(&self, subject: &mut Value) -> Option<String> {
        let namespace = json::text(subject, &["name"]).strip_prefix(ACCOUNTS_GROUP)?;
        let new = self.namespaces.get(namespace).filter(|new| *new != namespace)?.clone();
        json::set(subject, &["name"], format!("{ACCOUNTS_GROUP}{new}").into());
        Some(new)
    }

    fn webhooks(&self, configuration: &mut Value) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for webhook in json::list_mut(configuration, &["webhooks"]) {
            changed.extend(self.rename(webhook, &["clientConfig", "service", "namespace"]));
            self.namespace_selector(webhook, &["namespaceSelector"]);
        }
        changed
    }

    fn network_policy(&self, policy: &mut Value) {
        let directions: [(&[&str], &[&str]); 2] = [(&["spec", "ingress"], &["from"]), (&["spec", "egress"], &["to"])];
        for (rules, peers) in directions {
            for rule in json::list_mut(policy, rules) {
                for peer in json::list_mut(rule, peers) {
                    self.namespace_selector(peer, &["namespaceSelector"]);
                }
            }
        }
    }

    /// Renames where a selector means namespaces by the label that holds their name.
    fn namespace_selector(&self, value: &mut Value, path: &[&str]) {
        let Some(selector) = json::at_mut(value, path) else {
            return;
        };
        self.rename(selector, &["matchLabels", NAME_LABEL]);
        for expression in json::list_mut(selector, &["matchExpressions"]) {
            if json::text(expression, &["key"]) == NAME_LABEL {
                self.rename_each(expression, &["values"]);
            }
        }
    }

    fn rename_each(&self, value: &mut Value, path: &[&str]) {
        for name in json::list_mut(value, path) {
            self.rename(name, &[]);
        }
    }

    fn claim(&self, claim: &mut Value) {
        let places: [&[&str]; 2] = [&["spec", "storageClassName"], &["metadata", "annotations", CLASS_ANNOTATION]];
        for path in places {
            // A claim that says that it has no class is another thing than one that says nothing.
            let class = json::at(claim, path).and_then(Value::as_str);
            if let Some(new) = class.and_then(|class| self.storage_classes.get(class)) {
                json::set(claim, path, new.clone().into());
                json::remove(claim, &["spec", "volumeAttributesClassName"]); // it is of the old class's driver
            }
        }
    }

    fn pod(&self, spec: &mut Value) {
        for volume in json::list_mut(spec, &["volumes"]) {
            if let Some(template) = json::at_mut(volume, &["ephemeral", "volumeClaimTemplate"]) {
                self.claim(template);
            }
        }
        const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
        const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
        for affinity in ["podAffinity", "podAntiAffinity"] {
            for term in json::list_mut(spec, &["affinity", affinity, REQUIRED]) {
                self.affinity_term(term);
            }
            for weighted in json::list_mut(spec, &["affinity", affinity, PREFERRED]) {
                if let Some(term) = json::at_mut(weighted, &["podAffinityTerm"]) {
                    self.affinity_term(term);
                }
            }
        }
    }

    fn affinity_term(&self, term: &mut Value) {
        self.rename_each(term, &["namespaces"]);
        self.namespace_selector(term, &["namespaceSelector"]);
    }
}

/// What an object calls services with: each has the service, and the certificate that it is checked by.
fn calls<'a>(key: &ObjectKey, object: &'a Value) -> Vec<&'a Value> {
    match (key.group.as_str(), key.kind.as_str()) {
        ("admissionregistration.k8s.io", _) => {
            let webhooks = json::list(object, &["webhooks"]).iter();
            webhooks.filter_map(|webhook| json::at(webhook, &["clientConfig"])).collect()
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            json::at(object, &["spec", "conversion", "webhook", "clientConfig"]).into_iter().collect()
        }
        ("apiregistration.k8s.io", "APIService") => json::at(object, &["spec"]).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Makes a definition one that needs no conversion. Other versions than the stored one are not served then: without the conversion
/// the server would take and give them, and lose the fields that the versions do not share.
fn drop_conversion(definition: &mut Value) {
    json::remove(definition, &["spec", "conversion"]);
    for version in json::list_mut(definition, &["spec", "versions"]) {
        if !json::is_true(version, &["storage"]) {
            json::set(version, &["served"], false.into());
        }
    }
}

/// Adds the new namespaces to the name of an object of cluster scope, if there are any.
fn add_suffix(object: &mut Value, namespaces: &BTreeSet<String>) {
    if namespaces.is_empty() {
        return;
    }
    let suffix = namespaces.iter().cloned().collect::<Vec<_>>().join("-");
    let name = format!("{}-{suffix}", json::text(object, &["metadata", "name"]));
    json::set(object, &["metadata", "name"], name.into());
    json::remove_keys(object, &["metadata", "annotations"], |name| name == LAST_APPLIED);
}

fn is_dns_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
