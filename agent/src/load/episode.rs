//! When an episode of high load begins and ends.
//!
//! Pure: load, settings and times in, a step out. Promises: episodes alternate
//! with their ends; two beginnings are at least the pause of the settings
//! apart, counted on the clock since boot, which never jumps.

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::LoadSettings;

/// What is remembered from one look to the next, and over a restart.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Episodes {
    /// The running one: when it began, by the wall clock.
    pub(super) since: Option<UnixMillis>,
    /// When the newest one began, in milliseconds since boot.
    pub(super) began_uptime_millis: Option<u64>,
}

/// What a look makes happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Begin { since: UnixMillis },
    End { since: UnixMillis },
}

/// The average that the settings look at, in hundredths.
pub(super) const fn chosen(settings: &LoadSettings, load: [u32; 3]) -> u32 {
    let [one, five, fifteen] = load;
    match settings.average_minutes {
        1 => one,
        15 => fifteen,
        _ => five,
    }
}

impl Episodes {
    /// One look. Without a limit, a running episode ends.
    pub(super) fn step(
        &mut self,
        settings: &LoadSettings,
        load: [u32; 3],
        uptime_millis: u64,
        now: UnixMillis,
    ) -> Step {
        let load = u64::from(chosen(settings, load));
        let is_high = settings
            .level
            .is_some_and(|level| load >= level.saturating_mul(100));
        match (self.since, is_high) {
            (Some(since), false) => {
                self.since = None;
                Step::End { since }
            }
            (None, true) if self.may_begin(settings, uptime_millis) => {
                self.since = Some(now);
                self.began_uptime_millis = Some(uptime_millis);
                Step::Begin { since: now }
            }
            (Some(_), true) | (None, _) => Step::Nothing,
        }
    }

    fn may_begin(&self, settings: &LoadSettings, uptime_millis: u64) -> bool {
        let pause = settings.skip_secs.saturating_mul(1000);
        self.began_uptime_millis
            .is_none_or(|began| uptime_millis.saturating_sub(began) >= pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(level: Option<u64>, average_minutes: u64) -> LoadSettings {
        LoadSettings {
            level,
            average_minutes,
            skip_secs: 100,
            ..LoadSettings::default()
        }
    }

    /// Looks at (seconds since boot, load of 5 minutes): `B` and `E`.
    fn steps(looks: &[(u64, u32)], wall: impl Fn(u64) -> i64) -> String {
        let mut episodes = Episodes::default();
        let step = |(at, load): &(u64, u32)| {
            let now = UnixMillis(wall(*at));
            match episodes.step(&settings(Some(6), 5), [0, *load, 0], at * 1000, now) {
                Step::Nothing => '.',
                Step::Begin { .. } => 'B',
                Step::End { .. } => 'E',
            }
        };
        looks.iter().map(step).collect()
    }

    #[test]
    fn an_episode_begins_at_the_limit_ends_below_it_and_the_next_waits() {
        let looks = [
            (1, 599),
            (2, 600),
            (3, 900),
            (4, 599),
            (5, 700),
            (99, 700),
            (102, 700),
            (103, 0),
        ];
        assert_eq!(steps(&looks, |at| at.cast_signed()), ".B.E..BE");
    }

    #[test]
    fn jumps_of_the_wall_clock_change_nothing() {
        let looks = [(1, 600), (2, 0), (50, 600), (101, 600), (102, 0)];
        let expected = "BE.BE";
        assert_eq!(steps(&looks, |at| at.cast_signed()), expected);
        assert_eq!(steps(&looks, |at| -1_000_000 * at.cast_signed()), expected);
        assert_eq!(
            steps(&looks, |at| if at < 50 { 0 } else { i64::MAX }),
            expected
        );
    }

    #[test]
    fn the_average_is_the_one_that_is_asked_for_and_no_limit_ends_an_episode() {
        for (minutes, load) in [(1, [600, 0, 0]), (5, [0, 600, 0]), (15, [0, 0, 600])] {
            let mut episodes = Episodes::default();
            let now = UnixMillis(5);
            let begun = episodes.step(&settings(Some(6), minutes), load, 1, now);
            assert_eq!(begun, Step::Begin { since: now });
            let ended = episodes.step(&settings(None, minutes), load, 2, UnixMillis(6));
            assert_eq!(ended, Step::End { since: now });
        }
    }

    proptest! {
        #[test]
        fn beginnings_and_ends_alternate_and_keep_their_distance(
            looks in proptest::collection::vec((1u64..60, 0u32..1200), 0..40)
        ) {
            let (mut at, mut episodes, mut open) = (0, Episodes::default(), None);
            let mut last_begin: Option<u64> = None;
            for (later, load) in looks {
                at += later;
                let now = UnixMillis(at.cast_signed());
                match episodes.step(&settings(Some(6), 5), [0, load, 0], at * 1000, now) {
                    Step::Nothing => {}
                    Step::Begin { since } => {
                        prop_assert!(open.is_none() && load >= 600);
                        prop_assert!(last_begin.is_none_or(|last| at - last >= 100));
                        (open, last_begin) = (Some(since), Some(at));
                    }
                    Step::End { since } => {
                        prop_assert_eq!(open.take(), Some(since));
                        prop_assert!(load < 600);
                    }
                }
            }
        }
    }
}
