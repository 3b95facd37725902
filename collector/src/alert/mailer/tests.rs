//! What a mail looks like on the wire, and which transports are refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::alert::tests::smtp_stub::SmtpStub;
use crate::alert::tests::{config, file_mail, strings};

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

fn mail(subject: &str, body: &str, attachments: &[(&str, &str)]) -> Mail {
    let attachments = attachments
        .iter()
        .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()));
    Mail {
        name: "ab".repeat(16),
        message_id: format!("{}.00000000-0000-0000-0000-000000000007", "ab".repeat(16)),
        date: NOW,
        to: strings(&["ops@example.com", "Night Shift <night@example.org>"]),
        severity: Some(Severity::Critical),
        content: MailContent {
            subject: subject.to_owned(),
            body: body.to_owned(),
            attachments: attachments.collect(),
        },
    }
}

fn formatted(mail: &Mail) -> String {
    let config = file_mail(Path::new("/nonexistent"), &[]);
    String::from_utf8(message(&config, mail).unwrap().formatted()).unwrap()
}

/// Unfolded headers of a formatted mail.
fn headers(formatted: &str) -> Vec<(String, String)> {
    let (head, _) = formatted.split_once("\r\n\r\n").unwrap();
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let pair = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), value.trim().to_owned())
    };
    unfolded.split("\r\n").map(pair).collect()
}

fn header_of(formatted: &str, name: &str) -> Option<String> {
    headers(formatted)
        .into_iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value)
}

#[test]
fn headers_name_the_alert_and_say_that_no_human_wrote_it() {
    let text = formatted(&mail("two findings", "hello\n", &[]));
    let id = "abababababababababababababababab";
    let expected = [
        ("From", "procwarden <procwarden@example.com>".to_owned()),
        (
            "To",
            "ops@example.com, Night Shift <night@example.org>".to_owned(),
        ),
        ("Subject", "two findings".to_owned()),
        ("Date", "Mon, 23 Nov 2026 09:00:00 +0000".to_owned()),
        (
            "Message-ID",
            format!("<{id}.00000000-0000-0000-0000-000000000007@example.com>"),
        ),
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("X-Procwarden-Alert", id.to_owned()),
        ("X-Procwarden-Severity", "critical".to_owned()),
    ];
    for (name, value) in expected {
        let got = header_of(&text, name).map(|v| v.replace('"', ""));
        assert_eq!(got.as_deref(), Some(value.as_str()), "{name}\n{text}");
    }
    assert!(text.ends_with("\r\n\r\nhello\r\n"), "{text}");
}

#[test]
fn no_header_can_be_smuggled_in() {
    let hostile = "x\r\nBcc: thief@example.net\r\n\r\nbody\u{1b}]0;\u{7}\u{202e}\0";
    let mut mail = mail(hostile, "hello\n", &[(hostile, "text")]);
    mail.name = hostile.to_owned();
    let text = formatted(&mail);
    let names: Vec<String> = headers(&text).into_iter().map(|(name, _)| name).collect();
    assert!(!names.iter().any(|name| name == "Bcc"), "{text}");
    assert!(
        text.bytes()
            .all(|b| (0x20..=0x7e).contains(&b) || b"\r\n".contains(&b)),
        "{text}"
    );
    let subject = header_of(&text, "Subject").unwrap();
    assert!(
        subject.starts_with(r"x\r\nBcc: thief@example.net\r\n\r\nbody\1b"),
        "{subject}"
    );
}

#[test]
fn long_lines_are_encoded_and_survive() {
    let long = "x".repeat(5000);
    let text = formatted(&mail(
        "s",
        &format!("{long}\n.\nend\n"),
        &[("maps.txt", &long)],
    ));
    assert!(text.lines().all(|line| line.len() <= 998));
    let joined = text.replace("=\r\n", "");
    assert_eq!(
        joined.matches(&long).count(),
        2,
        "quoted-printable, joined again"
    );
    assert!(text.contains("filename=\"maps.txt\""));
}

#[test]
fn addresses_that_are_none_are_refused_by_name() {
    let config = file_mail(Path::new("/nonexistent"), &[]);
    for address in ["nobody", "a@b@c", "x@example.com\r\nBcc: y@example.com", ""] {
        let error = envelope(&config, &strings(&["good@example.com", address])).unwrap_err();
        assert_eq!(
            (error.lasting, error.refused),
            (Lasting::Yes, true),
            "{error}"
        );
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

fn smtp(host: &str, tls: SmtpTls, password_file: Option<&Path>) -> SmtpConfig {
    SmtpConfig {
        host: host.to_owned(),
        port: 2525,
        tls,
        username: Some("me".to_owned()),
        password_file: password_file.map(Path::to_owned),
        ca_file: None,
    }
}

#[tokio::test]
async fn a_password_is_never_sent_in_the_clear_to_another_machine() {
    let error = smtp_transport(&smtp("mail.example.com", SmtpTls::None, None)).unwrap_err();
    assert!(error.to_string().contains("without TLS"), "{error}");
    let error = smtp_transport(&smtp("localhost", SmtpTls::None, None)).unwrap_err();
    assert!(error.to_string().contains("smtp.password_file"), "{error}");
}

#[tokio::test]
async fn a_ca_file_that_can_not_be_used_is_named() {
    let mut config = smtp("localhost", SmtpTls::Starttls, None);
    config.ca_file = Some("/nonexistent/ca.pem".into());
    let error = smtp_transport(&config).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("smtp.ca_file /nonexistent/ca.pem"),
        "{error}"
    );
}

/// Where the stub's certificate and the password of `me` lie.
fn secrets(stub: &SmtpStub) -> (tempfile::TempDir, SmtpConfig) {
    let temp = tempfile::tempdir().unwrap();
    let (ca, password) = (temp.path().join("ca.pem"), temp.path().join("password"));
    std::fs::write(&ca, &stub.ca_pem).unwrap();
    std::fs::write(&password, "secret\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = smtp("localhost", SmtpTls::Starttls, Some(&password));
    config.port = stub.address.port();
    config.ca_file = Some(ca);
    (temp, config)
}

async fn send_through(smtp: SmtpConfig) -> Result<String, SendError> {
    let mut config = file_mail(Path::new("/nonexistent"), &[]);
    config.transport = MailTransport::Smtp(smtp);
    send(&config, &mail("s", "b", &[]), &strings(&["a@example.com"])).await
}

#[tokio::test]
async fn login_and_mail_go_through_tls_only() {
    for mode in [SmtpTls::Starttls, SmtpTls::Implicit] {
        let stub = SmtpStub::start(mode, &[]).await;
        let (_temp, mut config) = secrets(&stub);
        config.tls = mode;
        let answer = send_through(config).await.unwrap();
        assert!(answer.contains("250"), "{answer}");
        assert_eq!(*stub.logins.lock().unwrap(), [b"\0me\0secret"]);
        assert_eq!(stub.mails.lock().unwrap().len(), 1);
        let clear = stub.heard_in_the_clear.lock().unwrap().clone();
        let harmless = |line: &String| line.starts_with("EHLO") || line.starts_with("STARTTLS");
        assert!(clear.iter().all(harmless), "{clear:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_known_gets_no_login() {
    let stub = SmtpStub::start(SmtpTls::Starttls, &[]).await;
    let (_temp, mut config) = secrets(&stub);
    config.ca_file = None;
    let error = send_through(config).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(stub.logins.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing() {
    let stub = SmtpStub::start(SmtpTls::None, &[]).await;
    let (_temp, config) = secrets(&stub);
    let error = send_through(config).await.unwrap_err();
    assert!(error.to_string().contains("STARTTLS"), "{error}");
    let clear = stub.heard_in_the_clear.lock().unwrap().clone();
    assert!(
        clear
            .iter()
            .all(|line| line.starts_with("EHLO") || line.starts_with("QUIT"))
    );
}

#[tokio::test]
async fn a_server_that_is_away_is_worth_another_try_soon() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut smtp = smtp("127.0.0.1", SmtpTls::None, None);
    (smtp.port, smtp.username) = (port, None);
    let error = send_through(smtp).await;
    let error = error.unwrap_err();
    assert_eq!((error.lasting, error.refused), (Lasting::No, false));
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{port}")),
        "{error}"
    );
}

#[tokio::test]
async fn a_sendmail_that_fails_says_why() {
    let mut config = file_mail(Path::new("/nonexistent"), &[]);
    for (command, works) in [
        ("/bin/true", true),
        ("/bin/false", false),
        ("/nonexistent/x", false),
    ] {
        config.transport = MailTransport::Sendmail {
            command: command.into(),
        };
        // A command that does not read may close the pipe first: both are fine.
        let result = send(&config, &mail("s", "b", &[]), &strings(&["a@example.com"])).await;
        match result {
            Ok(answer) => assert!(works && answer.contains(command), "{answer}"),
            Err(error) => assert!(error.to_string().contains(command), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_test_mail_is_written_and_its_place_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(&["ops@example.com"], &[]);
    config.mail = Some(file_mail(&temp.path().join("mails"), &[]));
    let answer = send_test(&config, "me@example.com").await.unwrap();
    let path = answer.strip_prefix("written to ").unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(header_of(&text, "To").as_deref(), Some("me@example.com"));
    assert_eq!(
        header_of(&text, "Subject").as_deref(),
        Some("[procwarden] test mail")
    );
    config.mail = None;
    assert!(
        send_test(&config, "me@example.com")
            .await
            .unwrap_err()
            .contains("[mail]")
    );
}
