//! Policy files on the operator's machine: reads them, with what their Include
//! lines name, and checks them with the same code as collector and agents.
//!
//! Never sends anything.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::{Diagnostic, Level};
use procwarden_common::import::csf;
use procwarden_common::limits;
use procwarden_common::policy::{
    EffectivePolicy, PolicyDocument, PolicyFile, Settings, check, gather_files,
};
use procwarden_common::printable::printable;

use self::copied::Place;
use super::remarks::{self, Sources};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) mod copied;
mod regular;

/// What was read, and what the check says about it.
#[derive(Debug, Default)]
pub(crate) struct LocalPolicy {
    /// The pignore file and what it includes; empty when it was not asked for.
    pub(crate) files: Vec<PolicyFile>,
    /// The settings, when they were asked for.
    pub(crate) settings: Option<String>,
    /// What they are called in remarks.
    pub(crate) settings_name: Option<String>,
    /// Rules in the files.
    pub(crate) rules: usize,
    /// Everything the check has to say.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Whether a file holds settings rather than rules.
pub(crate) fn is_settings(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "toml")
}

/// Reads and checks a pignore file, settings, or both.
pub(crate) fn load(
    rules: Option<&Path>,
    settings: Option<&Path>,
    now: UnixMillis,
) -> Result<LocalPolicy, Failure> {
    let mut policy = LocalPolicy::default();
    if let Some(file) = rules {
        policy.load_rules(file, now)?;
    }
    if let Some(file) = settings {
        policy.load_settings(file)?;
    }
    Ok(policy)
}

/// Reads and checks a server's csf.pignore, in which `#@` is a plain comment.
/// What cannot be read is among the remarks, so that nothing hides anything.
/// `place` is where the file stands.
pub(crate) fn load_csf(file: &Path, place: &Place<'_>, now: UnixMillis) -> LocalPolicy {
    let mut policy = LocalPolicy::default();
    let mut warnings = Vec::new();
    let mut plain = |name: &str, content: Vec<u8>| {
        let (content, found) = csf::plain_comments(name, &content);
        warnings.extend(found);
        content
    };
    match place.read() {
        Err(reason) => policy.refuse(file, &reason),
        Ok(content) => {
            let path = shown(file);
            let content = plain(&path, content);
            let mut read = |path: &str| Ok(plain(path, place.included(path).read_included()?));
            policy.gather(PolicyFile { path, content }, &mut read, now);
        }
    }
    policy.diagnostics.extend(warnings);
    policy
}

impl LocalPolicy {
    fn load_rules(&mut self, file: &Path, now: UnixMillis) -> Result<(), Failure> {
        let first = PolicyFile {
            path: shown(file),
            content: read_named(file)?,
        };
        let directory = directory_of(file);
        let mut read = |path: &str| {
            let opened = regular::open(&included(directory, path));
            bounded(opened.map_err(|error| error.to_string())?)
        };
        self.gather(first, &mut read, now);
        Ok(())
    }

    /// Reads what the first file includes, and checks the rules of all.
    fn gather(
        &mut self,
        first: PolicyFile,
        read: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
        now: UnixMillis,
    ) {
        // With an Include that leads nowhere the rest is checked all the same.
        let (files, errors) = gather_files(first, read);
        self.files = files;
        self.diagnostics.extend(errors);
        let known: Vec<_> = self.diagnostics.iter().map(place).collect();
        let is_news = |diagnostic: &Diagnostic| !known.contains(&place(diagnostic));
        let document = PolicyDocument {
            name: "check".into(),
            revision: 0,
            files: self.files.clone(),
            settings: String::new(),
        };
        let effective = EffectivePolicy {
            documents: vec![document],
        };
        match check(&effective, now) {
            Ok((policy, warnings)) => {
                self.rules = policy.rules().len();
                self.diagnostics.extend(warnings);
            }
            Err(mut diagnostics) => {
                diagnostics.retain(is_news);
                self.diagnostics.extend(diagnostics);
            }
        }
    }

    /// Keeps a file that cannot be read as an error beside the others.
    pub(crate) fn refuse(&mut self, file: &Path, reason: &str) {
        self.diagnostics.push(Diagnostic {
            level: Level::Error,
            file: shown(file),
            line: 0,
            column: 0,
            message: format!("it cannot be read: {reason}"),
            help: "give the path of a file that this account can read".to_owned(),
        });
    }

    /// What the first file is called in the policy: where it lay on this
    /// machine is no part of that, the same text from another directory is the
    /// same policy.
    pub(crate) fn published_name(&self) -> Option<&str> {
        self.files.first()?.path.rsplit('/').next()
    }

    /// The remarks in the words of the collector's check, which knows the
    /// first file by its published name: a remark about one rule can name the
    /// place of another.
    pub(crate) fn remarks_as_published(&self) -> Vec<Diagnostic> {
        let mut remarks = self.diagnostics.clone();
        if let (Some(first), Some(name)) = (self.files.first(), self.published_name()) {
            for remark in &mut remarks {
                remark.message = remark.message.replace(&first.path, name);
            }
        }
        remarks
    }

    /// Settings that were made rather than read.
    pub(crate) fn set_settings(&mut self, name: String, text: String) {
        match Settings::default().overlay(&name, &text) {
            Ok(warnings) => self.diagnostics.extend(warnings),
            Err(diagnostics) => self.diagnostics.extend(diagnostics),
        }
        self.settings = Some(text);
        self.settings_name = Some(name);
    }

    fn load_settings(&mut self, file: &Path) -> Result<(), Failure> {
        let name = shown(file);
        let text = String::from_utf8(read_named(file)?).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            Failure::Negative(format!(
                "{name}: byte {offset} is not UTF-8; settings are UTF-8 text"
            ))
        })?;
        self.set_settings(name, text);
        Ok(())
    }

    /// Says everything the check has to say; fails when any of it is an error,
    /// or with `strict` when there is any at all.
    pub(crate) fn report(
        &self,
        out: &Output,
        strict: bool,
        consequence: &str,
    ) -> Result<(), Failure> {
        let mut sources = Sources::default();
        for file in &self.files {
            sources.add(&file.path, &file.content);
        }
        if let (Some(name), Some(text)) = (&self.settings_name, &self.settings) {
            sources.add(name, text.as_bytes());
        }
        remarks::say(&self.diagnostics, &sources, out);
        remarks::judge(&self.diagnostics, strict, consequence)
    }
}

/// Where a remark is about.
fn place(diagnostic: &Diagnostic) -> (String, u32) {
    (diagnostic.file.clone(), diagnostic.line)
}

fn directory_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// Where an Include line points: beside the first file when it is relative.
fn included(directory: &Path, path: &str) -> PathBuf {
    directory.join(path)
}

/// Reads a file of bounded size. The operator named it, so it may be a pipe
/// from another program.
pub(crate) fn read_named(file: &Path) -> Result<Vec<u8>, Failure> {
    read(file).map_err(|reason| Failure::Run(format!("cannot read {}: {reason}", shown(file))))
}

/// The same, with the reason alone.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    bounded(File::open(file).map_err(|error| error.to_string())?)
}

/// The content of an open file, when it is not too large.
fn bounded(file: File) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let bytes_max = limits::POLICY_BYTES_MAX;
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|error| error.to_string())?;
    if content.len() > bytes_max {
        return Err(format!("it is larger than {} MiB", bytes_max / 1024 / 1024));
    }
    Ok(content)
}

/// A path, in printable form.
pub(crate) fn shown(file: &Path) -> String {
    printable(file.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use procwarden_common::diagnostic::has_errors;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

    #[test]
    fn settings_are_known_by_their_extension() {
        for (file, expected) in [("a.toml", true), ("a.pignore", false), ("toml", false)] {
            assert_eq!(is_settings(Path::new(file)), expected, "{file}");
        }
    }

    #[test]
    fn includes_are_found_beside_the_first_file() {
        assert_eq!(
            included(Path::new("etc"), "more.pignore"),
            Path::new("etc/more.pignore")
        );
        assert_eq!(included(Path::new("etc"), "/etc/x"), Path::new("/etc/x"));
    }

    #[test]
    fn a_policy_is_read_with_its_includes_and_every_error_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = dir.path().join("web.pignore");
        std::fs::write(&first, "exe:/usr/bin/a\nInclude more.pignore\n").expect("written");
        std::fs::write(dir.path().join("more.pignore"), "user:bob\n").expect("written");
        let policy = load(Some(&first), None, NOW).expect("readable");
        assert_eq!(
            (policy.files.len(), policy.rules),
            (2, 2),
            "{:?}",
            policy.diagnostics
        );
        assert!(!has_errors(&policy.diagnostics));

        std::fs::write(&first, "pexe:(\nInclude gone.pignore\n").expect("written");
        let policy = load(Some(&first), None, NOW).expect("readable");
        assert!(has_errors(&policy.diagnostics));
        let mut lines: Vec<u32> = policy.diagnostics.iter().map(|d| d.line).collect();
        lines.sort_unstable();
        assert_eq!(lines, [1, 2], "each once: {:?}", policy.diagnostics);
        assert_eq!(policy.files.len(), 1, "the lines are shown");
        let failure = policy.report(&Output::to_nobody(true), false, "nothing was published");
        assert_eq!(failure.expect_err("errors").exit_code(), 2);
    }

    #[test]
    fn remarks_are_told_apart_by_the_name_that_is_published() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("web.pignore");
        std::fs::write(&file, "exe:/opt/a\nexe:/opt/a\n").expect("written");
        let policy = load(Some(&file), None, NOW).expect("readable");
        let messages = |remarks: &[Diagnostic]| -> Vec<String> {
            remarks
                .iter()
                .map(|remark| remark.message.clone())
                .collect()
        };
        let expected = "the same rule stands at web.pignore:1 [duplicate]";
        assert_ne!(messages(&policy.diagnostics), [expected]);
        assert_eq!(messages(&policy.remarks_as_published()), [expected]);
    }

    #[test]
    fn a_warning_is_a_reason_to_stop_only_when_strict() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("web.pignore");
        std::fs::write(&file, "exe:/usr/bin/perl\n").expect("written");
        let policy = load(Some(&file), None, NOW).expect("readable");
        let report =
            |strict| policy.report(&Output::to_nobody(true), strict, "nothing was published");
        assert!(report(false).is_ok(), "{:?}", policy.diagnostics);
        assert_eq!(report(true).expect_err("a warning").exit_code(), 2);
    }

    #[test]
    fn settings_are_checked_under_their_own_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("s.toml");
        std::fs::write(&file, "[scan]\nmin_age_sec = 5\n").expect("written");
        let policy = load(None, Some(&file), NOW).expect("readable");
        assert!(has_errors(&policy.diagnostics));
        assert!(
            policy.diagnostics[0].file.ends_with("s.toml"),
            "{:?}",
            policy.diagnostics
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let failure =
            load(Some(Path::new("/nonexistent/x")), None, NOW).expect_err("nothing is there");
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.to_string().contains("/nonexistent/x"), "{failure}");
    }
}
