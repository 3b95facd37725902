//! Names of policies and groups: short words that need no quoting anywhere.

use procwarden_common::id::HostId;
use procwarden_common::limits::NAME_BYTES_MAX;
use procwarden_common::printable::printable;
use procwarden_common::wire::is_name;

use crate::ledger::state::GROUP_OF_HOST;

/// Groups of a host, of a token or of a policy.
const GROUPS_MAX: usize = 64;

/// A name of another form, or too many of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidName {
    #[error("\"{given}\" is not a {what}: use 1 to {NAME_BYTES_MAX} of a-z 0-9 - _ .")]
    Form { what: &'static str, given: String },
    #[error("too many groups: at most {GROUPS_MAX}")]
    TooMany,
}

/// Checks a name of a policy or group.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), InvalidName> {
    if is_name(name) {
        return Ok(());
    }
    // A hostile or mistaken name may be long: its beginning tells enough.
    let start: Vec<u8> = name.bytes().take(2 * NAME_BYTES_MAX).collect();
    Err(InvalidName::Form {
        what,
        given: printable(&start),
    })
}

/// Checks the names of groups and puts them in order, each once.
pub(crate) fn check_groups(groups: Vec<String>) -> Result<Vec<String>, InvalidName> {
    groups
        .iter()
        .try_for_each(|group| check_name("group name", group))?;
    in_order(groups)
}

/// The same for what a policy can be assigned to: groups, and single hosts by
/// their own group.
pub(super) fn check_assigned(groups: Vec<String>) -> Result<Vec<String>, InvalidName> {
    let is_host = |group: &String| {
        let id = group.strip_prefix(GROUP_OF_HOST);
        id.is_some_and(|id| {
            id.parse::<HostId>()
                .is_ok_and(|host| host.to_string() == id)
        })
    };
    groups
        .iter()
        .filter(|group| !is_host(group))
        .try_for_each(|group| check_name("group name", group))?;
    in_order(groups)
}

fn in_order(mut groups: Vec<String>) -> Result<Vec<String>, InvalidName> {
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > GROUPS_MAX {
        return Err(InvalidName::TooMany);
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_words_of_a_small_alphabet() {
        let long = "x".repeat(64);
        for name in ["default", "a", "web-1_b.c", "0", long.as_str()] {
            assert_eq!(check_name("policy name", name), Ok(()), "{name}");
        }
        let too_long = "x".repeat(65);
        for name in ["", "Web", "a b", "a/b", "\u{e9}", "a\n", too_long.as_str()] {
            assert!(check_name("policy name", name).is_err(), "{name}");
        }
    }

    #[test]
    fn groups_come_out_sorted_and_once() {
        let groups = vec!["web".to_owned(), "db".to_owned(), "web".to_owned()];
        assert_eq!(
            check_groups(groups),
            Ok(vec!["db".to_owned(), "web".to_owned()])
        );
        assert!(check_groups((0..65).map(|n| format!("g{n}")).collect()).is_err());
    }

    #[test]
    fn only_a_policy_can_be_given_to_the_group_of_one_host() {
        let own = "host:01010101-0101-0101-0101-010101010101".to_owned();
        assert!(check_assigned(vec![own.clone(), "web".into()]).is_ok());
        assert!(check_groups(vec![own]).is_err());
        for wrong in [
            "host:",
            "host:web1",
            "host:01010101010101010101010101010101",
        ] {
            assert!(check_assigned(vec![wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
