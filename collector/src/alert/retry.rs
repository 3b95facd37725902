//! When each unsent alert is tried again. Pure: time and jitter are given.
//!
//! Every alert waits on its own, so one that can not be delivered never holds
//! up the others. Nothing is ever given up. Waiting times live in memory: a
//! restart tries everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procwarden_common::backoff::Backoff;
use procwarden_common::clock::UnixMillis;

use crate::ledger::state::AlertRecord;

/// Longest wait after the first failure; it doubles with each further one.
const WAIT_MIN_MILLIS: u64 = 10_000;

/// Longest wait, and the wait after a refusal that is meant to last.
const WAIT_MAX_MILLIS: u64 = 3_600_000;

/// Id of an alert, as the ledger keeps it.
pub(crate) type Id = [u8; 16];

/// What a failed attempt means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// It may work soon.
    No,
    /// The server said that it will not take this mail (SMTP 5xx): someone has
    /// to change something first.
    Yes,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try this alert.
    Try(Id),
    /// Nothing before this time.
    WaitUntil(UnixMillis),
    /// Nothing is unsent.
    Idle,
}

#[derive(Debug)]
struct Attempts {
    failures: u32,
    backoff: Backoff,
    next_at: UnixMillis,
    last_error: String,
    /// Recipients who have the mail already.
    delivered: BTreeSet<String>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            failures: 0,
            backoff: Backoff::new(WAIT_MIN_MILLIS, WAIT_MAX_MILLIS),
            next_at: UnixMillis(0),
            last_error: String::new(),
            delivered: BTreeSet::new(),
        }
    }
}

/// The failed attempts of all unsent alerts.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    alerts: BTreeMap<Id, Attempts>,
    last_error: Option<String>,
}

impl Retries {
    /// Chooses among unsent alerts, which come oldest first.
    pub(crate) fn next<'a>(
        &self,
        unsent: impl Iterator<Item = &'a AlertRecord>,
        now: UnixMillis,
    ) -> Next {
        let mut earliest: Option<UnixMillis> = None;
        for alert in unsent {
            let next_at = self.alerts.get(&alert.id).map_or(now, |a| a.next_at);
            // A clock that was set back must not hold a mail for days.
            if next_at <= now || next_at.millis_since(now) > WAIT_MAX_MILLIS {
                return Next::Try(alert.id);
            }
            earliest = Some(earliest.map_or(next_at, |e| e.min(next_at)));
        }
        earliest.map_or(Next::Idle, Next::WaitUntil)
    }

    /// Notes a failure and returns how many there were. `jitter` is a random
    /// value in 0..1.
    pub(crate) fn failed(
        &mut self,
        id: Id,
        now: UnixMillis,
        lasting: Lasting,
        jitter: f64,
        error: String,
    ) -> u32 {
        self.last_error = Some(error.clone());
        let attempts = self.alerts.entry(id).or_default();
        attempts.failures = attempts.failures.saturating_add(1);
        let backoff = attempts.backoff.next(jitter);
        let wait = match lasting {
            Lasting::Yes => Duration::from_millis(WAIT_MAX_MILLIS),
            Lasting::No => backoff,
        };
        attempts.next_at = now.plus_millis(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        attempts.last_error = error;
        attempts.failures
    }

    /// Notes that a mail is out. The last error is history once none waits
    /// because of it.
    pub(crate) fn sent(&mut self, id: &Id) {
        self.alerts.remove(id);
        if self.alerts.is_empty() {
            self.last_error = None;
        }
    }

    /// Notes who has the mail of an alert that others still lack.
    pub(crate) fn delivered(&mut self, id: Id, to: &str) {
        self.alerts
            .entry(id)
            .or_default()
            .delivered
            .insert(to.to_owned());
    }

    /// Those of `to` who lack the mail.
    pub(crate) fn lacking(&self, id: &Id, to: &[String]) -> Vec<String> {
        let delivered = |address: &&String| {
            self.alerts
                .get(id)
                .is_some_and(|a| a.delivered.contains(address.as_str()))
        };
        to.iter()
            .filter(|address| !delivered(address))
            .cloned()
            .collect()
    }

    /// Makes everything due: the configuration changed.
    pub(crate) fn retry_now(&mut self) {
        for attempts in self.alerts.values_mut() {
            attempts.next_at = UnixMillis(0);
        }
    }

    /// The newest error, while an alert waits because of one.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Failed attempts of each alert, and the error of the newest.
    pub(crate) fn failures(&self) -> BTreeMap<Id, (u32, String)> {
        self.alerts
            .iter()
            .map(|(id, a)| (*id, (a.failures, a.last_error.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

    fn alert(byte: u8) -> AlertRecord {
        AlertRecord {
            id: [byte; 16],
            to: vec!["a@x".into(), "b@x".into()],
            finding_ids: Vec::new(),
            queued_at: NOW,
            sent_at: None,
            expiring: Vec::new(),
        }
    }

    fn fail(retries: &mut Retries, id: u8, now: UnixMillis, lasting: Lasting) -> u32 {
        retries.failed([id; 16], now, lasting, 1.0, format!("error of {id}"))
    }

    #[test]
    fn the_oldest_unsent_alert_is_tried_first_and_without_one_it_is_idle() {
        let retries = Retries::default();
        assert_eq!(
            retries.next([alert(1), alert(2)].iter(), NOW),
            Next::Try([1; 16])
        );
        assert_eq!(retries.next([].iter(), NOW), Next::Idle);
    }

    #[test]
    fn a_failed_alert_does_not_hold_up_the_next_one() {
        let mut retries = Retries::default();
        fail(&mut retries, 1, NOW, Lasting::No);
        let alerts = [alert(1), alert(2)];
        assert_eq!(retries.next(alerts.iter(), NOW), Next::Try([2; 16]));
        fail(&mut retries, 2, NOW.plus_millis(500), Lasting::No);
        let now = NOW.plus_millis(600);
        assert_eq!(
            retries.next(alerts.iter(), now),
            Next::WaitUntil(NOW.plus_millis(10_000))
        );
        assert_eq!(
            retries.next(alerts.iter(), NOW.plus_millis(10_000)),
            Next::Try([1; 16])
        );
    }

    #[test]
    fn waits_double_up_to_an_hour_and_never_end() {
        let mut retries = Retries::default();
        let expected_secs = [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600];
        for (index, secs) in expected_secs.into_iter().enumerate() {
            let failures = fail(&mut retries, 1, NOW, Lasting::No);
            assert_eq!(usize::try_from(failures).unwrap(), index + 1);
            let due = NOW.plus_millis(secs * 1000);
            assert_eq!(retries.next([alert(1)].iter(), NOW), Next::WaitUntil(due));
        }
        for _ in 0..1000 {
            fail(&mut retries, 1, NOW, Lasting::No);
        }
        let due = NOW.plus_millis(3_600_000);
        assert_eq!(retries.next([alert(1)].iter(), NOW), Next::WaitUntil(due));
    }

    #[test]
    fn a_lasting_refusal_is_tried_again_after_an_hour() {
        let mut retries = Retries::default();
        fail(&mut retries, 1, NOW, Lasting::Yes);
        let due = NOW.plus_millis(3_600_000);
        assert_eq!(retries.next([alert(1)].iter(), NOW), Next::WaitUntil(due));
        retries.retry_now();
        assert_eq!(retries.next([alert(1)].iter(), NOW), Next::Try([1; 16]));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_no_mail() {
        let mut retries = Retries::default();
        fail(&mut retries, 1, NOW, Lasting::No);
        let earlier = NOW.plus_millis(-86_400_000);
        assert_eq!(retries.next([alert(1)].iter(), earlier), Next::Try([1; 16]));
    }

    #[test]
    fn who_has_the_mail_is_not_written_to_again() {
        let mut retries = Retries::default();
        retries.delivered([1; 16], "a@x");
        assert_eq!(retries.lacking(&[1; 16], &alert(1).to), ["b@x"]);
        assert_eq!(retries.lacking(&[2; 16], &alert(2).to), ["a@x", "b@x"]);
    }

    #[test]
    fn the_last_error_is_shown_until_everything_that_failed_is_sent() {
        let mut retries = Retries::default();
        fail(&mut retries, 1, NOW, Lasting::No);
        fail(&mut retries, 2, NOW, Lasting::No);
        assert_eq!(retries.last_error(), Some("error of 2"));
        retries.sent(&[2; 16]);
        assert!(retries.last_error().is_some());
        retries.sent(&[1; 16]);
        assert_eq!(retries.last_error(), None);
    }
}
