//! What Prometheus reads: `GET /metrics` over plain HTTP, off unless an
//! address is configured.
//!
//! ```text
//! meters (counted as it happens) ─┐
//! ledger, findings, sessions ... ─┴─> render: one registry per scrape -> text
//! ```
//!
//! Promises: one scrape at a time, off the threads that serve agents; names
//! and label sets are bounded whatever agents say. Never a text of an agent in
//! a label: `prometheus-client` does not escape label values.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use procwarden_common::clock::UnixMillis;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};

use crate::alert::Outbox;
use crate::ca::Authority;
use crate::findings::Findings;
use crate::ledger::Ledger;
use crate::sessions::Sessions;
use crate::tls::stopping;

mod fleet;
mod meters;
mod own;
mod render;

pub(crate) use meters::{Meters, latency_seconds};
pub(crate) use own::resident_bytes;

/// OpenMetrics 1.0, which Prometheus asks for.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Longest wait for a scrape that is in flight when the collector stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Where the figures come from.
pub(crate) struct MetricsContext {
    pub(crate) ledger: Ledger,
    pub(crate) authority: Arc<Authority>,
    pub(crate) findings: Findings,
    pub(crate) sessions: Sessions,
    pub(crate) outbox: Outbox,
    pub(crate) meters: Meters,
    pub(crate) started_at: UnixMillis,
}

/// One scrape at a time: each looks at every host.
type Scraped = Arc<Mutex<Arc<MetricsContext>>>;

/// Answers until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    listener: TcpListener,
    context: MetricsContext,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let scraped: Scraped = Arc::new(Mutex::new(Arc::new(context)));
    let router = Router::new()
        .route("/metrics", get(scrape))
        .with_state(scraped);
    let (mut stop, mut overdue) = (shutdown.clone(), shutdown);
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stopping(&mut stop).await })
        .into_future();
    tokio::select! {
        served = serving => served?,
        // Whoever keeps a connection open does not hold up the end.
        () = async { stopping(&mut overdue).await; tokio::time::sleep(DRAIN_MAX).await } => {}
    }
    Ok(())
}

async fn scrape(State(scraped): State<Scraped>) -> Response {
    let turn = scraped.lock().await;
    let context = Arc::clone(&turn);
    let text = tokio::task::spawn_blocking(move || render::text(&context, crate::clock::now()));
    match text.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(_)) | Err(_) => {
            tracing::error!("The metrics could not be put together.");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests;
