//! What the kernel calls this host.

use procwarden_common::limits::HOST_NAME_BYTES_MAX;
use procwarden_common::printable::printable;

/// The host's name, for people: the certificate says who it is.
pub(crate) fn name() -> String {
    let mut name = printable(rustix::system::uname().nodename().to_bytes());
    // The printable form is ASCII: any cut is between characters.
    name.truncate(HOST_NAME_BYTES_MAX);
    name
}

/// Release of the kernel.
pub(crate) fn kernel() -> String {
    printable(rustix::system::uname().release().to_bytes())
}
