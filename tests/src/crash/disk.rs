//! A disk whose power can be cut: a file system in an image file, in a file
//! system in an image file.
//!
//! ```text
//! collector -> inner ext4 -> loop device -> file on the outer ext4 -> loop device -> outer image
//!                            "the disk", with a write cache that is lost
//! ```
//!
//! The file that holds the inner file system is the disk. What is written to
//! it waits in the page cache of the outer file system, as in a disk's
//! volatile write cache, and becomes permanent when the inner file system asks
//! for a flush: the loop device makes an fsync of it. A cut stops the outer
//! file system at once and for good, without writing anything back
//! (`FS_IOC_SHUTDOWN` with `NOLOGFLUSH`, as the godown of xfstests). Then the
//! outer image is copied as it is, and the copy is mounted: both journals are
//! replayed, and what was written but never flushed is gone, in whatever order.
//!
//! Every block of the disk is written before it is used, and none is given back:
//! a flush has nothing to do but to overwrite blocks then. An fsync that needs the outer file system's
//! journal is not to be believed at the moment of the cut: while its data is on
//! the way the cut ends the transaction that makes room for it, and an fsync
//! that finds its transaction gone takes it for committed (jbd2's
//! `jbd2_complete_transaction`). Of 300 cuts into a file that grows, 66 lost
//! what fsync had returned for; of 300 into one that was written before, none.
//!
//! What the model leaves out: a sector torn in the middle, and a disk that
//! lies about flushes.
//!
//! Needs root, loop devices and a mount namespace of its own, with which every
//! mount and loop device goes, however the program ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

/// What the outer file system takes for itself, journal included.
const OUTER_OWN_BYTES: u64 = 48 << 20;

/// A small journal, few inodes: a new file system in a moment.
const MKFS: [&str; 9] = ["-q", "-F", "-m", "0", "-N", "4096", "-J", "size=16", "-E"];
const MKFS_EXTENDED: &str = "lazy_itable_init=1,nodiscard";

/// Everything needed besides the kernel.
const PROGRAMS: [&str; 5] = ["mkfs.ext4", "mount", "umount", "perl", "cp"];

/// `_IOR('X', 125, __u32)` of linux/fs.h, and `EXT4_GOING_FLAGS_NOLOGFLUSH`.
/// A perl of any Debian makes the call: unsafe code is forbidden here.
const SHUTDOWN: &str = r#"open(my $d, "<", $ARGV[0]) or die "open: $!";
my $flags = pack("L", 2); ioctl($d, 0x8004587d, $flags) or die "shutdown: $!";"#;

/// Tries to unmount what the kernel still holds for a moment.
const UNMOUNT_TRIES: u32 = 100;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// Enough for all that is written in a round.
pub(super) const SMALL_BYTES: u64 = 48 << 20;

/// A mounted disk. It is unmounted when this is dropped.
pub(super) struct Disk {
    outer_image: PathBuf,
    outer: PathBuf,
    inner: PathBuf,
}

impl Disk {
    /// Makes a new disk of this size; its files are in `directory`, and what is
    /// written to `mount_point` is on it.
    ///
    /// # Errors
    /// When the system does not let us, or lacks a program.
    pub(super) fn create(directory: &Path, mount_point: &Path, bytes: u64) -> anyhow::Result<Self> {
        let disk = Self {
            outer_image: directory.join("disk.img"),
            outer: directory.join("disk"),
            inner: mount_point.to_owned(),
        };
        for made in [&disk.outer, &disk.inner] {
            std::fs::create_dir(made).with_context(|| format!("cannot make {made:?}"))?;
        }
        make_file_system(&disk.outer_image, bytes + OUTER_OWN_BYTES)?;
        mount(&disk.outer_image, &disk.outer)?;
        make_file_system(&disk.inner_image(), bytes)?;
        write_every_block(&disk.inner_image()).context("cannot write every block of the disk")?;
        disk.mount_inner()?;
        let lost_and_found = disk.inner.join("lost+found");
        std::fs::remove_dir(&lost_and_found).context("cannot empty the new disk")?;
        Ok(disk)
    }

    fn inner_image(&self) -> PathBuf {
        self.outer.join("inner.img")
    }

    /// Cuts the power: from now on nothing reaches the disk.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn cut(&self) -> anyhow::Result<()> {
        run(Command::new("perl").args(["-e", SHUTDOWN]).arg(&self.outer))
    }

    /// Gives the disk power again: what survived the cut is mounted where it
    /// was. Nobody may have a file open there.
    ///
    /// # Errors
    /// When what survived cannot be mounted.
    pub(super) fn revive(&mut self) -> anyhow::Result<()> {
        let survived = self.outer_image.with_extension("survived");
        run(Command::new("cp")
            .arg("--sparse=always")
            .args([&self.outer_image, &survived]))?;
        unmount(&self.inner)?;
        unmount(&self.outer)?;
        std::fs::rename(&survived, &self.outer_image)?;
        mount(&self.outer_image, &self.outer)?;
        self.mount_inner()
    }

    fn mount_inner(&self) -> anyhow::Result<()> {
        mount(&self.inner_image(), &self.inner)?;
        write_zeros_by_writing(&self.inner)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for at in [&self.inner, &self.outer] {
            // What was never mounted cannot be unmounted: the namespace ends
            // with the program, and so does the rest.
            drop(run(Command::new("umount").arg("--lazy").arg(at)));
        }
    }
}

/// Whether power cuts can be made here: makes one.
///
/// # Errors
/// Why not.
pub(super) fn probe(directory: &Path) -> anyhow::Result<()> {
    for program in PROGRAMS {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        let is_there = found.is_ok_and(|found| found.status.success());
        ensure!(is_there, "the program {program} is not installed");
    }
    let directory = tempfile::Builder::new()
        .prefix("procwarden-crash-probe-")
        .tempdir_in(directory)?;
    let mut disk = Disk::create(
        directory.path(),
        &directory.path().join("data"),
        SMALL_BYTES,
    )?;
    disk.cut()?;
    disk.revive()
}

/// Writes each block again as it is: making a file system leaves holes, and
/// room that is only reserved.
fn write_every_block(image: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    let (mut block, mut at) = (vec![0; 1 << 20], 0);
    loop {
        match file.read_at(&mut block, at)? {
            0 => return file.sync_all(),
            read => {
                file.write_all_at(block.get(..read).unwrap_or_default(), at)?;
                at += read as u64;
            }
        }
    }
}

/// Instead of asking the disk to zero blocks, which makes holes in its image,
/// the file system mounted there writes them.
fn write_zeros_by_writing(mount_point: &Path) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts.lines().filter_map(|line| line.split_once(' '));
    let is_here = |(_, rest): &(&str, &str)| {
        let at = rest.split(' ').next();
        at.is_some_and(|at| Path::new(at) == mount_point)
    };
    let (device, _) = mounts.rfind(is_here).context("the disk is not mounted")?;
    let name = device.rsplit('/').next().unwrap_or(device);
    let setting = format!("/sys/fs/ext4/{name}/extent_max_zeroout_kb");
    std::fs::write(&setting, "0").with_context(|| format!("cannot write {setting}"))
}

fn make_file_system(image: &Path, bytes: u64) -> anyhow::Result<()> {
    let size = format!("{}k", bytes / 1024);
    let mut mkfs = Command::new("mkfs.ext4");
    run(mkfs.args(MKFS).arg(MKFS_EXTENDED).arg(image).arg(size))
}

fn mount(image: &Path, at: &Path) -> anyhow::Result<()> {
    let options = "loop,noatime,noinit_itable";
    run(Command::new("mount")
        .args(["-o", options])
        .args([image, at]))
}

fn unmount(at: &Path) -> anyhow::Result<()> {
    for _ in 1..UNMOUNT_TRIES {
        if run(Command::new("umount").arg(at)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(UNMOUNT_PAUSE);
    }
    run(Command::new("umount").arg(at))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
