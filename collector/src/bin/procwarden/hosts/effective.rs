//! What a host runs and where each part comes from: policies with the groups
//! that bring them, settings with the policy that has the last word, rules
//! with file and line. Computed from the texts, by the code that agents use.

use std::collections::BTreeMap;

use procwarden_common::policy::{EffectivePolicy, Policy, PolicyDocument, Rule};
use procwarden_common::printable::printable_text;
use procwarden_proto::v1;
use serde::Serialize;

use super::view::HostObject;
use crate::failure::Failure;
use crate::json::{shown, shown_all};
use crate::output::Output;
use crate::table::Table;

/// A host with everything that it should run.
#[derive(Debug, Serialize)]
pub(super) struct EffectiveObject {
    #[serde(flatten)]
    host: HostObject,
    policies: Vec<SourceObject>,
    settings: Vec<SettingObject>,
}

/// One policy of the host.
#[derive(Debug, Serialize)]
pub(super) struct SourceObject {
    name: String,
    revision: u64,
    /// Groups by which the host gets it.
    groups: Vec<String>,
    rules: u64,
    /// A roll-out that is not over has brought it.
    rolling_out: bool,
}

impl SourceObject {
    fn revision_words(&self) -> String {
        let mark = if self.rolling_out {
            " (rolling out)"
        } else {
            ""
        };
        format!("r{}{mark}", self.revision)
    }
}

/// One setting that a policy made; every other has its default.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct SettingObject {
    setting: String,
    value: String,
    policy: String,
    revision: u64,
}

/// One rule.
#[derive(Debug, Serialize)]
struct RuleObject {
    rule: String,
    policy: String,
    revision: u64,
    file: String,
    line: u32,
}

impl From<&Rule> for RuleObject {
    fn from(rule: &Rule) -> Self {
        Self {
            rule: printable_text(&rule.to_string()).into_owned(),
            policy: shown(&rule.origin.policy),
            revision: rule.origin.revision,
            file: shown(&rule.origin.file),
            line: rule.origin.line,
        }
    }
}

pub(super) fn object(
    host: HostObject,
    policies: Vec<SourceObject>,
    settings: Vec<SettingObject>,
) -> EffectiveObject {
    EffectiveObject {
        host,
        policies,
        settings,
    }
}

pub(super) fn source_of(source: &v1::PolicySource) -> SourceObject {
    SourceObject {
        name: shown(&source.name),
        revision: source.revision,
        groups: shown_all(&source.groups),
        rules: source.rules,
        rolling_out: source.rolling_out,
    }
}

/// The settings that the policies make: later documents have the last word.
/// Published settings are valid TOML; what is not, no agent would run either.
pub(super) fn settings_of(documents: &[v1::PolicyDocument]) -> Vec<SettingObject> {
    let mut in_force = BTreeMap::new();
    for document in documents {
        let table = document.settings.parse::<toml::Table>().unwrap_or_default();
        for (section, values) in table {
            let Some(values) = values.as_table() else {
                continue;
            };
            for (key, value) in values {
                let setting = format!("{section}.{key}");
                in_force.insert(setting, (value_words(value), document));
            }
        }
    }
    let object =
        |(setting, (value, document)): (String, (String, &v1::PolicyDocument))| SettingObject {
            setting: shown(&setting),
            value: printable_text(&value).into_owned(),
            policy: shown(&document.name),
            revision: document.revision,
        };
    in_force.into_iter().map(object).collect()
}

/// Settings are words, numbers and yes or no; JSON has the same form for them.
fn value_words(value: &toml::Value) -> String {
    match value.as_str() {
        Some(word) => word.to_owned(),
        None => serde_json::to_string(value).unwrap_or_else(|_| "?".into()),
    }
}

pub(super) fn write_tables(
    sources: &[SourceObject],
    settings: &[SettingObject],
    out: &mut Output,
) -> Result<(), Failure> {
    if sources.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["POLICY", "REVISION", "RULES", "BY GROUPS"]);
    for source in sources {
        table.row([
            source.name.as_str().into(),
            source.revision_words().into(),
            source.rules.to_string().into(),
            source.groups.join(" ").into(),
        ]);
    }
    out.line("")?;
    out.table(&table)?;
    out.line("")?;
    if settings.is_empty() {
        return out.line("every setting has its default");
    }
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
    for setting in settings {
        table.row([
            setting.setting.as_str().into(),
            setting.value.as_str().into(),
            format!("{} r{}", setting.policy, setting.revision).into(),
        ]);
    }
    out.table(&table)?;
    out.line("every other setting has its default")
}

/// Every rule of the host: policies in the order in which they overlay each
/// other, as in the table of policies, each by file and line.
pub(super) fn write_rules(
    documents: Vec<v1::PolicyDocument>,
    out: &mut Output,
) -> Result<(), Failure> {
    let names: Vec<String> = documents.iter().map(|d| d.name.clone()).collect();
    let policy = compiled(documents)?;
    let objects = in_order(&policy, &names).into_iter().map(RuleObject::from);
    if out.json() {
        return objects.into_iter().try_for_each(|rule| out.object(&rule));
    }
    let mut table = Table::new(&["RULE", "POLICY", "FILE", "LINE"]);
    for rule in objects {
        table.row([
            rule.rule.into(),
            format!("{} r{}", rule.policy, rule.revision).into(),
            rule.file.into(),
            rule.line.to_string().into(),
        ]);
    }
    out.table(&table)
}

/// Compiled rules are in the order in which they are tried, by key; operators
/// read them in the order of the policies and of the lines of their files.
fn in_order<'a>(policy: &'a Policy, names: &[String]) -> Vec<&'a Rule> {
    let mut rules: Vec<&Rule> = policy.rules().iter().map(AsRef::as_ref).collect();
    rules.sort_by_key(|rule| {
        let origin = &rule.origin;
        let place = names.iter().position(|name| *name == origin.policy);
        (place, &origin.file, origin.line)
    });
    rules
}

fn compiled(documents: Vec<v1::PolicyDocument>) -> Result<Policy, Failure> {
    let documents: Result<Vec<PolicyDocument>, _> =
        documents.into_iter().map(TryInto::try_into).collect();
    let documents = documents.map_err(|error| {
        Failure::Run(format!(
            "cannot read a policy of the collector ({error}); install the same version of \
             procwarden and procwarden-collector"
        ))
    })?;
    let compiled = Policy::compile(&EffectivePolicy { documents });
    compiled.map(|(policy, _)| policy).map_err(|remarks| {
        let first = remarks.first().map(ToString::to_string);
        Failure::Run(format!(
            "the host's policies do not compile together, so it runs older ones: {}",
            first.unwrap_or_default()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, settings: &str) -> v1::PolicyDocument {
        v1::PolicyDocument {
            name: name.into(),
            revision: 2,
            files: vec![],
            settings: settings.into(),
        }
    }

    #[test]
    fn the_last_policy_that_makes_a_setting_is_named() {
        let documents = [
            document("base", "[scan]\nmin_age_secs = 60\ninterval_secs = 30\n"),
            document("web", "[scan]\nmin_age_secs = 5\n"),
            document("bare", ""),
        ];
        let settings = settings_of(&documents);
        let told: Vec<_> = settings
            .iter()
            .map(|s| (s.setting.as_str(), s.value.as_str(), s.policy.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("scan.interval_secs", "30", "base"),
                ("scan.min_age_secs", "5", "web"),
            ]
        );
    }

    #[test]
    fn rules_are_listed_in_the_order_of_the_policies_and_of_their_lines() {
        let with_rules = |name: &str, content: &'static str| {
            let mut document = document(name, "");
            document.files.push(v1::PolicyFile {
                path: "a.pignore".into(),
                content: content.as_bytes().into(),
            });
            document
        };
        let documents = vec![
            with_rules("web", "user:www\nexe:/bin/b\nuser:amy\n"),
            with_rules("base", "exe:/bin/a\n"),
        ];
        let names = ["web".to_owned(), "base".to_owned()];
        let policy = compiled(documents).expect("it compiles");
        let listed = in_order(&policy, &names).into_iter();
        let listed: Vec<String> = listed.map(ToString::to_string).collect();
        assert_eq!(listed, ["user:www", "exe:/bin/b", "user:amy", "exe:/bin/a"]);
    }

    #[test]
    fn rules_are_compiled_with_their_origin_and_damage_is_a_failure() {
        let mut good = document("web", "");
        good.files.push(v1::PolicyFile {
            path: "a.pignore".into(),
            content: b"# note\nuser:bob\n".as_slice().into(),
        });
        let policy = compiled(vec![good]).expect("it compiles");
        let rule = RuleObject::from(policy.rules()[0].as_ref());
        assert_eq!((rule.rule.as_str(), rule.line), ("user:bob", 2));
        let bad = document("web", "[scan]\nmin_age_secs = true\n");
        assert!(compiled(vec![bad]).is_err());
    }
}
