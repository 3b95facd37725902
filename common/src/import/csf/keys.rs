//! What each key of `csf.conf` is in procwarden.

use super::lines::{Entry, error};
use super::{Fate, Remark};
use crate::diagnostic::Diagnostic;
use crate::policy::Settings;

/// Shortest interval that lfd takes.
const LFD_INTERVAL_SECS_MIN: u64 = 10;

/// The key that switches lfd's load watch off with 0, whatever its others say.
const LOAD_SWITCH: &str = "PT_LOAD";

/// What is done with a key.
enum Plan {
    /// A number becomes this setting.
    Number(&'static str),
    /// 0 and 1 become one of two values of this setting.
    Switch(&'static str, [&'static str; 2]),
    /// A script, or an action that is switched on by a number: agent.toml's.
    Action(&'static str),
    /// Part of the load watch.
    Load,
    /// A page that the agent does not fetch.
    Page,
    Limit,
    Interval,
    ForkBomb,
    Flush,
    Unknown,
}

fn plan(key: &str) -> Plan {
    match key {
        "PT_LIMIT" => Plan::Limit,
        "PT_INTERVAL" => Plan::Interval,
        "PT_SKIP_HTTP" => Plan::Switch("scan.skip_http", ["false", "true"]),
        "PT_ALL_USERS" => Plan::Switch("scan.users", ["\"cpanel\"", "\"all\""]),
        "PT_DELETED" => Plan::Switch("scan.deleted", ["\"ignore\"", "\"report\""]),
        "PT_USERPROC" => Plan::Number("limits.user_processes"),
        "PT_USERMEM" => Plan::Number("limits.process_vsz_mb"),
        "PT_USERRSS" => Plan::Number("limits.process_rss_mb"),
        "PT_USERTIME" => Plan::Number("limits.process_age_secs"),
        "PT_FORKBOMB" => Plan::ForkBomb,
        "PT_DELETED_ACTION" => Plan::Action("actions.on_deleted"),
        "PT_USER_ACTION" => Plan::Action("actions.on_over_limit"),
        "PT_USERKILL" => Plan::Action("actions.kill_over_limit"),
        "PT_USERKILL_ALERT" => Plan::Action("actions.alert_on_kill"),
        "PT_LOAD_ACTION" => Plan::Action("actions.on_load"),
        "PT_SSHDHUNG" => Plan::Action("actions.kill_hung_sshd"),
        LOAD_SWITCH | "PT_LOAD_AVG" | "PT_LOAD_LEVEL" | "PT_LOAD_SKIP" => Plan::Load,
        "PT_APACHESTATUS" => Plan::Page,
        "LF_FLUSH" => Plan::Flush,
        _ => Plan::Unknown,
    }
}

/// Whether the file switches the load watch off.
pub(super) fn is_load_off(entries: &[Entry]) -> bool {
    let is_zero = |value: &str| !value.is_empty() && value.bytes().all(|b| b == b'0');
    entries
        .iter()
        .any(|entry| entry.key == LOAD_SWITCH && is_zero(&entry.value))
}

/// Turns one key into a remark, and a setting where there is one.
pub(super) fn translate(
    file: &str,
    entry: &Entry,
    is_load_off: bool,
) -> Result<Remark, Diagnostic> {
    match plan(&entry.key) {
        Plan::Number(setting) => {
            let number = number(file, entry)?;
            let off = if number == 0 {
                "0 is off, as in lfd"
            } else {
                ""
            };
            set(file, entry, Fate::Taken, setting, &number.to_string(), off)
        }
        Plan::Switch(setting, [off, on]) => {
            let is_on = number(file, entry)? != 0;
            let (fate, message) = switch_words(setting, is_on);
            set(
                file,
                entry,
                fate,
                setting,
                if is_on { on } else { off },
                message,
            )
        }
        Plan::Limit => limit(file, entry),
        Plan::Interval => interval(file, entry),
        Plan::ForkBomb => fork_bomb(file, entry),
        Plan::Action(setting) => Ok(action(entry, setting)),
        Plan::Load => load(file, entry, is_load_off),
        Plan::Page => Ok(say(
            entry,
            Fate::NoCounterpart,
            "the agent fetches no pages; a script, actions.on_load in the host's own agent.toml, can",
        )),
        Plan::Flush => Ok(say(
            entry,
            Fate::NotNeeded,
            "a process is reported once, however long it runs",
        )),
        Plan::Unknown => Ok(say(
            entry,
            Fate::NoCounterpart,
            "procwarden has no such setting",
        )),
    }
}

fn switch_words(setting: &str, is_on: bool) -> (Fate, &'static str) {
    match (setting, is_on) {
        ("scan.deleted", false) => (
            Fate::Differs,
            "lfd passes over a process whose executable was deleted; procwarden drops the \
             indicator exe-deleted only, its sockets and everything else still count",
        ),
        ("scan.deleted", true) => (
            Fate::Differs,
            "an executable that was replaced at its path is exe-replaced, severity info, and \
             not reported as deleted",
        ),
        ("scan.users", false) => (
            Fate::Taken,
            "a host without cPanel looks at every account, as lfd does",
        ),
        _ => (Fate::Taken, ""),
    }
}

fn limit(file: &str, entry: &Entry) -> Result<Remark, Diagnostic> {
    let secs = number(file, entry)?;
    if secs == 0 {
        let message = "0 switches process tracking off in lfd; nothing was set, so processes are \
                       looked at once they are 60 s old";
        return Ok(say(entry, Fate::Differs, message));
    }
    set(
        file,
        entry,
        Fate::Taken,
        "scan.min_age_secs",
        &secs.to_string(),
        "",
    )
}

fn interval(file: &str, entry: &Entry) -> Result<Remark, Diagnostic> {
    let secs = number(file, entry)?;
    if secs < LFD_INTERVAL_SECS_MIN {
        let message = "lfd refuses less than 10 s; nothing was set, so scans are 60 s apart \
                       (procwarden takes 1 and more)";
        return Ok(say(entry, Fate::Differs, message));
    }
    set(
        file,
        entry,
        Fate::Taken,
        "scan.interval_secs",
        &secs.to_string(),
        "",
    )
}

fn fork_bomb(file: &str, entry: &Entry) -> Result<Remark, Diagnostic> {
    let processes = number(file, entry)?;
    if processes == 0 {
        return Ok(say(entry, Fate::NotNeeded, "0 is off, as here"));
    }
    let message = "lfd kills the session; procwarden kills only where the host's own agent.toml \
                   sets actions.kill_fork_bomb";
    let setting = "limits.session_processes";
    set(
        file,
        entry,
        Fate::Differs,
        setting,
        &processes.to_string(),
        message,
    )
}

/// The load watch: its keys are read as lfd reads them.
fn load(file: &str, entry: &Entry, is_off: bool) -> Result<Remark, Diagnostic> {
    let number = number(file, entry)?;
    let set = |fate, setting, value: u64, message| {
        set(file, entry, fate, setting, &value.to_string(), message)
    };
    match (entry.key.as_str(), number) {
        (LOAD_SWITCH, 0) => set(Fate::Taken, "load.level", 0, "0 is off, as in lfd"),
        _ if is_off => Ok(say(
            entry,
            Fate::NotNeeded,
            "PT_LOAD switches the load watch off",
        )),
        (LOAD_SWITCH, secs) => set(Fate::Taken, "load.interval_secs", secs, ""),
        ("PT_LOAD_AVG", 1 | 5 | 15) => set(Fate::Taken, "load.average_minutes", number, ""),
        ("PT_LOAD_AVG", _) => set(
            Fate::Differs,
            "load.average_minutes",
            5,
            "lfd takes everything but 1, 5 and 15 as 5",
        ),
        ("PT_LOAD_LEVEL", 0) => set(
            Fate::Differs,
            "load.level",
            0,
            "every load is too high for lfd then; here 0 is off",
        ),
        ("PT_LOAD_LEVEL", level) => set(Fate::Taken, "load.level", level, ""),
        (_, secs) => set(
            Fate::Differs,
            "load.skip_secs",
            secs,
            "lfd mails again after this time while the load stays high; here it is one finding, \
             and this is the shortest time between two",
        ),
    }
}

fn action(entry: &Entry, setting: &str) -> Remark {
    if matches!(entry.value.as_str(), "" | "0") {
        return say(entry, Fate::NotNeeded, "off, as here");
    }
    let message = format!(
        "a policy cannot make a host run or kill anything: this is {setting} in the host's own \
         agent.toml"
    );
    say(entry, Fate::AgentLocal, &message)
}

fn number(file: &str, entry: &Entry) -> Result<u64, Diagnostic> {
    let digits = !entry.value.is_empty() && entry.value.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| entry.value.parse().ok()).flatten();
    number.ok_or_else(|| {
        let message = format!("{} is '{}', which is no number", entry.key, entry.value);
        error(
            file,
            entry.line,
            message,
            "write digits only, such as \"60\"",
        )
    })
}

/// A setting, checked by the code that will read it on the hosts.
fn set(
    file: &str,
    entry: &Entry,
    fate: Fate,
    setting: &str,
    value: &str,
    message: &str,
) -> Result<Remark, Diagnostic> {
    let setting = format!("{setting} = {value}");
    if let Err(refused) = Settings::default().overlay(file, &setting) {
        let refused = refused.into_iter().next();
        let (why, help) = refused.map_or_else(Default::default, |d| (d.message, d.help));
        let message = format!("{} cannot be {}: {why}", entry.key, entry.value);
        return Err(error(file, entry.line, message, &help));
    }
    Ok(Remark {
        setting: Some(setting),
        ..say(entry, fate, message)
    })
}

fn say(entry: &Entry, fate: Fate, message: &str) -> Remark {
    Remark {
        line: entry.line,
        key: entry.key.clone(),
        value: entry.value.clone(),
        fate,
        setting: None,
        message: message.to_owned(),
    }
}
