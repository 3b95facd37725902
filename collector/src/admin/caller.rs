//! Who is at the other end of the admin socket, by what the kernel says.

use procwarden_common::printable::printable;
use tokio::net::unix::UCred;
use tonic::{Request, Status};

/// Who a connection belongs to; found out once, when it is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    actor: String,
    admitted: bool,
}

/// Whom the socket is for, besides root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    /// The account that runs the collector.
    pub(super) own_uid: u32,
    /// The group that owns the socket.
    pub(super) socket_gid: u32,
}

impl Caller {
    /// Looks the account up, which may take as long as the name service does.
    pub(super) fn look_up(peer: Option<UCred>, access: Access) -> Self {
        let Some(peer) = peer else {
            return Self {
                actor: "unknown".into(),
                admitted: false,
            };
        };
        let user = uzers::get_user_by_uid(peer.uid());
        let groups = || {
            user.as_ref()
                .and_then(uzers::User::groups)
                .unwrap_or_default()
        };
        let is_member = || {
            groups()
                .iter()
                .any(|group| group.gid() == access.socket_gid)
        };
        let admitted = access.admits(peer.uid(), peer.gid(), is_member);
        let name = user
            .as_ref()
            .map(|user| printable(user.name().as_encoded_bytes()));
        Self {
            actor: actor(peer.uid(), name.as_deref()),
            admitted,
        }
    }

    /// The caller of a request.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request
            .extensions()
            .get()
            .cloned()
            .ok_or_else(|| Status::permission_denied("unknown caller"))
    }

    /// As the ledger names who decided.
    pub(super) fn actor(&self) -> &str {
        &self.actor
    }

    /// The name of the account, or its number where it has none.
    pub(super) fn name(&self) -> &str {
        let named = self.actor.split_once('(');
        let name = named.and_then(|(_, name)| name.strip_suffix(')'));
        name.unwrap_or(&self.actor)
    }
}

impl Access {
    fn admits(self, uid: u32, gid: u32, is_member: impl FnOnce() -> bool) -> bool {
        uid == 0 || uid == self.own_uid || gid == self.socket_gid || is_member()
    }
}

fn actor(uid: u32, name: Option<&str>) -> String {
    name.map_or_else(|| format!("uid:{uid}"), |name| format!("uid:{uid}({name})"))
}

/// Refuses the requests of callers that the socket is not for.
pub(super) fn admit(request: Request<()>) -> Result<Request<()>, Status> {
    let caller = Caller::of(&request)?;
    if caller.admitted {
        return Ok(request);
    }
    tracing::warn!(
        actor = caller.actor(),
        "Somebody who may not was refused on the admin socket."
    );
    let sentence = format!(
        "{} may not use this collector: be root, the account that runs it, \
         or a member of the group that owns the socket",
        caller.actor()
    );
    Err(Status::permission_denied(sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_account_and_the_sockets_group_are_admitted() {
        let access = Access {
            own_uid: 500,
            socket_gid: 600,
        };
        let cases = [
            (0, 0, false, true),
            (500, 1, false, true),
            (501, 600, false, true),
            (501, 501, true, true),
            (501, 501, false, false),
            (501, 0, false, false),
        ];
        for (uid, gid, member, admitted) in cases {
            assert_eq!(
                access.admits(uid, gid, || member),
                admitted,
                "{uid} {gid} {member}"
            );
        }
    }

    #[test]
    fn actors_have_a_number_and_a_name_where_there_is_one() {
        assert_eq!(actor(0, Some("root")), "uid:0(root)");
        assert_eq!(actor(4_000_000, None), "uid:4000000");
        let name = |actor: &str| {
            let (actor, admitted) = (actor.to_owned(), true);
            Caller { actor, admitted }.name().to_owned()
        };
        assert_eq!(name("uid:0(root)"), "root");
        assert_eq!(name("uid:7"), "uid:7");
    }

    #[test]
    fn a_request_without_a_connection_is_refused() {
        assert!(admit(Request::new(())).is_err());
        let mut request = Request::new(());
        request.extensions_mut().insert(Caller {
            actor: "uid:7".into(),
            admitted: false,
        });
        let refused = admit(request).unwrap_err();
        assert!(
            refused
                .message()
                .starts_with("uid:7 may not use this collector")
        );
    }
}
