//! Serving until told to stop, and then only as long as it takes to finish
//! what is in flight.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;

use crate::tls::{ServerTls, stopping};

/// Time that connections get to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a server that drains by itself on `shutdown`, and keeps its
/// certificate fresh meanwhile.
///
/// # Errors
/// When the server failed.
pub(crate) async fn serve(
    name: &'static str,
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    tls: &ServerTls,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let overdue = async {
        tls.keep_fresh(shutdown.clone()).await;
        stopping(&mut shutdown).await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        served = serving => served.with_context(|| format!("the {name} listener failed")),
        () = overdue => {
            tracing::warn!(
                listener = name, timeout_secs = DRAIN_TIMEOUT.as_secs(),
                "Connections that did not end in time were left behind."
            );
            Ok(())
        }
    }
}
