//! `procwarden token`: what lets servers enrol.
//!
//! Promises: `create` prints the token alone on standard output, so that it
//! can be piped into a file; what it is good for goes to standard error.

use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use serde::Serialize;

use crate::cli::TokenCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::{shown, shown_all, when};
use crate::policy::remarks;
use crate::table::Table;

/// A token without its secret.
#[derive(Debug, Serialize)]
struct TokenObject {
    id: String,
    groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    uses: u32,
    used: u32,
    revoked: bool,
}

impl From<&v1::TokenInfo> for TokenObject {
    fn from(info: &v1::TokenInfo) -> Self {
        Self {
            id: shown(&info.id),
            groups: shown_all(&info.groups),
            created_at: when(info.created_at_ms),
            expires_at: when(info.expires_at_ms),
            uses: info.uses,
            used: info.used,
            revoked: info.revoked,
        }
    }
}

/// A new token, with its secret.
#[derive(Debug, Serialize)]
struct CreatedObject {
    token: String,
    #[serde(flatten)]
    info: TokenObject,
}

pub(crate) async fn run(command: TokenCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { groups, ttl, uses } => create(groups, ttl, uses, context).await,
        TokenCommand::List => list(context).await,
        TokenCommand::Revoke { id } => {
            let request = v1::RevokeTokenRequest { id: id.clone() };
            let answer = context.admin().await?.revoke_token(request).await;
            answer.map_err(|status| context.refused("revoke the token", &status))?;
            context
                .out
                .remark(&format!("token {id} cannot be used any more"));
            Ok(())
        }
    }
}

async fn create(
    groups: Vec<String>,
    ttl: Duration,
    uses: u32,
    context: &mut Context,
) -> Result<(), Failure> {
    let request = v1::CreateTokenRequest {
        groups,
        ttl_secs: ttl.as_secs(),
        uses,
    };
    let answer = context.admin().await?.create_token(request).await;
    let created = answer
        .map_err(|status| context.judged("create a token", &status))?
        .into_inner();
    remarks::say_of_collector(created.diagnostics, &context.out);
    let info = TokenObject::from(&created.info.unwrap_or_default());
    if context.out.json() {
        return context.out.object(&CreatedObject {
            token: created.token,
            info,
        });
    }
    context.out.line(&created.token)?;
    let groups = if info.groups.is_empty() {
        "none besides all".into()
    } else {
        info.groups.join(", ")
    };
    context.out.remark(&format!(
        "token {}: {} use(s), until {}, groups: {groups}",
        info.id,
        info.uses,
        info.expires_at.as_deref().unwrap_or("-"),
    ));
    context.out.remark(
        "whoever has it can enrol a host; on the server: procwarden-agent enroll --token-file FILE",
    );
    Ok(())
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let answer = context
        .admin()
        .await?
        .list_tokens(v1::ListTokensRequest {})
        .await;
    let tokens = answer.map_err(|status| context.refused("list the tokens", &status))?;
    let tokens = tokens.into_inner().tokens;
    if context.out.json() {
        for token in &tokens {
            context.out.object(&TokenObject::from(token))?;
        }
        return Ok(());
    }
    let now = context.now();
    let mut table = Table::new(&["ID", "STATE", "USED", "GROUPS", "EXPIRES"]);
    for info in &tokens {
        let token = TokenObject::from(info);
        table.row([
            token.id.into(),
            state_of(info, now).into(),
            format!("{} of {}", token.used, token.uses).into(),
            token.groups.join(" ").into(),
            token.expires_at.unwrap_or_default().into(),
        ]);
    }
    context.out.table(&table)
}

/// Whether a host can still enrol with it.
fn state_of(info: &v1::TokenInfo, now: UnixMillis) -> &'static str {
    if info.revoked {
        "revoked"
    } else if info.used >= info.uses {
        "used up"
    } else if info.expires_at_ms <= now.0 {
        "expired"
    } else {
        "usable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_usable_until_it_is_revoked_used_up_or_expired() {
        let info = |used, expires_at_ms, revoked| v1::TokenInfo {
            uses: 2,
            used,
            expires_at_ms,
            revoked,
            ..Default::default()
        };
        for (info, state) in [
            (info(1, 11, false), "usable"),
            (info(2, 11, false), "used up"),
            (info(0, 10, false), "expired"),
            (info(0, 11, true), "revoked"),
        ] {
            assert_eq!(state_of(&info, UnixMillis(10)), state);
        }
    }
}
