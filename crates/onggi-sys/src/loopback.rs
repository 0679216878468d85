//! The loopback interface of the calling thread's network namespace. netdevice(7).

use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{Result, SysContext, SysError};

/// Brings `lo` up with one ioctl.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over the namespace.
pub fn up() -> Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .sys("socket", || "AF_UNIX, SOCK_DGRAM")?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // SAFETY: SIOCSIFFLAGS reads an ifreq through the pointer, which is live and fully initialised; the name is
    // NUL-terminated; the socket is open for the call's duration.
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if r < 0 { Err(SysError::last("ioctl", "SIOCSIFFLAGS, \"lo\", IFF_UP")) } else { Ok(()) }
}
