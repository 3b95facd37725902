//! Tables of keys and of wrong lines, and any bytes at all.

use proptest::prelude::*;

use super::*;
use crate::policy::Settings;

fn one(line: &str) -> Remark {
    let imported = read_conf("csf.conf", line.as_bytes()).unwrap();
    assert_eq!(imported.remarks.len(), 1, "{line}");
    imported.remarks.into_iter().next().unwrap()
}

use Fate::{AgentLocal, Differs, NoCounterpart, NotNeeded, Taken};

const CASES: &[(&str, Fate, Option<&str>)] = &[
    ("PT_LIMIT = \"90\"", Taken, Some("scan.min_age_secs = 90")),
    ("PT_LIMIT = \"0\"", Differs, None),
    (
        "PT_INTERVAL = \"10\"",
        Taken,
        Some("scan.interval_secs = 10"),
    ),
    ("PT_INTERVAL = \"9\"", Differs, None),
    ("PT_INTERVAL = \"0\"", Differs, None),
    (
        "PT_INTERVAL = \"90000\"",
        Differs,
        Some("scan.interval_secs = 86400"),
    ),
    ("PT_INTERVAL = \"\"", Differs, None),
    (
        "PT_SKIP_HTTP = \"1\"",
        Differs,
        Some("scan.skip_http = true"),
    ),
    ("PT_SKIP_HTTP=\"0\"", Taken, Some("scan.skip_http = false")),
    ("PT_ALL_USERS = \"1\"", Taken, Some("scan.users = \"all\"")),
    (
        "PT_ALL_USERS = \"0\"",
        Taken,
        Some("scan.users = \"cpanel\""),
    ),
    (
        "PT_DELETED = \"1\"",
        Differs,
        Some("scan.deleted = \"report\""),
    ),
    (
        "PT_DELETED = \"0\"",
        Differs,
        Some("scan.deleted = \"ignore\""),
    ),
    (
        "PT_USERPROC = \"10\"",
        Taken,
        Some("limits.user_processes = 10"),
    ),
    (
        "PT_USERPROC = \"0\"",
        Taken,
        Some("limits.user_processes = 0"),
    ),
    (
        "PT_USERRSS = \"\"",
        Taken,
        Some("limits.process_rss_mb = 0"),
    ),
    (
        "PT_USERTIME = \"99999999999\"",
        Differs,
        Some("limits.process_age_secs = 0"),
    ),
    (
        "PT_USERMEM = \"512\"",
        Taken,
        Some("limits.process_vsz_mb = 512"),
    ),
    (
        "PT_USERRSS = \"256\"",
        Taken,
        Some("limits.process_rss_mb = 256"),
    ),
    (
        "PT_USERTIME = \" 1800 \"",
        Taken,
        Some("limits.process_age_secs = 1800"),
    ),
    (
        "PT_FORKBOMB = \"250\"",
        Differs,
        Some("limits.session_processes = 250"),
    ),
    ("PT_FORKBOMB = \"0\"", NotNeeded, None),
    ("PT_USERKILL = \"1\"", AgentLocal, None),
    ("PT_USERKILL = \"0\"", NotNeeded, None),
    ("PT_FORKBOMB = \"\"", NotNeeded, None),
    ("PT_USERKILL_ALERT = \"1\"", NotNeeded, None),
    ("PT_USERKILL_ALERT = \"0\"", AgentLocal, None),
    ("PT_SSHDKILL = \"0\"", NotNeeded, None),
    ("PT_SSHDKILL = \"1\"", NoCounterpart, None),
    ("PT_APACHESTATUS = \"\"", NotNeeded, None),
    ("PT_USER_ACTION = \"/root/x.sh\"", AgentLocal, None),
    ("PT_USER_ACTION = \"\"", NotNeeded, None),
    ("PT_DELETED_ACTION = \"/root/x.sh\"", AgentLocal, None),
    ("PT_LOAD_ACTION = \"/root/x.sh\"", AgentLocal, None),
    ("PT_SSHDHUNG = \"1\"", AgentLocal, None),
    ("PT_SSHDHUNG = \"0\"", NotNeeded, None),
    ("PT_LOAD = \"30\"", Taken, Some("load.interval_secs = 30")),
    ("PT_LOAD = \"0\"", Taken, Some("load.level = 0")),
    (
        "PT_LOAD_AVG = \"15\"",
        Taken,
        Some("load.average_minutes = 15"),
    ),
    (
        "PT_LOAD_AVG = \"7\"",
        Differs,
        Some("load.average_minutes = 5"),
    ),
    ("PT_LOAD_LEVEL = \"6\"", Taken, Some("load.level = 6")),
    ("PT_LOAD_LEVEL = \"0\"", Differs, Some("load.level = 0")),
    ("PT_LOAD_LEVEL = \"7.5\"", Differs, Some("load.level = 8")),
    ("PT_LOAD_LEVEL = \"7.0\"", Differs, Some("load.level = 7")),
    (
        "PT_LOAD_SKIP = \"3600\"",
        Differs,
        Some("load.skip_secs = 3600"),
    ),
    (
        "PT_APACHESTATUS = \"http://127.0.0.1/x?a=\"b\"\"",
        NoCounterpart,
        None,
    ),
    ("LF_FLUSH = \"3600\"", NotNeeded, None),
    ("PT_NEW = \"1\"", NoCounterpart, None),
    (
        "PT_LIMIT = \"60\" # with a comment\r",
        Taken,
        Some("scan.min_age_secs = 60"),
    ),
];

#[test]
fn every_key_becomes_its_setting_or_says_why_not() {
    for &(line, fate, setting) in CASES {
        let remark = one(line);
        assert_eq!(
            (remark.fate, remark.setting.as_deref()),
            (fate, setting),
            "{line}"
        );
        assert!(
            remark.setting.is_some() || !remark.message.is_empty(),
            "{line}: nothing is dropped without a word"
        );
    }
}

#[test]
fn every_wrong_line_is_named_and_nothing_is_imported() {
    let conf = "TCP_IN = 1\nPT_LIMIT = 60\nPT_INTERVAL \"60\"\n# PT_LIMIT = x\nPT_USERPROC = \"ten\"\n\
                PT_USERMEM = \"5\"\nPT_USERMEM = \"6\"\nPT_LOAD_LEVEL = \"1.x\"\nPT_USERRSS = \"512MB\"\n\
                PT_DELETED = \"99999999999999999999\"\n";
    let errors = read_conf("csf.conf", conf.as_bytes()).unwrap_err();
    let lines: Vec<u32> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 3, 5, 7, 8, 9, 10], "{errors:#?}");
    for error in &errors {
        assert!(
            error.file == "csf.conf" && !error.help.is_empty(),
            "{error:?}"
        );
    }
    let errors = read_conf("x", b"TESTING = \"0\"\n").unwrap_err();
    assert!(errors[0].message.contains("no PT_"), "{errors:?}");
}

#[test]
fn the_settings_are_what_the_hosts_will_run_and_keep_the_rest_as_comments() {
    let conf = "# csf\r\nPT_USERMEM = \"512\"\r\nPT_LIMIT = \"30\"\r\nPT_LOAD_LEVEL = \"8\"\r\n\
                PT_USER_ACTION = \"/x \x1b\"\r\n";
    let imported = read_conf("csf.conf", conf.as_bytes()).unwrap();
    assert_eq!(
        imported.settings,
        "# Imported from csf.conf.\n\n[scan]\nmin_age_secs = 30 # PT_LIMIT\n\n[limits]\n\
         process_vsz_mb = 512 # PT_USERMEM\n\n[load]\nlevel = 8 # PT_LOAD_LEVEL\n\n# Not settings of a policy:\n\
         # PT_USER_ACTION = '/x \\1b': a policy cannot make a host run or kill anything: this is \
         actions.on_over_limit in the host's own agent.toml; the file must belong to root, and \
         nobody else may write it\n"
    );
    let mut settings = Settings::default();
    assert_eq!(settings.overlay("s", &imported.settings), Ok(Vec::new()));
    assert_eq!(
        (
            settings.min_age_secs,
            settings.process_vsz_mb,
            settings.load.level
        ),
        (30, Some(512), Some(8))
    );
}

#[test]
fn a_load_watch_that_lfd_has_off_stays_off_whatever_its_level() {
    for conf in [
        "PT_LOAD_LEVEL = \"6\"\nPT_LOAD_AVG = \"1\"\nPT_LOAD_SKIP = \"60\"\nPT_LOAD = \"0\"\n",
        "PT_LOAD = \"00\"\nPT_LOAD_LEVEL = \"6\"\n",
    ] {
        let imported = read_conf("csf.conf", conf.as_bytes()).unwrap();
        let mut settings = Settings::default();
        settings.load.level = Some(3);
        settings.overlay("s", &imported.settings).unwrap();
        assert_eq!(settings.load.level, None, "{}", imported.settings);
        let set = imported.remarks.iter().filter(|r| r.setting.is_some());
        assert_eq!(set.count(), 1, "{:#?}", imported.remarks);
    }
}

#[test]
fn a_server_that_tracks_no_processes_brings_no_limits() {
    let conf = "PT_LIMIT = \"0\"\nPT_INTERVAL = \"30\"\nPT_USERPROC = \"10\"\nPT_USERMEM = \"512\"\n\
                PT_FORKBOMB = \"250\"\nPT_USERKILL = \"1\"\nPT_DELETED = \"0\"\nPT_LOAD_LEVEL = \"6\"\n\
                PT_LOAD_ACTION = \"/x\"\n";
    let imported = read_conf("csf.conf", conf.as_bytes()).unwrap();
    let mut settings = Settings {
        user_processes: Some(5),
        ..Settings::default()
    };
    settings.overlay("s", &imported.settings).unwrap();
    let limits = (
        settings.user_processes,
        settings.process_vsz_mb,
        settings.session_processes,
    );
    assert_eq!(limits, (None, None, None), "{}", imported.settings);
    assert_eq!(settings.interval_secs, Settings::default().interval_secs);
    // The load watch is a switch of its own.
    assert_eq!(settings.load.level, Some(6));
    let local = "[actions]\non_load = \"/x\" # PT_LOAD_ACTION\n";
    assert_eq!(imported.agent_toml().as_deref(), Some(local));
}

#[test]
fn what_only_a_host_may_switch_on_is_written_as_its_own_file_wants_it() {
    let conf = "PT_DELETED_ACTION = \"/root/a \\\"b.sh\"\nPT_FORKBOMB = \"250\"\n\
                PT_USERKILL_ALERT = \"0\"\nPT_SSHDHUNG = \"1\"\nPT_USER_ACTION = \"rel.sh\"\n";
    let imported = read_conf("csf.conf", conf.as_bytes()).unwrap();
    assert_eq!(
        imported.agent_toml().unwrap(),
        "[actions]\non_deleted = \"/root/a \\\\\\\"b.sh\" # PT_DELETED_ACTION\n\
         kill_fork_bomb = true # PT_FORKBOMB\nalert_on_kill = false # PT_USERKILL_ALERT\n\
         kill_hung_sshd = true # PT_SSHDHUNG\non_over_limit = \"rel.sh\" # PT_USER_ACTION\n"
    );
    assert!(imported.remarks[4].message.contains("absolute path"));
    assert!(imported.missing.contains(&"PT_LIMIT") && !imported.missing.contains(&"PT_FORKBOMB"));
    let nothing = read_conf("c", b"PT_LIMIT = \"60\"\n").unwrap();
    assert_eq!(nothing.agent_toml(), None);
}

#[test]
fn a_file_of_bare_carriage_returns_keeps_its_lines() {
    let imported = read_conf("c", b"\xef\xbb\xbfPT_LIMIT = \"5\"\rPT_USERPROC = \"6\"").unwrap();
    let lines: Vec<u32> = imported.remarks.iter().map(|remark| remark.line).collect();
    assert_eq!(lines, [1, 2]);
}

fn any_conf() -> impl Strategy<Value = Vec<u8>> {
    let keys = proptest::sample::select(vec![
        "PT_LIMIT",
        "PT_INTERVAL",
        "PT_DELETED",
        "PT_USERMEM",
        "PT_FORKBOMB",
        "PT_LOAD",
        "PT_LOAD_AVG",
        "PT_LOAD_LEVEL",
        "PT_X",
        "LF_FLUSH",
        "PT_USER_ACTION",
        "#",
        "TCP_IN",
    ]);
    let value = proptest::collection::vec(any::<u8>(), 0..6);
    let likely = (keys, "( ?= ?\"?)", value, "\"?\r?\n").prop_map(|(key, middle, value, end)| {
        [key.as_bytes(), middle.as_bytes(), &value, end.as_bytes()].concat()
    });
    let number =
        "PT_(LIMIT|USERPROC|INTERVAL|DELETED|LOAD|LOAD_AVG|LOAD_LEVEL|LOAD_SKIP) = \"[0-9]{1,20}\"\n".prop_map(String::into_bytes);
    let line = prop_oneof![
        likely,
        number,
        proptest::collection::vec(any::<u8>(), 0..20)
    ];
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_what_it_gives_is_always_accepted(conf in any_conf()) {
        match read_conf("c", &conf) {
            Ok(imported) => {
                let mut settings = Settings::default();
                let accepted = settings.overlay("s", &imported.settings);
                prop_assert!(accepted.is_ok(), "{accepted:?}\n{}", imported.settings);
            }
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }
}
