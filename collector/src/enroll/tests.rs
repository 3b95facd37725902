//! Enrolment over real TLS, with a real ledger.

use procwarden_common::token::Token;
use procwarden_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use tempfile::TempDir;
use tonic::Code;

use super::*;
use crate::tls::PeerIdentity;
use crate::tls::testing::{self, channel, client_config, host_key};

struct Collector {
    fleet: testing::Fleet,
    ledger: Ledger,
    _ledger_dir: TempDir,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn collector() -> Collector {
    let fleet = testing::fleet();
    let ledger_dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(ledger_dir.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, shutdown) = watch::channel(false);
    let authority = Arc::clone(&fleet.authority);
    let ctx = EnrollContext {
        authority,
        ledger: ledger.clone(),
        fleet_port: 7443,
    };
    let serving = tokio::spawn(serve(listener, ctx, shutdown));
    Collector {
        fleet,
        ledger,
        _ledger_dir: ledger_dir,
        address,
        stop,
        serving,
    }
}

impl Collector {
    async fn client(&self) -> EnrollmentServiceClient<tonic::transport::Channel> {
        let config = client_config(&self.fleet.authority, None);
        EnrollmentServiceClient::new(channel(self.address, config).await.unwrap())
    }

    async fn token(&self, uses: u32) -> Token {
        let addresses = vec![self.address.to_string()];
        let groups = vec!["web".to_owned()];
        let ttl = Duration::from_secs(3600);
        let authority = &self.fleet.authority;
        let created = tokens::create(
            &self.ledger,
            authority,
            "uid:0(root)",
            groups,
            ttl,
            uses,
            addresses,
        );
        let created = created.await.unwrap();
        let token = Token::parse(&created.token).unwrap();
        assert_eq!(token.id, created.id);
        assert_eq!(token.ca_sha256, authority.ca_sha256());
        token
    }
}

fn request(token: &Token) -> v1::EnrollRequest {
    v1::EnrollRequest {
        token_id: token.id.clone(),
        secret: token.secret.to_vec().into(),
        csr: host_key().csr,
        host_name: "web1".into(),
        agent_version: "0.1.0".into(),
    }
}

#[tokio::test]
async fn a_token_becomes_a_host_with_a_certificate() {
    let collector = collector().await;
    let token = collector.token(1).await;
    let mut client = collector.client().await;
    let response = client.enroll(request(&token)).await.unwrap().into_inner();

    let host_id = HostId::from_slice(&response.host_id).unwrap();
    assert_eq!(
        response.fleet_id,
        collector.fleet.authority.fleet_id().to_string()
    );
    assert_eq!(response.ca_certificate, collector.fleet.authority.ca_pem());
    assert_eq!(response.fleet_port, 7443);
    use rustls_pki_types::pem::PemObject;
    let pem = response.certificate.as_bytes();
    let der = rustls_pki_types::CertificateDer::from_pem_slice(pem).unwrap();
    let identity = PeerIdentity::of_certificate(&der, collector.fleet.authority.fleet_id());
    assert_eq!(identity.unwrap().host_id, host_id);
    collector.ledger.read(|state| {
        let host = &state.hosts[&host_id];
        assert_eq!(
            (host.name.as_str(), &host.groups[..]),
            ("web1", &["web".to_owned()][..])
        );
        assert_eq!(state.tokens[&token.id].used, 1);
    });

    let again = client.enroll(request(&token)).await.unwrap_err();
    assert_eq!(again.code(), Code::PermissionDenied);
    assert!(again.message().contains("used up"), "{again}");

    collector.stop.send_replace(true);
    drop(client);
    collector.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn racing_enrolments_never_share_the_last_use() {
    let collector = collector().await;
    let token = collector.token(3).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = collector.client().await;
        let request = request(&token);
        tasks.spawn(async move { client.enroll(request).await.is_ok() });
    }
    let enrolled = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|enrolled| *enrolled)
        .count();
    assert_eq!(enrolled, 3);
    collector.ledger.read(|state| {
        assert_eq!(state.hosts.len(), 3);
        assert_eq!(state.tokens[&token.id].used, 3);
    });
}

#[tokio::test]
async fn bad_requests_are_refused_in_words_and_use_nothing_up() {
    let collector = collector().await;
    let token = collector.token(1).await;
    let good = request(&token);
    let table = [
        (
            v1::EnrollRequest {
                token_id: "no\u{1b}[2Jne".into(),
                ..good.clone()
            },
            Code::PermissionDenied,
            "does not know the token",
        ),
        (
            v1::EnrollRequest {
                secret: vec![0; 32].into(),
                ..good.clone()
            },
            Code::PermissionDenied,
            "secret of the token is wrong",
        ),
        (
            v1::EnrollRequest {
                csr: "x".into(),
                ..good.clone()
            },
            Code::InvalidArgument,
            "certificate request",
        ),
        (
            v1::EnrollRequest {
                host_name: " ".into(),
                ..good.clone()
            },
            Code::InvalidArgument,
            "the host name is empty",
        ),
    ];
    let mut client = collector.client().await;
    for (request, code, words) in table {
        let status = client.enroll(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
    assert_eq!(
        collector.ledger.read(|state| state.tokens[&token.id].used),
        0
    );
    client.enroll(good).await.unwrap();
}

#[tokio::test]
async fn who_fails_too_often_has_to_wait() {
    let collector = collector().await;
    let token = collector.token(1).await;
    let mut client = collector.client().await;
    let wrong = v1::EnrollRequest {
        secret: vec![0; 32].into(),
        ..request(&token)
    };
    for _ in 0..FAILURES_MAX {
        let status = client.enroll(wrong.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    let status = client.enroll(request(&token)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_host_whose_policies_do_not_fit_together_is_enrolled_and_told_of() {
    use procwarden_common::limits::RULES_MAX;
    let collector = collector().await;
    let token = collector.token(2).await;
    // Written past the check, as roll-outs that meet may bring it about.
    for name in ["a", "b"] {
        let rules: String = (0..=RULES_MAX / 2)
            .map(|n| format!("exe:/opt/{name}/{n}\n"))
            .collect();
        let file = v1::PolicyFile {
            path: "p".into(),
            content: rules.into_bytes().into(),
        };
        let document = v1::PolicyDocument {
            name: name.into(),
            revision: 1,
            files: vec![file],
            settings: String::new(),
        };
        let published = Entry::PolicyPublished(v1::PolicyPublished {
            document: Some(document),
            groups: vec!["web".into()],
            ..Default::default()
        });
        let ledger = &collector.ledger;
        let commit = ledger.commit::<()>(clock::now(), "uid:0(root)", |_| Ok(published));
        commit.await.unwrap();
    }
    let answer = collector.client().await.enroll(request(&token)).await;
    let host = HostId::from_slice(&answer.unwrap().into_inner().host_id).unwrap();
    let together = Together::default();
    let first = together.wrong_with(&collector.ledger, host).await.unwrap();
    assert!(first.is_new && first.why.contains("rules"), "{first:?}");
    let again = together.wrong_with(&collector.ledger, host).await.unwrap();
    assert_eq!((again.why, again.is_new), (first.why, false));
}
