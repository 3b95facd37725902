//! Enrolment tokens: made, listed, revoked.

use std::ops::RangeInclusive;
use std::time::Duration;

use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use tonic::Status;

use super::refusal::{internal, invalid, not_found, not_now};
use super::{AdminContext, Caller, messages};
use crate::ledger::state::TokenRecord;
use crate::policy::check_groups;
use crate::tokens::{self, TokenError, USES_MAX};

/// Longer would be a standing invitation.
const TTL_SECS: RangeInclusive<u64> = 1..=30 * 86_400;

impl AdminContext {
    /// Makes a token. Its string is shown this once and kept nowhere.
    pub(super) async fn create_token(
        &self,
        caller: &Caller,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse, Status> {
        if !TTL_SECS.contains(&request.ttl_secs) {
            return Err(invalid("a token is valid for 1 second to 30 days"));
        }
        let uses = request.uses.max(1);
        if uses > USES_MAX {
            return Err(invalid(format!("a token has at most {USES_MAX} uses")));
        }
        let groups = check_groups(request.groups)?;
        let ttl = Duration::from_secs(request.ttl_secs);
        let addresses = self.enroll_addresses();
        let (ledger, authority) = (&self.ledger, &self.authority);
        let created = tokens::create(
            ledger,
            authority,
            caller.actor(),
            groups,
            ttl,
            uses,
            addresses,
        )
        .await
        .map_err(|error| match error {
            TokenError::Policies(sentence) => not_now(sentence),
            error => internal(error.to_string()),
        })?;
        let info = self.ledger.read(|state| {
            state
                .tokens
                .get(&created.id)
                .map(|token| token_info(&created.id, token))
        });
        Ok(v1::CreateTokenResponse {
            token: created.token,
            info,
            diagnostics: messages(&created.warnings),
        })
    }

    /// Every token, newest first.
    pub(super) fn list_tokens(&self) -> v1::ListTokensResponse {
        let mut tokens: Vec<_> = self.ledger.read(|state| {
            state
                .tokens
                .iter()
                .map(|(id, token)| token_info(id, token))
                .collect()
        });
        tokens.sort_by_key(|token: &v1::TokenInfo| std::cmp::Reverse(token.created_at_ms));
        v1::ListTokensResponse { tokens }
    }

    /// Ends a token; hosts that it enrolled stay.
    pub(super) async fn revoke_token(
        &self,
        caller: &Caller,
        request: v1::RevokeTokenRequest,
    ) -> Result<v1::RevokeTokenResponse, Status> {
        self.commit(caller, |state| {
            if !state.tokens.contains_key(&request.id) {
                let shown = procwarden_common::printable::printable(request.id.as_bytes());
                let sentence = format!(
                    "there is no token {shown}; `procwarden token list` shows what there is"
                );
                return Err(not_found(sentence));
            }
            Ok(Entry::TokenRevoked(v1::TokenRevoked { id: request.id }))
        })
        .await?;
        Ok(v1::RevokeTokenResponse {})
    }

    /// Where agents enrol: the names that `init` was given, in their order.
    fn enroll_addresses(&self) -> Vec<String> {
        let port = self.enroll_address.port();
        let address = |name: &String| match name.parse::<std::net::Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]:{port}"),
            Err(_) => format!("{name}:{port}"),
        };
        self.authority.names().iter().map(address).collect()
    }
}

fn token_info(id: &str, token: &TokenRecord) -> v1::TokenInfo {
    v1::TokenInfo {
        id: id.to_owned(),
        groups: token.groups.clone(),
        created_at_ms: token.created_at.0,
        expires_at_ms: token.expires_at.0,
        uses: token.uses,
        used: token.used,
        revoked: token.revoked,
    }
}
