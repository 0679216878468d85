//! Sockets of the network namespace of a process (proc_pid_net(5)), in the words of ss(8).

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::Serialize;

/// Sockets that are listed of one kind.
const MAX: usize = 2000;

/// One socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SocketLine {
    /// `tcp`, `udp`, `unix`, …
    pub kind: &'static str,
    /// `LISTEN`, `ESTAB`, …
    pub state: &'static str,
    /// Own address and port, or path.
    pub local: String,
    /// The other end's; empty where there is none.
    pub peer: String,
    /// Its number.
    pub inode: u64,
}

/// net/tcp_states.h, as ss names them.
const STATES: [&str; 13] = [
    "UNKNOWN",
    "ESTAB",
    "SYN-SENT",
    "SYN-RECV",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "UNCONN",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "NEW-SYN-RECV",
];

/// Every socket; a kind that cannot be read has none.
pub(super) fn all(pid: i32) -> Vec<SocketLine> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let mut out = Vec::new();
    for (kind, file) in
        [("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6"), ("raw", "raw"), ("raw", "raw6")]
    {
        out.extend(read(file).lines().skip(1).take(MAX).filter_map(|line| internet(kind, line)));
    }
    out.extend(read("unix").lines().skip(1).take(MAX).filter_map(unix));
    out
}

/// `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …`
fn internet(kind: &'static str, line: &str) -> Option<SocketLine> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = usize::from_str_radix(words.get(3)?, 16).ok()?;
    let (local, peer) = (address(words.get(1)?)?, address(words.get(2)?)?);
    Some(SocketLine {
        kind,
        state: STATES.get(state).copied().unwrap_or(STATES[0]),
        local: shown(local),
        peer: shown(peer),
        inode: words.get(9)?.parse().ok()?,
    })
}

/// ss writes a port of 0 as `*`.
fn shown(address: SocketAddr) -> String {
    match address.port() {
        0 => address.to_string().rsplit_once(':').map_or_else(String::new, |(ip, _)| format!("{ip}:*")),
        _ => address.to_string(),
    }
}

/// `0100007F:1F90`: words of the address in the byte order of the machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (hex, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match hex.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// `Num RefCount Protocol Flags Type St Inode Path`
fn unix(line: &str) -> Option<SocketLine> {
    let words: Vec<&str> = line.split_whitespace().collect();
    // __SO_ACCEPTCON of `Flags`, SS_CONNECTED of `St`.
    let listens = u32::from_str_radix(words.get(3)?, 16).ok()? & 0x1_0000 != 0;
    let state = match (listens, *words.get(5)?) {
        (true, _) => "LISTEN",
        (false, "03") => "ESTAB",
        _ => "UNCONN",
    };
    let local = words.get(7..).map_or_else(String::new, |path| path.join(" "));
    Some(SocketLine { kind: "unix", state, local, peer: String::new(), inode: words.get(6)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_states_are_those_of_ss() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        let found = internet("tcp", line).expect("a socket");
        assert_eq!((found.state, found.local.as_str(), found.peer.as_str()), ("LISTEN", "127.0.0.1:8080", "0.0.0.0:*"));
        let six = "00000000000000000000000001000000:0050";
        assert_eq!(address(six).expect("an address").to_string(), "[::1]:80");
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 99 /run/x y.sock";
        let found = unix(line).expect("a socket");
        assert_eq!((found.state, found.local.as_str(), found.inode), ("LISTEN", "/run/x y.sock", 99));
        assert_eq!(internet("tcp", "nonsense"), None);
    }
}
