//! What the transformations of a restore make of a recovery point, found out while its objects are read, and nothing is made yet.

use std::collections::{BTreeMap, BTreeSet};

use api::Missed;
use application::{Change, Mapping, ObjectKey, RestoreOptions, clean};
use serde_json::Value;

use super::inventory::Inventory;
use super::transforms::Transforms;
use super::volume::act::SOURCES;

/// What they make of the objects that are picked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TransformFacts {
    /// Objects that are changed, by their names at the source.
    pub(crate) objects: BTreeSet<ObjectKey>,
    /// Objects that cannot be changed, by their names at the target, with the reasons.
    pub(crate) errors: Vec<Missed>,
    /// What is for no object, for people.
    pub(crate) idle: Vec<String>,
    /// Storage classes that changed objects name, at the target.
    pub(crate) classes: BTreeSet<String>,
}

/// Which transformations were for an object, or why they cannot change it. What they changed is not kept: it may be as large as the objects.
type Tried = Result<Vec<usize>, String>;

/// Tries transformations on one object after the other.
pub(super) struct Trying<'a> {
    transforms: &'a Transforms,
    mapping: &'a Mapping,
    options: RestoreOptions,
    /// By the name at the source: the one at the target, and what came of it.
    objects: BTreeMap<ObjectKey, (ObjectKey, Tried)>,
    claims: Vec<(ObjectKey, Tried)>,
    classes: BTreeSet<String>,
}

impl<'a> Trying<'a> {
    pub(super) fn new(transforms: &'a Transforms, mapping: &'a Mapping, options: RestoreOptions) -> Self {
        Self { transforms, mapping, options, objects: BTreeMap::new(), claims: Vec::new(), classes: BTreeSet::new() }
    }

    /// An object as it would be made, if a transformation is for it and can change it.
    pub(super) fn object(&mut self, key: &ObjectKey, stored: &Value) -> Option<Value> {
        if !self.transforms.all.iter().any(|transform| transform.is_for_kind(key)) {
            return None;
        }
        let mut object = stored.clone();
        clean::for_restore(key, &mut object, self.options);
        if self.mapping.loss(key, &object).is_some_and(|loss| loss.is_whole) {
            return None;
        }
        // What cannot be named is found to be damaged where it is read.
        let name = self.mapping.apply(&mut object).ok()?;
        let result = self.transforms.apply(&name, &mut object).map(|transformed| transformed.by);
        let is_changed = result.as_ref().is_ok_and(|by| !by.is_empty());
        self.objects.insert(key.clone(), (name, result));
        is_changed.then_some(object)
    }

    /// Changes a claim that is filled. What changed in it.
    pub(super) fn claim(&mut self, manifest: &mut Value) -> Vec<Change> {
        let Ok(key) = ObjectKey::of(manifest) else { return Vec::new() };
        let before = manifest.clone();
        let result = self.transforms.apply(&key, manifest).and_then(|transformed| {
            let is_set = |field: &&&str| !manifest["spec"][**field].is_null() && manifest["spec"][**field] != before["spec"][**field];
            match SOURCES.iter().find(is_set) {
                Some(field) => Err(format!("a transformation sets spec.{field}, and the data of this claim comes from the recovery point: leave it out")),
                None => Ok(transformed),
            }
        });
        let changes = result.as_ref().map(|transformed| transformed.changes.clone()).unwrap_or_default();
        self.claims.push((key, result.map(|transformed| transformed.by)));
        changes
    }

    /// A storage class that a changed object names.
    pub(super) fn class(&mut self, class: String) {
        self.classes.insert(class);
    }

    /// What it comes to for those objects that are picked.
    pub(super) fn finish(self, inventory: &Inventory) -> TransformFacts {
        let mut facts = TransformFacts { classes: self.classes, ..TransformFacts::default() };
        let mut used = BTreeSet::new();
        let mut note = |name: &ObjectKey, result: &Tried| match result {
            Ok(by) => {
                used.extend(by.iter().copied());
                !by.is_empty()
            }
            Err(why) => {
                facts.errors.push(Missed { item: name.to_string(), reason: why.clone() });
                false
            }
        };
        for key in inventory.keys() {
            if let Some((name, result)) = self.objects.get(key)
                && note(name, result)
            {
                facts.objects.insert(key.clone());
            }
        }
        for (name, result) in &self.claims {
            note(name, result);
        }
        facts.idle = self.transforms.idle(|index| used.contains(&index));
        facts
    }
}
