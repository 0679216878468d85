//! Sockets made inside a namespace (they stay there, whichever thread uses them) and packets made by hand.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use super::inside;

const PATIENCE: Duration = Duration::from_secs(3);
/// Long enough for a packet to cross three namespaces, short enough for tests that expect silence.
const SILENCE: Duration = Duration::from_millis(400);

/// Serves until the test ends: each client is told who the server is and which address it came from.
pub(crate) fn tcp_server(namespace: impl AsFd, port: u16, name: &'static str) {
    let listener = inside(namespace, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            let peer = stream.peer_addr().expect("peer").ip();
            let _ = write!(stream, "{name} sees {peer}");
        }
    });
}

/// As `tcp_server`, over UDP.
pub(crate) fn udp_server(namespace: impl AsFd, port: u16, name: &'static str) {
    let socket = inside(namespace, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind"));
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} sees {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// Connects and returns what the server says, or why it could not.
pub(crate) fn tcp(namespace: impl AsFd, ip: Ipv4Addr, port: u16) -> Result<String, String> {
    tcp_within(namespace, ip, port, PATIENCE)
}

/// As `tcp`, for connections that must not come about.
pub(crate) fn tcp_refused(namespace: impl AsFd, ip: Ipv4Addr, port: u16) -> bool {
    tcp_within(namespace, ip, port, SILENCE).is_err()
}

fn tcp_within(namespace: impl AsFd, ip: Ipv4Addr, port: u16, patience: Duration) -> Result<String, String> {
    let address = SocketAddr::from((ip, port));
    let connect = || TcpStream::connect_timeout(&address, patience).map_err(|e| e.to_string());
    let mut stream = inside(namespace, connect)?;
    stream.set_read_timeout(Some(patience)).expect("timeout");
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// Sends a datagram and returns the answer.
pub(crate) fn udp(namespace: impl AsFd, ip: Ipv4Addr, port: u16) -> Result<String, String> {
    let socket = inside(namespace, || UdpSocket::bind("0.0.0.0:0").expect("bind"));
    ask(&socket, ip, port)
}

/// As `udp`, with a socket that is used before and after.
pub(crate) fn ask(socket: &UdpSocket, ip: Ipv4Addr, port: u16) -> Result<String, String> {
    socket.set_read_timeout(Some(SILENCE * 2)).expect("timeout");
    socket.send_to(b"?", (ip, port)).map_err(|e| e.to_string())?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer).map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Listens for datagrams in a namespace.
pub(crate) fn udp_ear(namespace: impl AsFd, ip: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = inside(namespace, || UdpSocket::bind((ip, port)).expect("bind"));
    socket.set_read_timeout(Some(SILENCE)).expect("timeout");
    socket
}

/// True when a datagram arrives soon.
pub(crate) fn hears(ear: &UdpSocket) -> bool {
    ear.recv_from(&mut [0; 64]).is_ok()
}

/// Sends an IPv4 UDP packet with any source and destination, handed to the neighbour `via`.
pub(crate) fn forge_udp(namespace: impl AsFd, via: Ipv4Addr, from: Ipv4Addr, to: Ipv4Addr, port: u16) {
    let length: u16 = 20 + 8 + 4;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    for field in [4321, port, 12, 0] {
        packet.extend(u16::to_be_bytes(field));
    }
    packet.extend(*b"hey!");
    let raw = Protocol::from_raw(255.try_into().expect("IPPROTO_RAW"));
    let socket = inside(namespace, || {
        socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(raw)).expect("raw socket")
    });
    sendto(&socket, &packet, SendFlags::empty(), &SocketAddrV4::new(via, 0)).expect("sendto");
}

/// Sends an IPv6 router advertisement for 2001:db8::/64 to everybody on a link.
pub(crate) fn advertise_router(namespace: impl AsFd, link: u32) {
    let mut packet = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    packet.extend("2001:db8::".parse::<std::net::Ipv6Addr>().expect("prefix").octets());
    let socket = inside(namespace, || {
        let kind = Some(rustix::net::ipproto::ICMPV6);
        socket_with(AddressFamily::INET6, SocketType::RAW, SocketFlags::CLOEXEC, kind).expect("raw socket")
    });
    rustix::net::sockopt::set_ipv6_multicast_hops(&socket, 255).expect("hops");
    let everybody = std::net::SocketAddrV6::new("ff02::1".parse().expect("address"), 0, 0, link);
    sendto(&socket, &packet, SendFlags::empty(), &everybody).expect("sendto");
}

/// `NAME sees ADDRESS`.
pub(crate) fn sees(name: &str, ip: impl Into<IpAddr>) -> Result<String, String> {
    Ok(format!("{name} sees {}", ip.into()))
}
