//! The admin service in one process, over a real Unix socket.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use procwarden_proto::v1;
use procwarden_proto::v1::admin_service_client::AdminServiceClient;
use tokio::net::UnixStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::alert::{self, AlertContext};

/// A collector without fleet and enrolment listeners.
struct Collector {
    client: AdminServiceClient<Channel>,
    ledger: Ledger,
    findings: Findings,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<anyhow::Result<()>>,
    alerts: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Collector {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let names = ["collector.example.com".to_owned(), "::1".to_owned()];
        let authority = Authority::init(&data_dir, &names, crate::clock::now()).unwrap();
        let ledger = Ledger::open(&data_dir).unwrap();
        let findings = Findings::open(&data_dir).unwrap();
        let config = format!("data_dir = '{}'\n", data_dir.display());
        let (config, _) = Config::parse("collector.toml", &config).unwrap();
        let config = Arc::new(ArcSwap::from_pointee(config));
        let (stop, shutdown) = watch::channel(false);
        let alert_context = AlertContext {
            config: config.clone(),
            ledger: ledger.clone(),
            findings: findings.clone(),
            fleet_id: authority.fleet_id(),
        };
        let (outbox, alerts) = alert::start(alert_context, shutdown.clone());
        let (sessions, started_at) = (Sessions::new(), crate::clock::now());
        let rollouts = Rollouts::new(ledger.clone(), sessions.clone(), started_at);
        let context = AdminContext {
            config,
            ledger: ledger.clone(),
            authority: Arc::new(authority),
            findings: findings.clone(),
            sessions,
            rollouts,
            outbox,
            started_at,
            fleet_address: ([127, 0, 0, 1], 7443).into(),
            enroll_address: ([127, 0, 0, 1], 7442).into(),
            shutdown: shutdown.clone(),
        };
        let socket = dir.path().join("run/admin.sock");
        let bound = AdminSocket::bind(&socket).unwrap();
        let server = tokio::spawn(serve(bound, context, shutdown));
        let client = connect(&socket).await;
        Self {
            client,
            ledger,
            findings,
            socket,
            stop,
            server,
            alerts,
            _dir: dir,
        }
    }

    async fn end(self) {
        drop(self.client);
        self.stop.send_replace(true);
        self.server.await.unwrap().unwrap();
        self.alerts.await.unwrap();
        self.findings.close().await;
        assert!(!self.socket.exists());
    }

    async fn publish(&mut self, rules: &str) -> v1::PublishPolicyResponse {
        let file = v1::PolicyFile {
            path: "csf.pignore".into(),
            content: rules.as_bytes().to_vec().into(),
        };
        let request = v1::PublishPolicyRequest {
            name: "default".into(),
            files: vec![file],
            settings: None,
            comment: "because".into(),
            base_revision: None,
            staged: false,
            groups: Vec::new(),
        };
        self.client
            .publish_policy(request)
            .await
            .unwrap()
            .into_inner()
    }

    async fn enroll(&self, byte: u8, name: &str) {
        let entry = Entry::HostEnrolled(v1::HostEnrolled {
            host_id: vec![byte; 16].into(),
            host_name: name.into(),
            groups: vec!["web".into()],
            ..Default::default()
        });
        let now = crate::clock::now();
        self.ledger
            .commit::<()>(now, "collector", |_| Ok(entry))
            .await
            .unwrap();
    }
}

async fn connect(socket: &Path) -> AdminServiceClient<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://admin.invalid");
    AdminServiceClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

#[tokio::test]
async fn status_says_what_the_collector_is() {
    let mut collector = Collector::start().await;
    collector.enroll(1, "web1").await;
    let status = collector
        .client
        .status(v1::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (status.hosts, status.hosts_connected, status.findings),
        (1, 0, 0)
    );
    assert_eq!(status.enroll_address, "127.0.0.1:7442");
    assert!(status.ca_not_after_ms > status.started_at_ms);
    assert!(status.rss_bytes > 0);
    collector.end().await;
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let mut collector = Collector::start().await;
    let request = v1::CreateTokenRequest {
        groups: vec!["web".into()],
        ttl_secs: 3600,
        uses: 0,
    };
    let made = collector
        .client
        .create_token(request.clone())
        .await
        .unwrap()
        .into_inner();
    let info = made.info.unwrap();
    assert_eq!((info.uses, info.used, info.revoked), (1, 0, false));
    let token = procwarden_common::token::Token::parse(&made.token).unwrap();
    assert_eq!(
        token.addresses,
        ["collector.example.com:7442", "[::1]:7442"]
    );
    assert_eq!(
        (token.id, token.groups),
        (info.id.clone(), vec!["web".to_owned()])
    );

    let revoke = v1::RevokeTokenRequest {
        id: info.id.clone(),
    };
    collector.client.revoke_token(revoke).await.unwrap();
    let listed = collector
        .client
        .list_tokens(v1::ListTokensRequest {})
        .await
        .unwrap();
    assert!(listed.into_inner().tokens[0].revoked);

    let unknown = v1::RevokeTokenRequest {
        id: "unknown".into(),
    };
    assert_eq!(
        collector
            .client
            .revoke_token(unknown)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    for wrong in [
        v1::CreateTokenRequest {
            ttl_secs: 0,
            ..request.clone()
        },
        v1::CreateTokenRequest {
            ttl_secs: 31 * 86_400,
            ..request.clone()
        },
        v1::CreateTokenRequest {
            uses: 100_001,
            ..request.clone()
        },
        v1::CreateTokenRequest {
            groups: vec!["No Group".into()],
            ..request
        },
    ] {
        let refused = collector.client.create_token(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    collector.end().await;
}

#[tokio::test]
async fn a_policy_is_published_listed_shown_logged_assigned_and_followed() {
    let mut collector = Collector::start().await;
    collector.enroll(1, "web1").await;
    let first = collector.publish("exe:/bin/true\n").await;
    assert!(first.published);
    assert!(!collector.publish("exe:/bin/true\n").await.published);
    let wrong = collector.publish("pexe:(\n").await;
    assert!(!wrong.published && wrong.diagnostics.iter().any(|d| d.error));
    assert_eq!(wrong.policy.unwrap().revision, 1);
    assert!(
        collector
            .publish("exe:/bin/true\nuser:bob\n")
            .await
            .published
    );

    let client = &mut collector.client;
    let listed = client
        .list_policies(v1::ListPoliciesRequest {})
        .await
        .unwrap()
        .into_inner();
    let default = &listed.policies[0];
    assert_eq!((default.revision, default.rules), (2, 2));
    assert!(default.author.starts_with("uid:"), "{}", default.author);

    let show = |revision| v1::ShowPolicyRequest {
        name: "default".into(),
        revision,
    };
    let shown = client.show_policy(show(1)).await.unwrap().into_inner();
    assert_eq!(shown.document.unwrap().files[0].content, "exe:/bin/true\n");
    assert_eq!(
        client.show_policy(show(9)).await.unwrap_err().code(),
        Code::NotFound
    );

    let log = v1::LogPolicyRequest {
        name: "default".into(),
    };
    let log = client.log_policy(log).await.unwrap().into_inner();
    let revisions: Vec<u64> = log.revisions.iter().map(|info| info.revision).collect();
    assert_eq!(revisions, [2, 1]);

    let status = v1::PolicyStatusRequest {
        name: "default".into(),
    };
    let hosts = client
        .policy_status(status.clone())
        .await
        .unwrap()
        .into_inner()
        .hosts;
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0].state(), v1::PolicyHostState::Pending);

    let assign = v1::AssignPolicyRequest {
        name: "default".into(),
        groups: vec!["db".into()],
        hosts: vec![],
    };
    let assigned = client.assign_policy(assign).await.unwrap().into_inner();
    assert_eq!(assigned.policy.unwrap().groups, ["db"]);
    assert!(
        client
            .policy_status(status)
            .await
            .unwrap()
            .into_inner()
            .hosts
            .is_empty()
    );
    collector.end().await;
}

#[tokio::test]
async fn hosts_are_shown_moved_and_revoked() {
    let mut collector = Collector::start().await;
    collector.enroll(1, "web1").await;
    collector.enroll(2, "web2").await;
    collector.publish("exe:/bin/true\n").await;
    let client = &mut collector.client;
    let list = v1::ListHostsRequest {
        group: "web".into(),
        silent: false,
    };
    let hosts = client
        .list_hosts(list.clone())
        .await
        .unwrap()
        .into_inner()
        .hosts;
    assert_eq!(hosts.len(), 2);
    assert_eq!(hosts[0].state(), v1::HostState::Enrolled);

    let groups = vec!["db".to_owned()];
    let set = v1::SetHostGroupsRequest {
        host: "web1".into(),
        groups: groups.clone(),
    };
    let moved = client
        .set_host_groups(set)
        .await
        .unwrap()
        .into_inner()
        .host
        .unwrap();
    assert_eq!(moved.groups, groups);
    assert_eq!(
        client
            .list_hosts(list)
            .await
            .unwrap()
            .into_inner()
            .hosts
            .len(),
        1
    );

    let show = v1::ShowHostRequest {
        host: "web1".into(),
    };
    let shown = client.show_host(show).await.unwrap().into_inner();
    assert_eq!(shown.effective.unwrap().documents.len(), 1);

    let scan = v1::ScanHostRequest {
        host: "web1".into(),
    };
    let refused = client.scan_host(scan).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    let revoke = v1::RevokeHostRequest {
        host: "web1".into(),
    };
    client.revoke_host(revoke.clone()).await.unwrap();
    let again = client.revoke_host(revoke).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    let unknown = v1::ShowHostRequest {
        host: "nobody".into(),
    };
    assert_eq!(
        client.show_host(unknown).await.unwrap_err().code(),
        Code::NotFound
    );
    collector.end().await;
}
