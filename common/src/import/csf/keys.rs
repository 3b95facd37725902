//! What each key of `csf.conf` is in procwarden.

use super::lines::{Entry, error};
use super::{Fate, Remark};
use crate::diagnostic::Diagnostic;
use crate::policy::Settings;
use crate::policy::settings::DAY_SECS;

/// Shortest interval that lfd takes.
const LFD_INTERVAL_SECS_MIN: u64 = 10;

/// The keys that switch lfd's load watch, and all of its process tracking
/// besides that, off with 0, whatever the others say.
const LOAD_SWITCH: &str = "PT_LOAD";
const TRACKING_SWITCH: &str = "PT_LIMIT";

/// Keys of lfd that a whole csf.conf has.
pub(super) const KEYS: [&str; 20] = [
    TRACKING_SWITCH,
    "PT_INTERVAL",
    "PT_SKIP_HTTP",
    "PT_ALL_USERS",
    "PT_DELETED",
    "PT_DELETED_ACTION",
    "PT_USERPROC",
    "PT_USERMEM",
    "PT_USERRSS",
    "PT_USERTIME",
    "PT_USERKILL",
    "PT_USERKILL_ALERT",
    "PT_USER_ACTION",
    LOAD_SWITCH,
    "PT_LOAD_AVG",
    "PT_LOAD_LEVEL",
    "PT_LOAD_SKIP",
    "PT_LOAD_ACTION",
    "PT_FORKBOMB",
    "PT_SSHDHUNG",
];

const SESSION_PROCESSES: &str = "limits.session_processes";
const OFF: &str = "off, as here";
const LOCAL: &str = "a policy cannot make a host run or kill anything";

/// What is done with a key.
enum Plan {
    /// A number becomes this setting.
    Number(&'static str),
    /// 0 and 1 become one of two values of this setting.
    Switch(&'static str, [&'static str; 2]),
    /// A script: agent.toml's.
    Script(&'static str),
    /// An action that is switched on by a number: agent.toml's.
    Action(&'static str),
    /// Whether a kill is mailed, which it is here unless agent.toml says no.
    KillAlert,
    /// Ends connections of addresses that the firewall blocks.
    SshdKill,
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
        TRACKING_SWITCH => Plan::Limit,
        "PT_INTERVAL" => Plan::Interval,
        "PT_SKIP_HTTP" => Plan::Switch("scan.skip_http", ["false", "true"]),
        "PT_ALL_USERS" => Plan::Switch("scan.users", ["\"cpanel\"", "\"all\""]),
        "PT_DELETED" => Plan::Switch("scan.deleted", ["\"ignore\"", "\"report\""]),
        "PT_USERPROC" => Plan::Number("limits.user_processes"),
        "PT_USERMEM" => Plan::Number("limits.process_vsz_mb"),
        "PT_USERRSS" => Plan::Number("limits.process_rss_mb"),
        "PT_USERTIME" => Plan::Number("limits.process_age_secs"),
        "PT_FORKBOMB" => Plan::ForkBomb,
        "PT_DELETED_ACTION" => Plan::Script("on_deleted"),
        "PT_USER_ACTION" => Plan::Script("on_over_limit"),
        "PT_LOAD_ACTION" => Plan::Script("on_load"),
        "PT_USERKILL" => Plan::Action("kill_over_limit"),
        "PT_SSHDHUNG" => Plan::Action("kill_hung_sshd"),
        "PT_USERKILL_ALERT" => Plan::KillAlert,
        "PT_SSHDKILL" => Plan::SshdKill,
        LOAD_SWITCH | "PT_LOAD_AVG" | "PT_LOAD_LEVEL" | "PT_LOAD_SKIP" => Plan::Load,
        "PT_APACHESTATUS" => Plan::Page,
        "LF_FLUSH" => Plan::Flush,
        _ => Plan::Unknown,
    }
}

/// What the file switches off as a whole.
#[derive(Clone, Copy)]
pub(super) struct Off {
    tracking: bool,
    load: bool,
}

/// Finds the switches of a file. A key that is not there switches nothing: the
/// file may be a part of one.
pub(super) fn what_is_off(entries: &[Entry]) -> Off {
    let is_off = |key| {
        let mut of = entries.iter().filter(|entry| entry.key == key);
        of.any(|entry| entry.value.bytes().all(|b| b == b'0'))
    };
    Off {
        tracking: is_off(TRACKING_SWITCH),
        load: is_off(LOAD_SWITCH),
    }
}

/// Turns one key into a remark, and a setting where there is one.
pub(super) fn translate(file: &str, entry: &Entry, off: Off) -> Result<Remark, Diagnostic> {
    let plan = plan(&entry.key);
    if off.tracking
        && let Some(remark) = without_tracking(file, entry, &plan)
    {
        return remark;
    }
    match plan {
        Plan::Number(setting) => limit_of(file, entry, setting),
        Plan::Switch(setting, [off, on]) => {
            let is_on = number(file, entry)? != 0;
            let (fate, message) = switch_words(setting, is_on);
            let value = if is_on { on } else { off };
            set(file, entry, fate, setting, value, message)
        }
        Plan::Limit => limit(file, entry),
        Plan::Interval => interval(file, entry),
        Plan::ForkBomb => fork_bomb(file, entry),
        Plan::Script(key) => Ok(script(entry, key)),
        Plan::Action(key) => Ok(action(entry, key)),
        Plan::KillAlert => Ok(kill_alert(entry)),
        Plan::Load => load(file, entry, off.load),
        Plan::Page if entry.value.is_empty() => Ok(say(entry, Fate::NotNeeded, OFF)),
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
        Plan::SshdKill if is_off(entry) => Ok(say(entry, Fate::NotNeeded, OFF)),
        Plan::SshdKill => Ok(say(
            entry,
            Fate::NoCounterpart,
            "it ends ssh connections of addresses that csf blocks: that is the firewall's work",
        )),
        Plan::Unknown => Ok(say(
            entry,
            Fate::NoCounterpart,
            "procwarden has no such setting",
        )),
    }
}

/// What becomes of a key that lfd does not look at because it tracks no
/// processes; nothing when it does look.
fn without_tracking(file: &str, entry: &Entry, plan: &Plan) -> Option<Result<Remark, Diagnostic>> {
    let message = "PT_LIMIT switches process tracking off in lfd";
    let limit = match plan {
        Plan::Number(setting) => Some(*setting),
        Plan::ForkBomb => Some(SESSION_PROCESSES),
        Plan::Switch(..)
        | Plan::Interval
        | Plan::Script("on_deleted" | "on_over_limit")
        | Plan::Action(_)
        | Plan::KillAlert => None,
        _ => return None,
    };
    Some(match limit {
        Some(setting) => set(file, entry, Fate::NotNeeded, setting, "0", message),
        None => Ok(say(entry, Fate::NotNeeded, message)),
    })
}

/// A limit; one beyond what procwarden takes is one that nothing reaches.
fn limit_of(file: &str, entry: &Entry, setting: &str) -> Result<Remark, Diagnostic> {
    let number = number(file, entry)?;
    let message = if number == 0 {
        "0 is off, as in lfd"
    } else {
        ""
    };
    set(
        file,
        entry,
        Fate::Taken,
        setting,
        &number.to_string(),
        message,
    )
    .or_else(|_| {
        let message = "more than procwarden takes, and than anything reaches: it is off";
        set(file, entry, Fate::Differs, setting, "0", message)
    })
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
        ("scan.skip_http", true) => (
            Fate::Differs,
            "lfd passes over what a web server started, limits and deleted executables included; \
             procwarden drops the indicator network-connection only",
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
        let message = "0 switches process tracking off in lfd: its limits are off here, too; what \
                       procwarden detects stays on, for processes that are 60 s old unless another \
                       policy says otherwise";
        return Ok(say(entry, Fate::Differs, message));
    }
    let setting = "scan.min_age_secs";
    set(file, entry, Fate::Taken, setting, &secs.to_string(), "")
}

fn interval(file: &str, entry: &Entry) -> Result<Remark, Diagnostic> {
    let secs = number(file, entry)?;
    if secs < LFD_INTERVAL_SECS_MIN {
        let message = "lfd refuses less than 10 s; nothing was set, so scans are 60 s apart \
                       (procwarden takes 1 and more)";
        return Ok(say(entry, Fate::Differs, message));
    }
    let setting = "scan.interval_secs";
    if secs > DAY_SECS {
        let message = "scans are a day apart at most";
        let most = DAY_SECS.to_string();
        return set(file, entry, Fate::Differs, setting, &most, message);
    }
    set(file, entry, Fate::Taken, setting, &secs.to_string(), "")
}

fn fork_bomb(file: &str, entry: &Entry) -> Result<Remark, Diagnostic> {
    let processes = number(file, entry)?;
    if processes == 0 {
        return Ok(say(entry, Fate::NotNeeded, OFF));
    }
    let message = "lfd kills the session; procwarden kills only where the host's own agent.toml \
                   says so";
    let value = processes.to_string();
    let remark = set(
        file,
        entry,
        Fate::Differs,
        SESSION_PROCESSES,
        &value,
        message,
    )?;
    Ok(Remark {
        agent_toml: Some("kill_fork_bomb = true".to_owned()),
        ..remark
    })
}

/// The load watch: its keys are read as lfd reads them.
fn load(file: &str, entry: &Entry, is_off: bool) -> Result<Remark, Diagnostic> {
    if entry.key == "PT_LOAD_LEVEL"
        && !is_off
        && let Some(level) = rounded_up(&entry.value)
    {
        let message = "whole numbers only: rounded up";
        let level = level.to_string();
        return set(file, entry, Fate::Differs, "load.level", &level, message);
    }
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

/// The whole number above a decimal fraction; nothing for anything else.
fn rounded_up(value: &str) -> Option<u64> {
    let (whole, fraction) = value.split_once('.')?;
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    whole.checked_add(u64::from(fraction.bytes().any(|b| b != b'0')))
}

/// Whether a switch, or a script, is none.
fn is_off(entry: &Entry) -> bool {
    matches!(entry.value.as_str(), "" | "0")
}

fn script(entry: &Entry, key: &str) -> Remark {
    if is_off(entry) {
        return say(entry, Fate::NotNeeded, OFF);
    }
    let absolute = if entry.value.starts_with('/') {
        ""
    } else {
        "; write its absolute path"
    };
    let message = format!(
        "{LOCAL}: this is actions.{key} in the host's own agent.toml; the file must belong to \
         root, and nobody else may write it{absolute}"
    );
    // TOML and this form escape quotes and backslashes alike, and there is
    // nothing else to escape in printable text.
    local(entry, &message, format!("{key} = {:?}", entry.value))
}

fn action(entry: &Entry, key: &str) -> Remark {
    if is_off(entry) {
        return say(entry, Fate::NotNeeded, OFF);
    }
    let message = format!(
        "{LOCAL}: this is actions.{key} in the host's own agent.toml, and spares root's \
         processes but those of kill_root"
    );
    local(entry, &message, format!("{key} = true"))
}

fn kill_alert(entry: &Entry) -> Remark {
    if !is_off(entry) {
        return say(entry, Fate::NotNeeded, "on, as here");
    }
    let message = "a kill is mailed unless actions.alert_on_kill in the host's own agent.toml is \
                   false";
    local(entry, message, "alert_on_kill = false".to_owned())
}

fn local(entry: &Entry, message: &str, line: String) -> Remark {
    Remark {
        agent_toml: Some(line),
        ..say(entry, Fate::AgentLocal, message)
    }
}

/// Nothing is 0, as in Perl.
fn number(file: &str, entry: &Entry) -> Result<u64, Diagnostic> {
    if entry.value.is_empty() {
        return Ok(0);
    }
    let digits = entry.value.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| entry.value.parse().ok()).flatten();
    number.ok_or_else(|| {
        let message = format!("{} is '{}', which is no number", entry.key, entry.value);
        let help = "write digits only, such as \"60\": lfd takes the digits that come first";
        error(file, entry.line, message, help)
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
        agent_toml: None,
        message: message.to_owned(),
    }
}
