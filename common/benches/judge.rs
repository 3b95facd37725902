//! How long it takes to compile a big policy and to ask it, and what it keeps
//! in memory: `cargo bench -p procwarden-common --bench judge`.
//!
//! Prints figures and asserts none: a busy machine is no error.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use procwarden_common::clock::UnixMillis;
use procwarden_common::limits::RULES_MAX;
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, PolicyFile, RuleText, Verdict, check, judge,
};

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);
const ROUNDS: usize = 20;

/// Asks for the measurement of the biggest policies alone.
const BIGGEST: &str = "biggest";

fn main() -> std::io::Result<()> {
    // `cargo test --benches` runs this file, too; it is not for that.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    if let Some(count) = std::env::args().skip_while(|a| a != BIGGEST).nth(1) {
        return two_of(count.parse().unwrap_or(0), &mut out);
    }
    let texts = processes(2_000);
    for rules in [2_000, 10_000] {
        let effective = effective(rules);
        let before = resident_kib();
        let begin = Instant::now();
        let Ok((policy, _)) = Policy::compile(&effective) else {
            return writeln!(out, "{rules} rules: the policy does not compile");
        };
        let compiled = begin.elapsed();
        let memory = resident_kib().saturating_sub(before);
        let (cold, _) = ask(&policy, &texts);
        let mut best = Duration::MAX;
        let mut ignored = 0;
        for _ in 0..ROUNDS {
            let (took, count) = ask(&policy, &texts);
            best = best.min(took);
            ignored = count;
        }
        let asked = resident_kib().saturating_sub(before);
        let begin = Instant::now();
        let warnings = check(&effective, NOW).map_or(0, |(_, warnings)| warnings.len());
        let checked = begin.elapsed();
        let per = |took: Duration| took.as_secs_f64() * 1e6 / texts.len() as f64;
        writeln!(
            out,
            "{rules} rules: compile {} ms, check {} ms ({warnings} warnings), judge {:.1} us per \
             process (first time {:.1} us), memory {memory} KiB, after judging {asked} KiB; \
             {ignored} of {} ignored",
            compiled.as_millis(),
            checked.as_millis(),
            per(best),
            per(cold),
            texts.len(),
        )?;
    }
    // In a process of its own: what was resident before would be counted.
    drop(out);
    let again = std::env::current_exe()?;
    let mut child = std::process::Command::new(again);
    child.args(["--bench", BIGGEST, &biggest().to_string()]);
    child.status().map(drop)
}

/// The most patterns that are not refused, to the hundred.
fn biggest() -> usize {
    let fits = |count: usize| Policy::compile(&patterns(count, 0)).is_ok();
    let (mut least, mut most) = (1, RULES_MAX);
    while most - least > 100 {
        let middle = (least + most) / 2;
        if fits(middle) {
            least = middle;
        } else {
            most = middle;
        }
    }
    least
}

/// What two such policies take: one that judges, while another one is compiled
/// to take its place, as on an agent.
fn two_of(count: usize, out: &mut impl Write) -> std::io::Result<()> {
    let judging = Policy::compile(&patterns(count, 0));
    if let Ok((policy, _)) = &judging {
        ask(policy, &processes(20_000));
    }
    let next = Policy::compile(&patterns(count, 1));
    let held = usize::from(judging.is_ok()) + usize::from(next.is_ok());
    writeln!(
        out,
        "biggest: {count} patterns on two texts; {held} such policies: memory {} KiB, at most {} KiB",
        status_kib("VmRSS:"),
        status_kib("VmHWM:"),
    )
}

/// Patterns alone, half of them on each of two texts.
fn patterns(count: usize, variant: usize) -> EffectivePolicy {
    let line = |n: usize| match n % 2 {
        0 => format!("pexe:/opt/app{n}/releases{variant}/[0-9.]+/bin/server{n}\n"),
        _ => format!("pcmd:worker{n}{variant}: (idle|busy) \\[\\d+\\]\n"),
    };
    document((0..count).map(line).collect())
}

/// Asks about every process; the time, and how many are ignored.
fn ask(policy: &Policy, texts: &[RuleText]) -> (Duration, usize) {
    let begin = Instant::now();
    let is_ignored = |text: &&RuleText| black_box(judge(policy, text, NOW)) != Verdict::Report;
    let ignored = texts.iter().filter(is_ignored).count();
    (begin.elapsed(), ignored)
}

/// A mixture as fleets have it: mostly exact, a third patterns, few accounts.
fn effective(rules: usize) -> EffectivePolicy {
    let line = |n: usize| match n % 10 {
        0..=3 => format!("exe:/opt/vendor{n}/bin/daemon{n}\n"),
        4 => format!("cmd:/usr/local/bin/tool{n} --config /etc/tool{n}.conf\n"),
        5 => format!("user:svc{n}\n"),
        6 => format!("pexe:/opt/app{n}/releases/[0-9.]+/bin/server{n}\n"),
        7 => format!("pexe:/usr/lib/pkg{n}/(bin|libexec)/worker{n}.*\n"),
        8 => format!("pcmd:worker{n}: (idle|busy) \\[\\d+\\]\n"),
        _ => format!("#@ expires=2027-01-31 owner=ops\npcmd:/usr/bin/job{n} --id=\\w+\n"),
    };
    document((0..rules).map(line).collect())
}

fn document(content: String) -> EffectivePolicy {
    let file = PolicyFile {
        path: "bench.pignore".to_owned(),
        content: content.into_bytes(),
    };
    let document = PolicyDocument {
        name: "bench".to_owned(),
        revision: 1,
        files: vec![file],
        settings: String::new(),
    };
    EffectivePolicy {
        documents: vec![document],
    }
}

/// Half of them are covered by no rule and have to pass all of them.
fn processes(count: usize) -> Vec<RuleText> {
    let text = |n: usize| {
        let (exe, cmd) = match n % 6 {
            0 => (
                format!("/opt/vendor{n}/bin/daemon{n}"),
                format!("daemon{n} -f"),
            ),
            1 => (
                format!("/home/user{n}/bin/tool"),
                format!("./tool --port {n}"),
            ),
            2 => (
                "/usr/bin/perl".to_owned(),
                format!("/usr/bin/perl /usr/local/bin/report.pl {n}"),
            ),
            3 => (
                format!(
                    "/opt/app{}/releases/1.2.{n}/bin/server{}",
                    n / 10 * 10 + 6,
                    n / 10 * 10 + 6
                ),
                "server".to_owned(),
            ),
            4 => (
                "/usr/sbin/php-fpm8.2".to_owned(),
                format!("php-fpm: pool www{n}"),
            ),
            _ => (
                "/usr/bin/worker".to_owned(),
                format!("worker{}: idle [{n}]", n / 10 * 10 + 8),
            ),
        };
        RuleText {
            user: format!("user{n}"),
            exe: Some(exe),
            cmd: Some(cmd),
        }
    };
    (0..count).map(text).collect()
}

/// Resident memory of this process; 0 where /proc does not say.
fn resident_kib() -> u64 {
    status_kib("VmRSS:")
}

fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
