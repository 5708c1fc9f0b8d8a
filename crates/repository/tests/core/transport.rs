//! The way to a server: certificates of one's own, and proxies.

use crate::conformance::{conforms, kind};
use crate::faults::EAGER;
use crate::s3::S3Server;
use repository::{RetryPolicy, S3Location, StoreConfig, StoreErrorKind};
use std::process::Command;

/// In a process that has it, the test below is the one that goes through a proxy.
const CHILD: &str = "ORLOP_TEST_PROXIED";

#[tokio::test]
async fn a_server_with_a_certificate_of_its_own_is_trusted_by_who_has_its_authority() {
    let (server, ca_pem) = S3Server::start_with_tls().await;
    let StoreConfig::S3(location) = server.config("p") else { panic!("not S3") };
    let trusting = StoreConfig::S3(S3Location { ca_pem: Some(ca_pem.clone()), ..location.clone() });
    conforms(trusting.open(RetryPolicy::never()).unwrap()).await;
    let error = server.config("p").open(RetryPolicy::never()).unwrap().list("").await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    for not_pem in ["no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let config = StoreConfig::S3(S3Location { ca_pem: Some(not_pem.to_owned()), ..location.clone() });
        assert_eq!(kind(config.open(RetryPolicy::never())), StoreErrorKind::Invalid, "{not_pem}");
    }
}

/// The proxy here is the server itself, and the address that is asked for leads nowhere: so only who goes through the proxy gets there.
#[tokio::test]
async fn proxies_of_the_environment_are_used() {
    if let Ok(address) = std::env::var(CHILD) {
        let StoreConfig::S3(location) = S3Server::config_at(&address, "p") else { panic!("not S3") };
        let endpoint = Some("http://nowhere.invalid".to_owned());
        conforms(StoreConfig::S3(S3Location { endpoint, ..location }).open(EAGER).unwrap()).await;
        return;
    }
    let server = S3Server::start().await;
    let address = server.address().to_string();
    let test = "transport::proxies_of_the_environment_are_used";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test]).env(CHILD, &address).env_remove("NO_PROXY").env_remove("no_proxy");
    let mut without = Command::new(std::env::current_exe().unwrap());
    without.args(["--exact", test]).env(CHILD, &address).env_remove("HTTP_PROXY").env_remove("http_proxy");
    child.env("HTTP_PROXY", format!("http://{address}")).env("http_proxy", format!("http://{address}"));
    let run = |mut command: Command| tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = run(child).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(!run(without).await.unwrap().status.success(), "it got there without the proxy too");
}
