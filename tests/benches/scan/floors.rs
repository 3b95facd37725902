//! What the kernel asks for, with nothing around it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use serde_json::{Value, json};

/// Passes over the herd; the median counts.
const PASSES: usize = 9;

/// Looks at the herd in every way.
///
/// # Errors
/// When a process of the herd cannot be read.
pub(crate) fn measure(pids: &[u32]) -> anyhow::Result<Vec<Value>> {
    let proc = open(CWD, "/proc", OFlags::DIRECTORY)?;
    let of = |files: &'static [&'static str], exe| {
        let proc = &proc;
        move |pid: u32| Ok(read_files(proc, pid, files, exe)?)
    };
    Ok(vec![
        listing(pids.len())?,
        timed("floor: stat", pids, of(&["stat"], false))?,
        timed(
            "floor: stat, status, cmdline, exe",
            pids,
            of(&["stat", "status", "cmdline"], true),
        )?,
        timed("floor: the same and all descriptors", pids, |pid| {
            read_files(&proc, pid, &["stat", "status", "cmdline"], true)?;
            Ok(descriptors(&proc, pid)?)
        })?,
        timed("procfs crate: stat, status, cmdline, exe", pids, |pid| {
            plain(pid, false)
        })?,
        timed("procfs crate: the same and all descriptors", pids, |pid| {
            plain(pid, true)
        })?,
    ])
}

fn timed(
    way: &str,
    pids: &[u32],
    mut look: impl FnMut(u32) -> anyhow::Result<()>,
) -> anyhow::Result<Value> {
    let mut passes = Vec::new();
    for _ in 0..PASSES {
        let (wall, cpu) = (Instant::now(), cpu_micros());
        pids.iter().try_for_each(|pid| look(*pid))?;
        passes.push((wall.elapsed().as_secs_f64() * 1e6, cpu_micros() - cpu));
    }
    Ok(row(way, pids.len(), &mut passes))
}

fn row(way: &str, processes: usize, passes: &mut [(f64, f64)]) -> Value {
    let count = processes as f64;
    let mut median = |of: fn(&(f64, f64)) -> f64| {
        passes.sort_by(|a, b| of(a).total_cmp(&of(b)));
        let middle = passes.get(PASSES / 2).map_or(0.0, of);
        (middle / count * 100.0).round() / 100.0
    };
    json!({
        "way": way,
        "processes": processes,
        "wall_us_per_process": median(|pass| pass.0),
        "cpu_us_per_process": median(|pass| pass.1),
    })
}

fn listing(processes: usize) -> anyhow::Result<Value> {
    let mut passes = Vec::new();
    for _ in 0..PASSES {
        let (wall, cpu) = (Instant::now(), cpu_micros());
        each_name(&open(CWD, "/proc", OFlags::DIRECTORY)?, |_| Ok(()))?;
        passes.push((wall.elapsed().as_secs_f64() * 1e6, cpu_micros() - cpu));
    }
    Ok(row("floor: list", processes, &mut passes))
}

fn read_files(proc: &OwnedFd, pid: u32, files: &[&str], exe: bool) -> rustix::io::Result<()> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    for file in files {
        let fd = open(proc, &format!("{pid}/{file}"), OFlags::empty())?;
        rustix::io::read(&fd, &mut buffer)?;
    }
    if exe {
        readlinkat_raw(proc, format!("{pid}/exe"), &mut buffer)?;
    }
    Ok(())
}

fn descriptors(proc: &OwnedFd, pid: u32) -> rustix::io::Result<()> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let fds = open(proc, &format!("{pid}/fd"), OFlags::DIRECTORY)?;
    each_name(&fds, |name| {
        readlinkat_raw(&fds, name, &mut buffer)?;
        Ok(())
    })
}

/// The way that the crate's own examples show.
fn plain(pid: u32, descriptors: bool) -> anyhow::Result<()> {
    let process = procfs::process::Process::new(i32::try_from(pid)?)?;
    drop((
        process.stat()?,
        process.status()?,
        process.cmdline()?,
        process.exe()?,
    ));
    if descriptors {
        for fd in process.fd()? {
            drop(fd?);
        }
    }
    Ok(())
}

fn open(dir: impl AsFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())
}

fn each_name(
    dir: &OwnedFd,
    mut visit: impl FnMut(&std::ffi::CStr) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !entry.file_name().to_bytes().starts_with(b".") {
            visit(entry.file_name())?;
        }
    }
    Ok(())
}

fn cpu_micros() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
