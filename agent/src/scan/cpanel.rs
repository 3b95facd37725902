//! The accounts in scope, where a policy says `users = "cpanel"`.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use procwarden_common::policy::settings::Users;

use crate::detect::scope::Scope;

/// Accounts that are read; far more than a server has.
const ACCOUNTS_MAX: usize = 100_000;

/// The scope that the settings ask for, and what is wrong with it. A server
/// without cPanel has no such list, and everybody is in scope there, as with
/// lfd. Where the list cannot be read everybody is in scope too, and it is
/// said: missing a process is worse than a finding too many.
pub(super) fn scope(users: Users, cpanel_users_dir: &Path) -> (Scope, Option<String>) {
    if users == Users::All {
        return (Scope::Everyone, None);
    }
    match std::fs::read_dir(cpanel_users_dir) {
        Ok(entries) => {
            let names = entries.flatten().take(ACCOUNTS_MAX);
            (
                Scope::Named(names.map(|entry| entry.file_name().into_vec()).collect()),
                None,
            )
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (Scope::Everyone, None),
        Err(error) => {
            let dir = cpanel_users_dir.display();
            let note = format!(
                "cannot list the cPanel accounts in {dir} ({error}): every account is looked at"
            );
            (Scope::Everyone, Some(note))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_directory_are_the_accounts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("alice"), "").unwrap();
        let (scope, note) = scope(Users::Cpanel, dir.path());
        assert_eq!(
            (scope, note),
            (Scope::Named([b"alice".to_vec()].into()), None)
        );
    }

    #[test]
    fn without_cpanel_everybody_is_in_scope_and_nothing_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let missing = scope(Users::Cpanel, &dir.path().join("no"));
        assert_eq!(missing, (Scope::Everyone, None));
        assert_eq!(scope(Users::All, dir.path()), (Scope::Everyone, None));
    }

    #[test]
    fn a_list_that_cannot_be_read_leaves_nobody_out_and_a_note_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        std::fs::write(&file, "").unwrap();
        let (unread, note) = scope(Users::Cpanel, &file);
        assert_eq!(unread, Scope::Everyone);
        assert!(note.unwrap().contains("every account is looked at"));
    }
}
