//! `store export` and `store restore`: asks the collector that serves, and
//! opens the files itself where none does.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;

use anyhow::{Context, anyhow};
use hyper_util::rt::TokioIo;
use procwarden_common::printable::printable;
use procwarden_proto::v1;
use procwarden_proto::v1::backup_service_client::BackupServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

use super::{Failure, load, say};
use crate::backup::{self, Format, Place, Source, produce};
use crate::cli::{ExportOptions, RestoreOptions};
use crate::clock;
use crate::config::Config;
use crate::findings::Findings;
use crate::ledger::Ledger;

/// The authority's private key, below the data directory and below a copy.
const KEY: &str = "ca/ca.key";

/// Copies the store to a new directory.
pub(super) fn export(options: &ExportOptions) -> Result<(), Failure> {
    let config = load::load(&options.config.config)?;
    if !config.data_dir.join("ca").is_dir() {
        return Err(Failure::not_initialised(&config.data_dir));
    }
    let mut place = Place::create(&options.to, options.format)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let how = if serves(&config.listen.admin)? {
        runtime.block_on(ask(&config.listen.admin, options.format, &mut place))?;
        "from the collector that serves"
    } else {
        runtime.block_on(read(&config, options.format, &mut place))?;
        "from the files; no collector serves"
    };
    if options.format == Format::Native {
        let text = std::fs::read(&options.config.config);
        place.add(
            "collector.toml",
            &text.context("cannot read the configuration")?,
        )?;
    }
    if options.with_ca_key {
        let path = config.data_dir.join(KEY);
        let key = std::fs::read(&path).map(Zeroizing::new);
        let key = key.with_context(|| format!("cannot read {}", path.display()))?;
        place.add(KEY, &key)?;
    }
    let (files, bytes) = place.finish(clock::now().to_string())?;
    let to = printable(options.to.as_os_str().as_encoded_bytes());
    say(&format!("copied   {files} files, {bytes} bytes, {how}"));
    say(&format!("to       {to}"));
    if options.format == Format::Native && !options.with_ca_key {
        let key = config.data_dir.join(KEY);
        say(&format!(
            "lacks    {}: keep a copy of it elsewhere, nothing can be restored without it",
            key.display()
        ));
    }
    Ok(())
}

/// Puts a copy into an empty data directory.
pub(super) fn restore(options: &RestoreOptions) -> Result<(), Failure> {
    let restored = backup::restore(&options.from, &options.data_dir)?;
    let data_dir = printable(options.data_dir.as_os_str().as_encoded_bytes());
    say(&format!("restored {} files", restored.files));
    say(&format!("to       {data_dir}"));
    if restored.lacks_key {
        say(&format!(
            "lacks    {data_dir}/{KEY}: put the authority's private key there, mode 0600"
        ));
    }
    say("next     name this directory as data_dir in the configuration and start the collector");
    Ok(())
}

/// Whether a collector answers on the socket.
fn serves(socket: &Path) -> anyhow::Result<bool> {
    match StdStream::connect(socket) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(false),
            _ => Err(anyhow!(
                "cannot use the socket {}: {error}",
                socket.display()
            )),
        },
    }
}

async fn ask(socket: &Path, format: Format, place: &mut Place) -> anyhow::Result<()> {
    let format = match format {
        Format::Jsonl => v1::ExportFormat::Jsonl,
        Format::Native => v1::ExportFormat::Native,
    };
    let request = v1::ExportRequest {
        format: format.into(),
    };
    let said = |status: tonic::Status| {
        let words = printable(status.message().as_bytes());
        anyhow!("the collector says: {words}; the copy is not complete")
    };
    let mut client = BackupServiceClient::new(connect(socket).await?);
    let mut pieces = client.export(request).await.map_err(said)?.into_inner();
    while let Some(piece) = pieces.message().await.map_err(said)? {
        place.add(&piece.file, &piece.data)?;
    }
    Ok(())
}

async fn connect(socket: &Path) -> anyhow::Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is for the protocol's header only: the connector ignores it.
    let endpoint = Endpoint::from_static("http://collector");
    let channel = endpoint.connect_with_connector(connector).await;
    channel.with_context(|| format!("cannot reach the collector on {}", socket.display()))
}

/// From the files. Their locks keep a collector that starts meanwhile away.
async fn read(config: &Config, format: Format, place: &mut Place) -> anyhow::Result<()> {
    let source = Source {
        data_dir: config.data_dir.clone(),
        ledger: Ledger::open(&config.data_dir)?,
        findings: Findings::open(&config.data_dir)?,
    };
    let made = produce(&source, format, &mut |name, bytes| place.add(name, bytes));
    source.findings.close().await;
    made
}
