//! The straight road: from a process in /dev/shm to one mail, and from a
//! pignore file to the host that obeys it.

use std::time::Duration;

use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, volatile_directory};
use procwarden_tests::wait::stays;

#[test]
fn a_listener_in_dev_shm_is_found_mailed_ignored_by_rule_and_reported_without_it() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("dbus");
    let listener = Payload::at(&path).does(&["listen"]);

    let first = listener.start();
    let first_id = fleet.wait_for_finding(&first, "unexpected-listener");
    let finding = fleet.collector.findings_of(first.pid()).unwrap().remove(0);
    assert_eq!(finding["exe"], path.display().to_string());
    assert_eq!(finding["verdict"], "report");
    assert_eq!(finding["severity"], "high", "{finding}");
    let local = format!("127.0.0.1:{}", first.said());
    assert_eq!(finding["sockets"][0]["local"], local, "{finding}");
    assert_eq!(finding["sockets"][0]["state"], "LISTEN");
    fleet.wait_for_one_mail(&first_id);
    the_mail_says_what_an_administrator_needs(&fleet, &first_id, &path.display().to_string());

    let rule = format!("exe:{}\n", path.display());
    fleet.publish_rules(&rule);
    let second = listener.start();
    stays(
        "the second copy is ignored",
        Duration::from_secs(6),
        || match fleet.collector.findings_of(second.pid())?.len() {
            0 => Ok(()),
            n => Err(format!("{n} findings about it")),
        },
    );

    fleet.publish_rules("# nothing is ignored\n");
    let second_id = fleet.wait_for_finding(&second, "unexpected-listener");
    fleet.wait_for_one_mail(&second_id);
    assert_ne!(first_id, second_id);
    assert_eq!(fleet.collector.findings_of(first.pid()).unwrap().len(), 1);
    assert_eq!(
        fleet.mails_about(&first_id),
        1,
        "the first copy was not mailed again"
    );
    assert_eq!(fleet.mails_about(&second_id), 1);
}

fn the_mail_says_what_an_administrator_needs(fleet: &Fleet, id: &str, path: &str) {
    let mails = fleet.smtp.mails();
    let mail = mails.iter().find(|mail| mail.tells_of(id)).unwrap();
    assert_eq!(mail.to, ["ops@example.test"]);
    assert!(!mail.subject.contains(['\r', '\n']), "{:?}", mail.subject);
    for needed in [path, "LISTEN", &format!("exe:{path}"), "often faked"] {
        assert!(
            mail.text.contains(needed),
            "{needed:?} is missing in:\n{}",
            mail.text
        );
    }
}

#[test]
fn the_end_of_a_process_ends_its_finding() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("short")).start();
    let pid = payload.pid();
    let id = fleet.wait_for_finding(&payload, "exe-in-volatile-dir");
    drop(payload);
    procwarden_tests::wait::eventually("the finding to end", || {
        let findings = fleet.collector.findings_of(pid)?;
        let ended = findings
            .iter()
            .any(|f| f["id"] == *id && f["ended_at"].is_string());
        if ended {
            Ok(())
        } else {
            Err(format!("{findings:?}"))
        }
    });
}

#[test]
fn programs_stop_cleanly_on_sigterm() {
    let mut fleet = Fleet::start().unwrap();
    fleet.wait_until_applied();
    assert!(fleet.agent.stop().success(), "{}", fleet.agent.log());
    assert!(
        fleet.collector.stop().success(),
        "{}",
        fleet.collector.log()
    );
}
