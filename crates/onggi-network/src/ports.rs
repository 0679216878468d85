//! Host ports: who has one, and having it.
//!
//! A published port is bound (never listened on, where that suffices) so that no other program of the host can
//! take it while a container publishes it; packets never reach that socket, they are translated before.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZeroU16,
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use onggi_spec::port::Protocol;
use onggi_sys::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

use crate::error::Obstacle;

/// A port that is in use is tried again after these waits: a thread that starts a program holds copies of all our
/// descriptors until its exec, also of a socket that has just been closed here.
const WAITS: [Duration; 3] = [Duration::from_millis(1), Duration::from_millis(4), Duration::from_millis(15)];

/// Binds a port and returns the socket that holds it; port 0 picks a free one.
pub(crate) fn reserve(ip: Ipv4Addr, port: u16, protocol: Protocol) -> Result<(OwnedFd, NonZeroU16), Obstacle> {
    let mut result = bound(ip, port, protocol);
    for wait in WAITS {
        if result.as_ref().err() != Some(&Errno::ADDRINUSE) {
            break;
        }
        thread::sleep(wait);
        result = bound(ip, port, protocol);
    }
    let fd = result.map_err(obstacle)?;
    let address = getsockname(&fd).map_err(obstacle)?;
    let chosen = SocketAddrV4::try_from(address).map_or(0, |a| a.port());
    NonZeroU16::new(chosen).map(|port| (fd, port)).ok_or(Obstacle::Exhausted)
}

fn bound(ip: Ipv4Addr, port: u16, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let address = SocketAddrV4::new(ip, port);
    let fd = socket(protocol)?;
    match bind(&fd, &address) {
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp && port != 0 => {
            // Connections of a finished server in TIME_WAIT also say EADDRINUSE. A listener with
            // SO_REUSEADDR passes those and still fails against a live one (socket(7), bind(2)).
            let fd = socket(protocol)?;
            sockopt::set_socket_reuseaddr(&fd, true)?;
            bind(&fd, &address)?;
            listen(&fd, 0)?;
            Ok(fd)
        }
        other => other.map(|()| fd),
    }
}

fn socket(protocol: Protocol) -> Result<OwnedFd, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)
}

fn obstacle(errno: Errno) -> Obstacle {
    match errno {
        Errno::ADDRINUSE => Obstacle::OtherProgram,
        Errno::ADDRNOTAVAIL => Obstacle::ForeignAddress,
        Errno::ACCESS | Errno::PERM => Obstacle::NotAllowed,
        other => Obstacle::Bind(onggi_sys::error::describe(other.raw_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

    #[test]
    fn a_reserved_port_is_held_against_everybody() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (held, port) = reserve(LOCAL, 0, protocol).unwrap();
            assert_eq!(reserve(LOCAL, port.get(), protocol).unwrap_err(), Obstacle::OtherProgram);
            assert_eq!(reserve(Ipv4Addr::UNSPECIFIED, port.get(), protocol).unwrap_err(), Obstacle::OtherProgram);
            drop(held);
            reserve(LOCAL, port.get(), protocol).unwrap();
        }
    }

    #[test]
    fn a_port_in_time_wait_is_free() {
        let server = std::net::TcpListener::bind((LOCAL, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect((LOCAL, port)).unwrap();
        let (accepted, _) = server.accept().unwrap();
        drop(server);
        // The side that closes first keeps TIME_WAIT; here the server's.
        drop(accepted);
        drop(client);
        reserve(LOCAL, port, Protocol::Tcp).unwrap();
    }

    #[test]
    fn an_address_of_somebody_else_is_named_so() {
        let elsewhere = Ipv4Addr::new(198, 51, 100, 1);
        assert_eq!(reserve(elsewhere, 0, Protocol::Tcp).unwrap_err(), Obstacle::ForeignAddress);
    }
}
