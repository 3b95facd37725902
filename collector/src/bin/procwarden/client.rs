//! The connection to the collector: gRPC over its Unix socket, and failures
//! in the operator's words.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use procwarden_common::printable::printable;
use procwarden_proto::v1::admin_service_client::AdminServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::failure::Failure;

/// The collector's service for operators.
pub(crate) type Admin = AdminServiceClient<Channel>;

/// Longest wait for the beginning of an answer; a mail server may be slow.
const ANSWER_WAIT: Duration = Duration::from_secs(120);

/// Largest answer: a page of findings with long command lines.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Reads `unix:PATH`, the only form that this version serves.
pub(crate) fn parse_collector(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        return Err(
            "this version serves operators on the collector's Unix socket only: \
                    run the command on the collector, for example through ssh"
                .into(),
        );
    }
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("write unix:PATH, such as unix:/run/procwarden/admin.sock".into()),
    }
}

/// Connects to the collector.
pub(crate) async fn connect(socket: &Path) -> Result<Admin, Failure> {
    let path = socket.to_owned();
    // The address is for the protocol's header only: the connector ignores it.
    let channel = Endpoint::from_static("http://collector")
        .timeout(ANSWER_WAIT)
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| unreachable(&error, socket))?;
    Ok(AdminServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

fn unreachable(error: &(dyn Error + 'static), socket: &Path) -> Failure {
    let mut cause = Some(error);
    let mut innermost = error;
    let mut kind = None;
    while let Some(current) = cause {
        kind = kind.or_else(|| current.downcast_ref::<io::Error>().map(io::Error::kind));
        innermost = current;
        cause = current.source();
    }
    let shown = shown(socket);
    Failure::Run(match kind {
        Some(io::ErrorKind::NotFound) => format!(
            "cannot reach the collector: there is no socket {shown}; is procwarden-collector \
             running here, and is its listen.admin this path (--collector unix:PATH)?"
        ),
        Some(io::ErrorKind::ConnectionRefused) => format!(
            "cannot reach the collector: nobody listens on {shown}; start procwarden-collector"
        ),
        Some(io::ErrorKind::PermissionDenied) => format!(
            "cannot reach the collector: no permission for {shown}; run as root or as a member \
             of the group that owns the socket"
        ),
        _ => format!("cannot reach the collector on {shown}: {innermost}"),
    })
}

/// What the collector's refusal means to the operator.
pub(crate) fn refused(what: &str, status: &Status, socket: &Path) -> Failure {
    let reason = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    let shown = shown(socket);
    match status.code() {
        Code::InvalidArgument => Failure::Usage(format!("cannot {what}: {reason}")),
        Code::PermissionDenied | Code::Unauthenticated => Failure::Run(format!(
            "cannot {what}: {reason}; run as root or as a member of the group that owns {shown}"
        )),
        Code::Unavailable | Code::Cancelled | Code::Unknown => Failure::Run(format!(
            "cannot {what}: the connection to the collector on {shown} failed ({reason}); see \
             whether procwarden-collector still runs, and its log"
        )),
        Code::DeadlineExceeded => Failure::Run(format!(
            "cannot {what}: the collector did not answer in time; see its log"
        )),
        Code::Unimplemented => Failure::Run(format!(
            "cannot {what}: the collector does not know this request; install the same version \
             of procwarden and procwarden-collector"
        )),
        Code::Internal | Code::DataLoss => {
            Failure::Run(format!("cannot {what}: {reason}; see the collector's log"))
        }
        _ => Failure::Run(format!("cannot {what}: {reason}")),
    }
}

fn shown(socket: &Path) -> String {
    printable(socket.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unix_socket_is_an_address() {
        assert_eq!(parse_collector("unix:/run/x"), Ok("/run/x".into()));
        for text in ["", "unix:", "/run/x", "tcp:1", "https://collector:7443"] {
            assert!(parse_collector(text).is_err(), "{text}");
        }
        let refusal = parse_collector("https://c").unwrap_err();
        assert!(refusal.contains("ssh"), "{refusal}");
    }

    #[test]
    fn each_refusal_has_its_exit_code_and_names_what_was_asked() {
        for (status, code) in [
            (Status::invalid_argument("no such severity"), 64),
            (Status::not_found("no host web9"), 1),
            (Status::permission_denied(""), 1),
            (Status::unavailable("transport error"), 1),
            (Status::failed_precondition("the host is revoked"), 1),
            (Status::unimplemented(""), 1),
        ] {
            let failure = refused("list the hosts", &status, Path::new("/run/s"));
            assert_eq!(failure.exit_code(), code, "{failure}");
            assert!(
                failure.to_string().starts_with("cannot list the hosts: "),
                "{failure}"
            );
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_named_with_the_next_step() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("admin.sock");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let failure = runtime
            .block_on(connect(&socket))
            .expect_err("nothing is there");
        assert!(
            failure.to_string().contains("there is no socket"),
            "{failure}"
        );
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
        let failure = runtime
            .block_on(connect(&socket))
            .expect_err("nobody listens");
        assert!(failure.to_string().contains("nobody listens"), "{failure}");
    }
}
