//! Copies of the store for `procwarden-collector store export`, while the
//! collector serves.
//!
//! Promises: one copy at a time; memory stays bounded however slow the reader
//! is; a copy that is cut short ends with an error.

use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use procwarden_proto::v1;
use procwarden_proto::v1::backup_service_server::BackupService;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::AdminContext;
use super::refusal::{internal, invalid, not_now};
use crate::backup::{Format, Source, produce};

/// Pieces on their way to the reader.
const PIECES_MAX: usize = 4;

/// Bytes of one piece, about.
const PIECE_BYTES: usize = 256 * 1024;

type Piece = Result<v1::ExportResponse, Status>;

/// The service.
pub(super) struct Backup {
    source: Arc<Source>,
    turn: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
}

impl Backup {
    pub(super) fn new(context: &AdminContext) -> Self {
        Self {
            source: Arc::new(Source {
                data_dir: context.config.load().data_dir.clone(),
                ledger: context.ledger.clone(),
                findings: context.findings.clone(),
            }),
            turn: Arc::new(Semaphore::new(1)),
            shutdown: context.shutdown.clone(),
        }
    }
}

#[tonic::async_trait]
impl BackupService for Backup {
    type ExportStream = ReceiverStream<Piece>;

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let format = match request.get_ref().format() {
            v1::ExportFormat::Jsonl => Format::Jsonl,
            v1::ExportFormat::Native => Format::Native,
            v1::ExportFormat::Unspecified => return Err(invalid("name a format")),
        };
        let turn = Arc::clone(&self.turn).try_acquire_owned();
        let turn = turn.map_err(|_| not_now("another export is under way: wait for its end"))?;
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let (source, shutdown) = (Arc::clone(&self.source), self.shutdown.clone());
        tokio::task::spawn_blocking(move || {
            let mut pieces = Pieces {
                sender,
                shutdown,
                file: String::new(),
                data: Vec::new(),
            };
            let made = produce(&source, format, &mut |file, data| pieces.add(file, data));
            if let Err(error) = made.and_then(|()| pieces.flush()) {
                let status = internal(format!("an export was cut short: {error:#}"));
                // Whoever asked may be gone, which is then what the error says.
                drop(pieces.sender.blocking_send(Err(status)));
            }
            drop(turn);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Gathers what is small: a line is not worth a message.
struct Pieces {
    sender: mpsc::Sender<Piece>,
    shutdown: watch::Receiver<bool>,
    file: String,
    data: Vec<u8>,
}

impl Pieces {
    fn add(&mut self, file: &str, data: &[u8]) -> anyhow::Result<()> {
        if file != self.file {
            self.flush()?;
            file.clone_into(&mut self.file);
            // An empty file is told of too.
            self.send()?;
        }
        self.data.extend_from_slice(data);
        match self.data.len() < PIECE_BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        match self.data.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }

    fn send(&mut self) -> anyhow::Result<()> {
        ensure!(!*self.shutdown.borrow(), "the collector is stopping");
        let piece = v1::ExportResponse {
            file: self.file.clone(),
            data: Bytes::from(std::mem::take(&mut self.data)),
        };
        let sent = self.sender.blocking_send(Ok(piece));
        ensure!(sent.is_ok(), "nobody reads it any more");
        Ok(())
    }
}
