//! Reads the sections of the configuration. Every key is asked for whatever
//! the others say, so that all that is wrong is said at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use procwarden_common::severity::Severity;
use procwarden_common::toml_config::Section;

use super::{AlertConfig, Config, ListenConfig, forms, mail};

const FLEET_DEFAULT: &str = "0.0.0.0:7443";
const ENROLL_DEFAULT: &str = "0.0.0.0:7442";
const ADMIN_DEFAULT: &str = "/run/procwarden/admin.sock";

const GROUP_WAIT_DEFAULT: Duration = Duration::from_secs(30);
const GROUP_WAIT_MAX: Duration = Duration::from_secs(3600);
const INTERVAL_MAX: Duration = Duration::from_secs(30 * 86_400);
const MAILS_PER_HOUR_DEFAULT: u32 = 60;
const RETENTION_DAYS_MAX: u32 = 36_500;

/// A few segments: they are dropped as a whole.
const RETENTION_BYTES_MIN: u64 = 256 * 1024 * 1024;

const NO_EFFECT: &str = "has no effect in this version";

/// The configuration, or nothing when a key that has no default is missing or
/// wrong; what is wrong has been noted.
pub(super) fn config(root: &Section<'_>) -> Option<Config> {
    let data_dir = required_path(root, "data_dir", "name the directory that `init` made");
    let listen = listen(&root.section("listen"));
    let alert = alert(&root.section("alert"));
    let retention = root.section("retention");
    let retention_days = number(&retention, "days", RETENTION_DAYS_MAX);
    let retention_max_bytes = retention.take_u64("max_bytes", RETENTION_BYTES_MIN..=u64::MAX);
    store(&root.section("store"));
    let (mail, routes) = mail::mail_and_routes(root, alert.min_severity);
    Some(Config {
        data_dir: data_dir?,
        listen,
        mail: mail?,
        routes,
        alert,
        retention_days,
        retention_max_bytes,
    })
}

/// A path that has to be given.
pub(super) fn required_path(section: &Section<'_>, key: &str, help: &str) -> Option<PathBuf> {
    if !section.has(key) {
        section.missing(key, help);
    }
    section.take_with(key, forms::absolute_path)
}

/// A whole number from 1 to `max`.
pub(super) fn number(section: &Section<'_>, key: &str, max: u32) -> Option<u32> {
    section
        .take_u64(key, 1..=u64::from(max))
        .and_then(|number| u32::try_from(number).ok())
}

/// One of the words for a severity.
pub(super) fn severity(section: &Section<'_>, key: &str) -> Option<Severity> {
    section.take_choice(
        key,
        &Severity::ALL.map(|severity| (severity.as_str(), severity)),
    )
}

fn listen(section: &Section<'_>) -> ListenConfig {
    let fleet = address(section, "fleet", FLEET_DEFAULT);
    let enroll = address(section, "enroll", ENROLL_DEFAULT);
    if fleet.port() != 0 && fleet == enroll {
        let help = "give the fleet and the enrolment listener a port each";
        section.error("enroll", "'enroll' is the address of 'fleet'", help);
    }
    let admin = section.take_with("admin", forms::unix_socket);
    if section.take_with("web", forms::socket_addr).is_some() {
        section.warning("web", format!("'web' {NO_EFFECT}"), "");
    }
    let metrics = section.take_with("metrics", forms::socket_addr);
    if metrics.is_some_and(|address| !address.ip().is_loopback()) {
        let help = "use 127.0.0.1, or let a firewall decide who may ask";
        let words = "'metrics' answers everyone who can connect, without encryption";
        section.warning("metrics", words.to_owned(), help);
    }
    ListenConfig {
        fleet,
        enroll,
        admin: admin.unwrap_or_else(|| PathBuf::from(ADMIN_DEFAULT)),
        metrics,
    }
}

/// A wrong address has been noted, so what stands in for it is never used.
fn address(section: &Section<'_>, key: &str, default: &str) -> SocketAddr {
    section
        .take_with(key, forms::socket_addr)
        .or_else(|| default.parse().ok())
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn alert(section: &Section<'_>) -> AlertConfig {
    let min_severity = severity(section, "min_severity");
    let group_wait = section.take_duration("group_wait", Duration::ZERO..=GROUP_WAIT_MAX);
    let max_per_hour = number(section, "max_per_hour", 100_000);
    for key in ["group_interval", "repeat_interval"] {
        if section
            .take_duration(key, Duration::ZERO..=INTERVAL_MAX)
            .is_some()
        {
            section.warning(key, format!("'{key}' {NO_EFFECT}"), "");
        }
    }
    AlertConfig {
        min_severity: min_severity.unwrap_or(Severity::Medium),
        group_wait: group_wait.unwrap_or(GROUP_WAIT_DEFAULT),
        max_per_hour: max_per_hour.unwrap_or(MAILS_PER_HOUR_DEFAULT),
    }
}

fn store(section: &Section<'_>) {
    let is_postgres = section.take_choice("engine", &[("sled", false), ("postgres", true)]);
    let url = section.take_with("url", forms::word);
    if is_postgres == Some(true) {
        let help = "use engine = \"sled\", or leave the section out";
        section.error(
            "engine",
            "the engine 'postgres' is not part of this version",
            help,
        );
    } else if url.is_some() {
        section.warning("url", "'url' has no effect with the engine 'sled'", "");
    }
}
