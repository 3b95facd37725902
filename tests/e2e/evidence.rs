//! What a finding tells beyond who and why: the file that ran, where the
//! process lives, what its environment gives away, and nothing more of that.

use std::fs;
use std::os::unix::fs::MetadataExt;

use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, volatile_directory};

#[test]
fn a_deleted_program_is_known_by_its_file_and_only_telling_variables_leave_the_host() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("gone");
    let payload = Payload::at(&path)
        .variable("SCRIPT_FILENAME", b"/home/a/public_html/\x1b[2J.php")
        .variable("DB_PASSWORD", "do-not-tell-4711");
    let file = fs::metadata(&path).unwrap();
    let running = payload.start();
    fs::remove_file(&path).unwrap();

    let id = fleet.wait_for_finding(&running, "exe-deleted");
    let shown = fleet
        .collector
        .json(&["findings", "show", &id])
        .unwrap()
        .remove(0);
    let exe_file = &shown["exe_file"];
    assert_eq!(exe_file["inode"], file.ino(), "{shown}");
    assert_eq!(exe_file["owner_uid"], file.uid());
    assert_eq!(exe_file["size_bytes"], file.size());
    let mode = format!("{:04o}", file.mode() & 0o7777);
    assert_eq!(exe_file["mode"], mode);
    let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    assert_eq!(exe_file["device"], format!("{}:{}", device.0, device.1));
    assert_eq!(shown["exe_sha256"].as_str().map(str::len), Some(64));

    let environment = shown["environment"].as_array().unwrap();
    let script = environment.iter().find(|e| e["name"] == "SCRIPT_FILENAME");
    assert_eq!(script.unwrap()["value"], "/home/a/public_html/\\1b[2J.php");
    fleet.wait_for_one_mail(&id);
    let text = fleet.collector.told(&["findings", "show", &id]);
    let mails = fleet.smtp.mails();
    let mail = mails.iter().find(|mail| mail.tells_of(&id)).unwrap();
    for place in [&shown.to_string(), &text, &mail.text] {
        assert!(!place.contains("DB_PASSWORD") && !place.contains("4711"));
        assert!(place.contains("SCRIPT_FILENAME"), "{place}");
    }
    let listed = fleet.collector.findings_of(running.pid()).unwrap();
    assert!(
        listed.iter().all(|f| f.get("environment").is_none()),
        "a listing stays small"
    );
}
