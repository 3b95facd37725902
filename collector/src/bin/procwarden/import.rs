//! `procwarden import`: what another program was configured with becomes one
//! revision of a policy.
//!
//! Promises: all or nothing. Any error in any of the files ends the command
//! with exit code 2 before anything is sent, and rules and settings are
//! published together.

use std::path::Path;

use procwarden_common::clock::UnixMillis;
use procwarden_common::import::csf::{self, Imported, Remark};
use procwarden_common::printable::{printable_line, printable_text};
use procwarden_proto::v1;
use serde::Serialize;

use crate::cli::ImportCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::{DiagnosticObject, shown};
use crate::output::Output;
use crate::policy::local::{self, LocalPolicy};
use crate::policy::publish;
use crate::table::Table;

const NOTHING_PUBLISHED: &str = "nothing was published";

pub(crate) async fn run(command: ImportCommand, context: &mut Context) -> Result<(), Failure> {
    let ImportCommand::Csf {
        pignore,
        conf,
        policy,
        comment,
        dry_run,
    } = command;
    let import = read(&pignore, conf.as_deref(), context.now())?;
    import.say(&mut context.out)?;
    if dry_run {
        return import.show(&mut context.out);
    }
    let said = import.local.diagnostics.clone();
    let request = import.request(policy, comment);
    let (info, published, remarks) = publish::publish(request, &said, context).await?;
    publish::say(&info, published, &remarks, context)
}

/// Everything that was read, errors included.
struct Import {
    local: LocalPolicy,
    /// Name of the csf.conf, in printable form.
    conf: String,
    /// What it says; its settings are among what was read.
    imported: Imported,
}

/// A file that cannot be read is as good a reason to stop as a wrong line.
fn read(pignore: &Path, conf: Option<&Path>, now: UnixMillis) -> Result<Import, Failure> {
    let unreadable =
        |failure: Failure| Failure::Negative(format!("{failure}; {NOTHING_PUBLISHED}"));
    let mut import = Import {
        local: local::load(Some(pignore), None, now).map_err(unreadable)?,
        conf: String::new(),
        imported: Imported::default(),
    };
    let Some(conf) = conf else {
        return Ok(import);
    };
    import.conf = local::shown(conf);
    let content = local::read_named(conf).map_err(unreadable)?;
    match csf::read_conf(&import.conf, &content) {
        Ok(mut imported) => {
            let name = format!("settings from {}", import.conf);
            let settings = std::mem::take(&mut imported.settings);
            import.local.set_settings(name, settings);
            import.imported = imported;
        }
        Err(errors) => import.local.diagnostics.extend(errors),
    }
    Ok(import)
}

impl Import {
    /// Says what was taken, what differs and what has no counterpart; fails
    /// when anything is an error.
    fn say(&self, out: &mut Output) -> Result<(), Failure> {
        if out.json() {
            for remark in &self.imported.remarks {
                out.object(&self.object(remark))?;
            }
            for diagnostic in &self.local.diagnostics {
                out.object(&RuleObject {
                    kind: "remark",
                    diagnostic: diagnostic.into(),
                })?;
            }
        } else if !self.imported.remarks.is_empty() {
            out.table(&self.table())?;
        }
        self.local.report(out, false, NOTHING_PUBLISHED)?;
        self.say_more(out);
        out.remark(&format!(
            "{} rule(s) in {} file(s), {} setting(s)",
            self.local.rules,
            self.local.files.len(),
            self.imported
                .remarks
                .iter()
                .filter(|r| r.setting.is_some())
                .count()
        ));
        Ok(())
    }

    /// What no line of the files shows.
    fn say_more(&self, out: &Output) {
        for file in self.local.files.iter().skip(1) {
            out.remark(&format!("Include {} was read on this machine", file.path));
        }
        if !self.imported.missing.is_empty() {
            out.remark(&format!(
                "{} does not set {}: lfd takes what is missing as 0 or nothing; here nothing was \
                 set, so the other policies and the defaults of each host hold",
                self.conf,
                self.imported.missing.join(", ")
            ));
        }
        if let Some(section) = self.imported.agent_toml() {
            out.remark("for the agent.toml of hosts that shall act as lfd did:");
            section.lines().for_each(|line| out.remark(line));
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["LINE", "CSF.CONF", "VALUE", "RESULT", "SETTING", "REMARK"]);
        for remark in &self.imported.remarks {
            table.row([
                remark.line.to_string().into(),
                remark.key.as_str().into(),
                remark.value.as_str().into(),
                remark.fate.as_str().into(),
                remark.setting.as_deref().unwrap_or_default().into(),
                remark.message.as_str().into(),
            ]);
        }
        table
    }

    fn object<'a>(&'a self, remark: &'a Remark) -> SettingObject<'a> {
        SettingObject {
            kind: "setting",
            file: &self.conf,
            line: remark.line,
            key: shown(&remark.key),
            value: printable_text(&remark.value).into_owned(),
            result: remark.fate.as_str(),
            setting: remark.setting.as_deref(),
            agent_toml: remark.agent_toml.as_deref(),
            message: printable_text(&remark.message).into_owned(),
        }
    }

    /// Prints the revision as it would be published.
    fn show(&self, out: &mut Output) -> Result<(), Failure> {
        if out.json() {
            return Ok(());
        }
        for file in &self.local.files {
            out.line(&format!("--- {}", file.path))?;
            for line in file.content.split_inclusive(|&byte| byte == b'\n') {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                out.line(&printable_line(line))?;
            }
        }
        if let Some(settings) = &self.local.settings {
            out.line("--- settings")?;
            for line in settings.lines() {
                out.line(line)?;
            }
        }
        Ok(())
    }

    fn request(self, name: String, comment: String) -> v1::PublishPolicyRequest {
        let mut files: Vec<v1::PolicyFile> = self.local.files.iter().map(Into::into).collect();
        if let Some(first) = files.first_mut() {
            // The same text from another directory is the same policy.
            let path = std::mem::take(&mut first.path);
            first.path = path.rsplit('/').next().unwrap_or_default().to_owned();
        }
        v1::PublishPolicyRequest {
            name,
            files,
            settings: self.local.settings,
            comment,
            base_revision: None,
            staged: false,
        }
    }
}

/// One key of csf.conf.
#[derive(Debug, Serialize)]
struct SettingObject<'a> {
    kind: &'static str,
    file: &'a str,
    line: u32,
    key: String,
    value: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    setting: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_toml: Option<&'a str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

/// A remark about a rule or a line.
#[derive(Debug, Serialize)]
struct RuleObject {
    kind: &'static str,
    #[serde(flatten)]
    diagnostic: DiagnosticObject,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &tempfile::TempDir, name: &str, text: &str) -> std::path::PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    #[test]
    fn rules_includes_and_settings_become_one_request() {
        let dir = tempfile::tempdir().expect("a directory");
        written(&dir, "more", "exe:/usr/bin/b\n");
        let pignore = written(&dir, "csf.pignore", "pexe:/a|/b\nInclude more\n");
        let conf = written(&dir, "csf.conf", "TCP_IN = \"22\"\nPT_LIMIT = \"90\"\n");
        let import = read(&pignore, Some(&conf), UnixMillis(0)).expect("readable");
        assert!(import.say(&mut Output::new(true)).is_ok());
        assert_eq!(import.local.diagnostics.len(), 1, "both readings of '|'");
        let request = import.request("web".into(), "why".into());
        let paths: Vec<_> = request.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["csf.pignore", "more"]);
        assert!(
            request
                .settings
                .is_some_and(|s| s.contains("min_age_secs = 90"))
        );
    }

    #[test]
    fn any_error_in_any_file_ends_with_2() {
        let dir = tempfile::tempdir().expect("a directory");
        let good = written(&dir, "good", "exe:/usr/bin/a\n");
        let bad = written(&dir, "bad", "pexe:(\n");
        let conf = written(&dir, "conf", "PT_LIMIT = \"60\"\n");
        let bad_conf = written(&dir, "bad_conf", "PT_LIMIT = \"x\"\n");
        let gone = dir.path().join("gone");
        for (pignore, conf) in [
            (&bad, Some(&conf)),
            (&good, Some(&bad_conf)),
            (&gone, Some(&conf)),
            (&good, Some(&gone)),
        ] {
            let failure = read(pignore, conf.map(|c| c.as_path()), UnixMillis(0))
                .and_then(|import| import.say(&mut Output::new(true)))
                .expect_err("an error");
            assert_eq!(failure.exit_code(), 2, "{failure}");
        }
    }
}
