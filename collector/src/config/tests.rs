//! Tables of configurations: what they mean, and what is wrong with them.

use procwarden_common::diagnostic::Level;

use super::*;

const MAIL: &str = "[mail]\ntransport = 'file'\nfrom = 'pw@example.com'\nto = 'ops@example.com'\nfile.dir = '/var/mail'\n";

fn parse(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    Config::parse("collector.toml", text)
}

fn good(text: &str) -> Config {
    let (config, remarks) = parse(text).unwrap();
    assert_eq!(remarks, []);
    config
}

fn remarks(text: &str) -> Vec<(Level, u32, String)> {
    let remarks = match parse(text) {
        Ok((_, remarks)) | Err(remarks) => remarks,
    };
    remarks
        .into_iter()
        .map(|d| (d.level, d.line, format!("{} ({})", d.message, d.help)))
        .collect()
}

#[test]
fn a_data_directory_is_all_that_has_to_be_said() {
    let config = good("data_dir = '/var/lib/procwarden'\n");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/procwarden"));
    assert_eq!(config.listen.fleet.to_string(), "0.0.0.0:7443");
    assert_eq!(config.listen.enroll.to_string(), "0.0.0.0:7442");
    assert_eq!(
        config.listen.admin,
        PathBuf::from("/run/procwarden/admin.sock")
    );
    assert_eq!(config.alert.min_severity, Severity::Medium);
    assert_eq!(config.alert.group_wait, Duration::from_secs(30));
    assert_eq!(config.alert.max_per_hour, 60);
    assert_eq!(
        (config.mail, config.routes, config.retention_days),
        (None, vec![], None)
    );
}

#[test]
fn the_shipped_configuration_is_right_and_shows_the_defaults() {
    let text = include_str!("../../../deploy/config/collector.toml");
    let shipped = good(text);
    assert_eq!(
        shipped,
        good("data_dir = '/var/lib/procwarden/collector'\n")
    );
}

#[test]
fn every_commented_key_of_the_shipped_configuration_is_a_key() {
    let text = include_str!("../../../deploy/config/collector.toml");
    let is_setting = |line: &str| line.starts_with('[') || line.split_once(" = ").is_some();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if is_setting(rest) && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = good(&uncommented);
    let Some(MailConfig {
        transport: MailTransport::Smtp(smtp),
        ..
    }) = config.mail
    else {
        panic!("no smtp in {uncommented}");
    };
    assert_eq!((smtp.port, smtp.tls), (587, SmtpTls::Starttls));
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.retention_days, Some(365));
}

#[test]
fn every_transport_is_read() {
    let with = |rest: &str| {
        let text =
            format!("data_dir = '/d'\n[mail]\nfrom = 'a@b'\nto = ['c@d', 'E <e@f>']\n{rest}");
        good(&text).mail.unwrap()
    };
    let mail = with("transport = 'sendmail'\n");
    assert_eq!(
        mail.transport,
        MailTransport::Sendmail {
            command: SENDMAIL.into()
        }
    );
    assert_eq!(mail.to, ["c@d", "E <e@f>"]);
    let mail = with("transport = 'file'\nfile.dir = '/m'\n");
    assert_eq!(mail.transport, MailTransport::File { dir: "/m".into() });
    for (tls, port, word) in [
        (SmtpTls::Starttls, 587, "starttls"),
        (SmtpTls::Implicit, 465, "implicit"),
        (SmtpTls::None, 25, "none"),
    ] {
        let mail = with(&format!(
            "transport = 'smtp'\n[mail.smtp]\nhost = 'h'\ntls = '{word}'\n"
        ));
        let MailTransport::Smtp(smtp) = mail.transport else {
            panic!("{word}")
        };
        assert_eq!((smtp.tls, smtp.port, smtp.username), (tls, port, None));
    }
}

const SENDMAIL: &str = "/usr/sbin/sendmail";

#[test]
fn routes_choose_by_group_and_severity() {
    let text = format!(
        "data_dir = '/d'\n{MAIL}[alert]\nmin_severity = 'high'\n\
         [[route]]\ngroups = 'web'\nmin_severity = 'low'\nto = 'w@x'\n[[route]]\nto = ['a@b']\n"
    );
    let routes = good(&text).routes;
    assert_eq!(routes[0].groups, ["web"]);
    assert_eq!(routes[0].min_severity, Severity::Low);
    assert_eq!(
        (routes[1].groups.len(), routes[1].min_severity),
        (0, Severity::High)
    );
}

#[test]
fn every_error_is_named_at_once_with_its_line() {
    let text = "data_dri = '/d'\n\
                [listen]\n\
                fleet = 'localhost'\n\
                admin = '/run/x.sock'\n\
                [mail]\n\
                transport = 'smpt'\n\
                from = 'nobody'\n\
                [alert]\n\
                group_wait = '30 s'\n\
                [store]\n\
                engine = 'postgres'\n";
    let lines: Vec<u32> = remarks(text).iter().map(|(_, line, _)| *line).collect();
    assert_eq!(lines, [1, 1, 3, 4, 5, 6, 7, 9, 11]);
    let all = format!("{:?}", remarks(text));
    for part in [
        "'data_dir'",
        "did you mean 'smtp'?",
        "IP:PORT",
        "unix:",
        "not part of this version",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
}

#[test]
fn single_mistakes_are_named() {
    let cases = [
        (
            "[listen]\nfleet = '0.0.0.0:1'\nenroll = '0.0.0.0:1'",
            "is the address of 'fleet'",
        ),
        ("[listen]\nadmin = 'unix:relative'", "absolute path"),
        ("[[route]]\nto = 'a@b'", "no [mail]"),
        (
            "[mail]\ntransport = 'file'\nfrom = 'a@b'\nto = 'c@d'",
            "'dir' in [mail.file] is missing",
        ),
        (
            "[mail]\ntransport = 'file'\nfrom = 'a@b'\nfile.dir = '/m'",
            "'to' in [mail] is missing",
        ),
        (
            "[mail]\ntransport = 'file'\nfrom = 'a@b'\nto = []\nfile.dir = '/m'",
            "names nobody",
        ),
        (
            "[mail]\ntransport = 'file'\nfrom = \"a@b\\nBcc: c@d\"\nto = 'c@d'\nfile.dir = '/m'",
            "control",
        ),
        (
            "[mail]\ntransport = 'smtp'\nfrom = 'a@b'\nto = 'c@d'\nsmtp.host = 'h'\nsmtp.username = 'u'",
            "'password_file'",
        ),
        (
            "[mail]\ntransport = 'smtp'\nfrom = 'a@b'\nto = 'c@d'\nsmtp.host = 'h'\nsmtp.port = 0",
            "out of range",
        ),
        ("[retention]\ndays = 0", "out of range"),
        ("[retention]\nmax_bytes = 1000", "out of range"),
        ("[alert]\nmin_severity = 'hihg'", "did you mean 'high'?"),
        ("[listen]\nflet = '0.0.0.0:1'", "did you mean 'fleet'?"),
    ];
    for (text, part) in cases {
        let text = format!("data_dir = '/d'\n{text}\n");
        let remarks = remarks(&text);
        assert_eq!(remarks.len(), 1, "{text}: {remarks:?}");
        assert_eq!(remarks[0].0, Level::Error, "{text}");
        assert!(remarks[0].2.contains(part), "{text}: {remarks:?}");
    }
    let (_, _, relative) = &remarks("data_dir = 'relative'\n")[0];
    assert!(relative.contains("absolute"), "{relative}");
}

#[test]
fn what_this_version_does_not_do_is_accepted_with_a_warning() {
    let cases = [
        "[listen]\nweb = '127.0.0.1:7480'",
        "[alert]\ngroup_interval = '5m'",
        "[alert]\nrepeat_interval = '24h'",
        "[store]\nengine = 'sled'\nurl = 'x'",
    ];
    for text in cases {
        let (_, remarks) = parse(&format!("data_dir = '/d'\n{text}\n")).unwrap();
        assert_eq!(remarks.len(), 1, "{text}");
        assert_eq!(remarks[0].level, Level::Warning);
        assert!(
            remarks[0].message.contains("has no effect"),
            "{text}: {}",
            remarks[0].message
        );
    }
    assert_eq!(
        remarks("data_dir = '/d'\n[listen]\nweb = 'x'\n")[0].0,
        Level::Error
    );
}

#[test]
fn metrics_are_off_unless_asked_for_and_beyond_loopback_with_a_warning() {
    for (line, address, warnings) in [
        ("", None, 0),
        ("metrics = '127.0.0.1:9469'", Some("127.0.0.1:9469"), 0),
        ("metrics = '[::1]:9469'", Some("[::1]:9469"), 0),
        ("metrics = '0.0.0.0:9469'", Some("0.0.0.0:9469"), 1),
    ] {
        let (config, remarks) = parse(&format!("data_dir = '/d'\n[listen]\n{line}\n")).unwrap();
        let metrics = config.listen.metrics.map(|address| address.to_string());
        assert_eq!(metrics.as_deref(), address, "{line}");
        assert_eq!(remarks.len(), warnings, "{line}: {remarks:?}");
    }
    assert_eq!(
        remarks("data_dir = '/d'\n[listen]\nmetrics = '9469'\n")[0].0,
        Level::Error
    );
}
