//! Hands a mail to the configured transport. The only file that knows the
//! mail library.
//!
//! Promises: an encrypted transport is never traded for a plain one; the
//! password leaves this machine over TLS only; an attempt ends after
//! [`SEND_TIMEOUT`]; no header holds anything but printable ASCII. Never
//! retries: that is the outbox's work.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, Mailboxes, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{self, PoolConfig};
use lettre::{
    Address, AsyncSendmailTransport, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
};
use procwarden_common::clock::UnixMillis;
use procwarden_common::severity::Severity;

use super::render::{MailContent, test_mail};
use super::retry::Lasting;
use super::words::one_line;
use crate::clock;
use crate::config::{Config, MailConfig, MailTransport, SmtpConfig, SmtpTls};

mod file;
mod secret;

#[cfg(test)]
mod tests;

/// Longest attempt, from the connection to the last answer.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest farewell to a server that has taken the mail already.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Stands in the Message-ID where the sender's domain can not.
const FALLBACK_DOMAIN: &str = "procwarden.invalid";

/// One mail, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// Hexadecimal name: header `X-Procwarden-Alert`, and the file's name.
    pub(crate) name: String,
    /// What stands before the `@` of the Message-ID.
    pub(crate) message_id: String,
    /// The header `Date`.
    pub(crate) date: UnixMillis,
    /// Everyone whom the header `To` names.
    pub(crate) to: Vec<String>,
    /// Header `X-Procwarden-Severity`.
    pub(crate) severity: Option<Severity>,
    /// What is read.
    pub(crate) content: MailContent,
}

/// Why a mail was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub(crate) struct SendError {
    words: String,
    /// Whether trying again soon makes sense.
    pub(crate) lasting: Lasting,
    /// The server refused this mail or one of its recipients: the others may
    /// be served one by one.
    pub(crate) refused: bool,
}

impl SendError {
    fn soon(words: String) -> Self {
        Self {
            words,
            lasting: Lasting::No,
            refused: false,
        }
    }
}

/// Sends a mail to `recipients`, some or all of those it names, and returns
/// what the transport answered.
///
/// # Errors
/// With what failed, where, and whether it may work soon.
pub(crate) async fn send(
    config: &MailConfig,
    mail: &Mail,
    recipients: &[String],
) -> Result<String, SendError> {
    let envelope = envelope(config, recipients)?;
    let bytes = message(config, mail)?.formatted();
    let attempt = async {
        match &config.transport {
            MailTransport::Smtp(smtp) => send_by_smtp(smtp, &envelope, &bytes).await,
            MailTransport::Sendmail { command } => {
                send_by_sendmail(command, &envelope, &bytes).await
            }
            MailTransport::File { dir } => write_to_file(dir, &mail.name, bytes).await,
        }
    };
    let too_long = || {
        let secs = SEND_TIMEOUT.as_secs();
        SendError::soon(format!(
            "{} did not finish within {secs} s",
            place(&config.transport)
        ))
    };
    tokio::time::timeout(SEND_TIMEOUT, attempt)
        .await
        .unwrap_or_else(|_| Err(too_long()))
}

/// Sends a test mail and returns what the transport answered.
///
/// # Errors
/// With what failed and the next step, for the operator.
pub(crate) async fn send_test(config: &Config, to: &str) -> Result<String, String> {
    let mail_config = config
        .mail
        .as_ref()
        .ok_or("no [mail] is configured: add one to the collector's configuration and reload it")?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| format!("no randomness: {error}"))?;
    let name = data_encoding::HEXLOWER.encode(&id);
    let mail = Mail {
        message_id: format!("{name}.test"),
        name,
        date: clock::now(),
        to: vec![to.to_owned()],
        severity: None,
        content: test_mail(),
    };
    send(mail_config, &mail, &mail.to)
        .await
        .map_err(|error| error.to_string())
}

/// Where mails of this transport go, for messages.
fn place(transport: &MailTransport) -> String {
    match transport {
        MailTransport::Smtp(smtp) => one_line(&format!("{}:{}", smtp.host, smtp.port)),
        MailTransport::Sendmail { command } => one_line(&command.display().to_string()),
        MailTransport::File { dir } => one_line(&dir.display().to_string()),
    }
}

// === message ===

fn mailbox(address: &str) -> Result<Mailbox, SendError> {
    address.parse().map_err(|error| SendError {
        words: format!("{} is no mail address: {error}", one_line(address)),
        lasting: Lasting::Yes,
        refused: true,
    })
}

fn envelope(config: &MailConfig, recipients: &[String]) -> Result<Envelope, SendError> {
    let from = mailbox(&config.from)?.email;
    let to: Result<Vec<Address>, _> = recipients
        .iter()
        .map(|address| mailbox(address).map(|mailbox| mailbox.email))
        .collect();
    Envelope::new(Some(from), to?)
        .map_err(|error| SendError::soon(format!("a mail without recipients: {error}")))
}

fn message(config: &MailConfig, mail: &Mail) -> Result<Message, SendError> {
    let from = mailbox(&config.from)?;
    let domain = from.email.domain();
    let domain = if domain.is_ascii() {
        domain
    } else {
        FALLBACK_DOMAIN
    };
    // An address that can not be written to is the envelope's error, once.
    let to: Mailboxes = mail.to.iter().filter_map(|to| mailbox(to).ok()).collect();
    let mut builder = Message::builder()
        .message_id(Some(format!("<{}@{domain}>", one_line(&mail.message_id))))
        .from(from)
        .mailbox(lettre::message::header::To::from(to))
        .date(system_time(mail.date))
        .subject(one_line(&mail.content.subject))
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .raw_header(header("X-Procwarden-Alert", &mail.name));
    if let Some(severity) = mail.severity {
        builder = builder.raw_header(header("X-Procwarden-Severity", severity.as_str()));
    }
    let text = |text: &str| {
        // The library ends every part with a line end of its own.
        let text = text.strip_suffix('\n').unwrap_or(text).to_owned();
        SinglePart::builder()
            .header(ContentType::TEXT_PLAIN)
            .body(text)
    };
    let built = if mail.content.attachments.is_empty() {
        builder.singlepart(text(&mail.content.body))
    } else {
        let attach = |parts: MultiPart, (name, text): &(String, String)| {
            let attachment = Attachment::new(one_line(name));
            parts.singlepart(attachment.body(text.clone(), ContentType::TEXT_PLAIN))
        };
        let body = MultiPart::mixed().singlepart(text(&mail.content.body));
        builder.multipart(mail.content.attachments.iter().fold(body, attach))
    };
    built.map_err(|error| SendError::soon(format!("cannot build the mail: {error}")))
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), one_line(value))
}

fn system_time(at: UnixMillis) -> SystemTime {
    let since_epoch = Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    SystemTime::UNIX_EPOCH
        .checked_add(since_epoch)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

// === transports ===

async fn send_by_smtp(
    config: &SmtpConfig,
    envelope: &Envelope,
    bytes: &[u8],
) -> Result<String, SendError> {
    let place = one_line(&format!("{}:{}", config.host, config.port));
    let owned = config.clone();
    // Reads certificates and the password from the disk.
    let transport = tokio::task::spawn_blocking(move || smtp_transport(&owned))
        .await
        .map_err(|error| SendError::soon(error.to_string()))??;
    let result = transport.send_raw(envelope, bytes).await;
    // The mail is out or not: a farewell that hangs must not change that.
    tokio::spawn(async move {
        drop(tokio::time::timeout(FAREWELL_TIMEOUT, transport.shutdown()).await);
    });
    let response = result.map_err(|error| smtp_error(&place, &error))?;
    let words: Vec<&str> = response.message().collect();
    Ok(one_line(&format!(
        "{place} answered {} {}",
        response.code(),
        words.join(" ")
    )))
}

fn smtp_transport(config: &SmtpConfig) -> Result<AsyncSmtpTransport<Tokio1Executor>, SendError> {
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
        .port(config.port)
        .timeout(Some(SEND_TIMEOUT))
        .pool_config(PoolConfig::new().min_idle(0).max_size(1))
        .tls(match config.tls {
            // Required: a server that offers no STARTTLS gets no mail.
            SmtpTls::Starttls => Tls::Required(tls_parameters(config)?),
            SmtpTls::Implicit => Tls::Wrapper(tls_parameters(config)?),
            SmtpTls::None => Tls::None,
        });
    if let Some(username) = &config.username {
        if config.tls == SmtpTls::None && !secret::is_loopback(&config.host) {
            return Err(SendError::soon(format!(
                "refusing to send the password of {} without TLS: set smtp.tls to \"starttls\" \
                 or \"implicit\"",
                place(&MailTransport::Smtp(config.clone()))
            )));
        }
        let password = match &config.password_file {
            Some(path) => secret::read_password(path).map_err(SendError::soon)?,
            None => {
                return Err(SendError::soon(
                    "smtp.username is set, but no \
                smtp.password_file: add one"
                        .to_owned(),
                ));
            }
        };
        builder = builder
            .credentials(Credentials::new(username.clone(), password.to_string()))
            .authentication(vec![Mechanism::Plain, Mechanism::Login]);
    }
    Ok(builder.build())
}

fn tls_parameters(config: &SmtpConfig) -> Result<TlsParameters, SendError> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        let in_file = |error: &dyn std::fmt::Display| {
            let path = one_line(&path.display().to_string());
            SendError::soon(format!("cannot use smtp.ca_file {path}: {error}"))
        };
        let pem = std::fs::read(path).map_err(|error| in_file(&error))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| in_file(&error))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder
        .build()
        .map_err(|error| SendError::soon(format!("cannot set up TLS: {error}")))
}

fn smtp_error(place: &str, error: &smtp::Error) -> SendError {
    let code = error.status().map(u16::from);
    // 421 closes the connection, 53x refuses the login: not about recipients.
    let refused = code.is_some_and(|code| code != 421 && !(530..540).contains(&code));
    let lasting = if error.is_permanent() {
        Lasting::Yes
    } else {
        Lasting::No
    };
    SendError {
        words: one_line(&format!("cannot send through {place}: {error}")),
        lasting,
        refused,
    }
}

async fn send_by_sendmail(
    command: &Path,
    envelope: &Envelope,
    bytes: &[u8],
) -> Result<String, SendError> {
    let transport = AsyncSendmailTransport::<Tokio1Executor>::new_with_command(command);
    let command = one_line(&command.display().to_string());
    transport
        .send_raw(envelope, bytes)
        .await
        .map_err(|error| SendError::soon(one_line(&format!("{command} failed: {error}"))))?;
    Ok(format!("{command} took it"))
}

async fn write_to_file(dir: &Path, name: &str, bytes: Vec<u8>) -> Result<String, SendError> {
    let path: PathBuf = dir.join(format!("{name}.eml"));
    let words = one_line(&path.display().to_string());
    tokio::task::spawn_blocking(move || file::write(&path, &bytes))
        .await
        .map_err(|error| SendError::soon(error.to_string()))?
        .map_err(|error| SendError::soon(format!("cannot write {words}: {error}")))?;
    Ok(format!("written to {words}"))
}
