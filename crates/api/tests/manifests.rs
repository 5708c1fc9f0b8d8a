//! `deploy/crds/` is what the types say (`UPDATE_FILES=1` writes it), and the rules in `deploy/rules/` are what they may be.

#![allow(clippy::disallowed_methods, reason = "the test reads and writes files, the crate does not")]

use std::path::Path;

#[test]
fn the_crds_in_deploy_are_fresh() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for crd in api::crds::all() {
        let name = crd.metadata.name.as_deref().expect("a CRD has a name");
        let path = dir.join(format!("{name}.yaml"));
        let text = serde_saphyr::to_string(&crd).expect("a CRD is plain data");
        if std::env::var_os("UPDATE_FILES").is_some() {
            std::fs::write(&path, &text).expect("write the CRD");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is not what the types say: run `UPDATE_FILES=1 cargo test -p api`", path.display());
    }
}

#[test]
fn every_field_says_what_it_is() {
    for crd in api::crds::all() {
        let schema = crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.clone()).expect("a schema");
        let schema = serde_json::to_value(schema).expect("a schema is plain data");
        let mut silent = Vec::new();
        undescribed(&schema["properties"]["spec"], "spec", &mut silent);
        undescribed(&schema["properties"]["status"], "status", &mut silent);
        assert!(silent.is_empty(), "{}: no description: {silent:?}", crd.spec.names.kind);
    }
}

fn undescribed(schema: &serde_json::Value, path: &str, silent: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let path = format!("{path}.{name}");
        if property["description"].is_null() {
            silent.push(path.clone());
        }
        undescribed(property, &path, silent);
        undescribed(&property["items"], &path, silent);
    }
}

#[test]
fn the_rules_in_deploy_can_run() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/rules");
    let mut found = 0;
    for entry in std::fs::read_dir(&dir).expect("there are rules") {
        let path = entry.expect("the folder can be read").path();
        let text = std::fs::read_to_string(&path).expect("a rule can be read");
        let value: serde_json::Value = serde_saphyr::from_str(&text).expect("a rule is YAML");
        let rule: api::Rule = serde_json::from_value(value.clone()).expect("a rule is a Rule");
        assert_eq!(rule.spec.validate(true), [], "{}", path.display());
        let kept = serde_json::to_value(&rule.spec.rules).expect("a rule is plain data");
        let written = &value["spec"]["rules"];
        let fields = |rules: &serde_json::Value| rules[0]["actions"][0].as_object().expect("an action").len();
        assert!(fields(&kept) >= fields(written), "{}: a field is not known", path.display());
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(rule.metadata.name.as_deref(), Some(name));
        found += 1;
    }
    assert!(found >= 9, "{found} rules");
}
