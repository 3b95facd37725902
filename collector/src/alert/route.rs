//! Who gets the mail about a finding. Pure: configuration and facts in,
//! recipients out.
//!
//! Routes with the same recipients are one destination, so nobody gets two
//! mails about one finding.

use std::collections::BTreeMap;

use procwarden_common::severity::Severity;

use crate::config::Config;
use crate::ledger::state::GROUP_ALL;

/// Recipients of one mail, sorted, each once: the identity of a destination.
pub(crate) type Recipients = Vec<String>;

/// Recipients, and which findings are for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Who gets the mail.
    pub(crate) to: Recipients,
    /// A finding that meets one of these is for them.
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    /// Empty: every host.
    groups: Vec<String>,
    min_severity: Severity,
}

impl Condition {
    fn covers(&self, groups: &[String], severity: Severity) -> bool {
        let in_group = |wanted: &String| wanted == GROUP_ALL || groups.contains(wanted);
        severity >= self.min_severity
            && (self.groups.is_empty() || self.groups.iter().any(in_group))
    }
}

/// The destinations of a configuration; none without a `[mail]` section.
pub(crate) fn destinations(config: &Config) -> Vec<Destination> {
    let Some(mail) = &config.mail else {
        return Vec::new();
    };
    let mut by_recipients: BTreeMap<Recipients, Vec<Condition>> = BTreeMap::new();
    let mut add = |to: &[String], groups: &[String], min_severity| {
        let mut to = to.to_vec();
        to.sort();
        to.dedup();
        if !to.is_empty() {
            let condition = Condition {
                groups: groups.to_vec(),
                min_severity,
            };
            by_recipients.entry(to).or_default().push(condition);
        }
    };
    if config.routes.is_empty() {
        add(&mail.to, &[], config.alert.min_severity);
    }
    for route in &config.routes {
        add(&route.to, &route.groups, route.min_severity);
    }
    by_recipients
        .into_iter()
        .map(|(to, conditions)| Destination { to, conditions })
        .collect()
}

impl Destination {
    /// Whether a finding of a host in `groups` is for these recipients.
    pub(crate) fn covers(&self, groups: &[String], severity: Severity) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.covers(groups, severity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::tests::{config, route};

    fn recipients(config: &Config, groups: &[&str], severity: Severity) -> Vec<Recipients> {
        let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        let all = destinations(config);
        all.into_iter()
            .filter(|d| d.covers(&groups, severity))
            .map(|d| d.to)
            .collect()
    }

    #[test]
    fn without_a_route_mail_to_gets_what_reaches_the_minimum_severity() {
        let config = config(&["b@x", "a@x", "b@x"], &[]);
        assert_eq!(recipients(&config, &[], Severity::Medium), [["a@x", "b@x"]]);
        assert!(recipients(&config, &["web"], Severity::Low).is_empty());
    }

    #[test]
    fn without_a_mail_section_nobody_is_written_to() {
        let mut config = config(&["a@x"], &[route(&[], Severity::Info, &["b@x"])]);
        config.mail = None;
        assert!(destinations(&config).is_empty());
    }

    #[test]
    fn routes_choose_by_group_and_severity() {
        let config = config(
            &["unused@x"],
            &[
                route(&["web"], Severity::High, &["web@x"]),
                route(&[], Severity::Critical, &["boss@x"]),
                route(&["all"], Severity::Low, &["log@x"]),
            ],
        );
        let table: [(&[&str], Severity, &[&str]); 5] = [
            (&["web"], Severity::Critical, &["boss@x", "log@x", "web@x"]),
            (&["web", "eu"], Severity::High, &["log@x", "web@x"]),
            (&["db"], Severity::High, &["log@x"]),
            (&[], Severity::Low, &["log@x"]),
            (&["web"], Severity::Info, &[]),
        ];
        for (groups, severity, expected) in table {
            let got: Vec<String> = recipients(&config, groups, severity).concat();
            assert_eq!(got, expected, "{groups:?} {severity}");
        }
    }

    #[test]
    fn routes_with_the_same_recipients_are_one_destination() {
        let config = config(
            &[],
            &[
                route(&["web"], Severity::Low, &["a@x", "b@x"]),
                route(&["db"], Severity::Low, &["b@x", "a@x"]),
            ],
        );
        assert_eq!(
            recipients(&config, &["web", "db"], Severity::High),
            [["a@x", "b@x"]]
        );
        assert_eq!(
            recipients(&config, &["db"], Severity::High),
            [["a@x", "b@x"]]
        );
    }
}
