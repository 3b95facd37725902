//! Enrolment and the stream against a collector made here: real sockets on
//! loopback, real TLS, certificates of the moment.

use std::path::Path;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Ended, Subject};
use procwarden_common::process::ProcessKey;
use procwarden_common::wire::Change;
use procwarden_proto::v1;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::enroll::{EnrollError, enroll};
use crate::identity;
use crate::run::scanning::{Wake, Wakes, waker};
use crate::spool::Spool;
use crate::status::Who;
use collector::{FakeCollector, Saw, Script};

mod collector;

/// An uplink that runs, with what the rest of the agent would hold.
struct Running {
    spool: SharedSpool,
    policy: watch::Receiver<Arc<Policy>>,
    wakes: Wakes,
    board: Arc<Board>,
    validity: Validity,
    shutdown: watch::Sender<bool>,
    done: JoinHandle<()>,
}

fn boot() -> BootId {
    BootId::from_slice(&[5; 16]).unwrap()
}

fn ended(pid: u32) -> Change {
    let subject = Subject::Process(ProcessKey {
        boot_id: boot(),
        pid,
        start_time: 1,
    });
    Change::Ended(Ended {
        subject,
        ended_at: UnixMillis(1),
    })
}

fn start(dir: &Path) -> Running {
    let identity = identity::load(dir).unwrap();
    let (_, address) = watch::channel(identity.facts.collector.clone());
    let board = Arc::new(Board::default());
    let spool = Spool::open(&dir.join("spool"), 1 << 20, || 7)
        .unwrap()
        .spool;
    let spool = SharedSpool::new(spool, Arc::clone(&board));
    let policies = PolicyStore::load(dir).unwrap();
    let (policy, policy_seen) = watch::channel(policies.policy);
    let (scanner, wakes) = waker();
    let certificate = Arc::new(LiveCertificate::new(identity.certified));
    let who = Who {
        facts: identity.facts.clone(),
        started_at: UnixMillis(0),
    };
    let uplink = Uplink {
        state_dir: dir.to_owned(),
        boot_id: boot(),
        tls: Arc::new(crate::tls::fleet_config(&identity.ca, Arc::clone(&certificate)).unwrap()),
        facts: identity.facts,
        ca: identity.ca,
        certificate,
        validity: Mutex::new(identity.validity),
        status: Arc::new(StatusFile::new(dir, who, address.clone())),
        address,
        spool: spool.clone(),
        policies: Arc::new(Mutex::new(policies.store)),
        policy,
        scanner,
        hits: SharedHits::default(),
        board: Arc::clone(&board),
    };
    let (shutdown, shutdown_seen) = watch::channel(false);
    let done = tokio::spawn(uplink.run(shutdown_seen));
    let validity = identity.validity;
    Running {
        spool,
        policy: policy_seen,
        wakes,
        board,
        validity,
        shutdown,
        done,
    }
}

async fn enrolled(collector: &FakeCollector) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    enroll(dir.path(), &collector.token(), false).await.unwrap();
    dir
}

async fn append(spool: &SharedSpool, pid: u32) {
    let spool = spool.clone();
    assert!(
        tokio::task::spawn_blocking(move || spool.append(&[ended(pid)]))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn findings_policies_and_scan_requests_cross_the_stream() {
    let mut collector = FakeCollector::start(Script::default()).await;
    let dir = enrolled(&collector).await;
    let mut running = start(dir.path());
    let Saw::Hello(hello) = collector.saw().await else {
        panic!("no hello first")
    };
    assert_eq!(hello.boot_id, boot().as_bytes().as_slice());

    append(&running.spool, 11).await;
    assert_eq!(collector.saw_events().await, [1]);
    // Two messages went down after the ack: a policy, then a scan request.
    running
        .policy
        .wait_for(|p| p.rules().len() == 1)
        .await
        .unwrap();
    let applied = collector
        .saw_heartbeat(|h| !h.policy.as_ref().unwrap().applied.is_empty())
        .await;
    assert_eq!(applied.policy.unwrap().applied[0].revision, 4);
    assert_eq!(applied.health.unwrap().spool_events, 0);
    let wakes = tokio::task::spawn_blocking(move || {
        [(); 2].map(|()| running.wakes.recv_timeout(Duration::from_secs(60)))
    });
    assert_eq!(
        wakes.await.unwrap(),
        [Ok(Wake::PaceChanged), Ok(Wake::ScanNow)]
    );
    assert!(running.board.snapshot().link.connected_since.is_some());

    running.shutdown.send_replace(true);
    running.done.await.unwrap();
    assert!(running.board.snapshot().link.connected_since.is_none());
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_on_the_next_stream() {
    let mut collector = FakeCollector::start(Script {
        streams_cut: 1,
        ..Script::default()
    })
    .await;
    let dir = enrolled(&collector).await;
    let running = start(dir.path());
    append(&running.spool, 11).await;
    append(&running.spool, 12).await;
    let first = collector.saw_events().await;
    assert_eq!(first[0], 1);
    assert!(matches!(collector.saw_hello().await, v1::Hello { .. }));
    let mut again = Vec::new();
    while again.last() != Some(&2) {
        again.extend(collector.saw_events().await);
    }
    assert_eq!(again, [1, 2]);
    running.shutdown.send_replace(true);
    running.done.await.unwrap();
    assert_eq!(running.board.snapshot().spool.events, 0);
}

#[tokio::test]
async fn a_collector_that_says_when_to_come_back_is_obeyed() {
    let mut collector = FakeCollector::start(Script {
        streams_cut: 1,
        come_back: Some(v1::RetryAfter {
            after_ms: 2_500,
            spread_ms: 0,
        }),
        ..Script::default()
    })
    .await;
    let dir = enrolled(&collector).await;
    let running = start(dir.path());
    collector.saw_hello().await;
    // The wish comes after this moment, so that a busy machine can only make
    // the time that is seen longer than the wish, never shorter.
    let before = Instant::now();
    append(&running.spool, 11).await;
    collector.saw_events().await;
    // More to send on the stream that is closed: the wish is still read.
    append(&running.spool, 12).await;
    collector.saw_hello().await;
    // Without the wish it would have been back within a second.
    assert!(before.elapsed() >= Duration::from_millis(2_500));
    assert_eq!(
        collector.saw_events().await,
        [1, 2],
        "nothing is lost by it"
    );
    running.shutdown.send_replace(true);
    running.done.await.unwrap();
}

#[tokio::test]
async fn a_certificate_past_two_thirds_of_its_life_is_renewed() {
    let mut collector = FakeCollector::start(Script {
        is_old: true,
        ..Script::default()
    })
    .await;
    let dir = enrolled(&collector).await;
    let before = std::fs::read(identity::dir(dir.path()).join("host.pem")).unwrap();
    let running = start(dir.path());
    collector.saw_renewal().await;
    // The file changes after the answer; the stream stays meanwhile.
    let file = identity::dir(dir.path()).join("host.pem");
    while std::fs::read(&file).unwrap() == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(identity::load(dir.path()).unwrap().validity.not_after > running.validity.not_after);
    running.shutdown.send_replace(true);
    running.done.await.unwrap();
}

#[tokio::test]
async fn a_collector_of_another_fleet_refuses_and_the_agent_goes_on() {
    let (own, other) = (
        FakeCollector::start(Script::default()).await,
        FakeCollector::start(Script::default()).await,
    );
    let dir = enrolled(&own).await;
    let facts = identity::load(dir.path()).unwrap().facts;
    let path = identity::dir(dir.path()).join("identity.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let (from, to) = (facts.collector.to_string(), other.fleet_address());
    std::fs::write(&path, text.replace(&from, &to)).unwrap();
    let running = start(dir.path());
    let error = loop {
        match running.board.snapshot().link.last_error {
            Some(error) => break error,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert!(!running.done.is_finished());
    running.shutdown.send_replace(true);
    running.done.await.unwrap();
}

#[tokio::test]
async fn a_refused_token_and_a_wrong_ca_leave_nothing_behind() {
    let refusing = FakeCollector::start(Script {
        refuses: true,
        ..Script::default()
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let error = enroll(dir.path(), &refusing.token(), false)
        .await
        .unwrap_err();
    assert!(matches!(error, EnrollError::Refused { .. }), "{error}");
    assert!(
        error.to_string().ends_with("the token is used up"),
        "{error}"
    );

    let mut token = refusing.token();
    token.ca_sha256 = [1; 32];
    let error = enroll(dir.path(), &token, false).await.unwrap_err();
    assert!(matches!(error, EnrollError::Unreachable(_)), "{error}");
    assert!(
        error.to_string().contains("does not present the CA"),
        "{error}"
    );
    assert!(!identity::dir(dir.path()).exists());
}
