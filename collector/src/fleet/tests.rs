//! Agents' streams over real mutual TLS, with a real ledger and journal.

use std::net::SocketAddr;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::severity::Severity;
use procwarden_common::wire::{Change, event_to_wire};
use procwarden_proto::v1::connect_request::Message as Up;
use procwarden_proto::v1::connect_response::Message as Down;
use procwarden_proto::v1::fleet_service_client::FleetServiceClient;
use procwarden_proto::v1::ledger_record::Entry;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use uuid::Uuid;

use super::*;
use crate::findings::FindingFilter;
use crate::tls::testing::{self, channel, host_id, host_key};

struct Collector {
    fleet: testing::Fleet,
    ctx: FleetContext,
    _data_dir: TempDir,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn collector() -> Collector {
    let fleet = testing::fleet();
    let data_dir = tempfile::tempdir().unwrap();
    let ctx = FleetContext {
        authority: Arc::clone(&fleet.authority),
        ledger: Ledger::open(data_dir.path()).unwrap(),
        findings: Findings::open(data_dir.path()).unwrap(),
        sessions: Sessions::new(),
        meters: crate::metrics::Meters::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, shutdown) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, ctx.clone(), shutdown));
    Collector {
        fleet,
        ctx,
        _data_dir: data_dir,
        address,
        stop,
        serving,
    }
}

impl Collector {
    async fn commit(&self, entry: Entry) {
        let decide = |_: &crate::ledger::LedgerState| Ok::<_, std::convert::Infallible>(entry);
        self.ctx
            .ledger
            .commit(clock::now(), "uid:0(root)", decide)
            .await
            .unwrap();
    }

    async fn enrol(&self, host: HostId) {
        let enrolled = v1::HostEnrolled {
            host_id: host.as_bytes().to_vec().into(),
            host_name: "web1".into(),
            not_after_ms: clock::now().plus_millis(testing::DAY_MILLIS).0,
            ..Default::default()
        };
        self.commit(Entry::HostEnrolled(enrolled)).await;
    }

    async fn client(&self, host: HostId) -> FleetServiceClient<Channel> {
        let config = self
            .fleet
            .host_config(&self.fleet.authority, host, clock::now());
        FleetServiceClient::new(channel(self.address, config).await.unwrap())
    }

    /// Connects an enrolled host and says hello.
    async fn agent(&self, host: HostId, boot: u128) -> Agent {
        let mut agent = Agent::connect(self.client(host).await).await.unwrap();
        agent.say(Up::Hello(hello(boot))).await;
        agent
    }

    async fn publish(&self, revision: u64, line: &str) {
        let file = v1::PolicyFile {
            path: "csf.pignore".into(),
            content: line.to_owned().into(),
        };
        let document = v1::PolicyDocument {
            name: "default".into(),
            revision,
            files: vec![file],
            settings: String::new(),
        };
        let published = v1::PolicyPublished {
            document: Some(document),
            comment: String::new(),
            ..Default::default()
        };
        self.commit(Entry::PolicyPublished(published)).await;
    }
}

struct Agent {
    client: FleetServiceClient<Channel>,
    up: mpsc::Sender<v1::ConnectRequest>,
    down: Streaming<v1::ConnectResponse>,
}

impl Agent {
    async fn connect(mut client: FleetServiceClient<Channel>) -> Result<Self, Status> {
        let (up, requests) = mpsc::channel(16);
        let down = client
            .connect(ReceiverStream::new(requests))
            .await?
            .into_inner();
        Ok(Self { client, up, down })
    }

    async fn say(&mut self, message: Up) {
        self.up
            .send(v1::ConnectRequest {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    async fn hear(&mut self) -> Result<Down, Status> {
        Ok(self
            .down
            .message()
            .await?
            .expect("the stream goes on")
            .message
            .expect("a message"))
    }

    /// Skips policies.
    async fn ack(&mut self) -> u64 {
        loop {
            match self.hear().await.unwrap() {
                Down::Ack(ack) => return ack.sequence,
                Down::Policy(_) => {}
                other => panic!("not an ack: {other:?}"),
            }
        }
    }

    async fn policy(&mut self) -> v1::EffectivePolicy {
        match self.hear().await.unwrap() {
            Down::Policy(policy) => policy,
            other => panic!("not a policy: {other:?}"),
        }
    }

    /// The status that ends the stream, whatever was on its way before.
    async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.hear().await {
                return status;
            }
        }
    }
}

fn hello(boot: u128) -> v1::Hello {
    v1::Hello {
        host_name: "web1".into(),
        boot_id: Uuid::from_u128(boot).as_bytes().to_vec().into(),
        agent_version: "0.1.0".into(),
        kernel: "6.1.0".into(),
        policy: None,
    }
}

fn event(sequence: u64) -> v1::Event {
    let finding = Finding {
        subject: Subject::Account {
            boot_id: BootId::from_uuid(Uuid::from_u128(1)),
            uid: 1000,
            since: UnixMillis(i64::try_from(sequence).unwrap()),
        },
        indicators: vec![Indicator {
            id: IndicatorId::USER_PROCESS_COUNT,
            severity: Severity::Medium,
            evidence: "11 processes, limit 10".into(),
        }],
        observed_at: UnixMillis(5_000),
        uid: 1000,
        user: b"joe".to_vec(),
        process: None,
        host: None,
        actions: Vec::new(),
        quiet: false,
    };
    event_to_wire(sequence, &Change::Reported(Box::new(finding)))
}

fn batch(events: impl IntoIterator<Item = v1::Event>) -> Up {
    Up::Batch(v1::Batch {
        events: events.into_iter().collect(),
    })
}

#[tokio::test]
async fn batches_are_durable_when_acked_and_come_back_as_findings() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut agent = collector.agent(host_id(1), 1).await;
    for round in 0..20 {
        agent
            .say(batch((1..=5).map(|n| event(round * 5 + n))))
            .await;
    }
    let mut acked = 0;
    while acked < 100 {
        let sequence = agent.ack().await;
        assert!(sequence > acked, "acks rise");
        acked = sequence;
    }
    // Sent again after a lost ack: acked again, recorded once.
    agent.say(batch([event(100)])).await;
    assert_eq!(agent.ack().await, 100);
    // The index follows the journal.
    let mut listed = Vec::new();
    while listed.len() < 100 {
        let findings = collector.ctx.findings.clone();
        let list = move || findings.list(&FindingFilter::default(), None, 1000);
        let page = tokio::task::spawn_blocking(list).await.unwrap().unwrap();
        listed = page.findings;
    }
    assert_eq!(listed.len(), 100);
    assert!(
        listed
            .iter()
            .all(|f| f.host_id == host_id(1) && f.host_name == "web1")
    );
}

#[tokio::test]
async fn an_agent_that_leaves_gets_its_last_ack() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut agent = collector.agent(host_id(1), 1).await;
    agent.say(batch([event(1), event(2)])).await;
    let Agent { up, down, client } = agent;
    drop(up);
    let (up, _) = mpsc::channel(1);
    let mut agent = Agent { up, down, client };
    assert_eq!(agent.ack().await, 2);
    while let Some(response) = agent.down.message().await.unwrap() {
        assert!(matches!(response.message, Some(Down::Policy(_))));
    }
}

#[tokio::test]
async fn an_event_that_makes_no_sense_never_blocks_the_spool() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut agent = collector.agent(host_id(1), 1).await;
    let nonsense = v1::Event {
        sequence: 2,
        event: None,
    };
    agent
        .say(batch([event(1), nonsense.clone(), event(3)]))
        .await;
    assert_eq!(agent.ack().await, 3);
    agent
        .say(batch([v1::Event {
            sequence: 4,
            ..nonsense
        }]))
        .await;
    assert_eq!(agent.ack().await, 4);
    agent.say(batch([])).await;
    agent.say(batch([event(5)])).await;
    assert_eq!(agent.ack().await, 5);
}

#[tokio::test]
async fn a_batch_of_more_events_than_an_agent_sends_ends_the_stream() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut agent = collector.agent(host_id(1), 1).await;
    let empty = |sequence| v1::Event {
        sequence,
        event: None,
    };
    agent.say(batch((1..=512).map(empty))).await;
    assert_eq!(agent.ack().await, 512);
    agent.say(batch((1..=513).map(empty))).await;
    assert_eq!(agent.end().await.code(), Code::InvalidArgument);
}

#[test]
fn an_empty_event_takes_little_memory() {
    // Two bytes on the wire: a message of 4 MiB holds two million of them.
    assert!(std::mem::size_of::<v1::Event>() <= 32);
}

/// Counts lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::atomic::AtomicU64>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_host_that_sends_nonsense_all_the_time_does_not_flood_the_log() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(log);
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut agent = collector.agent(host_id(1), 1).await;
    let began = std::time::Instant::now();
    for sequence in 1..=1_000 {
        agent
            .say(batch([v1::Event {
                sequence,
                event: None,
            }]))
            .await;
    }
    while agent.ack().await < 1_000 {}
    let windows = began.elapsed().as_secs() + 2;
    let written = lines.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!(written >= 1, "nothing was said at all");
    assert!(
        written <= windows * (u64::from(SESSION_LINES_PER_SECOND) + 10),
        "{written} lines"
    );
}

#[tokio::test]
async fn heartbeats_and_hellos_are_known_and_stay_known() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let sessions = &collector.ctx.sessions;
    assert!(sessions.get(host_id(1)).is_none());
    let mut agent = collector.agent(host_id(1), 1).await;
    let health = v1::AgentHealth {
        scans: 3,
        ..Default::default()
    };
    let heartbeat = v1::Heartbeat {
        sent_at_ms: 1,
        policy: None,
        health: Some(health),
        ..Default::default()
    };
    agent.say(Up::Heartbeat(heartbeat)).await;
    agent.say(batch([event(1)])).await;
    assert_eq!(agent.ack().await, 1);
    let known = sessions.get(host_id(1)).unwrap();
    assert_eq!((known.connected, known.health.unwrap().scans), (true, 3));
    assert!(sessions.scan_now(host_id(1)));
    assert_eq!(agent.hear().await.unwrap(), Down::ScanNow(v1::ScanNow {}));
    drop(agent);
    while sessions.connected_count() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!sessions.get(host_id(1)).unwrap().connected);
}

#[tokio::test]
async fn policies_are_pushed_after_hello_and_on_every_change_that_matters() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    collector.publish(1, "exe:/a").await;
    let mut agent = collector.agent(host_id(1), 1).await;
    assert_eq!(agent.policy().await.documents[0].revision, 1);
    // A change that does not concern the host's policy sends nothing.
    collector.enrol(host_id(2)).await;
    collector.publish(2, "exe:/b").await;
    let policy = agent.policy().await;
    assert_eq!(policy.documents[0].revision, 2);

    // An agent that runs it already is not sent it again.
    let effective = policy.clone().try_into().unwrap();
    let applied_hash = procwarden_common::wire::policy_hash(&effective)
        .to_vec()
        .into();
    let runs = v1::PolicyState {
        applied_hash,
        ..Default::default()
    };
    let mut other = Agent::connect(collector.client(host_id(2)).await)
        .await
        .unwrap();
    other
        .say(Up::Hello(v1::Hello {
            policy: Some(runs),
            ..hello(1)
        }))
        .await;
    other.say(batch([event(1)])).await;
    assert!(matches!(other.hear().await, Ok(Down::Ack(_))));
}

#[tokio::test]
async fn unknown_and_revoked_hosts_get_the_reason_and_nothing_else() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let stranger = Agent::connect(collector.client(host_id(9)).await)
        .await
        .err()
        .unwrap();
    assert_eq!(stranger.code(), Code::PermissionDenied);
    assert!(
        stranger.message().contains("does not know the host"),
        "{stranger}"
    );

    let mut agent = collector.agent(host_id(1), 1).await;
    agent.say(batch([event(1)])).await;
    agent.ack().await;
    let revoked = v1::HostRevoked {
        host_id: host_id(1).as_bytes().to_vec().into(),
    };
    collector.commit(Entry::HostRevoked(revoked)).await;
    let end = agent.end().await;
    assert_eq!(end.code(), Code::PermissionDenied);
    assert!(end.message().contains("revoked"), "{end}");
    let again = Agent::connect(agent.client).await.err().unwrap();
    assert_eq!(again.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_disconnect_cuts_the_open_stream() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut agent = collector.agent(host_id(1), 1).await;
    agent.say(batch([event(1)])).await;
    agent.ack().await;
    collector.ctx.sessions.disconnect(host_id(1), "because");
    let end = agent.end().await;
    assert_eq!(
        (end.code(), end.message()),
        (Code::PermissionDenied, "because")
    );
}

#[tokio::test]
async fn a_newer_stream_of_a_host_replaces_the_older() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut old = collector.agent(host_id(1), 1).await;
    old.say(batch([event(1)])).await;
    old.ack().await;
    let mut new = collector.agent(host_id(1), 2).await;
    assert_eq!(old.end().await.code(), Code::Aborted);
    new.say(batch([event(2)])).await;
    assert_eq!(new.ack().await, 2);
    assert_eq!(collector.ctx.sessions.connected_count(), 1);
}

#[tokio::test]
async fn what_is_no_hello_ends_the_stream() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let short_boot_id = v1::Hello {
        boot_id: vec![1; 3].into(),
        ..hello(1)
    };
    for first in [batch([event(1)]), Up::Hello(short_boot_id)] {
        let mut agent = Agent::connect(collector.client(host_id(1)).await)
            .await
            .unwrap();
        agent.say(first).await;
        assert_eq!(agent.end().await.code(), Code::InvalidArgument);
    }
    assert_eq!(collector.ctx.sessions.connected_count(), 0);
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_host_but_not_all_day_long() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut client = collector.client(host_id(1)).await;
    let key = host_key();
    let request = v1::RenewRequest {
        csr: key.csr.clone(),
    };
    let renewed = client.renew(request.clone()).await.unwrap().into_inner();
    let recorded = collector
        .ctx
        .ledger
        .read(|s| s.hosts[&host_id(1)].certificate_not_after);
    assert!(recorded > clock::now().plus_millis(29 * testing::DAY_MILLIS));
    let own = Some((renewed.certificate.as_str(), &key.key));
    let config = testing::client_config(&collector.fleet.authority, own);
    let mut client = FleetServiceClient::new(channel(collector.address, config).await.unwrap());
    for _ in 1..RENEWALS_MAX {
        client.renew(request.clone()).await.unwrap();
    }
    assert_eq!(
        client.renew(request).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
}

#[tokio::test]
async fn a_stop_acks_what_was_read_and_says_so() {
    let collector = collector().await;
    collector.enrol(host_id(1)).await;
    let mut agent = collector.agent(host_id(1), 1).await;
    agent.say(batch([event(1)])).await;
    agent.ack().await;
    let idle = collector.client(host_id(1)).await;
    collector.stop.send_replace(true);
    let end = agent.end().await;
    assert_eq!(
        (end.code(), end.message()),
        (Code::Unavailable, "the collector is stopping")
    );
    collector.serving.await.unwrap().unwrap();
    assert!(Agent::connect(idle).await.is_err());
}
