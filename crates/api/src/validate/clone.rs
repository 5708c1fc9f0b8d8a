//! Whether a clone can be meant.

use super::{FieldError, label, selectors, wrong};
use crate::{ADMIN_NAMESPACE, ApplicationCloneSpec};

impl ApplicationCloneSpec {
    /// What is wrong with the spec of a resource that lives in the namespace `own`; empty when nothing is. A clone is always of two namespaces, so it is for those who may act on all.
    #[must_use]
    pub fn validate(&self, own: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if own != ADMIN_NAMESPACE {
            let allowed = format!("{ADMIN_NAMESPACE}: a clone reaches into two namespaces; create it there");
            errors.push(wrong("metadata.namespace", own, &allowed));
        }
        label(&mut errors, "spec.sourceNamespace", &self.source_namespace);
        label(&mut errors, "spec.destinationNamespace", &self.destination_namespace);
        if self.source_namespace == self.destination_namespace {
            let allowed = "another namespace than spec.sourceNamespace";
            errors.push(wrong("spec.destinationNamespace", &self.destination_namespace, allowed));
        }
        if self.destination_namespace == ADMIN_NAMESPACE {
            let allowed = "another namespace than Orlop's own";
            errors.push(wrong("spec.destinationNamespace", &self.destination_namespace, allowed));
        }
        selectors(&mut errors, "spec.selectors", &self.selectors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_goes_from_one_namespace_into_another_and_lives_with_the_administrators() {
        let check = |own: &str, from: &str, to: &str, expected: &[&str]| {
            let spec = ApplicationCloneSpec {
                source_namespace: from.into(),
                destination_namespace: to.into(),
                ..ApplicationCloneSpec::default()
            };
            let fields: Vec<String> = spec.validate(own).into_iter().map(|error| error.field).collect();
            assert_eq!(fields, expected, "{own}: {from} to {to}");
        };
        check(ADMIN_NAMESPACE, "shop", "test", &[]);
        check("shop", "shop", "test", &["metadata.namespace"]);
        check(ADMIN_NAMESPACE, "shop", "shop", &["spec.destinationNamespace"]);
        check(ADMIN_NAMESPACE, "shop", ADMIN_NAMESPACE, &["spec.destinationNamespace"]);
        check(ADMIN_NAMESPACE, "Shop", "", &["spec.sourceNamespace", "spec.destinationNamespace"]);
    }
}
