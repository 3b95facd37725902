//! The policy of a one-shot scan: files named on the command line.

use std::io::Read;
use std::path::{Path, PathBuf};

use procwarden_common::diagnostic::{Diagnostic, Level};
use procwarden_common::limits::POLICY_BYTES_MAX;
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, PolicyFile, Settings, gather_files,
};

/// What the command line names.
pub(super) struct Wanted<'a> {
    pub(super) pignore: &'a [PathBuf],
    pub(super) settings: Option<&'a Path>,
    pub(super) min_age_secs: Option<u64>,
}

/// Reads, checks and compiles it all.
///
/// # Errors
/// Every remark about every file, when at least one is an error.
pub(super) fn load(wanted: &Wanted<'_>) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut documents = Vec::new();
    for (number, path) in (1..).zip(wanted.pignore) {
        match read_rules(path) {
            Ok(files) => documents.push(document(format!("file-{number}"), files, String::new())),
            Err(found) => diagnostics.extend(found),
        }
    }
    if let Some(path) = wanted.settings {
        match read_bounded(path).and_then(|bytes| text_of(path, bytes)) {
            // Checked by itself first, so that remarks name the file.
            Ok(text) => match Settings::default().overlay(&path.display().to_string(), &text) {
                Ok(_) => documents.push(document("settings".to_owned(), Vec::new(), text)),
                Err(found) => diagnostics.extend(found),
            },
            Err(found) => diagnostics.push(found),
        }
    }
    if let Some(secs) = wanted.min_age_secs {
        let text = format!("[scan]\nmin_age_secs = {secs}\n");
        documents.push(document("command-line".to_owned(), Vec::new(), text));
    }
    let compiled = Policy::compile(&EffectivePolicy { documents });
    match compiled {
        Ok(compiled) if diagnostics.is_empty() => Ok(compiled),
        Ok((_, warnings)) => Err(diagnostics.into_iter().chain(warnings).collect()),
        Err(found) => Err(diagnostics.into_iter().chain(found).collect()),
    }
}

fn document(name: String, files: Vec<PolicyFile>, settings: String) -> PolicyDocument {
    PolicyDocument {
        name,
        revision: 0,
        files,
        settings,
    }
}

fn read_rules(path: &Path) -> Result<Vec<PolicyFile>, Vec<Diagnostic>> {
    let content = read_bounded(path).map_err(|diagnostic| vec![diagnostic])?;
    let first = PolicyFile {
        path: path.display().to_string(),
        content,
    };
    let dir = path.parent().unwrap_or(Path::new(""));
    let (files, errors) = gather_files(first, &mut |included| {
        // An absolute path stays as it is.
        read_bounded(&dir.join(included)).map_err(|diagnostic| diagnostic.message)
    });
    if errors.is_empty() {
        Ok(files)
    } else {
        Err(errors)
    }
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, Diagnostic> {
    String::from_utf8(bytes)
        .map_err(|_| wrong(path, "is not UTF-8 text".to_owned(), "settings are TOML"))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let limit = u64::try_from(POLICY_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| {
            wrong(
                path,
                format!("cannot be read: {error}"),
                "check the path and its permissions",
            )
        })?;
    if bytes.len() > POLICY_BYTES_MAX {
        return Err(wrong(
            path,
            format!("is larger than {POLICY_BYTES_MAX} bytes"),
            "split it up",
        ));
    }
    Ok(bytes)
}

fn wrong(path: &Path, message: String, help: &str) -> Diagnostic {
    let file = path.display().to_string();
    Diagnostic {
        level: Level::Error,
        file,
        line: 0,
        column: 0,
        message,
        help: help.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(pignore: &'a [PathBuf], settings: Option<&'a Path>) -> Wanted<'a> {
        Wanted {
            pignore,
            settings,
            min_age_secs: Some(0),
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_and_by_file() {
        let dir = tempfile::tempdir().unwrap();
        let (rules, settings) = (dir.path().join("rules"), dir.path().join("settings"));
        std::fs::write(&rules, "pexe:(\n").unwrap();
        std::fs::write(&settings, "[scan]\nmin_agee = 1\n").unwrap();
        let pignore = [rules.clone(), dir.path().join("missing")];
        let found = load(&wanted(&pignore, Some(&settings))).unwrap_err();
        let files: Vec<&str> = found.iter().map(|found| found.file.as_str()).collect();
        for path in [&rules, &settings, &pignore[1]] {
            assert!(files.contains(&path.to_str().unwrap()), "{files:?}");
        }
    }

    #[test]
    fn includes_are_found_beside_the_file_and_the_command_line_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (rules, settings) = (dir.path().join("rules"), dir.path().join("settings"));
        std::fs::write(&rules, "Include more\n").unwrap();
        std::fs::write(dir.path().join("more"), "exe:/usr/bin/x\n").unwrap();
        std::fs::write(&settings, "[scan]\nmin_age_secs = 9\ninterval_secs = 7\n").unwrap();
        let pignore = [rules];
        let (policy, _) = load(&wanted(&pignore, Some(&settings))).unwrap();
        assert_eq!(policy.rules().len(), 1);
        let settings = policy.settings();
        assert_eq!((settings.min_age_secs, settings.interval_secs), (0, 7));
    }
}
