//! What the collector says to the service manager: that it is ready, that it
//! stops, and that it lives.
//!
//! Promises: without a service manager nothing happens; one that cannot be
//! reached is no reason to stop.

use sd_notify::NotifyState;

/// Everything is open, and whoever connects is served.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The collector was told to stop.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog, if there is one, for as long as the runtime runs
/// tasks: one that hangs is started again.
pub(crate) async fn feed_watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(timeout / 3).await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "The service manager cannot be told.");
    }
}
