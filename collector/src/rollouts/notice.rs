//! The mail about a roll-out that stopped by itself.
//!
//! A task of its own: a mail server that hangs delays no decision about a
//! roll-out.
//!
//! Promises: it is sent until a mail server took it, over restarts; once taken
//! it is sent no more. A mail that was sent just before a crash may be sent
//! again, with the same Message-ID.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{ACTOR, EVERY};
use crate::alert::mailer::{Mail, send};
use crate::alert::render::rollout_mail;
use crate::clock;
use crate::config::Config;
use crate::ledger::{CommitError, Ledger, LedgerState};
use crate::policy::rollout::{Phase, Rollout};

/// Between two attempts.
const AGAIN_MILLIS: u64 = 60_000;

/// Sends what is due until `shutdown` becomes true. A mail that this cuts off
/// is sent again after the next start.
pub(super) async fn run(
    ledger: Ledger,
    config: Arc<ArcSwap<Config>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut notices = Notices::default();
    let work = async {
        loop {
            tokio::time::sleep(EVERY).await;
            let config = config.load_full();
            notices.send_due(&ledger, &config).await;
        }
    };
    tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// The notices that are due, and when each was tried last.
#[derive(Debug, Default)]
struct Notices {
    tried: HashMap<String, UnixMillis>,
}

impl Notices {
    /// Tries to send what is due.
    async fn send_due(&mut self, ledger: &Ledger, config: &Config) {
        let Some(mail_config) = &config.mail else {
            return;
        };
        let now = clock::now();
        let due = ledger.read(untold);
        self.tried
            .retain(|policy, _| due.iter().any(|(due, _)| due == policy));
        for (policy, rollout) in due {
            let tried = self.tried.get(&policy);
            if tried.is_some_and(|tried| now.millis_since(*tried) < AGAIN_MILLIS) {
                continue;
            }
            self.tried.insert(policy.clone(), now);
            let mail = mail(&policy, &rollout, mail_config.to.clone());
            let sent = send(mail_config, &mail, &mail.to).await;
            let told = match sent {
                Ok(_) => tell(ledger, now, &policy, &rollout).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = told {
                tracing::warn!(
                    policy,
                    error,
                    "The mail about a stopped roll-out is tried again in a minute."
                );
            }
        }
    }
}

/// Roll-outs that stopped by themselves and that nobody was told about.
fn untold(state: &LedgerState) -> Vec<(String, Rollout)> {
    let policies = state.policies.iter();
    let rollouts = policies.filter_map(|(name, p)| Some((name.clone(), p.rollout.clone()?)));
    let is_due = |(_, rollout): &(String, Rollout)| {
        matches!(rollout.phase, Phase::Held | Phase::Reverted) && !rollout.told
    };
    rollouts.filter(is_due).collect()
}

async fn tell(
    ledger: &Ledger,
    now: UnixMillis,
    policy: &str,
    rollout: &Rollout,
) -> Result<(), String> {
    let entry = Entry::RolloutTold(v1::RolloutTold {
        policy: policy.to_owned(),
        revision: rollout.revision,
        started_at_ms: rollout.started_at.0,
    });
    let committed = ledger.commit::<String>(now, ACTOR, |_| Ok(entry)).await;
    committed.map_err(|error| match error {
        CommitError::Refused(why) | CommitError::Stopped(why) => why,
    })
}

fn name_of(policy: &str, rollout: &Rollout, at: UnixMillis) -> String {
    let mut hash = Sha256::new();
    hash.update(b"procwarden roll-out notice v1\0");
    hash.update(policy.as_bytes());
    hash.update(rollout.started_at.0.to_be_bytes());
    hash.update(at.0.to_be_bytes());
    HEXLOWER.encode(hash.finalize().get(..16).unwrap_or_default())
}

/// The same roll-out gives the same Message-ID.
fn mail(policy: &str, rollout: &Rollout, to: Vec<String>) -> Mail {
    let moved = rollout.moved.clone();
    let at = moved.as_ref().map_or(rollout.step_since, |moved| moved.at);
    let name = name_of(policy, rollout, at);
    let reason = moved.map(|moved| moved.reason).unwrap_or_default();
    let is_held = rollout.phase == Phase::Held;
    Mail {
        message_id: format!("{name}.rollout"),
        name,
        date: at,
        to,
        severity: None,
        content: rollout_mail(policy, rollout.revision, &reason, is_held),
    }
}
