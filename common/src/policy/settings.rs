//! The settings of a policy: TOML with `[scan]`, `[limits]`, `[detectors]`.
//!
//! Names and meaning are those of the shared design (lfd's PT_* settings);
//! every key is optional, an unknown one is an error that names the nearest.
//! Reads text, never a file.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, has_errors};
use crate::indicator::{IndicatorId, KNOWN};
use crate::toml_config::{Section, TomlFile};

/// Which accounts are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// Every account but root.
    All,
    /// cPanel users (`/var/cpanel/users`) and `nobody`.
    Cpanel,
}

/// When the load average of a host is too high (PT_LOAD).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadSettings {
    /// `load.level`: the average that is too high (PT_LOAD_LEVEL). Off by default.
    pub level: Option<u64>,
    /// `load.average_minutes`: 1, 5 or 15 (PT_LOAD_AVG). Default 5.
    pub average_minutes: u64,
    /// `load.interval_secs`: time between two looks (PT_LOAD). Default 30.
    pub interval_secs: u64,
    /// `load.skip_secs`: time between the beginnings of two findings
    /// (PT_LOAD_SKIP). Default 3600.
    pub skip_secs: u64,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self {
            level: None,
            average_minutes: 5,
            interval_secs: 30,
            skip_secs: 3600,
        }
    }
}

/// What a process is looked at for, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `scan.min_age_secs`: younger processes wait (PT_LIMIT). Default 60.
    pub min_age_secs: u64,
    /// `scan.interval_secs`: time between scans (PT_INTERVAL). Default 60, at least 1.
    pub interval_secs: u64,
    /// `scan.skip_http`: web connections do not count (PT_SKIP_HTTP). Default false.
    pub skip_http: bool,
    /// `scan.users`: accounts in scope (PT_ALL_USERS). Default all.
    pub users: Users,
    /// `scan.deleted = "report"|"ignore"`: `exe-deleted` is raised (PT_DELETED). Default true.
    pub report_deleted: bool,
    /// `limits.user_processes` (PT_USERPROC). Off by default.
    pub user_processes: Option<u64>,
    /// `limits.process_vsz_mb` in MiB (PT_USERMEM). Off by default.
    pub process_vsz_mb: Option<u64>,
    /// `limits.process_rss_mb` in MiB (PT_USERRSS). Off by default.
    pub process_rss_mb: Option<u64>,
    /// `limits.process_age_secs` (PT_USERTIME). Off by default.
    pub process_age_secs: Option<u64>,
    /// `limits.session_processes` (PT_FORKBOMB). Off by default.
    pub session_processes: Option<u64>,
    /// `[load]`: when the load average of a host is too high.
    pub load: LoadSettings,
    /// `detectors.<indicator> = false` switches an indicator off.
    pub detectors: BTreeMap<IndicatorId, bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_age_secs: 60,
            interval_secs: 60,
            skip_http: false,
            users: Users::All,
            report_deleted: true,
            user_processes: None,
            process_vsz_mb: None,
            process_rss_mb: None,
            process_age_secs: None,
            session_processes: None,
            load: LoadSettings::default(),
            detectors: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Whether an indicator may be raised.
    #[must_use]
    pub fn detects(&self, id: &IndicatorId) -> bool {
        self.detectors.get(id).copied().unwrap_or(true)
    }

    /// Whether an indicator can be raised at all: it is switched on, and has a
    /// limit where it needs one.
    #[must_use]
    pub fn raises(&self, id: &IndicatorId) -> bool {
        let has_limit = match id {
            id if *id == IndicatorId::EXE_DELETED => self.report_deleted,
            id if *id == IndicatorId::USER_PROCESS_COUNT => self.user_processes.is_some(),
            id if *id == IndicatorId::PROCESS_VIRTUAL_MEMORY => self.process_vsz_mb.is_some(),
            id if *id == IndicatorId::PROCESS_RESIDENT_MEMORY => self.process_rss_mb.is_some(),
            id if *id == IndicatorId::PROCESS_RUN_TIME => self.process_age_secs.is_some(),
            id if *id == IndicatorId::FORK_BOMB => self.session_processes.is_some(),
            id if *id == IndicatorId::HIGH_LOAD => self.load.level.is_some(),
            _ => true,
        };
        has_limit && self.detects(id)
    }

    /// Lays the settings that `text` names over these. Gives the remarks that
    /// do not stand in the way.
    ///
    /// # Errors
    /// Every wrong or unknown key, with line and column; nothing is changed.
    pub fn overlay(&mut self, file: &str, text: &str) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let toml = TomlFile::parse(file, text)?;
        let mut next = self.clone();
        let root = toml.root();
        next.take_scan(&root.section("scan"));
        next.take_limits(&root.section("limits"));
        next.take_detectors(&root.section("detectors"));
        next.take_load(&root.section("load"));
        let diagnostics = toml.finish();
        if has_errors(&diagnostics) {
            return Err(diagnostics);
        }
        *self = next;
        Ok(diagnostics)
    }

    fn take_scan(&mut self, scan: &Section<'_>) {
        set(
            &mut self.min_age_secs,
            scan.take_u64("min_age_secs", 0..=SECS_MAX),
        );
        set(
            &mut self.interval_secs,
            scan.take_u64("interval_secs", 1..=DAY_SECS),
        );
        set(&mut self.skip_http, scan.take_bool("skip_http"));
        let users = [("all", Users::All), ("cpanel", Users::Cpanel)];
        set(&mut self.users, scan.take_choice("users", &users));
        let deleted = [("report", true), ("ignore", false)];
        set(
            &mut self.report_deleted,
            scan.take_choice("deleted", &deleted),
        );
    }

    fn take_limits(&mut self, limits: &Section<'_>) {
        // 0 switches a limit off, also one that an earlier document set.
        let limit = |key: &str, max: u64| {
            limits
                .take_u64(key, 0..=max)
                .map(|number| (number > 0).then_some(number))
        };
        set(
            &mut self.user_processes,
            limit("user_processes", PROCESSES_MAX),
        );
        set(&mut self.process_vsz_mb, limit("process_vsz_mb", MIB_MAX));
        set(&mut self.process_rss_mb, limit("process_rss_mb", MIB_MAX));
        set(
            &mut self.process_age_secs,
            limit("process_age_secs", SECS_MAX),
        );
        set(
            &mut self.session_processes,
            limit("session_processes", PROCESSES_MAX),
        );
    }

    fn take_load(&mut self, load: &Section<'_>) {
        // 0 switches the watch off, also one that an earlier document set.
        if let Some(level) = load.take_u64("level", 0..=LOAD_LEVEL_MAX) {
            self.load.level = (level > 0).then_some(level);
        }
        if let Some(minutes) = load.take_u64("average_minutes", 1..=15) {
            if matches!(minutes, 1 | 5 | 15) {
                self.load.average_minutes = minutes;
            } else {
                let message = "the kernel has averages of 1, 5 and 15 minutes only";
                load.error("average_minutes", message, "use 1, 5 or 15");
            }
        }
        set(
            &mut self.load.interval_secs,
            load.take_u64("interval_secs", 1..=DAY_SECS),
        );
        set(
            &mut self.load.skip_secs,
            load.take_u64("skip_secs", 0..=SECS_MAX),
        );
        if load.take_string("apache_status_url").is_some() {
            let message = "is not supported: the agent fetches no pages";
            load.warning(
                "apache_status_url",
                message,
                "have actions.on_load fetch it",
            );
        }
    }

    fn take_detectors(&mut self, detectors: &Section<'_>) {
        for info in KNOWN {
            let known = info.id.parse::<IndicatorId>().ok();
            if let (Some(on), Some(id)) = (detectors.take_bool(info.id), known) {
                self.detectors.insert(id, on);
            }
        }
    }
}

/// A key keeps its value unless the file gives it another.
fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

pub(crate) const DAY_SECS: u64 = 86_400;

/// Ten years: longer than any process runs, and far from every overflow.
const SECS_MAX: u64 = 3650 * DAY_SECS;

/// Far above any machine.
const LOAD_LEVEL_MAX: u64 = 1_000_000;

/// The kernel's own limit of PIDs (PID_MAX_LIMIT).
const PROCESSES_MAX: u64 = 4_194_304;

/// 128 TiB, the address space of a process.
const MIB_MAX: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(texts: &[&str]) -> Settings {
        let mut settings = Settings::default();
        for text in texts {
            assert_eq!(settings.overlay("s.toml", text), Ok(Vec::new()), "{text}");
        }
        settings
    }

    #[test]
    fn every_key_sets_its_setting_and_only_that() {
        type Change = fn(&mut Settings);
        let cases: [(&str, Change); 18] = [
            ("", |_| {}),
            ("[scan]\nmin_age_secs = 0", |s| s.min_age_secs = 0),
            ("[scan]\ninterval_secs = 1", |s| s.interval_secs = 1),
            ("[scan]\nskip_http = true", |s| s.skip_http = true),
            ("[scan]\nusers = 'cpanel'", |s| s.users = Users::Cpanel),
            ("[scan]\nusers = 'all'", |_| {}),
            ("[scan]\ndeleted = 'ignore'", |s| s.report_deleted = false),
            ("[scan]\ndeleted = 'report'", |_| {}),
            ("[limits]\nuser_processes = 10", |s| {
                s.user_processes = Some(10)
            }),
            ("[limits]\nprocess_vsz_mb = 512", |s| {
                s.process_vsz_mb = Some(512)
            }),
            ("[limits]\nprocess_rss_mb = 256", |s| {
                s.process_rss_mb = Some(256)
            }),
            ("[limits]\nprocess_age_secs = 1800", |s| {
                s.process_age_secs = Some(1800)
            }),
            ("[limits]\nsession_processes = 250", |s| {
                s.session_processes = Some(250)
            }),
            ("[load]\nlevel = 6", |s| s.load.level = Some(6)),
            ("[load]\naverage_minutes = 15", |s| {
                s.load.average_minutes = 15
            }),
            ("[load]\ninterval_secs = 5", |s| s.load.interval_secs = 5),
            ("[load]\nskip_secs = 0", |s| s.load.skip_secs = 0),
            ("[detectors]\nexe-memfd = false", |s| {
                s.detectors.insert(IndicatorId::EXE_MEMFD, false);
            }),
        ];
        for (text, change) in cases {
            let mut expected = Settings::default();
            change(&mut expected);
            assert_eq!(overlaid(&[text]), expected, "{text}");
        }
    }

    #[test]
    fn a_later_document_overlays_only_what_it_names() {
        let first =
            "[limits]\nuser_processes = 10\nprocess_rss_mb = 256\n[detectors]\nexe-memfd = false";
        let second = "[limits]\nuser_processes = 0\n[scan]\ninterval_secs = 5\n[detectors]\nexe-memfd = true";
        let settings = overlaid(&[first, second]);
        assert_eq!(settings.user_processes, None);
        assert_eq!(settings.process_rss_mb, Some(256));
        assert_eq!(settings.interval_secs, 5);
        assert!(settings.detects(&IndicatorId::EXE_MEMFD));
        assert!(!overlaid(&[first]).detects(&IndicatorId::EXE_MEMFD));
    }

    #[test]
    fn every_wrong_setting_is_named_and_nothing_is_changed() {
        let text = "[scan]\ninterval_secs = 0\nmin_age_secs = 30\nuser = 'all'\ndeleted = 'yes'\n\
                    [limits]\nuser_processes = -1\n[detectors]\nexe-memfdd = false\n[lod]\n";
        let mut settings = Settings::default();
        let wrong = settings.overlay("s.toml", text).unwrap_err();
        let seen: Vec<_> = wrong.iter().map(|d| (d.line, d.message.as_str())).collect();
        let expected = [
            (2, "'interval_secs' is out of range"),
            (4, "unknown key 'user' in [scan]"),
            (5, "'deleted' has the unknown value 'yes'"),
            (7, "'user_processes' is out of range"),
            (9, "unknown key 'exe-memfdd' in [detectors]"),
            (10, "unknown key 'lod'"),
        ];
        assert_eq!(seen, expected);
        assert_eq!(
            wrong.iter().map(|d| d.help.as_str()).nth(4),
            Some("did you mean 'exe-memfd'?")
        );
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn no_policy_can_make_a_host_run_or_kill_anything() {
        for key in [
            "on_deleted = '/bin/x'",
            "on_over_limit = '/bin/x'",
            "on_load = '/bin/x'",
            "kill_over_limit = true",
            "kill_fork_bomb = true",
            "kill_hung_sshd = true",
            "kill_root = ['/bin/x']",
        ] {
            for section in ["actions", "scan", "limits", "load", "detectors"] {
                let text = format!("[{section}]\n{key}\n");
                let refused = Settings::default().overlay("s.toml", &text);
                assert!(refused.is_err(), "{text}");
            }
        }
    }

    #[test]
    fn what_the_load_watch_cannot_do_is_said() {
        let mut settings = Settings::default();
        let url = "[load]\napache_status_url = 'http://127.0.0.1/server-status'\n";
        let remarks = settings.overlay("s.toml", url).unwrap();
        assert!(remarks[0].message.contains("not supported"), "{remarks:?}");
        assert_eq!((remarks.len(), remarks[0].line), (1, 2));
        let minutes = "[load]\naverage_minutes = 10\n";
        assert!(settings.overlay("s.toml", minutes).is_err());
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn an_indicator_is_raised_when_it_is_on_and_has_its_limit() {
        let set = |text: &str| {
            let mut settings = Settings::default();
            settings.overlay("p", text).unwrap();
            settings
        };
        for (text, id, raises) in [
            ("", IndicatorId::EXE_MEMFD, true),
            (
                "[detectors]\nexe-memfd = false\n",
                IndicatorId::EXE_MEMFD,
                false,
            ),
            ("", IndicatorId::EXE_DELETED, true),
            (
                "[scan]\ndeleted = 'ignore'\n",
                IndicatorId::EXE_DELETED,
                false,
            ),
            ("", IndicatorId::FORK_BOMB, false),
            (
                "[limits]\nsession_processes = 9\n",
                IndicatorId::FORK_BOMB,
                true,
            ),
            ("", IndicatorId::PROCESS_RUN_TIME, false),
            ("[load]\nlevel = 9\n", IndicatorId::HIGH_LOAD, true),
        ] {
            assert_eq!(set(text).raises(&id), raises, "{text} {id}");
        }
    }
}
