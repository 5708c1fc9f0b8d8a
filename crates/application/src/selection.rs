//! Which objects are wanted.

use crate::catalog::{ApiCatalog, Kind};

/// What to capture. An object is wanted when every part that is given wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The namespaces, each by name.
    pub namespaces: Vec<String>,
    /// A label selector in the server's own syntax (`app=shop,tier in (web,db)`), which the server applies.
    pub label_selector: Option<String>,
    /// When not empty: these objects only.
    pub include_resources: Vec<ObjectFilter>,
    /// When not empty: these kinds only, written as [`ResourceType`] describes.
    pub resource_types: Vec<String>,
    /// Never these kinds.
    pub exclude_resource_types: Vec<String>,
}

/// Names one object, or all objects of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFilter {
    /// API group; none for any, `""` for the core group.
    pub group: Option<String>,
    /// Kind or plural, whatever its case.
    pub kind: String,
    /// Namespace; none for all that are selected.
    pub namespace: Option<String>,
    /// Name; none for all objects of the kind.
    pub name: Option<String>,
}

/// A kind as people write it: `Deployment`, `deployments`, `deployments.apps`, `apps/Deployment` or `apps/v1/Deployment`,
/// whatever the case; `*.example.com` is every kind of a group. The version, if any, is not compared: a selection is about objects, and those have all versions.
#[derive(Debug, PartialEq, Eq)]
pub struct ResourceType<'a> {
    group: Option<&'a str>,
    kind: &'a str,
}

/// A selection that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Nothing is selected.
    #[error("no namespace is selected: name at least one")]
    NoNamespace,
    /// A kind that the cluster does not have.
    #[error(
        "{field} names {value:?}, which is no namespaced kind of this cluster: `kubectl api-resources --namespaced` lists them"
    )]
    UnknownType {
        /// Where it was written.
        field: &'static str,
        /// What was written.
        value: String,
    },
    /// An object in a namespace that is not selected.
    #[error("includeResources names {kind} in the namespace {namespace:?}, which is not among the selected namespaces")]
    OtherNamespace {
        /// Kind of the object.
        kind: String,
        /// Its namespace.
        namespace: String,
    },
}

impl<'a> ResourceType<'a> {
    /// Reads what a person wrote.
    pub fn parse(text: &'a str) -> Self {
        let parts: Vec<_> = text.split('/').collect();
        match parts.as_slice() {
            [version, kind] if *version == "v1" => Self { group: Some(""), kind },
            [group, kind] | [group, _, kind] => Self { group: Some(group), kind },
            _ => match text.split_once('.') {
                Some((kind, group)) => Self { group: Some(group), kind },
                None => Self { group: None, kind: text },
            },
        }
    }

    fn matches(&self, kind: &Kind) -> bool {
        (self.kind == "*" || same_kind(self.kind, kind))
            && self.group.is_none_or(|group| group.eq_ignore_ascii_case(&kind.group))
    }

    fn is_all_of(&self, group: &str) -> bool {
        self.kind == "*" && self.group.is_some_and(|own| own.eq_ignore_ascii_case(group))
    }
}

impl ObjectFilter {
    fn matches_kind(&self, kind: &Kind) -> bool {
        same_kind(&self.kind, kind) && self.group.as_ref().is_none_or(|group| *group == kind.group)
    }

    fn matches(&self, kind: &Kind, namespace: &str, name: &str) -> bool {
        self.matches_kind(kind)
            && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }
}

fn same_kind(text: &str, kind: &Kind) -> bool {
    text.eq_ignore_ascii_case(&kind.kind) || text.eq_ignore_ascii_case(&kind.plural)
}

impl Selection {
    /// Refuses a selection that names what the cluster does not have.
    ///
    /// A misspelt kind would otherwise give a backup that is empty, or larger than meant, and green.
    pub fn check(&self, catalog: &ApiCatalog) -> Result<(), SelectionError> {
        if self.namespaces.is_empty() {
            return Err(SelectionError::NoNamespace);
        }
        let fields = [("resourceTypes", &self.resource_types), ("excludeResourceTypes", &self.exclude_resource_types)];
        for (field, types) in fields {
            for value in types {
                let named = ResourceType::parse(value);
                let is_broken_group = catalog.broken().iter().any(|broken| named.is_all_of(&broken.group));
                if !is_broken_group && !catalog.namespaced().any(|kind| named.matches(kind)) {
                    return Err(SelectionError::UnknownType { field, value: value.clone() });
                }
            }
        }
        for filter in &self.include_resources {
            if !catalog.namespaced().any(|kind| filter.matches_kind(kind)) {
                return Err(SelectionError::UnknownType { field: "includeResources", value: filter.kind.clone() });
            }
            if let Some(namespace) = filter.namespace.as_ref().filter(|n| !self.namespaces.contains(n)) {
                return Err(SelectionError::OtherNamespace { kind: filter.kind.clone(), namespace: namespace.clone() });
            }
        }
        Ok(())
    }

    /// Whether objects of this kind may be wanted at all.
    pub fn wants_kind(&self, kind: &Kind) -> bool {
        let named = |types: &[String]| types.iter().any(|text| ResourceType::parse(text).matches(kind));
        (self.resource_types.is_empty() || named(&self.resource_types))
            && !named(&self.exclude_resource_types)
            && (self.include_resources.is_empty()
                || self.include_resources.iter().any(|filter| filter.matches_kind(kind)))
    }

    /// Whether an object of a wanted kind is wanted; labels are the server's part.
    pub fn wants(&self, kind: &Kind, namespace: &str, name: &str) -> bool {
        self.include_resources.is_empty()
            || self.include_resources.iter().any(|filter| filter.matches(kind, namespace, name))
    }

    /// Whether kinds that could not be seen are a hole: when all kinds are wanted, except of a group that is excluded as a whole.
    pub fn wants_unknown_kinds_of(&self, group: &str) -> bool {
        let is_excluded = self.exclude_resource_types.iter().any(|text| ResourceType::parse(text).is_all_of(group));
        self.include_resources.is_empty() && self.resource_types.is_empty() && !is_excluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::served;

    fn catalog() -> ApiCatalog {
        let verbs: &[&str] = &["create", "get", "list"];
        ApiCatalog::build(vec![
            served("", "v1", true, &[("Pod", "pods", true, verbs), ("Service", "services", true, verbs)]),
            served("apps", "v1", true, &[("Deployment", "deployments", true, verbs)]),
            served("serving.example.com", "v1", true, &[("Service", "services", true, verbs)]),
        ])
    }

    fn in_shop(change: impl FnOnce(&mut Selection)) -> Selection {
        let mut selection = Selection { namespaces: vec!["shop".into()], ..Selection::default() };
        change(&mut selection);
        selection
    }

    fn kinds(selection: &Selection) -> Vec<String> {
        let catalog = catalog();
        let wanted = catalog.namespaced().filter(|kind| selection.wants_kind(kind));
        wanted.map(|kind| format!("{}.{}", kind.kind, kind.group)).collect()
    }

    #[test]
    fn a_kind_may_be_written_in_every_usual_way() {
        for text in ["Deployment", "deployments", "deployment.apps", "apps/deployment", "apps/v1/Deployment"] {
            assert_eq!(kinds(&in_shop(|s| s.resource_types = vec![text.into()])), ["Deployment.apps"], "{text}");
        }
        assert_eq!(
            kinds(&in_shop(|s| s.resource_types = vec!["service".into()])),
            ["Service.", "Service.serving.example.com"]
        );
        assert_eq!(kinds(&in_shop(|s| s.resource_types = vec!["v1/Service".into()])), ["Service."]);
        let excluded = in_shop(|s| s.exclude_resource_types = vec!["services.serving.example.com".into()]);
        assert_eq!(kinds(&excluded), ["Pod.", "Service.", "Deployment.apps"]);
    }

    #[test]
    fn single_objects_can_be_named() {
        let filter = ObjectFilter { kind: "Pod".into(), name: Some("web".into()), ..ObjectFilter::default() };
        let selection = in_shop(|s| s.include_resources = vec![filter]);
        let catalog = catalog();
        let pod = catalog.get("", "Pod").expect("served");
        assert_eq!(kinds(&selection), ["Pod."]);
        assert!(selection.wants(pod, "shop", "web"));
        assert!(!selection.wants(pod, "shop", "db"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let check =
            |selection: Selection, expected: SelectionError| assert_eq!(selection.check(&catalog()), Err(expected));
        check(Selection::default(), SelectionError::NoNamespace);
        check(
            in_shop(|s| s.resource_types = vec!["Deploymnet".into()]),
            SelectionError::UnknownType { field: "resourceTypes", value: "Deploymnet".into() },
        );
        check(
            in_shop(|s| s.exclude_resource_types = vec!["pods.apps".into()]),
            SelectionError::UnknownType { field: "excludeResourceTypes", value: "pods.apps".into() },
        );
        let elsewhere = ObjectFilter { kind: "Pod".into(), namespace: Some("other".into()), ..ObjectFilter::default() };
        check(
            in_shop(|s| s.include_resources = vec![elsewhere]),
            SelectionError::OtherNamespace { kind: "Pod".into(), namespace: "other".into() },
        );
        assert_eq!(in_shop(|s| s.resource_types = vec!["pods".into()]).check(&catalog()), Ok(()));
    }
}
