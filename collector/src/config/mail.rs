//! Reads `[mail]` and `[[route]]`: how mails leave and who gets them.

use std::path::PathBuf;

use procwarden_common::severity::Severity;
use procwarden_common::toml_config::Section;

use super::read::{required_path, severity};
use super::{MailConfig, MailTransport, Route, SmtpConfig, SmtpTls, forms};
use crate::policy::check_name;

const SENDMAIL_DEFAULT: &str = "/usr/sbin/sendmail";

/// The word of the configuration, before its section was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TransportWord {
    Smtp,
    Sendmail,
    File,
}

const TRANSPORTS: [(&str, TransportWord); 3] = [
    ("smtp", TransportWord::Smtp),
    ("sendmail", TransportWord::Sendmail),
    ("file", TransportWord::File),
];

/// Mail, if any, and routes. The outer nothing means that `[mail]` is there
/// and wrong, which has been noted.
pub(super) fn mail_and_routes(
    root: &Section<'_>,
    min_severity: Severity,
) -> (Option<Option<MailConfig>>, Vec<Route>) {
    let section = root.section("mail");
    let route_sections = root.take_array_of_sections("route");
    let routes = route_sections
        .iter()
        .filter_map(|s| route(s, min_severity))
        .collect();
    if !section.is_present() {
        if !route_sections.is_empty() {
            let help = "add a [mail] section that says how mails leave";
            root.error("route", "there are routes, but no [mail]", help);
        }
        return (Some(None), routes);
    }
    (mail(&section, route_sections.is_empty()).map(Some), routes)
}

fn mail(section: &Section<'_>, to_is_needed: bool) -> Option<MailConfig> {
    let word = section.take_choice("transport", &TRANSPORTS);
    if !section.has("transport") {
        section.missing(
            "transport",
            "write transport = \"smtp\", \"sendmail\" or \"file\"",
        );
    }
    let from = section.take_with("from", forms::mail_address);
    if !section.has("from") {
        section.missing("from", "name the sender, such as procwarden@example.com");
    }
    let to = recipients(section, to_is_needed);
    let transport = transport(section, word);
    Some(MailConfig {
        transport: transport?,
        from: from?,
        to: to?,
    })
}

/// `to = "a"` or `to = ["a", "b"]`; empty only where it is not needed.
fn recipients(section: &Section<'_>, needed: bool) -> Option<Vec<String>> {
    let help = "name who gets the mails, such as to = [\"ops@example.com\"]";
    if !section.has("to") {
        if needed {
            section.missing("to", help);
        }
        return Some(Vec::new());
    }
    let to = section.take_one_or_list_with("to", forms::mail_address)?;
    if to.is_empty() && needed {
        section.error("to", "'to' names nobody", help);
    }
    Some(to)
}

/// The sections of transports that are not used are checked all the same, so
/// that switching over brings no surprise; only their keys may be missing.
fn transport(mail: &Section<'_>, word: Option<TransportWord>) -> Option<MailTransport> {
    let smtp = smtp(&mail.section("smtp"), word == Some(TransportWord::Smtp));
    let command = mail
        .section("sendmail")
        .take_with("command", forms::absolute_path);
    let file = mail.section("file");
    let dir = if word == Some(TransportWord::File) {
        required_path(
            &file,
            "dir",
            "name the directory in which mails are written",
        )
    } else {
        file.take_with("dir", forms::absolute_path)
    };
    Some(match word? {
        TransportWord::Smtp => MailTransport::Smtp(smtp?),
        TransportWord::Sendmail => MailTransport::Sendmail {
            command: command.unwrap_or_else(|| PathBuf::from(SENDMAIL_DEFAULT)),
        },
        TransportWord::File => MailTransport::File { dir: dir? },
    })
}

fn smtp(section: &Section<'_>, is_used: bool) -> Option<SmtpConfig> {
    let host = section.take_with("host", forms::host);
    if is_used && !section.has("host") {
        section.missing("host", "name the mail relay, such as mail.example.com");
    }
    let words = [
        ("starttls", SmtpTls::Starttls),
        ("implicit", SmtpTls::Implicit),
        ("none", SmtpTls::None),
    ];
    let tls = section
        .take_choice("tls", &words)
        .unwrap_or(SmtpTls::Starttls);
    let port = section
        .take_u64("port", 1..=65_535)
        .and_then(|port| u16::try_from(port).ok());
    let username = section.take_with("username", forms::word);
    let password_file = section.take_with("password_file", forms::absolute_path);
    let ca_file = section.take_with("ca_file", forms::absolute_path);
    for (key, other) in [("username", "password_file"), ("password_file", "username")] {
        if section.has(key) && !section.has(other) {
            section.missing(other, format!("'{key}' is of no use without it"));
        }
    }
    if is_used && tls == SmtpTls::None && username.is_some() {
        let help = "use tls = \"starttls\", unless the relay is on this machine";
        section.warning("tls", "the password travels unencrypted", help);
    }
    let default_port = match tls {
        SmtpTls::Starttls => 587,
        SmtpTls::Implicit => 465,
        SmtpTls::None => 25,
    };
    let port = port.unwrap_or(default_port);
    Some(SmtpConfig {
        host: host?,
        port,
        tls,
        username,
        password_file,
        ca_file,
    })
}

fn route(section: &Section<'_>, default_severity: Severity) -> Option<Route> {
    let group = |name: &str| check_name("group name", name).map(|()| name.to_owned());
    let groups = section
        .take_one_or_list_with("groups", group)
        .unwrap_or_default();
    let min_severity = severity(section, "min_severity").unwrap_or(default_severity);
    let to = recipients(section, true)?;
    Some(Route {
        groups,
        min_severity,
        to,
    })
}
