//! The admin socket: a place in the file system, and the connections there.
//!
//! Promises: never takes a socket away from a process that answers on it; the
//! file is gone after a drain. Never removes what is not a socket.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::caller::{Access, Caller};
use connection::AdminConnection;

mod connection;

/// Members of this group may use the socket, where the group exists.
const GROUP: &str = "procwarden";

/// Root, the socket's owner and its group may connect.
const MODE: u32 = 0o660;

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 256;

/// Pause after a failed accept: what caused it, such as too many open files,
/// does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The socket, bound and listening.
pub(crate) struct AdminSocket {
    listener: UnixListener,
    access: Access,
    file: SocketFile,
}

/// Removes the socket's file when it goes.
pub(super) struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "The admin socket was gone already.");
        }
    }
}

impl AdminSocket {
    /// Makes the socket. To be called inside the runtime.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        if let Some(dir) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
            made.with_context(|| format!("cannot make the directory {}", dir.display()))?;
        }
        remove_stale(path)?;
        let at = || format!("cannot listen on unix:{}", path.display());
        let listener = UnixListener::bind(path).with_context(at)?;
        let file = SocketFile {
            path: path.to_owned(),
        };
        // Whoever connects before the mode is set is judged by its account.
        std::fs::set_permissions(path, Permissions::from_mode(MODE)).with_context(at)?;
        give_to_group(path);
        let access = Access {
            own_uid: rustix::process::geteuid().as_raw(),
            socket_gid: std::fs::metadata(path).with_context(at)?.gid(),
        };
        Ok(Self {
            listener,
            access,
            file,
        })
    }

    /// Accepts until shutdown. The file stays as long as its guard is kept.
    pub(super) fn connections(
        self,
        shutdown: watch::Receiver<bool>,
    ) -> (ReceiverStream<io::Result<AdminConnection>>, SocketFile) {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(accept(self.listener, self.access, sender, shutdown));
        (ReceiverStream::new(receiver), self.file)
    }
}

async fn accept(
    listener: UnixListener,
    access: Access,
    sender: mpsc::Sender<io::Result<AdminConnection>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed, so there is always a permit to come.
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(hand_over(stream, access, permit, sender.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "A connection to the admin socket could not be accepted.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// In a task of its own: looking an account up may take long.
async fn hand_over(
    stream: UnixStream,
    access: Access,
    permit: OwnedSemaphorePermit,
    sender: mpsc::Sender<io::Result<AdminConnection>>,
) {
    let peer = stream.peer_cred().ok();
    let looked_up = tokio::task::spawn_blocking(move || Caller::look_up(peer, access)).await;
    let Ok(caller) = looked_up else { return };
    // Nobody takes connections any more: this one is closed by dropping it.
    drop(
        sender
            .send(Ok(AdminConnection::new(stream, caller, permit)))
            .await,
    );
}

/// A collector that was killed leaves its socket behind.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look at {}", path.display()));
        }
    };
    if !metadata.file_type().is_socket() {
        bail!(
            "{} exists and is no socket: choose another path for listen.admin",
            path.display()
        );
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let removed = std::fs::remove_file(path);
            removed.with_context(|| format!("cannot remove the old socket {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
        Ok(_) => bail!(
            "somebody answers on unix:{}: does another collector run?",
            path.display()
        ),
    }
}

/// Without the right to give the file away it stays with the collector's own
/// group, which is what a plain user wants.
fn give_to_group(path: &Path) {
    let Some(group) = uzers::get_group_by_name(GROUP) else {
        return;
    };
    if let Err(error) = std::os::unix::fs::chown(path, None, Some(group.gid())) {
        tracing::warn!(group = GROUP, %error, "The admin socket could not be given to its group.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        let refused = AdminSocket::bind(&path).err().unwrap().to_string();
        assert!(refused.contains("does another collector run?"), "{refused}");

        drop(socket);
        assert!(!path.exists());
        // A killed process leaves the file: bound, and nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        AdminSocket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(AdminSocket::bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
