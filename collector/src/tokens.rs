//! Enrolment tokens: made for an operator, checked for an agent.
//!
//! Promises: the collector keeps the SHA-256 of a secret, never the secret;
//! the check is a pure function of ledger and time, so that the same check
//! decides before and inside the commit that uses a token up.

use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::token::Token;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ca::Authority;
use crate::clock;
use crate::ledger::state::TokenRecord;
use crate::ledger::{CommitError, Ledger, LedgerState};
use crate::policy::PolicyError;
use crate::policy::union::{self, Change};

/// Longest life of a token.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Most enrolments that one token allows.
pub(crate) const USES_MAX: u32 = 100_000;

const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// Bytes of a token id in a request; ours have twelve.
const ID_TEXT_BYTES_MAX: usize = 64;

/// A token as the operator gets it, once.
pub(crate) struct CreatedToken {
    /// The public id, by which it is listed and revoked.
    pub(crate) id: String,
    /// The string for `procwarden-agent enroll`; nothing keeps it.
    pub(crate) token: String,
    /// What is doubtful about the policies that its hosts get.
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Why no token was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("a token is for 1 to {USES_MAX} hosts, not for {0}")]
    Uses(u32),
    #[error("a token lives for 1 second to {} days", TTL_MAX.as_secs() / 86_400)]
    Ttl,
    #[error(
        "the collector has no address that agents could use: name one with `procwarden-collector init --name`"
    )]
    NoAddress,
    #[error("the system gave no random bytes: {0}")]
    Random(String),
    #[error("a token with the id {0} exists already, which chance does not explain; try again")]
    IdTaken(String),
    /// Its hosts would get policies together that do not compile.
    #[error("{0}")]
    Policies(String),
    #[error("{0}")]
    Stopped(String),
}

/// Why a token does not enrol a host. The words go to the agent and to the
/// collector's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefusal {
    #[error("this collector does not know the token: make one with `procwarden token create`")]
    Unknown,
    #[error("the secret of the token is wrong: copy the whole token again")]
    WrongSecret,
    #[error("the token was revoked: make a new one with `procwarden token create`")]
    Revoked,
    #[error("the token expired at {0}: make a new one with `procwarden token create`")]
    Expired(UnixMillis),
    #[error("the token is used up ({0} of {0}): make a new one with `procwarden token create`")]
    UsedUp(u32),
}

/// Makes a token for hosts of `groups`, which reach the collector's enrolment
/// listener at `addresses` (`name:port`, best first).
///
/// # Errors
/// When a limit is broken, when agents would refuse what the hosts of these
/// groups get together, or when the ledger cannot be written.
pub(crate) async fn create(
    ledger: &Ledger,
    authority: &Authority,
    actor: &str,
    groups: Vec<String>,
    ttl: Duration,
    uses: u32,
    addresses: Vec<String>,
) -> Result<CreatedToken, TokenError> {
    check_wishes(ttl, uses, &addresses)?;
    let id = data_encoding::HEXLOWER.encode(&random::<ID_BYTES>()?);
    let secret = random::<SECRET_BYTES>()?;
    let now = clock::now();
    let change = Change::Token {
        groups: groups.clone(),
    };
    let together = union::check(ledger, &change, now).await?;
    let created = v1::TokenCreated {
        id: id.clone(),
        secret_sha256: Sha256::digest(secret).to_vec().into(),
        groups: groups.clone(),
        expires_at_ms: now
            .plus_millis(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
            .0,
        uses,
    };
    let decide = |state: &LedgerState| {
        if state.tokens.contains_key(&created.id) {
            return Err(TokenError::IdTaken(created.id));
        }
        union::still_holds(state, &change, &together)?;
        Ok(Entry::TokenCreated(created))
    };
    ledger
        .commit(now, actor, decide)
        .await
        .map_err(|error| match error {
            CommitError::Refused(refused) => refused,
            CommitError::Stopped(why) => TokenError::Stopped(why),
        })?;
    let ca_sha256 = authority.ca_sha256();
    let token = Token {
        id: id.clone(),
        secret,
        addresses,
        ca_sha256,
        groups,
    }
    .encode();
    Ok(CreatedToken {
        id,
        token,
        warnings: together.warnings,
    })
}

impl From<PolicyError> for TokenError {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Stopped(why) => Self::Stopped(why),
            refused => Self::Policies(refused.to_string()),
        }
    }
}

fn check_wishes(ttl: Duration, uses: u32, addresses: &[String]) -> Result<(), TokenError> {
    if !(1..=USES_MAX).contains(&uses) {
        return Err(TokenError::Uses(uses));
    }
    if ttl < Duration::from_secs(1) || ttl > TTL_MAX {
        return Err(TokenError::Ttl);
    }
    if addresses.is_empty() {
        return Err(TokenError::NoAddress);
    }
    Ok(())
}

/// Whether a token enrols a host at `now`.
///
/// # Errors
/// The first reason why it does not. Only who knows the secret learns more
/// than whether the id exists.
pub(crate) fn check<'a>(
    state: &'a LedgerState,
    token_id: &str,
    secret: &[u8],
    now: UnixMillis,
) -> Result<&'a TokenRecord, TokenRefusal> {
    if token_id.len() > ID_TEXT_BYTES_MAX {
        return Err(TokenRefusal::Unknown);
    }
    let token = state.tokens.get(token_id).ok_or(TokenRefusal::Unknown)?;
    let digest: [u8; 32] = Sha256::digest(secret).into();
    if !bool::from(digest.ct_eq(&token.secret_sha256)) {
        return Err(TokenRefusal::WrongSecret);
    }
    must_be_usable(token, now)?;
    Ok(token)
}

/// Whether a token can still enrol a host, for who has it.
pub(crate) fn must_be_usable(token: &TokenRecord, now: UnixMillis) -> Result<(), TokenRefusal> {
    if token.revoked {
        return Err(TokenRefusal::Revoked);
    }
    if now >= token.expires_at {
        return Err(TokenRefusal::Expired(token.expires_at));
    }
    if token.used >= token.uses {
        return Err(TokenRefusal::UsedUp(token.uses));
    }
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| TokenError::Random(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn state(change: impl FnOnce(&mut TokenRecord)) -> LedgerState {
        let mut token = TokenRecord {
            secret_sha256: Sha256::digest(SECRET).into(),
            groups: vec!["web".into()],
            created_at: UnixMillis(1_000),
            expires_at: UnixMillis(2_000),
            uses: 2,
            used: 1,
            revoked: false,
        };
        change(&mut token);
        let mut state = LedgerState::default();
        state.tokens.insert("t1".into(), token);
        state
    }

    fn refusal(state: &LedgerState, id: &str, secret: &[u8], now: i64) -> Option<TokenRefusal> {
        check(state, id, secret, UnixMillis(now)).err()
    }

    #[test]
    fn only_the_right_id_and_secret_pass() {
        let good = state(|_| ());
        let long = "t".repeat(10_000);
        assert_eq!(refusal(&good, "t1", &SECRET, 1_999), None);
        for id in ["t2", "", &long] {
            let answer = refusal(&good, id, &SECRET, 1_000);
            assert_eq!(answer, Some(TokenRefusal::Unknown));
        }
        for secret in [&SECRET[..31], &[], &[1; 32]] {
            let answer = refusal(&good, "t1", secret, 1_000);
            assert_eq!(answer, Some(TokenRefusal::WrongSecret));
        }
    }

    #[test]
    fn each_reason_to_refuse_a_good_secret_has_its_own_words() {
        let table = [
            (state(|t| t.revoked = true), 1_000, TokenRefusal::Revoked),
            (
                state(|_| ()),
                2_000,
                TokenRefusal::Expired(UnixMillis(2_000)),
            ),
            (state(|t| t.used = 2), 1_000, TokenRefusal::UsedUp(2)),
            (state(|t| t.used = 9), 1_000, TokenRefusal::UsedUp(2)),
        ];
        for (state, now, expected) in table {
            assert_eq!(refusal(&state, "t1", &SECRET, now), Some(expected));
            let stranger = refusal(&state, "t1", &[1; 32], now);
            assert_eq!(
                stranger,
                Some(TokenRefusal::WrongSecret),
                "learns nothing more"
            );
        }
    }

    #[test]
    fn wishes_out_of_bounds_are_refused() {
        let hour = Duration::from_secs(3600);
        let address = ["c.example.com:7442".to_owned()];
        assert_eq!(check_wishes(hour, 1, &address), Ok(()));
        assert_eq!(check_wishes(hour, 0, &address), Err(TokenError::Uses(0)));
        assert_eq!(
            check_wishes(hour, USES_MAX + 1, &address),
            Err(TokenError::Uses(USES_MAX + 1))
        );
        assert_eq!(
            check_wishes(Duration::ZERO, 1, &address),
            Err(TokenError::Ttl)
        );
        assert_eq!(check_wishes(TTL_MAX * 2, 1, &address), Err(TokenError::Ttl));
        assert_eq!(check_wishes(hour, 1, &[]), Err(TokenError::NoAddress));
    }
}
