//! A harmless program for the tests to find: it does one visible thing, then
//! waits until its standard input closes, which is when the test ends.
//!
//! `procwarden-payload sleep`
//! `procwarden-payload listen`           prints its port on 127.0.0.1
//! `procwarden-payload connect PORT`
//! `procwarden-payload rename NAME`      writes NAME to its own comm
//! `procwarden-payload rename-often N`   as often as that, within a moment
//! `procwarden-payload session N`        makes a session with N more of itself
//! `procwarden-payload memfd ARGS...`    runs itself again from memory only
//! `procwarden-payload hold N LISTENERS` opens N descriptors, then says `.`

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::fs::{MemfdFlags, memfd_create};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let action = arguments.next().context("what should it do?")?;
    match action.as_bytes() {
        b"sleep" => wait(),
        b"listen" => {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
            wait()
        }
        b"connect" => {
            let port = arguments.next().context("to which port?")?;
            let port: u16 = port.to_str().context("a port is a number")?.parse()?;
            let _connected = TcpStream::connect(("127.0.0.1", port))?;
            writeln!(std::io::stdout(), "connected")?;
            wait()
        }
        b"rename" => {
            let name = arguments.next().context("to which name?")?;
            std::fs::write("/proc/self/comm", name.as_bytes())?;
            writeln!(std::io::stdout(), "renamed")?;
            wait()
        }
        b"rename-often" => {
            let times = arguments.next().context("how often?")?;
            let times: u32 = times.to_str().context("a count is a number")?.parse()?;
            let mut comm = std::fs::File::options()
                .write(true)
                .open("/proc/self/comm")?;
            for number in 0..times {
                comm.write_all(format!("payload-{number}").as_bytes())?;
            }
            writeln!(std::io::stdout(), "renamed")?;
            wait()
        }
        b"session" => {
            let count = arguments.next().context("how many?")?;
            let count: usize = count.to_str().context("a count is a number")?.parse()?;
            rustix::process::setsid()?;
            let one = |_| Command::new(std::env::current_exe()?).arg("sleep").spawn();
            let _children = (0..count).map(one).collect::<std::io::Result<Vec<_>>>()?;
            writeln!(std::io::stdout(), "made")?;
            wait()
        }
        b"memfd" => {
            let mut file = File::from(memfd_create("payload", MemfdFlags::empty())?);
            file.write_all(&std::fs::read("/proc/self/exe")?)?;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            Err(Command::new(path).args(arguments).exec().into())
        }
        b"hold" => {
            let mut count = || {
                let number = arguments.next().context("how many descriptors?")?;
                let number = number.to_str().context("a number has digits")?;
                Ok::<usize, anyhow::Error>(number.parse()?)
            };
            let (descriptors, listeners) = (count()?, count()?);
            let listening: Vec<TcpListener> = (0..listeners)
                .map(|_| TcpListener::bind(("127.0.0.1", 0)))
                .collect::<std::io::Result<_>>()?;
            // Standard input, output and error count too.
            let files = descriptors.saturating_sub(3 + listeners);
            let files: Vec<File> = (0..files)
                .map(|_| File::open("/dev/null"))
                .collect::<std::io::Result<_>>()?;
            write!(std::io::stdout(), ".")?;
            wait()?;
            drop((listening, files));
            Ok(())
        }
        other => bail!("unknown action {:?}", String::from_utf8_lossy(other)),
    }
}

/// Until the test is over, or gone.
fn wait() -> anyhow::Result<()> {
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
