//! How long it takes to compile a big policy and to ask it, and what it keeps
//! in memory: `cargo bench -p procwarden-common --bench judge`.
//!
//! Prints figures and asserts none: a busy machine is no error.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, PolicyFile, RuleText, Verdict, check, judge,
};

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);
const ROUNDS: usize = 20;

fn main() -> std::io::Result<()> {
    // `cargo test --benches` runs this file, too; it is not for that.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
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
    Ok(())
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
    let content: String = (0..rules).map(line).collect();
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
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
