//! The whole road on real files: findings are recorded, mails come out.

use std::sync::Arc;

use arc_swap::ArcSwap;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, ProcessFacts, Subject};
use procwarden_common::id::{BootId, FindingId, FleetId, HostId};
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::ProcessKey;
use procwarden_common::wire::Change;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::smtp_stub::SmtpStub;
use super::*;
use crate::alert::{AlertContext, Outbox, start};
use crate::config::{SmtpConfig, SmtpTls};
use crate::findings::Findings;
use crate::journal::Position;
use crate::ledger::Ledger;

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

/// One life of a collector, as far as alerts are concerned.
struct Collector {
    context: AlertContext,
    outbox: Outbox,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Collector {
    fn start(data_dir: &TempDir, config: Config) -> Self {
        let context = AlertContext {
            config: Arc::new(ArcSwap::from_pointee(config)),
            ledger: Ledger::open(data_dir.path()).unwrap(),
            findings: Findings::open(data_dir.path()).unwrap(),
            fleet_id: FleetId::from_uuid(Uuid::from_u128(7)),
        };
        let (shutdown, asked) = watch::channel(false);
        let (outbox, task) = start(context.clone(), asked);
        Self {
            context,
            outbox,
            shutdown,
            task,
        }
    }

    async fn record(&self, pids: std::ops::Range<u32>) {
        let host = HostId::from_uuid(Uuid::from_u128(1));
        let changes = pids
            .map(|pid| Change::Reported(Box::new(finding(pid))))
            .collect();
        self.context
            .findings
            .record_changes(host, "web1", NOW, changes)
            .await
            .unwrap();
    }

    fn upto(&self) -> Position {
        self.context.ledger.read(|state| state.alerts.upto)
    }

    async fn stop(self) {
        self.shutdown.send_replace(true);
        self.task.await.unwrap();
        self.context.findings.close().await;
    }
}

fn finding(pid: u32) -> Finding {
    let boot_id = BootId::from_uuid(Uuid::from_u128(2));
    Finding {
        subject: Subject::Process(ProcessKey {
            boot_id,
            pid,
            start_time: 9,
        }),
        indicators: vec![Indicator {
            id: IndicatorId::EXE_MEMFD,
            severity: Severity::High,
            evidence: "exe is /memfd:x (deleted)".to_owned(),
        }],
        observed_at: NOW,
        uid: 1001,
        user: b"bob".to_vec(),
        process: Some(ProcessFacts {
            exe: Some(b"/memfd:x (deleted)".to_vec()),
            ..ProcessFacts::default()
        }),
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

/// Waits until something is so; the test runner's own limit bounds it.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never happened: {what}");
}

fn mails_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|e| e == "eml"));
    paths
        .map(|path| std::fs::read_to_string(path).unwrap())
        // Long lines are folded (quoted-printable).
        .map(|mail| mail.replace("=\r\n", "").replace("=\n", ""))
        .collect()
}

fn config_with_files(dir: &Path) -> Config {
    let mut config = config(&["ops@example.com"], &[]);
    config.mail = Some(file_mail(dir, &["ops@example.com"]));
    config
}

fn config_with_smtp(address: SocketAddr, to: &[&str]) -> Config {
    let mut config = config(to, &[]);
    let mut mail = file_mail(Path::new("/nonexistent"), to);
    mail.transport = MailTransport::Smtp(SmtpConfig {
        host: address.ip().to_string(),
        port: address.port(),
        tls: SmtpTls::None,
        username: None,
        password_file: None,
        ca_file: None,
    });
    config.mail = Some(mail);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_become_one_mail_and_a_restart_repeats_nothing() {
    let (data, mails) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let collector = Collector::start(&data, config_with_files(mails.path()));
    collector.record(10..12).await;
    until("the mail", || mails_in(mails.path()).len() == 1).await;
    let outbox = collector.outbox.clone();
    until("an empty outbox", || outbox.status().waiting == 0).await;
    assert!(mails_in(mails.path())[0].contains("2 findings on web1 (highest: high)"));
    // It holds the ledger, which the next life opens.
    drop(outbox);
    collector.stop().await;

    let collector = Collector::start(&data, config_with_files(mails.path()));
    collector.record(20..21).await;
    until("the second mail", || mails_in(mails.path()).len() == 2).await;
    collector.record(10..12).await;
    collector.stop().await;
    assert_eq!(mails_in(mails.path()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_window_survives_the_end_of_the_process() {
    let (data, mails) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config_with_files(mails.path());
    config.alert.group_wait = Duration::from_secs(3600);
    let collector = Collector::start(&data, config);
    collector.record(10..11).await;
    collector.stop().await;
    assert!(mails_in(mails.path()).is_empty());
    let collector = Collector::start(&data, config_with_files(mails.path()));
    until("the mail", || mails_in(mails.path()).len() == 1).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mail_the_place_in_the_journal_is_kept_and_nobody_is_written_to_later() {
    let (data, mails) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut silent = config(&[], &[]);
    silent.mail = None;
    let collector = Collector::start(&data, silent.clone());
    collector.record(10..11).await;
    let end = collector.context.findings.end();
    collector.stop().await;
    // The place is written at the end only, so it takes further lives to see
    // that the record was looked at.
    for lives in 0.. {
        assert!(lives < 1000, "the record is never looked at");
        let collector = Collector::start(&data, silent.clone());
        let upto = collector.upto();
        tokio::time::sleep(Duration::from_millis(20)).await;
        collector.stop().await;
        if upto == end {
            break;
        }
    }
    let collector = Collector::start(&data, config_with_files(mails.path()));
    assert_eq!(collector.upto(), end);
    collector.record(20..21).await;
    until("the mail", || mails_in(mails.path()).len() == 1).await;
    assert!(mails_in(mails.path())[0].contains("exe-memfd by bob on web1"));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_shown_and_a_new_configuration_is_used() {
    let (data, mails) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let collector = Collector::start(&data, config_with_smtp(nobody, &["ops@example.com"]));
    collector.record(10..11).await;
    let outbox = collector.outbox.clone();
    until("a failure", || outbox.status().last_error.is_some()).await;
    let status = outbox.status();
    let id = collector
        .context
        .ledger
        .read(|s| s.alerts.alerts.values().next().unwrap().id);
    assert_eq!((status.waiting, status.attempts(&id)), (1, 1));
    assert!(
        status.error_of(&id).unwrap().contains(&nobody.to_string()),
        "{status:?}"
    );

    collector
        .context
        .config
        .store(Arc::new(config_with_files(mails.path())));
    until("the mail", || mails_in(mails.path()).len() == 1).await;
    until("an empty outbox", || outbox.status().waiting == 0).await;
    assert_eq!(outbox.status().last_error, None);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_recipient_keeps_the_mail_from_nobody_else() {
    let data = tempfile::tempdir().unwrap();
    let stub = SmtpStub::start(SmtpTls::None, &["bad@example.com"]).await;
    let to = ["bad@example.com", "good@example.com"];
    let collector = Collector::start(&data, config_with_smtp(stub.address, &to));
    collector.record(10..11).await;
    let outbox = collector.outbox.clone();
    until("the refusal", || outbox.status().last_error.is_some()).await;
    let error = outbox.status().last_error.unwrap();
    assert!(
        error.contains("550") && !error.contains('\u{1b}'),
        "{error}"
    );
    let recipients = || {
        stub.mails
            .lock()
            .unwrap()
            .iter()
            .flat_map(|(to, _)| to.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(recipients(), ["good@example.com"]);
    assert_eq!(outbox.status().waiting, 1);

    stub.refused.lock().unwrap().clear();
    let mut config = config_with_smtp(stub.address, &to);
    config.mail.as_mut().unwrap().from = "other@example.com".to_owned();
    collector.context.config.store(Arc::new(config));
    until("an empty outbox", || outbox.status().waiting == 0).await;
    assert_eq!(recipients(), ["good@example.com", "bad@example.com"]);
    let mails = stub.mails.lock().unwrap().clone();
    assert!(
        mails
            .iter()
            .all(|(_, text)| text.contains("To: bad@example.com, good@example.com"))
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_about_a_finding_that_is_gone_says_so() {
    let (data, mails) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let collector = Collector::start(&data, config_with_files(mails.path()));
    let gone = FindingId::from_bytes([0xcd; 16]);
    let alert = v1::Alert {
        id: vec![1; 16].into(),
        to: strings(&["ops@example.com"]),
        finding_ids: vec![gone.as_bytes().to_vec().into()],
        expiring: Vec::new(),
    };
    let entry = v1::AlertsQueued {
        upto_position: 0,
        alerts: vec![alert],
    };
    let commit = collector.context.ledger.commit(NOW, "collector", |_| {
        Ok::<_, std::convert::Infallible>(Entry::AlertsQueued(entry))
    });
    commit.await.unwrap();
    until("the mail", || mails_in(mails.path()).len() == 1).await;
    assert!(mails_in(mails.path())[0].contains(&format!("Finding {gone} is no longer kept")));
    collector.stop().await;
}

/// Publishes a rule whose last day is so many days from now.
async fn publish_rule_that_ends(collector: &Collector, days: i64) {
    let last_day = crate::clock::now()
        .plus_millis(days * 86_400_000)
        .to_string();
    let rules = format!("#@ expires={} owner=ops\nexe:/opt/x\n", &last_day[..10]);
    let revision = collector
        .context
        .ledger
        .read(|state| state.policies["default"].revisions.len() as u64 + 1);
    let document = v1::PolicyDocument {
        name: "default".into(),
        revision,
        files: vec![v1::PolicyFile {
            path: "a.pignore".into(),
            content: rules.into_bytes().into(),
        }],
        settings: String::new(),
    };
    let entry = Entry::PolicyPublished(v1::PolicyPublished {
        document: Some(document),
        ..v1::PolicyPublished::default()
    });
    let commit = collector.context.ledger.commit(NOW, "uid:0(root)", |_| {
        Ok::<_, std::convert::Infallible>(entry)
    });
    commit.await.unwrap();
}

fn mails_about_the_rule(dir: &Path) -> usize {
    let mails = mails_in(dir);
    mails
        .iter()
        .filter(|mail| mail.contains("exe:/opt/x ends at "))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_soon_ends_stands_in_the_next_alert_mail_and_in_no_other() {
    let (data, mails) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let collector = Collector::start(&data, config_with_files(mails.path()));
    publish_rule_that_ends(&collector, 6).await;
    collector.record(10..11).await;
    until("the mail", || mails_in(mails.path()).len() == 1).await;
    let mail = mails_in(mails.path()).remove(0);
    assert!(mail.contains("exe-memfd by bob on web1"), "{mail}");
    assert!(
        mail.contains("policy default, a.pignore:2, owner ops"),
        "{mail}"
    );
    collector.record(20..21).await;
    until("the second mail", || mails_in(mails.path()).len() == 2).await;
    collector.stop().await;

    let collector = Collector::start(&data, config_with_files(mails.path()));
    collector.record(30..31).await;
    until("the third mail", || mails_in(mails.path()).len() == 3).await;
    assert_eq!(mails_about_the_rule(mails.path()), 1);
    // Another end is another announcement.
    publish_rule_that_ends(&collector, 5).await;
    until("the new end", || mails_about_the_rule(mails.path()) == 2).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_ends_before_any_alert_gets_one_mail_of_its_own() {
    let (data, mails) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let collector = Collector::start(&data, config_with_files(mails.path()));
    publish_rule_that_ends(&collector, 9).await;
    publish_rule_that_ends(&collector, 2).await;
    until("the mail", || mails_in(mails.path()).len() == 1).await;
    let mail = mails_in(mails.path()).remove(0);
    assert!(
        mail.contains("Subject: [procwarden] a rule of policy default ends at "),
        "{mail}"
    );
    // A second rule within the day waits for the next mail.
    publish_rule_that_ends(&collector, 3).await;
    collector.stop().await;
    let collector = Collector::start(&data, config_with_files(mails.path()));
    collector.record(10..11).await;
    until("the alert", || mails_in(mails.path()).len() == 2).await;
    until("the rule in it", || mails_about_the_rule(mails.path()) == 2).await;
    collector.stop().await;
    assert_eq!(mails_in(mails.path()).len(), 2);
}
