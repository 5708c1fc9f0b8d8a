//! What can be wrong with a location, told apart by what to do about it.

use api::FieldError;
use repository::ErrorKind;
use repository::store::StoreError;

use crate::conditions::shorten;

/// Why a location cannot be used; all of these are the location's, not the operator's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LocationProblem {
    /// There is no such location.
    #[error("there is no BackupLocation {namespace}/{name}; create it, or name another")]
    NoLocation {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Its spec is wrong.
    #[error("{}", join(.0))]
    InvalidSpec(Vec<FieldError>),
    /// A Secret that it names does not exist.
    #[error("there is no Secret {namespace}/{name}, which {field} names; create it")]
    SecretNotFound {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The field that names it.
        field: &'static str,
    },
    /// A Secret lacks an entry, or the entry is not text.
    #[error("the Secret {name} has no entry {key:?} that is text and not empty, which {field} needs; add it")]
    NoSecretEntry {
        /// Its name.
        name: String,
        /// The entry.
        key: String,
        /// The field that needs it.
        field: &'static str,
    },
    /// The store or the repository in it.
    #[error("{what}: {guidance}", what = with_causes(.0), guidance = .0.guidance())]
    Repository(#[from] repository::Error),
    /// It did not answer in time.
    #[error(
        "{place} did not answer within {seconds} s; check that the endpoint is right and can be reached from this cluster"
    )]
    TooSlow {
        /// The store.
        place: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Another repository is where one was before.
    #[error(
        "the repository here is {found}, and was {expected}: somebody replaced it; bring the old one back, or create another BackupLocation \
         for the new one"
    )]
    OtherRepository {
        /// The identity that was found before.
        expected: String,
        /// The identity that is found now.
        found: String,
    },
}

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<StoreError> for LocationProblem {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl LocationProblem {
    /// One word for conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoLocation { .. } => "LocationNotFound",
            Self::InvalidSpec(_) => "InvalidSpec",
            Self::SecretNotFound { .. } | Self::NoSecretEntry { .. } => "SecretNotFound",
            Self::TooSlow { .. } => "Unreachable",
            Self::OtherRepository { .. } => "OtherRepository",
            Self::Repository(error) => match error.kind() {
                ErrorKind::NotARepository => "NotARepository",
                ErrorKind::WrongPassphrase => "WrongPassphrase",
                ErrorKind::Newer => "NewerFormat",
                ErrorKind::Damaged => "Damaged",
                ErrorKind::AccessDenied => "AccessDenied",
                ErrorKind::NoSpace => "NoSpace",
                ErrorKind::Pinned => "Pinned",
                // Nothing is deleted in order to open a repository, so nothing can be refused for its lock.
                ErrorKind::Invalid | ErrorKind::Locked => "InvalidSpec",
                ErrorKind::Revoked => "Revoked",
                ErrorKind::Busy => "Busy",
                ErrorKind::AlreadyExists | ErrorKind::NotFound => "BucketNotFound",
                ErrorKind::Unreachable | ErrorKind::Interrupted => "Unreachable",
            },
        }
    }

    /// Whether it may pass without anybody changing what is there: then a run waits for a while. What is not there yet may come, since
    /// manifests are applied in any order.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoLocation { .. } | Self::SecretNotFound { .. } | Self::TooSlow { .. } => true,
            Self::InvalidSpec(_) | Self::NoSecretEntry { .. } | Self::OtherRepository { .. } => false,
            Self::Repository(error) => error.is_retryable() || error.kind() == ErrorKind::NotARepository,
        }
    }
}

/// What an object store says of a request that failed, up to how it ended: how long that took and how often it was tried differ each time.
const TRIED: [&str; 2] = [" in ", " - "];
/// What comes before the status of an answer. Its content follows, after a colon.
const ANSWERED: [&str; 2] = ["status code: ", "the server answered "];
/// What comes before the content of an answer, or before words that may have some of it.
const CONTENT: [&str; 5] =
    ["response: ", "metadata from headers: ", "CONTENT_RANGE header: ", "last modified '", "content length '"];
/// Longest code of an error of S3, in characters.
const CODE_CHARS: usize = 64;
/// Longest text of one problem, in characters.
const PROBLEM_CHARS: usize = 600;

/// An error with what lies below it, since a person needs to know that it was a refused connection, or an unknown authority. The same
/// problem gives the same text each time.
fn with_causes(error: &repository::Error) -> String {
    shorten(&steady(&all_causes(error)), PROBLEM_CHARS)
}

/// What is said of an answer, without its content: who writes a location chooses whom the operator asks, and what an address answers that only the operator reaches is none of his
/// business. Of what is told of the content nothing is left but a code of S3. Says also whether there was content.
fn without_content(said: &str) -> (String, bool) {
    let end_of = |markers: &[&str]| markers.iter().filter_map(|marker| Some(said.find(marker)? + marker.len())).min();
    let (answered, content) = (end_of(&ANSWERED), end_of(&CONTENT));
    let end = match (answered, content) {
        (None, None) => return (said.to_owned(), false),
        // The status, and not what follows.
        (Some(status), content) if content.is_none_or(|content| status < content) => {
            said[status..].find(':').map_or(said.len(), |at| status + at)
        }
        (_, content) => content.unwrap_or_default(),
    };
    let (told, content) = said.split_at(end);
    let told = told.trim_end_matches([':', ' ', '\'']);
    (code(content).map_or_else(|| told.to_owned(), |code| format!("{told} ({code})")), true)
}

/// The code of an error of S3, which is one word.
fn code(content: &str) -> Option<&str> {
    let (code, _) = content.split_once("<Code>")?.1.split_once("</Code>")?;
    let is_word = (1..=CODE_CHARS).contains(&code.len()) && code.chars().all(|c| c.is_ascii_alphabetic());
    is_word.then_some(code)
}

/// A text without what differs each time that the same thing happens.
fn steady(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(begin) = text.find("Error performing ") {
        let tried = text[begin..].find(TRIED[0]).map(|at| begin + at);
        let end = tried.and_then(|tried| text[tried..].find(TRIED[1]).map(|at| tried + at));
        if let (Some(tried), Some(end)) = (tried, end) {
            text.replace_range(tried..end, "");
        }
    }
    text
}

fn all_causes(error: &repository::Error) -> String {
    let (mut text, had_content) = without_content(&error.to_string());
    let mut below = std::error::Error::source(error).filter(|_| !had_content);
    while let Some(cause) = below {
        let (said, had_content) = without_content(&cause.to_string());
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        // What is below speaks of the content.
        below = cause.source().filter(|_| !had_content);
    }
    text
}

#[cfg(test)]
mod tests {
    use repository::store::{RetryPolicy, S3Location, StoreConfig};
    use repository::{Passphrase, Repository, Secret};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn the_same_problem_has_the_same_words_each_time() {
        let said = |seconds: &str| {
            format!(
                "Error performing GET http://s3/b?list in {seconds}, after 3 retries, max_retries: 3, retry_timeout: 30s  - no route to host"
            )
        };
        assert_eq!(steady(&said("1.2s")), steady(&said("31.75ms")));
        assert_eq!(steady(&said("1.2s")), "Error performing GET http://s3/b?list - no route to host");
        for plain in ["the store is full", "Error performing GET without an end"] {
            assert_eq!(steady(plain), plain);
        }
    }

    #[test]
    fn of_an_answer_there_is_its_status_and_a_code_of_s3() {
        let check = |said: &str, told: &str, had_content: bool| {
            assert_eq!(without_content(said), (told.to_owned(), had_content), "{said}");
        };
        let refused = "GET http://s3/b - Server returned non-2xx status code: 403 Forbidden";
        check(
            &format!("{refused}: <Error><Code>AccessDenied</Code><Message>hush</Message></Error>"),
            &format!("{refused} (AccessDenied)"),
            true,
        );
        for hush in ["hush", "<Code>hush 7</Code>", "<Code></Code>", "<Code>hush", "a: b: hush", ""] {
            check(&format!("{refused}: {hush}"), refused, true);
        }
        check("the server answered 404 Not Found: hush", "the server answered 404 Not Found", true);
        check(
            "Server returned error response: <Code>SlowDown</Code>hush",
            "Server returned error response (SlowDown)",
            true,
        );
        check("Got invalid list response: expected a digit, and there is hush", "Got invalid list response", true);
        check("connection refused", "connection refused", false);
    }

    /// A server that answers everything with this.
    async fn answering(answer: String) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _asked = connection.read(&mut [0; 4096]).await;
                    let _told = connection.write_all(answer.as_bytes()).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn what_an_address_answers_that_only_the_operator_reaches_is_not_told() {
        let (hush, xml) = ("hush-hush", "<?xml version=\"1.0\"?>");
        let bodies = [
            format!("{{\"token\": \"{hush}\"}}"),
            format!("{xml}<Error><Code>NoSuchBucket</Code><Message>{hush}</Message></Error>"),
            format!(
                "{xml}<ListBucketResult><IsTruncated>{hush}</IsTruncated><Contents><Size>{hush}</Size></Contents></ListBucketResult>"
            ),
        ];
        let (mut told, mut codes) = (0, 0);
        for status in
            ["200 OK", "302 Found", "401 Unauthorized", "403 Forbidden", "404 Not Found", "500 Internal Server Error"]
        {
            for body in &bodies {
                let head = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nLast-Modified: {hush}\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let address = answering(head + body).await;
                let key = || Some(Secret::new("k".to_owned()));
                let location = S3Location {
                    bucket: "b".into(),
                    endpoint: Some(format!("http://{address}")),
                    path_style: true,
                    access_key_id: Some("i".into()),
                    secret_access_key: key(),
                    ..S3Location::default()
                };
                let store = StoreConfig::S3(location).open(RetryPolicy::never()).expect("it is a location");
                let answers = [
                    store.list("points/").await.map(drop),
                    store.get("config", 100).await.map(drop),
                    store.probe().await.map(drop),
                ];
                let opened =
                    Repository::open(store, &Passphrase::new("p")).await.map(drop).map_err(LocationProblem::from);
                let answers = answers.map(|answer| answer.map_err(LocationProblem::from));
                for problem in answers.into_iter().chain([opened]).filter_map(Result::err) {
                    let problem = problem.to_string();
                    assert!(!problem.contains(hush), "{status}: {problem}");
                    (told, codes) = (told + 1, codes + usize::from(problem.contains("(NoSuchBucket)")));
                }
            }
        }
        assert!(told > 30 && codes > 0, "{told} problems, {codes} of them with a code");
    }
}
