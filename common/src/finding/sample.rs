//! A finding cut down to what says which process it was.
//!
//! Pure. Promises: the texts that rules look at are whole, or told to be cut;
//! the severity stays.

use std::cmp::Reverse;

use super::{Finding, ProcessFacts};
use crate::indicator::Indicator;
use crate::process::Cmdline;

/// Bytes of the command line of a sample. A longer one is cut and marked so.
const CMDLINE_BYTES_MAX: usize = 1024;

/// Indicators of a sample: the most severe ones.
const INDICATORS_MAX: usize = 8;

impl Finding {
    /// The same finding in little space: who, which executable, which command
    /// line, which indicators. Not what it has open, where it comes from, or
    /// the words of the evidence.
    #[must_use]
    pub fn sample(&self) -> Self {
        let mut indicators: Vec<&Indicator> = self.indicators.iter().collect();
        indicators.sort_by_key(|indicator| Reverse(indicator.severity));
        let indicators = indicators.into_iter().take(INDICATORS_MAX);
        Self {
            subject: self.subject,
            indicators: indicators
                .map(|indicator| Indicator {
                    id: indicator.id.clone(),
                    severity: indicator.severity,
                    evidence: String::new(),
                })
                .collect(),
            observed_at: self.observed_at,
            uid: self.uid,
            user: self.user.clone(),
            process: self.process.as_ref().map(|process| ProcessFacts {
                ppid: process.ppid,
                started_at: process.started_at,
                comm: process.comm.clone(),
                exe: process.exe.clone(),
                exe_deleted: process.exe_deleted,
                cmdline: cut(&process.cmdline),
                ..ProcessFacts::default()
            }),
            // What no rule looks at.
            host: None,
            actions: Vec::new(),
            quiet: self.quiet,
        }
    }
}

fn cut(cmdline: &Cmdline) -> Cmdline {
    match cmdline.raw.get(..CMDLINE_BYTES_MAX) {
        Some(head) if cmdline.raw.len() > CMDLINE_BYTES_MAX => Cmdline {
            raw: head.to_vec(),
            truncated: true,
        },
        _ => cmdline.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::finding::Subject;
    use crate::id::BootId;
    use crate::indicator::IndicatorId;
    use crate::policy::RuleText;
    use crate::process::ProcessKey;
    use crate::severity::Severity;

    fn finding(cmdline_bytes: usize) -> Finding {
        let indicator = |severity| Indicator {
            id: IndicatorId::EXE_DELETED,
            severity,
            evidence: "words".into(),
        };
        let mut indicators = vec![indicator(Severity::Low); 20];
        indicators.push(indicator(Severity::High));
        Finding {
            subject: Subject::Process(ProcessKey {
                boot_id: BootId::from_slice(&[1; 16]).unwrap(),
                pid: 7,
                start_time: 8,
            }),
            indicators,
            observed_at: UnixMillis(9),
            uid: 1000,
            user: b"alice".to_vec(),
            process: Some(ProcessFacts {
                exe: Some(b"/usr/bin/x (deleted)".to_vec()),
                cmdline: Cmdline {
                    raw: vec![b'a'; cmdline_bytes],
                    truncated: false,
                },
                files: vec![b"/etc/passwd".to_vec()],
                ..ProcessFacts::default()
            }),
            host: None,
            actions: Vec::new(),
            quiet: false,
        }
    }

    #[test]
    fn rules_see_the_same_texts_and_the_severity_stays() {
        let whole = finding(1024);
        let sample = whole.sample();
        assert_eq!(RuleText::of_finding(&whole), RuleText::of_finding(&sample));
        assert_eq!(whole.severity(), sample.severity());
        assert_eq!(sample.indicators.len(), INDICATORS_MAX);
        assert!(sample.process.unwrap().files.is_empty());
    }

    #[test]
    fn a_long_command_line_is_cut_and_no_rule_takes_it_for_whole() {
        let sample = finding(1025).sample();
        assert_eq!(RuleText::of_finding(&sample).cmd, None);
        assert_eq!(sample.process.as_ref().unwrap().cmdline.raw.len(), 1024);
        assert_eq!(sample.sample(), sample);
    }
}
