//! What an import comes to, for programs: one object per key of csf.conf and
//! per remark about a line, and with `--dry-run` one that adds them up.

use procwarden_common::diagnostic::Level;
use procwarden_common::import::csf::{Fate, Remark};
use procwarden_common::printable::printable_text;
use serde::Serialize;

use super::Import;
use crate::failure::Failure;
use crate::json::{DiagnosticObject, shown};
use crate::output::Output;

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

/// What would be published.
#[derive(Debug, Serialize)]
pub(super) struct ReportObject<'a> {
    kind: &'static str,
    policy: &'a str,
    /// False when nothing would be published.
    ok: bool,
    errors: usize,
    warnings: usize,
    rules: usize,
    /// As they would be published, the first one by its name alone.
    files: Vec<String>,
    /// Keys of csf.conf by what became of them.
    taken: usize,
    differs: usize,
    agent_local: usize,
    not_needed: usize,
    no_counterpart: usize,
    /// What every csf.conf has and this one has not.
    missing: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_toml: Option<String>,
}

/// Writes one object per key and per remark.
pub(super) fn write_remarks(import: &Import, out: &mut Output) -> Result<(), Failure> {
    for remark in &import.imported.remarks {
        out.object(&setting(&import.conf, remark))?;
    }
    for diagnostic in &import.local.diagnostics {
        out.object(&RuleObject {
            kind: "remark",
            diagnostic: diagnostic.into(),
        })?;
    }
    Ok(())
}

/// Adds up what was read for a policy; `ok` is whether it would be published.
pub(super) fn of<'a>(import: &'a Import, policy: &'a str, ok: bool) -> ReportObject<'a> {
    let remarks = &import.imported.remarks;
    let of_fate = |fate| remarks.iter().filter(|remark| remark.fate == fate).count();
    let said = &import.local.diagnostics;
    let of_level = |level| said.iter().filter(|remark| remark.level == level).count();
    let included = import.local.files.iter().skip(1);
    let files = import.local.published_name().into_iter();
    let files = files.chain(included.map(|file| file.path.as_str()));
    ReportObject {
        kind: "report",
        policy,
        ok,
        errors: of_level(Level::Error),
        warnings: of_level(Level::Warning),
        rules: import.local.rules,
        files: files
            .map(|path| printable_text(path).into_owned())
            .collect(),
        taken: of_fate(Fate::Taken),
        differs: of_fate(Fate::Differs),
        agent_local: of_fate(Fate::AgentLocal),
        not_needed: of_fate(Fate::NotNeeded),
        no_counterpart: of_fate(Fate::NoCounterpart),
        missing: &import.imported.missing,
        settings: import.local.settings.as_deref(),
        agent_toml: import.imported.agent_toml(),
    }
}

fn setting<'a>(conf: &'a str, remark: &'a Remark) -> SettingObject<'a> {
    SettingObject {
        kind: "setting",
        file: conf,
        line: remark.line,
        key: shown(&remark.key),
        value: printable_text(&remark.value).into_owned(),
        result: remark.fate.as_str(),
        setting: remark.setting.as_deref(),
        agent_toml: remark.agent_toml.as_deref(),
        message: printable_text(&remark.message).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::import::csf;
    use procwarden_common::policy::PolicyFile;

    use super::*;
    use crate::json::to_line;
    use crate::policy::local::LocalPolicy;

    #[test]
    fn a_report_adds_up_what_became_of_the_files() {
        let file = |path: &str| PolicyFile {
            path: path.into(),
            content: Vec::new(),
        };
        let conf = b"PT_LIMIT = \"90\"\nPT_USERKILL = \"1\"\nPT_NEW = \"1\"\n";
        let mut import = Import {
            local: LocalPolicy {
                files: vec![file("/copy/csf.pignore"), file("/etc/csf/more")],
                rules: 3,
                ..LocalPolicy::default()
            },
            conf: "csf.conf".into(),
            imported: csf::read_conf("csf.conf", conf).expect("good"),
            places: Vec::new(),
        };
        import.local.refuse(std::path::Path::new("gone"), "why");
        let line = to_line(&of(&import, "web", false)).expect("JSON");
        let report: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        for (key, value) in [
            ("kind", serde_json::json!("report")),
            ("ok", false.into()),
            ("errors", 1.into()),
            ("warnings", 0.into()),
            ("rules", 3.into()),
            ("files", serde_json::json!(["csf.pignore", "/etc/csf/more"])),
            ("taken", 1.into()),
            ("differs", 0.into()),
            ("agent_local", 1.into()),
            ("no_counterpart", 1.into()),
            (
                "agent_toml",
                "[actions]\nkill_over_limit = true # PT_USERKILL\n".into(),
            ),
        ] {
            assert_eq!(report[key], value, "{key} of {line}");
        }
    }
}
