//! What several tests of the alerts need, and the whole road with real files.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use procwarden_common::severity::Severity;

use crate::config::{AlertConfig, Config, ListenConfig, MailConfig, MailTransport, Route};

pub(super) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

pub(super) fn route(groups: &[&str], min_severity: Severity, to: &[&str]) -> Route {
    Route {
        groups: strings(groups),
        min_severity,
        to: strings(to),
    }
}

pub(super) fn file_mail(dir: &Path, to: &[&str]) -> MailConfig {
    MailConfig {
        transport: MailTransport::File {
            dir: dir.to_owned(),
        },
        from: "procwarden <procwarden@example.com>".to_owned(),
        to: strings(to),
    }
}

pub(super) fn config(to: &[&str], routes: &[Route]) -> Config {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Config {
        data_dir: PathBuf::from("/nonexistent"),
        listen: ListenConfig {
            fleet: any,
            enroll: any,
            admin: PathBuf::from("/nonexistent"),
            metrics: None,
        },
        mail: Some(file_mail(Path::new("/nonexistent"), to)),
        routes: routes.to_vec(),
        alert: AlertConfig {
            min_severity: Severity::Medium,
            group_wait: Duration::from_millis(50),
            max_per_hour: 60,
        },
        retention_days: None,
        retention_max_bytes: None,
    }
}

mod road;
pub(super) mod smtp_stub;
