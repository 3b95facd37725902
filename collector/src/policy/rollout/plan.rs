//! The plan of a roll-out: its steps, its pace, and what stops it.

use procwarden_common::severity::Severity;
use procwarden_common::wire::{severity_from_wire, severity_to_wire};
use procwarden_proto::v1;
use procwarden_proto::v1::rollout_threshold::Least;

/// Steps of one plan.
const STEPS_MAX: usize = 20;

/// Shortest and longest time between two steps.
const EVERY_MILLIS_MIN: u64 = 1_000;
const EVERY_MILLIS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

/// How a revision goes from host to host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Percent of the hosts: rising, the last one 100, never empty.
    pub(crate) steps: Vec<u8>,
    pub(crate) every_millis: u64,
    /// Hosts that refuse it.
    pub(crate) refused: Option<Threshold>,
    /// Hosts that go silent once they were reached.
    pub(crate) silent: Option<Threshold>,
    /// Newly ignored findings of this severity or a higher one.
    pub(crate) severity: Option<Severity>,
    /// After an automatic stop, hosts that have the revision keep it.
    pub(crate) hold: bool,
}

/// How many hosts are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threshold {
    Hosts(u32),
    /// Of the hosts that were reached; at least one.
    Percent(u8),
}

impl Threshold {
    /// Whether so many of the hosts that were reached are too many.
    pub(crate) fn is_met(self, hosts: u32, reached: u32) -> bool {
        let least = match self {
            Self::Hosts(hosts) => hosts,
            Self::Percent(percent) => {
                let part = u64::from(reached) * u64::from(percent);
                u32::try_from(part.div_ceil(100)).unwrap_or(u32::MAX)
            }
        };
        hosts >= least.max(1)
    }
}

/// A plan that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no plan for a roll-out: {0}")]
pub(crate) struct InvalidPlan(&'static str);

impl TryFrom<v1::RolloutPlan> for Plan {
    type Error = InvalidPlan;

    fn try_from(plan: v1::RolloutPlan) -> Result<Self, InvalidPlan> {
        let percents = plan.steps.iter().map(|&step| u8::try_from(step));
        let steps: Vec<u8> = percents
            .collect::<Result<_, _>>()
            .map_err(|_| InvalidPlan("a step is a whole number of percent, from 1 to 100"))?;
        if steps.len() > STEPS_MAX {
            return Err(InvalidPlan("it has more than 20 steps"));
        }
        if steps.first() == Some(&0) || !steps.is_sorted_by(|a, b| a < b) {
            return Err(InvalidPlan("every step is more than the one before it"));
        }
        if steps.last() != Some(&100) {
            return Err(InvalidPlan("the last step is 100%"));
        }
        if !(EVERY_MILLIS_MIN..=EVERY_MILLIS_MAX).contains(&plan.every_ms) {
            return Err(InvalidPlan("a step lasts from one second to 30 days"));
        }
        let unspecified = i32::from(v1::Severity::Unspecified);
        let severity = (plan.severity != unspecified)
            .then(|| severity_from_wire(plan.severity))
            .transpose()
            .map_err(|_| InvalidPlan("the severity is not known"))?;
        Ok(Self {
            steps,
            every_millis: plan.every_ms,
            refused: threshold(plan.refused)?,
            silent: threshold(plan.silent)?,
            severity,
            hold: plan.hold,
        })
    }
}

fn threshold(message: Option<v1::RolloutThreshold>) -> Result<Option<Threshold>, InvalidPlan> {
    match message.and_then(|message| message.least) {
        None => Ok(None),
        Some(Least::Hosts(hosts @ 1..)) => Ok(Some(Threshold::Hosts(hosts))),
        Some(Least::Percent(percent @ 1..=100)) => {
            let percent = u8::try_from(percent).unwrap_or(100);
            Ok(Some(Threshold::Percent(percent)))
        }
        Some(_) => Err(InvalidPlan(
            "it stops at one host or more, or at 1% to 100% of them",
        )),
    }
}

impl From<&Plan> for v1::RolloutPlan {
    fn from(plan: &Plan) -> Self {
        let severity = plan.severity.map(severity_to_wire);
        Self {
            steps: plan.steps.iter().map(|&step| u32::from(step)).collect(),
            every_ms: plan.every_millis,
            refused: plan.refused.map(Into::into),
            silent: plan.silent.map(Into::into),
            severity: severity.unwrap_or(v1::Severity::Unspecified).into(),
            hold: plan.hold,
        }
    }
}

impl From<Threshold> for v1::RolloutThreshold {
    fn from(threshold: Threshold) -> Self {
        let least = match threshold {
            Threshold::Hosts(hosts) => Least::Hosts(hosts),
            Threshold::Percent(percent) => Least::Percent(percent.into()),
        };
        Self { least: Some(least) }
    }
}
