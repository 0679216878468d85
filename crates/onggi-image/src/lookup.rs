//! Names of hosts → addresses, for a program that is linked statically.
//!
//! What a name stands for is decided by the modules that nsswitch.conf(5) lists: shared objects that fit the C library of the
//! machine and not the one in the program. So getent(1), which comes with that library, asks them. Where there is no such
//! program, what the library has built in does: /etc/hosts and DNS.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ureq::{
    Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

use crate::url;

/// The program that looks names up, where distributions have it; nobody's PATH decides what runs here.
const PROGRAMS: [&str; 3] = ["/usr/bin/getent", "/bin/getent", "/run/current-system/sw/bin/getent"];
/// Its exit code for a name that stands for nothing.
const NOT_FOUND: i32 = 2;
/// Most of its output that is read: some hundred addresses.
const MAX_OUTPUT: usize = 16 << 10;
/// Addresses that are tried; as many as the client library keeps.
const MAX_ADDRESSES: usize = 16;
/// Nobody waits for longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// Looks names up.
#[derive(Debug)]
pub(crate) struct Names {
    programs: &'static [&'static str],
}

impl Default for Names {
    fn default() -> Self {
        Self { programs: &PROGRAMS }
    }
}

/// How a look-up ended that says nothing about the name.
#[derive(Debug)]
enum Trouble {
    /// The program is not there, or of another kind.
    NoProgram,
    /// It took too long.
    Late,
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let by_library = || DefaultResolver::default().resolve(uri, config, timeout);
        let named = uri.scheme().zip(uri.authority());
        let place = named.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let Some((host, port)) = place.as_deref().and_then(|place| place.rsplit_once(':')) else { return by_library() };
        let port = port.parse().map_err(|_| Error::HostNotFound)?;
        // An address stands for itself.
        if url::address(host).is_some() {
            return by_library();
        }
        let found = match addresses(self.programs, host, (*timeout.after).min(LONGEST)) {
            Ok(found) => found,
            Err(Trouble::NoProgram) => return by_library(),
            Err(Trouble::Late) => return Err(Error::Timeout(timeout.reason)),
        };
        let mut kept = self.empty();
        let wanted = config.ip_family();
        for address in wanted.keep_wanted(found.into_iter().map(|ip| SocketAddr::new(ip, port))).take(MAX_ADDRESSES) {
            kept.push(address);
        }
        if kept.is_empty() { Err(Error::HostNotFound) } else { Ok(kept) }
    }
}

/// What the machine says that `host` stands for, best first; nothing when it does not know.
fn addresses(programs: &[&str], host: &str, patience: Duration) -> Result<Vec<IpAddr>, Trouble> {
    // Not a name, but perhaps an option.
    if host.starts_with('-') {
        return Ok(Vec::new());
    }
    let start = |program: &&str| {
        let mut command = Command::new(program);
        command.args(["ahosts", host]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()
    };
    let mut child = programs.iter().find_map(start).ok_or(Trouble::NoProgram)?;
    let said = listen(&mut child, Instant::now() + patience);
    if said.is_err() {
        // It may have ended by itself just now.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|_| Trouble::NoProgram)?;
    match (said, status.code()) {
        (Err(_), _) => Err(Trouble::Late),
        (Ok(output), Some(0)) => Ok(parse(&output)),
        (Ok(_), Some(NOT_FOUND)) => Ok(Vec::new()),
        (Ok(_), _) => Err(Trouble::NoProgram),
    }
}

/// What it prints until it ends.
fn listen(child: &mut Child, until: Instant) -> io::Result<String> {
    let Some(mut pipe) = child.stdout.take() else { return Ok(String::new()) };
    let (mut output, mut part) = (Vec::new(), [0; 1024]);
    while output.len() < MAX_OUTPUT {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
        if poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&wait))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match pipe.read(&mut part)? {
            0 => break,
            count => output.extend_from_slice(&part[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// `192.0.2.1       STREAM name`, three lines for each address.
fn parse(output: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in output.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(Ok(address)), Some("STREAM")) = (words.next().map(str::parse), words.next())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A program that does this, as a look-up.
    fn script(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("getent");
        std::fs::write(&at, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = at.to_str().unwrap().to_owned();
        (dir, program)
    }

    fn looked_up(text: &str) -> Result<Vec<IpAddr>, Trouble> {
        let (_dir, program) = script(text);
        addresses(&["/nonexistent", &program], "r.example", Duration::from_secs(10))
    }

    #[test]
    fn addresses_come_once_each_and_in_order() {
        let text = "\
2001:db8::1     STREAM r.example
2001:db8::1     DGRAM  
2001:db8::1     RAW    
192.0.2.7       STREAM 
192.0.2.7       DGRAM  
fe80::1%eth0    STREAM 
192.0.2.7       STREAM 
nonsense        STREAM 
";
        let expected: Vec<IpAddr> = vec!["2001:db8::1".parse().unwrap(), "192.0.2.7".parse().unwrap()];
        assert_eq!(parse(text), expected);
        assert!(parse("").is_empty());
    }

    #[test]
    fn a_name_is_handed_over_and_an_unknown_one_stands_for_nothing() {
        let found = looked_up("[ \"$*\" = 'ahosts r.example' ] && echo '192.0.2.1 STREAM x'").unwrap();
        assert_eq!(found, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(looked_up("exit 2").unwrap().is_empty());
        assert!(addresses(&["/nonexistent"], "-s", Duration::ZERO).unwrap().is_empty());
    }

    #[test]
    fn another_program_or_none_is_no_answer() {
        assert!(matches!(looked_up("exit 1"), Err(Trouble::NoProgram)));
        assert!(matches!(addresses(&["/nonexistent"], "r.example", Duration::ZERO), Err(Trouble::NoProgram)));
    }

    #[test]
    fn a_look_up_that_hangs_is_ended() {
        let (_dir, program) = script("exec sleep 1000");
        let before = Instant::now();
        assert!(matches!(
            addresses(&["/nonexistent", &program], "r.example", Duration::from_millis(100)),
            Err(Trouble::Late)
        ));
        assert!(before.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_client_finds_this_machine_by_name_and_by_address() {
        let config = ureq::Agent::config_builder().build();
        let resolve = |programs, url: &str| {
            let timeout = NextTimeout { after: Duration::from_secs(10).into(), ..NextTimeout::default() };
            Names { programs }.resolve(&url.parse().unwrap(), &config, timeout)
        };
        // Where there is no such program the library answers.
        for programs in [&PROGRAMS[..], &["/nonexistent"]] {
            let found = resolve(programs, "http://localhost:5000/v2/").unwrap();
            assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 5000), "{found:?}");
            assert!(resolve(programs, "https://nothing.invalid/").is_err());
        }
        assert_eq!(resolve(&["/bin/false"], "https://[::1]/").unwrap()[..], ["[::1]:443".parse().unwrap()]);
    }
}
