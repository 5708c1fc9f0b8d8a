//! Which objects are wanted.

use crate::catalog::{ApiCatalog, Kind};

/// How people write the group that has no name.
const CORE: &str = "core";

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

/// Names one object, or all objects of a kind. What is not given matches anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFilter {
    /// API group; none for any, `""` for the core group.
    pub group: Option<String>,
    /// Kind or plural, whatever its case; none for any.
    pub kind: Option<String>,
    /// Namespace; none for all that are selected.
    pub namespace: Option<String>,
    /// Name; none for any.
    pub name: Option<String>,
}

/// A kind as people write it: `Deployment`, `deployments`, `deployments.apps`, `apps/Deployment` or `apps/v1/Deployment`,
/// whatever the case; `*.example.com` is every kind of a group, and the group without a name is written `core`. The version, if any, is
/// not compared: a selection is about objects, and those have all versions.
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
    /// A label selector that the server does not understand.
    #[error("the label selector {value:?} is none: {reason}")]
    BadLabels {
        /// What was written.
        value: String,
        /// What the server says about it.
        reason: String,
    },
    /// An object in a namespace that is not selected.
    #[error("includeResources names the namespace {namespace:?}, which is not among the selected namespaces")]
    OtherNamespace {
        /// The namespace.
        namespace: String,
    },
}

impl<'a> ResourceType<'a> {
    /// Reads what a person wrote.
    pub fn parse(text: &'a str) -> Self {
        let Self { group, kind } = Self::split(text);
        Self { group: group.map(|group| if group.eq_ignore_ascii_case(CORE) { "" } else { group }), kind }
    }

    fn split(text: &'a str) -> Self {
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
        self.kind.as_ref().is_none_or(|wanted| same_kind(wanted, kind))
            && self.group.as_ref().is_none_or(|group| *group == kind.group)
    }

    fn matches(&self, kind: &Kind, namespace: &str, name: &str) -> bool {
        self.matches_kind(kind)
            && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }

    /// Whether it may be about kinds of a group that are not known.
    fn is_about_all_of(&self, group: &str) -> bool {
        self.kind.is_none() && self.group.as_ref().is_none_or(|wanted| wanted == group)
    }

    /// The kind as a person would have written it.
    fn kind_text(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or("*");
        match self.group.as_deref() {
            None => kind.to_owned(),
            Some("") => format!("{kind}.{CORE}"),
            Some(group) => format!("{kind}.{group}"),
        }
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
            let is_of_broken_group = catalog.broken().iter().any(|broken| filter.is_about_all_of(&broken.group));
            if !is_of_broken_group && !catalog.namespaced().any(|kind| filter.matches_kind(kind)) {
                return Err(SelectionError::UnknownType { field: "includeResources", value: filter.kind_text() });
            }
            if let Some(namespace) = filter.namespace.as_ref().filter(|n| !self.namespaces.contains(n)) {
                return Err(SelectionError::OtherNamespace { namespace: namespace.clone() });
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

    /// Whether kinds of a group that could not be seen are a hole: when all kinds are wanted, or all of the group, and it is not
    /// excluded as a whole.
    pub fn wants_unknown_kinds_of(&self, group: &str) -> bool {
        let named = |types: &[String]| types.iter().any(|text| ResourceType::parse(text).is_all_of(group));
        (self.resource_types.is_empty() || named(&self.resource_types))
            && !named(&self.exclude_resource_types)
            && (self.include_resources.is_empty()
                || self.include_resources.iter().any(|filter| filter.is_about_all_of(group)))
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
        for text in ["v1/Service", "Service.core", "services.core", "core/Service"] {
            assert_eq!(kinds(&in_shop(|s| s.resource_types = vec![text.into()])), ["Service."], "{text}");
        }
        assert_eq!(kinds(&in_shop(|s| s.resource_types = vec!["*.core".into()])), ["Pod.", "Service."]);
        let excluded = in_shop(|s| s.exclude_resource_types = vec!["services.serving.example.com".into()]);
        assert_eq!(kinds(&excluded), ["Pod.", "Service.", "Deployment.apps"]);
    }

    #[test]
    fn single_objects_can_be_named() {
        let filter = ObjectFilter { kind: Some("Pod".into()), name: Some("web".into()), ..ObjectFilter::default() };
        let selection = in_shop(|s| s.include_resources = vec![filter]);
        let catalog = catalog();
        let pod = catalog.get("", "Pod").expect("served");
        assert_eq!(kinds(&selection), ["Pod."]);
        assert!(selection.wants(pod, "shop", "web"));
        assert!(!selection.wants(pod, "shop", "db"));
    }

    #[test]
    fn a_filter_without_a_kind_matches_any() {
        let named = |filter: ObjectFilter| in_shop(|s| s.include_resources = vec![filter]);
        let web = named(ObjectFilter { name: Some("web".into()), ..ObjectFilter::default() });
        assert_eq!(web.check(&catalog()), Ok(()));
        assert_eq!(kinds(&web), ["Pod.", "Service.", "Deployment.apps", "Service.serving.example.com"]);
        let catalog = catalog();
        let deployment = catalog.get("apps", "Deployment").expect("served");
        assert!(web.wants(deployment, "shop", "web"));
        assert!(!web.wants(deployment, "shop", "db"));
        let of_apps = named(ObjectFilter { group: Some("apps".into()), ..ObjectFilter::default() });
        assert_eq!(kinds(&of_apps), ["Deployment.apps"]);
        let of_none = named(ObjectFilter { group: Some("app".into()), ..ObjectFilter::default() });
        let unknown = SelectionError::UnknownType { field: "includeResources", value: "*.app".into() };
        assert_eq!(of_none.check(&catalog), Err(unknown));
    }

    #[test]
    fn kinds_that_cannot_be_seen_are_a_hole_where_they_may_be_wanted() {
        let check = |expected: bool, change: fn(&mut Selection)| {
            let selection = in_shop(change);
            assert_eq!(selection.wants_unknown_kinds_of("down.example.com"), expected, "{selection:?}");
        };
        check(true, |_| {});
        check(true, |s| s.resource_types = vec!["*.down.example.com".into()]);
        check(false, |s| s.resource_types = vec!["Pod".into()]);
        check(false, |s| s.exclude_resource_types = vec!["*.down.example.com".into()]);
        let named = || ObjectFilter { name: Some("web".into()), ..ObjectFilter::default() };
        let filter = |filter: ObjectFilter, expected: bool| {
            let selection = in_shop(|s| s.include_resources = vec![filter]);
            assert_eq!(selection.wants_unknown_kinds_of("down.example.com"), expected, "{selection:?}");
        };
        filter(named(), true);
        filter(ObjectFilter { kind: Some("Pod".into()), ..named() }, false);
        filter(ObjectFilter { group: Some("apps".into()), ..named() }, false);
        filter(ObjectFilter { group: Some("down.example.com".into()), ..named() }, true);
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
        let elsewhere = ObjectFilter { namespace: Some("other".into()), ..ObjectFilter::default() };
        check(
            in_shop(|s| s.include_resources = vec![elsewhere]),
            SelectionError::OtherNamespace { namespace: "other".into() },
        );
        assert_eq!(in_shop(|s| s.resource_types = vec!["pods".into()]).check(&catalog()), Ok(()));
    }
}
