//! What S3 servers say and are told in XML.

use super::super::lock::Retention;
use serde::Deserialize;

/// The body that sets a lock.
pub(super) fn retention(retention: Retention) -> String {
    format!(
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>",
        retention.mode.of_s3(),
        retention.until.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Versioning {
    #[serde(default)]
    status: Option<String>,
}

/// Whether a bucket keeps versions; nothing if the answer is not one.
pub(super) fn versioning(body: &[u8]) -> Option<bool> {
    let answer: Versioning = from_xml(body)?;
    Some(answer.status.as_deref() == Some("Enabled"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectLockConfiguration {
    #[serde(default)]
    object_lock_enabled: Option<String>,
    #[serde(default)]
    rule: Option<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rule {
    #[serde(default)]
    default_retention: Option<DefaultRetention>,
}

/// How a bucket locks what is put without a lock of its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DefaultRetention {
    pub(super) mode: String,
    #[serde(default)]
    days: Option<u32>,
    #[serde(default)]
    years: Option<u32>,
}

impl DefaultRetention {
    /// How long, in days.
    pub(super) fn days(&self) -> Option<u32> {
        self.days.or_else(|| self.years.map(|years| years.saturating_mul(365)))
    }
}

/// Whether a bucket has object lock, and its rule for what is put without a lock.
pub(super) fn object_lock(body: &[u8]) -> Option<Option<DefaultRetention>> {
    let answer: ObjectLockConfiguration = from_xml(body)?;
    (answer.object_lock_enabled.as_deref() == Some("Enabled"))
        .then(|| answer.rule.and_then(|rule| rule.default_retention))
}

/// One page of a list of versions. Deletion markers are not versions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Versions {
    #[serde(default)]
    pub(super) is_truncated: bool,
    #[serde(default)]
    pub(super) next_key_marker: Option<String>,
    #[serde(default)]
    pub(super) next_version_id_marker: Option<String>,
    #[serde(default, rename = "Version")]
    pub(super) versions: Vec<Version>,
}

/// A version of an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) key: String,
    pub(super) version_id: String,
    pub(super) last_modified: String,
    pub(super) size: u64,
}

/// Reads a page of a list of versions.
pub(super) fn versions(body: &[u8]) -> Option<Versions> {
    from_xml(body)
}

fn from_xml<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Option<T> {
    quick_xml::de::from_str(std::str::from_utf8(body).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        let ns = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
        let status = |inner: &str| {
            versioning(format!("<VersioningConfiguration {ns}>{inner}</VersioningConfiguration>").as_bytes())
        };
        assert_eq!(status("<Status>Enabled</Status>"), Some(true));
        assert_eq!(status("<Status>Suspended</Status>"), Some(false));
        assert_eq!((status(""), versioning(b"no XML")), (Some(false), None));

        let lock = |inner: &str| {
            object_lock(format!("<ObjectLockConfiguration {ns}>{inner}</ObjectLockConfiguration>").as_bytes())
        };
        let enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>";
        assert!(lock("").is_none() && lock(enabled).unwrap().is_none());
        let rule = "<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Years>2</Years></DefaultRetention></Rule>";
        assert_eq!(lock(&format!("{enabled}{rule}")).unwrap().unwrap().days(), Some(730));

        let page = versions(
            b"<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker>\
              <Version><Key>a&amp;b</Key><VersionId>2</VersionId><LastModified>2026-01-01T00:00:00Z</LastModified><Size>3</Size></Version>\
              <DeleteMarker><Key>a</Key><VersionId>3</VersionId></DeleteMarker>\
              <Version><Key>c</Key><VersionId>null</VersionId><LastModified>2026-01-01T00:00:00Z</LastModified><Size>0</Size></Version>\
              </ListVersionsResult>",
        )
        .unwrap();
        assert!(page.is_truncated);
        let keys: Vec<_> = page.versions.iter().map(|version| version.key.as_str()).collect();
        assert_eq!(keys, ["a&b", "c"]);
    }
}
