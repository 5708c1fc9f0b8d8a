//! Profiles: the files in which Amazon's tools keep keys and settings.

use super::super::config::Env;
use super::super::{StoreError, StoreErrorKind};
use super::WebIdentity;
use std::collections::HashMap;
use std::io;

/// What a profile says that is of use here.
#[derive(Default)]
pub(super) struct Profile {
    /// The name of a key, the key, and the token that belongs to them if they are temporary.
    pub(super) keys: Option<(String, String, Option<String>)>,
    pub(super) web_identity: Option<WebIdentity>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// Reads the profile that `AWS_PROFILE` names, or the default one if there is any.
///
/// A profile that is named, and has neither keys nor a web identity, is refused: it would be surprising to go on as somebody else.
pub(super) fn read(env: Env<'_>) -> Result<Profile, StoreError> {
    let named = env("AWS_PROFILE");
    let name = named.as_deref().unwrap_or("default");
    let home = |file: &str| env("HOME").map(|home| format!("{home}/.aws/{file}"));
    let mut settings = HashMap::new();
    let files = [
        (env("AWS_CONFIG_FILE").or_else(|| home("config")), true),
        (env("AWS_SHARED_CREDENTIALS_FILE").or_else(|| home("credentials")), false),
    ];
    for (path, is_config) in files {
        let Some(path) = path else { continue };
        match std::fs::read_to_string(&path) {
            Ok(text) => settings.extend(section(&text, name, is_config)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("read the profiles in", &path, error)),
        }
    }
    let profile = understood(settings);
    let has_keys_in_variables = env("AWS_ACCESS_KEY_ID").is_some();
    if named.is_some() && !has_keys_in_variables && profile.keys.is_none() && profile.web_identity.is_none() {
        let what = format!(
            "the profile {name:?} has neither keys nor a web identity; other ways to get keys are not known here"
        );
        return Err(StoreError { kind: StoreErrorKind::Invalid, ..StoreError::configuration(what) });
    }
    Ok(profile)
}

fn understood(mut settings: HashMap<String, String>) -> Profile {
    let mut take = |name: &str| settings.remove(name).filter(|value| !value.is_empty());
    let token = take("aws_session_token");
    let keys = take("aws_access_key_id").zip(take("aws_secret_access_key"));
    let session_name = take("role_session_name");
    let identity = take("web_identity_token_file").zip(take("role_arn"));
    Profile {
        keys: keys.map(|(id, key)| (id, key, token)),
        web_identity: identity.map(|(token_file, role_arn)| WebIdentity { token_file, role_arn, session_name }),
        region: take("region"),
        endpoint: take("endpoint_url"),
    }
}

/// The settings of one profile. In the file of settings, unlike that of keys, a profile's title says that it is one.
fn section(text: &str, profile: &str, is_config: bool) -> HashMap<String, String> {
    let (mut inside, mut settings) = (false, HashMap::new());
    for line in text.lines() {
        let line_is_indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            let title = title.trim();
            let title = if is_config { title.strip_prefix("profile ").unwrap_or(title).trim() } else { title };
            inside = title == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside && !line_is_indented) {
            settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_from_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let (config, credentials) = (folder.path().join("config"), folder.path().join("credentials"));
        std::fs::write(
            &config,
            "[default]\nregion = one\n[profile night]\nregion=two\ns3 =\n  region = three\nendpoint_url = http://e\n",
        )
        .unwrap();
        std::fs::write(&credentials, "# keys\n[default]\naws_access_key_id = a\naws_secret_access_key = b\n[night]\naws_access_key_id=c\naws_secret_access_key=d=\naws_session_token = t\n[idle]\nregion = x\n").unwrap();
        let read_as = |profile: Option<&'static str>| {
            let (config, credentials) = (config.display().to_string(), credentials.display().to_string());
            read(&move |name| match name {
                "AWS_CONFIG_FILE" => Some(config.clone()),
                "AWS_SHARED_CREDENTIALS_FILE" => Some(credentials.clone()),
                "AWS_PROFILE" => profile.map(str::to_owned),
                _ => None,
            })
        };
        let keys = |profile: Profile| profile.keys.unwrap();
        let default = read_as(None).unwrap();
        assert_eq!(default.region.as_deref(), Some("one"));
        assert_eq!(keys(default), ("a".to_owned(), "b".to_owned(), None));
        let night = read_as(Some("night")).unwrap();
        assert_eq!((night.region.as_deref(), night.endpoint.as_deref()), (Some("two"), Some("http://e")));
        assert_eq!(keys(night), ("c".to_owned(), "d=".to_owned(), Some("t".to_owned())));
        for unusable in ["idle", "nobody"] {
            let error = read_as(Some(unusable)).err().unwrap();
            assert!(error.source.unwrap().to_string().contains(unusable));
        }
    }
}
