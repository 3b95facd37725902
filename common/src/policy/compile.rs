//! Compiles the documents of a host into one policy that is quick to ask.
//!
//! Promises to name everything that is wrong with any of them at once, and to
//! refuse what is over a limit.

use std::collections::HashMap;
use std::sync::Arc;

use super::matcher::Matchers;
use super::parse::{self, Parsed, Remarks};
use super::pattern::{self, Pattern};
use super::perl::Note;
use super::{EffectivePolicy, PolicyDocument, Rule, RuleKey, RuleOrigin, RuleText, Settings};
use crate::clock::UnixMillis;
use crate::diagnostic::{Diagnostic, Level, has_errors};
use crate::limits::RULES_MAX;

/// Patterns that are asked one after the other, because a set cannot hold
/// them: each may take a millisecond on a text that is made to be slow.
const FANCY_RULES_MAX: usize = 256;

/// Characters of all of them, with counted repetition written out: some 6 MB
/// when compiled.
const FANCY_WEIGHT_MAX: usize = 64 * 1024;

/// A compiled policy: rules ready to match, and settings. It is shared, not
/// copied.
#[derive(Debug, Default)]
pub struct Policy {
    settings: Settings,
    /// In the order in which they are tried.
    rules: Vec<Arc<Rule>>,
    matchers: Matchers,
}

impl Policy {
    /// Checks and compiles everything a host runs. Gives the policy and the
    /// warnings.
    ///
    /// # Errors
    /// Every remark, warnings included, when at least one is an error.
    pub fn compile(
        effective: &EffectivePolicy,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        Self::compile_parsed(effective).map(|(policy, _, remarks)| (policy, remarks))
    }

    /// The same, with the places of the rules.
    pub(super) fn compile_parsed(
        effective: &EffectivePolicy,
    ) -> Result<(Self, Vec<Parsed>, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut remarks = Vec::new();
        let mut settings = Settings::default();
        let mut rules = Vec::new();
        for document in &effective.documents {
            let file = document.files.first().map_or("", |file| file.path.as_str());
            let outcome = parse::parse(document);
            rules.extend(outcome.rules);
            remarks.extend(outcome.remarks.into_vec(file));
            remarks.extend(overlay(&mut settings, document));
        }
        if let Some(error) = too_many_rules(&rules) {
            remarks.push(error);
            return Err(remarks);
        }
        rules.sort_by_key(|parsed| order(parsed.rule.key));
        let patterns = check_patterns(&rules, &mut remarks);
        sort_as_written(&mut remarks, effective);
        if has_errors(&remarks) {
            return Err(remarks);
        }
        match Matchers::build(&rules, patterns) {
            Ok(matchers) => {
                let policy = Self {
                    settings,
                    rules: rules.iter().map(|p| Arc::clone(&p.rule)).collect(),
                    matchers,
                };
                Ok((policy, rules, remarks))
            }
            Err(too_big) => {
                remarks.extend(too_big);
                Err(remarks)
            }
        }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The rules, in the order in which they are tried.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rules whose pattern needed more steps than it is given, on a text
    /// that this policy was asked about. They do not match such texts.
    #[must_use]
    pub fn rules_that_gave_up(&self) -> Vec<Arc<Rule>> {
        let gave_up = self.matchers.gave_up();
        gave_up
            .filter_map(|index| self.rules.get(index).cloned())
            .collect()
    }

    pub(super) fn matchers(&self) -> &Matchers {
        &self.matchers
    }

    pub(super) fn first_rule(&self, text: &RuleText, now: UnixMillis) -> Option<Arc<Rule>> {
        let in_force = |index: usize| {
            self.rules
                .get(index)
                .is_some_and(|rule| rule.facts.in_force(now))
        };
        self.matchers
            .first(text, &in_force)
            .and_then(|index| self.rules.get(index))
            .cloned()
    }
}

/// Remarks come from several passes; a person goes through the files once.
pub(super) fn sort_as_written(remarks: &mut [Diagnostic], effective: &EffectivePolicy) {
    let files = effective
        .documents
        .iter()
        .flat_map(|document| &document.files);
    let mut ranks: HashMap<&str, usize> = HashMap::new();
    for (rank, file) in files.enumerate() {
        ranks.entry(&file.path).or_insert(rank);
    }
    // Remarks about settings, which have no file of their own, come last.
    let rank = |d: &Diagnostic| ranks.get(d.file.as_str()).copied().unwrap_or(usize::MAX);
    remarks.sort_by_key(|d| (rank(d), d.line, d.column));
}

/// Checks every pattern, so that all the bad ones are named at once. What an
/// exact rule has in its place is nothing.
fn check_patterns(rules: &[Parsed], remarks: &mut Vec<Diagnostic>) -> Vec<Option<Pattern>> {
    let mut found = Remarks::default();
    let mut room = FancyRoom::default();
    let check = |parsed: &Parsed| {
        // What comes behind the limit is not compiled: it would fill the memory.
        if !parsed.rule.key.is_pattern() || room.is_used_up {
            return None;
        }
        match pattern::check(&parsed.rule.value) {
            Ok((pattern, notes)) => {
                for note in notes {
                    found.push(warning(parsed, note));
                }
                if let Err((message, help)) = room.take(&pattern) {
                    let column = parsed.column;
                    found.push(remark(Level::Error, parsed, column, message, help));
                    return None;
                }
                Some(pattern)
            }
            Err(invalid) => {
                let column = column(parsed, invalid.offset.unwrap_or(0));
                found.push(remark(
                    Level::Error,
                    parsed,
                    column,
                    invalid.message,
                    invalid.help,
                ));
                None
            }
        }
    };
    let patterns: Vec<Option<Pattern>> = rules.iter().map(check).collect();
    remarks.extend(found.into_vec(""));
    patterns
}

/// What patterns with look-around have taken of their limits.
#[derive(Default)]
struct FancyRoom {
    rules: usize,
    weight: usize,
    is_used_up: bool,
}

impl FancyRoom {
    /// Takes the room of a pattern.
    ///
    /// # Errors
    /// What is too much, and what to do.
    fn take(&mut self, pattern: &Pattern) -> Result<(), (String, String)> {
        let Pattern::Fancy(fancy) = pattern else {
            return Ok(());
        };
        self.rules += 1;
        self.weight += fancy.weight;
        let too_much = if self.rules > FANCY_RULES_MAX {
            format!("more than {FANCY_RULES_MAX} patterns have")
        } else if self.weight > FANCY_WEIGHT_MAX {
            format!(
                "more than {FANCY_WEIGHT_MAX} characters, with counted repetition written out, \
                 stand in patterns that have"
            )
        } else {
            return Ok(());
        };
        self.is_used_up = true;
        Err((
            format!("{too_much} look-around, back-references or possessive repetition"),
            "write some of them without, which is also faster".to_owned(),
        ))
    }
}

fn order(key: RuleKey) -> usize {
    RuleKey::ALL
        .iter()
        .position(|(other, _)| *other == key)
        .unwrap_or(RuleKey::ALL.len())
}

fn overlay(settings: &mut Settings, document: &PolicyDocument) -> Vec<Diagnostic> {
    let file = if document.name.is_empty() {
        "settings".to_owned()
    } else {
        format!("settings of {}", document.name)
    };
    settings
        .overlay(&file, &document.settings)
        .unwrap_or_else(|errors| errors)
}

fn too_many_rules(rules: &[Parsed]) -> Option<Diagnostic> {
    let first_too_many = rules.get(RULES_MAX)?;
    let message = format!(
        "the policies of a host have {} rules, {RULES_MAX} are allowed",
        rules.len()
    );
    let help = "join rules into patterns, or remove some".to_owned();
    Some(remark(Level::Error, first_too_many, 0, message, help))
}

fn warning(parsed: &Parsed, note: Note) -> Diagnostic {
    let column = column(parsed, note.offset);
    remark(Level::Warning, parsed, column, note.message, note.help)
}

/// The column of a byte of the rule's value.
fn column(parsed: &Parsed, offset: usize) -> u32 {
    parse::column(parsed.rule.value.as_bytes(), offset).saturating_add(parsed.column) - 1
}

/// A remark about a rule's line.
pub(super) fn remark(
    level: Level,
    parsed: &Parsed,
    column: u32,
    message: String,
    help: String,
) -> Diagnostic {
    let RuleOrigin { file, line, .. } = &parsed.rule.origin;
    Diagnostic {
        level,
        file: file.clone(),
        line: *line,
        column,
        message,
        help,
    }
}
