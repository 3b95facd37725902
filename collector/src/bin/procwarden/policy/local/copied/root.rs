//! A copy of a server's file tree: a directory of this machine that is `/` for
//! what lies below it.
//!
//! Promises: nothing outside of the directory is read, whatever links and `..`
//! are in the paths; the copy was written by others. Only regular files are
//! read, so that nothing waits for the other end of a FIFO.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::super::{regular, shown};

/// The kernel gives up on a `..` while anything is renamed or mounted
/// anywhere: so often it is asked.
const OPENINGS_MAX: usize = 16;

/// Device and inode.
type FileId = (u64, u64);

/// The directory where a copy begins.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    directory: OwnedFd,
    id: FileId,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&directory)?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            id: (stat.st_dev, stat.st_ino),
        })
    }

    /// What a path of this machine is called in the copy; nothing when it does
    /// not lead there. Which directory it names decides, so that links on the
    /// way to the copy do no harm.
    pub(crate) fn relative(&self, path: &Path) -> Option<PathBuf> {
        let path = std::path::absolute(path).ok()?;
        self.below(&path).or_else(|| {
            let directory = path.parent()?.canonicalize().ok()?;
            self.below(&directory.join(path.file_name()?))
        })
    }

    fn below(&self, path: &Path) -> Option<PathBuf> {
        let root = path.ancestors().find(|directory| self.is(directory))?;
        let rest = path.strip_prefix(root).ok()?;
        // Who writes `copy/../x` means what lies beside the copy.
        (!climbs_out(rest)).then(|| rest.to_owned())
    }

    fn is(&self, directory: &Path) -> bool {
        rustix::fs::stat(directory).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.id)
    }

    /// Where a path of the copy stands on this machine, for people: links on
    /// the way are not followed.
    pub(crate) fn place(&self, path: &Path) -> PathBuf {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::ParentDir => {
                    names.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        self.path.join(names.into_iter().collect::<PathBuf>())
    }

    /// Opens a regular file of the copy; the reason says what to do.
    pub(crate) fn file(&self, path: &Path) -> Result<File, String> {
        match self.resolve(path, regular::FLAGS) {
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.file_by_name(path),
            Ok(file) => regular::only(file.into()).map_err(|error| error.to_string()),
            Err(errno) => Err(self.reason(path, errno)),
        }
    }

    /// Lets the kernel look a path up as a process in the copy would.
    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = || rustix::fs::openat2(&self.directory, relative, flags, Mode::empty(), resolve);
        for _ in 1..OPENINGS_MAX {
            match open() {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
        open()
    }

    /// Without the kernel's help a link is followed as this machine does it,
    /// and then the file has to lie in the copy. Who changes the copy at the
    /// same time could deceive this.
    fn file_by_name(&self, path: &Path) -> Result<File, String> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let canonical = |path: &Path| path.canonicalize();
        let wanted = self.path.join(relative);
        let found = canonical(&wanted).and_then(|file| Ok((file, canonical(&self.path)?)));
        let (file, root) = found.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => self.reason(path, errno),
            None => error.to_string(),
        })?;
        if !file.starts_with(root) {
            return Err(format!(
                "it leads to {}, which is not in {}, and this kernel cannot follow links within a \
                 directory; put the file itself in the place of the link",
                shown(&file),
                shown(&self.path)
            ));
        }
        regular::open(&file).map_err(|error| error.to_string())
    }

    /// Why a path of the copy cannot be opened.
    fn reason(&self, path: &Path, errno: Errno) -> String {
        let (place, root) = (shown(&self.place(path)), shown(&self.path));
        match errno {
            Errno::NOENT | Errno::NOTDIR => match self.target(path) {
                Some(target) => format!(
                    "{place} is a link to {}, which is not in {root}; copy that file, too",
                    shown(&target)
                ),
                None => format!(
                    "there is no {place} on this machine, looked up within {root}; copy the file \
                     from the server to that place"
                ),
            },
            Errno::LOOP => format!(
                "{place} is a link to itself or into /proc; put the file itself in its place"
            ),
            errno => regular::reason(errno).to_string(),
        }
    }

    /// Where a path of the copy leads when it is a link.
    fn target(&self, path: &Path) -> Option<PathBuf> {
        let link = self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC);
        let target = rustix::fs::readlinkat(link.ok()?, "", Vec::new()).ok()?;
        Some(OsString::from_vec(target.into_bytes()).into())
    }
}

/// Whether a relative path leads above where it begins.
fn climbs_out(path: &Path) -> bool {
    let mut depth = 0_usize;
    for component in path.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::FileType;
    use tempfile::TempDir;

    use super::super::super::bounded;
    use super::*;

    /// A copy, and beside it what is not in it.
    fn copy() -> (TempDir, Root) {
        let dir = tempfile::tempdir().expect("a directory");
        let (copy, csf) = (dir.path().join("copy"), dir.path().join("copy/etc/csf"));
        std::fs::create_dir_all(&csf).expect("made");
        std::fs::write(csf.join("more"), "of the copy").expect("written");
        std::fs::write(dir.path().join("secret"), "beside it").expect("written");
        let root = Root::open(&copy).expect("a copy");
        (dir, root)
    }

    fn link(root: &Root, target: impl AsRef<Path>, path: &str) {
        symlink(target, root.path.join(path)).expect("linked");
    }

    /// What is read with the kernel's help and without it.
    fn both(root: &Root, path: &str) -> [Result<String, String>; 2] {
        let path = Path::new(path);
        let read = |file| bounded(file).map(|content| String::from_utf8(content).expect("text"));
        [
            root.file(path).and_then(read),
            root.file_by_name(path).and_then(read),
        ]
    }

    #[test]
    fn links_are_followed_within_the_copy() {
        let (_dir, root) = copy();
        link(&root, "/etc/csf/more", "absolute");
        link(&root, "/etc", "directory");
        link(&root, "../../etc/csf/more", "climbing");
        let good = Ok("of the copy".to_owned());
        for path in [
            "/etc/csf/more",
            "//etc/./csf/../csf/more",
            "etc/csf/more",
            "absolute",
            "/directory/csf/more",
            "climbing",
            "/../../etc/csf/more",
        ] {
            assert_eq!(both(&root, path)[0], good, "{path}");
        }
        link(&root, "etc/csf/more", "relative");
        assert_eq!(both(&root, "relative"), [good.clone(), good]);
    }

    #[test]
    fn links_to_what_is_outside_of_the_copy_are_not_read() {
        let (dir, root) = copy();
        let secret = dir.path().join("secret");
        link(&root, &secret, "absolute");
        link(&root, "../secret", "climbing");
        link(&root, dir.path(), "directory");
        for path in ["/absolute", "climbing", "/directory/secret", "../secret"] {
            let [kernel, names] = both(&root, path).map(|read| read.expect_err(path));
            assert!(kernel.contains("in "), "{path}: {kernel}");
            assert!(kernel.contains("copy"), "{path}: {kernel}");
            let needed = format!("it leads to {}, which is not in", secret.display());
            assert!(names.starts_with(&needed), "{path}: {names}");
            assert!(names.contains("put the file itself"), "{path}: {names}");
        }
        let [kernel, _] = both(&root, "/absolute").map(|read| read.expect_err("outside"));
        let needed = format!("is a link to {}, which is not in", secret.display());
        assert!(kernel.contains(&needed), "{kernel}");
    }

    #[test]
    fn links_in_circles_and_into_proc_are_not_followed() {
        let (_dir, root) = copy();
        link(&root, "circle", "circle");
        for reason in both(&root, "circle").map(|read| read.expect_err("a circle")) {
            assert!(reason.contains("put the file itself"), "{reason}");
        }
        let root = Root::open(Path::new("/")).expect("a directory");
        let _kernel_only = root.file(Path::new("/proc/self/exe")).expect_err("magic");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_waits_for_nobody() {
        let (_dir, root) = copy();
        let fifo = root.path.join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
        let _socket =
            std::os::unix::net::UnixListener::bind(root.path.join("socket")).expect("a socket");
        for path in ["fifo", "socket", "/etc"] {
            for reason in both(&root, path).map(|read| read.expect_err(path)) {
                assert!(reason.contains("name a regular file"), "{path}: {reason}");
            }
        }
        let devices = Root::open(Path::new("/dev")).expect("a directory");
        for reason in both(&devices, "zero").map(|read| read.expect_err("a device")) {
            assert!(reason.contains("name a regular file"), "{reason}");
        }
    }

    #[test]
    fn what_a_file_is_called_in_the_copy_goes_by_directories_and_not_by_names() {
        let (dir, root) = copy();
        let at = |path: &str| dir.path().join(path);
        symlink(at("copy"), at("link")).expect("linked");
        symlink(at("copy/etc/csf"), at("inside")).expect("linked");
        symlink(dir.path(), at("copy/out")).expect("linked");
        for (path, expected) in [
            ("copy/etc/csf/more", Some("etc/csf/more")),
            ("copy/../copy//./etc/x", Some("etc/x")),
            ("link/etc/x", Some("etc/x")),
            ("inside/x", Some("etc/csf/x")),
            ("copy/out/secret", Some("out/secret")),
            ("copy/../secret", None),
            ("secret", None),
            ("gone/x", None),
        ] {
            let relative = root.relative(&at(path));
            assert_eq!(relative.as_deref(), expected.map(Path::new), "{path}");
        }
    }

    #[test]
    fn places_are_shown_below_the_copy_and_never_beside_it() {
        let (_dir, root) = copy();
        for (path, expected) in [
            ("/etc/csf/more", "etc/csf/more"),
            ("//etc/./csf/x/../more", "etc/csf/more"),
            ("/../../etc/shadow", "etc/shadow"),
        ] {
            let place = root.place(Path::new(path));
            assert_eq!(place, root.path.join(expected), "{path}");
        }
    }
}
