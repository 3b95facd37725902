//! Who may not enter is refused with a reason, in both logs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use procwarden_common::token::Token;
use procwarden_tests::agent::Agent;
use procwarden_tests::collector::{Collector, text};
use procwarden_tests::wait::eventually;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("procwarden-e2e-")
        .tempdir()
        .unwrap()
}

fn running_collector(directory: &tempfile::TempDir) -> Collector {
    let mut collector = Collector::init(directory.path(), None);
    collector.start();
    collector
}

/// Both sides say why.
#[track_caller]
fn both_say(agent_log: impl Fn() -> String, collector: &Collector, words: [&str; 2]) {
    eventually("the reason in both logs", || {
        let (agent, collector) = (agent_log().to_lowercase(), collector.log().to_lowercase());
        if agent.contains(words[0]) && collector.contains(words[1]) {
            return Ok(());
        }
        Err(format!(
            "looking for {words:?} in\nagent: {agent}\ncollector: {collector}"
        ))
    });
}

#[test]
fn a_used_up_token_is_refused() {
    let home = directory();
    let collector = running_collector(&home);
    let token = collector.token(&["--uses", "1"]);
    let _first = Agent::enrolled(home.path(), &token);
    let other = directory();
    let refused = Agent::new(other.path()).enroll(&token);
    assert_eq!(refused.status.code(), Some(1));
    both_say(|| text(&refused.stderr), &collector, ["used up", "used up"]);
}

#[test]
fn an_expired_token_is_refused() {
    let home = directory();
    let collector = running_collector(&home);
    let token = collector.token(&["--ttl", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let refused = Agent::new(home.path()).enroll(&token);
    assert_eq!(refused.status.code(), Some(1));
    both_say(|| text(&refused.stderr), &collector, ["expired", "expired"]);
}

#[test]
fn a_revoked_token_is_refused() {
    let home = directory();
    let collector = running_collector(&home);
    let token = collector.token(&[]);
    let id = collector.json(&["token", "list"]).unwrap()[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let _revoked = collector.told(&["token", "revoke", &id]);
    let refused = Agent::new(home.path()).enroll(&token);
    assert_eq!(refused.status.code(), Some(1));
    both_say(|| text(&refused.stderr), &collector, ["revoked", "revoked"]);
}

#[test]
fn a_token_for_another_collector_is_not_believed() {
    let (home, away) = (directory(), directory());
    let (ours, theirs) = (running_collector(&home), running_collector(&away));
    let mut token = Token::parse(&ours.token(&[])).unwrap();
    token.addresses = Token::parse(&theirs.token(&[])).unwrap().addresses;
    let refused = Agent::new(home.path()).enroll(&token.encode());
    assert_eq!(refused.status.code(), Some(1));
    both_say(
        || text(&refused.stderr),
        &theirs,
        ["certificate", "does not trust this collector"],
    );
}

#[test]
fn a_broken_token_is_a_usage_error_that_says_so() {
    let home = directory();
    let refused = Agent::new(home.path()).enroll("pwt1.AAAA");
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused.stderr));
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let home = directory();
    let collector = running_collector(&home);
    let reason = handshake_without_certificate(&collector).to_lowercase();
    both_say(
        || reason.clone(),
        &collector,
        ["certificaterequired", "no client certificate"],
    );
}

/// What a TLS client without a certificate is told.
fn handshake_without_certificate(collector: &Collector) -> String {
    let mut roots = RootCertStore::empty();
    let ca = collector.data_dir().join("ca").join("ca.pem");
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(&collector.addresses().fleet).unwrap();
    let mut stream = StreamOwned::new(client, stream);
    let outcome = stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .and_then(|()| {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).map(|_| ())
        });
    format!("{outcome:?}")
}

#[test]
fn a_certificate_of_another_fleet_is_refused() {
    let (home, away) = (directory(), directory());
    let (ours, theirs) = (running_collector(&home), running_collector(&away));
    let mut agent = Agent::enrolled(home.path(), &ours.token(&[]));

    // First the agent does not believe the other collector.
    let config = home.path().join("agent.toml");
    let (_, port) = theirs.addresses().fleet.rsplit_once(':').unwrap();
    let collector = format!("collector = \"localhost:{port}\"\n");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, collector + &text).unwrap();
    agent.start();
    both_say(
        || agent.log(),
        &theirs,
        ["certificate", "does not trust this collector"],
    );
    assert!(agent.stop().success());

    // Then it is made to, and the other collector does not believe the agent.
    let ca = theirs.data_dir().join("ca").join("ca.pem");
    std::fs::copy(ca, agent.state_dir().join("identity").join("ca.pem")).unwrap();
    agent.start();
    both_say(|| agent.log(), &theirs, ["another fleet", "another fleet"]);
    assert!(agent.stop().success());
}

#[test]
fn a_revoked_host_is_cut_off_and_kept_out() {
    let home = directory();
    let collector = running_collector(&home);
    let mut agent = Agent::enrolled(home.path(), &collector.token(&[]));
    agent.start();
    let host = eventually("the host to connect", || {
        let hosts = collector.json(&["hosts", "list"])?;
        let connected = hosts.iter().find(|host| host["state"] == "connected");
        connected
            .and_then(|host| host["id"].as_str().map(str::to_owned))
            .ok_or(format!("{hosts:?}"))
    });
    let _revoked = collector.told(&["hosts", "revoke", &host]);
    both_say(|| agent.log(), &collector, ["revoked", "revoked"]);
    let hosts = collector.json(&["hosts", "list"]).unwrap();
    assert_eq!(hosts[0]["state"], "revoked", "{hosts:?}");
}
