//! Work on bytes of a stranger on a thread that can do nothing else.
//!
//! Parsers of manifests, indexes, configurations, archives' lists and answers of registries are safe code with bounds; should
//! one be wrong all the same, what it becomes can compute, take memory and read descriptors that are open, and nothing more:
//! no file is opened or changed, no connection made or written to, no program executed, no process or thread started,
//! no page made executable. A filter of system calls for one thread, seccomp(2); every other call is EPERM. Memory is the
//! process's own: see docs/design/009-parsing-confined.md for what that means.

use std::{panic::resume_unwind, thread};

use crate::{
    cred,
    seccomp::{self, SockFilter},
};

/// Memory, waiting for other threads, reading what is open, telling the time, ending. `write` is not among them: not even
/// the message of a panic comes out (the panic itself is handed on).
const ALLOWED: [libc::c_long; 26] = [
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// Allowed without PROT_EXEC, which is the third argument of both.
const MAPPING: [libc::c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const LENGTH: usize = ALLOWED.len() + MAPPING.len() + 7;

static FILTER: [SockFilter; LENGTH] = filter();

const fn op(code: u16, jt: usize, jf: usize, k: u32) -> SockFilter {
    SockFilter { code, jt: jt as u8, jf: jf as u8, k }
}

/// Numbers of other architectures mean other calls, and those of x32 have a bit more: both are in no list.
const fn filter() -> [SockFilter; LENGTH] {
    const BITS: usize = LENGTH - 4;
    const DENY: usize = LENGTH - 2;
    const PASS: usize = LENGTH - 1;
    let mut out = [op(RETURN, 0, 0, EPERM); LENGTH];
    // struct seccomp_data: the number at 0, the architecture at 4, arguments of eight bytes from 16 on.
    out[0] = op(LOAD, 0, 0, 4);
    out[1] = op(JUMP_EQUAL, 0, DENY - 2, AUDIT_ARCH);
    out[2] = op(LOAD, 0, 0, 0);
    let mut at = 3;
    while at < 3 + ALLOWED.len() {
        out[at] = op(JUMP_EQUAL, PASS - at - 1, 0, ALLOWED[at - 3] as u32);
        at += 1;
    }
    out[at] = op(JUMP_EQUAL, BITS - at - 1, 0, MAPPING[0] as u32);
    out[at + 1] = op(JUMP_EQUAL, BITS - at - 2, DENY - at - 2, MAPPING[1] as u32);
    out[BITS] = op(LOAD, 0, 0, 32);
    out[BITS + 1] = op(JUMP_BITS, 0, 1, libc::PROT_EXEC as u32);
    out[DENY] = op(RETURN, 0, 0, EPERM);
    out[PASS] = op(RETURN, 0, 0, ALLOW);
    out
}

/// Does `work` on such a thread and returns what it returned. A kernel that refuses the filter, or a process that may start no
/// thread, does it without: then the work's own care has to do. What is opened must be opened before.
pub fn parse<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let mut work = Some(work);
    let slot = &mut work;
    let done = thread::scope(|scope| {
        let confined = move || {
            let work = slot.take();
            // Demanded of a thread without CAP_SYS_ADMIN; nothing is executed any more anyway.
            let _ = cred::set_no_new_privs().and_then(|()| seccomp::load(&FILTER, 0));
            work.map(|work| work())
        };
        let thread = thread::Builder::new().name("parse".to_owned()).spawn_scoped(scope, confined).ok()?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    });
    match (done, work) {
        (Some(done), _) => done,
        (None, Some(work)) => work(),
        // The thread takes the work before anything else, and then answers or panics.
        (None, None) => resume_unwind(Box::new("a parser ended without an answer")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        fs::File,
        io::{Read, Write},
        net::TcpListener,
        process::Command,
    };

    use super::*;

    /// What the filter says, as the kernel would run it (classic BPF).
    fn verdict(number: libc::c_long, arch: u32, third: u32) -> u32 {
        let (mut pc, mut a) = (0, 0);
        loop {
            let SockFilter { code, jt, jf, k } = FILTER[pc];
            pc += 1;
            let jump = |yes: bool| usize::from(if yes { jt } else { jf });
            match code {
                LOAD => a = [number as u32, arch, third][[0, 4, 32].iter().position(|at| *at == k).unwrap()],
                JUMP_EQUAL => pc += jump(a == k),
                JUMP_BITS => pc += jump(a & k != 0),
                _ => return k,
            }
        }
    }

    #[test]
    fn only_the_listed_calls_pass_and_no_page_becomes_executable() {
        for number in 0..600 {
            let wanted = if ALLOWED.contains(&number) || MAPPING.contains(&number) { ALLOW } else { EPERM };
            assert_eq!(verdict(number, AUDIT_ARCH, 3), wanted, "{number}");
            assert_eq!(verdict(number, 0x4000_0003, 3), EPERM, "{number} of another architecture");
            assert_eq!(verdict(number | 0x4000_0000, AUDIT_ARCH, 3), EPERM, "{number} of x32");
        }
        for number in MAPPING {
            assert_eq!(verdict(number, AUDIT_ARCH, 7), EPERM);
        }
    }

    #[test]
    fn work_computes_allocates_and_reads_what_is_open() {
        let mut file = tempfile_with(b"hello");
        let (text, sum, names) = parse(|| {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            let large: Vec<u64> = (0..4_000_000).collect();
            let names: HashMap<String, usize> = (0..10_000).map(|n| (n.to_string(), n)).collect();
            (text, large.iter().sum::<u64>(), names.len())
        });
        assert_eq!((text.as_str(), sum, names), ("hello", 7_999_998_000_000, 10_000));
    }

    #[test]
    fn work_opens_writes_connects_executes_and_starts_nothing() {
        let mut file = tempfile_with(b"x");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let refused = parse(|| {
            [
                File::open("/etc/passwd").is_err(),
                std::fs::metadata("/etc/passwd").is_err(),
                file.write(b"y").is_err(),
                std::net::TcpStream::connect(address).is_err(),
                Command::new("/bin/true").status().is_err(),
                thread::Builder::new().spawn(|| ()).is_err(),
                std::fs::remove_file("/tmp/onggi-jail-nothing").is_err_and(|e| e.raw_os_error() == Some(libc::EPERM)),
            ]
        });
        assert_eq!(refused, [true; 7]);
        // The caller is as free as before.
        assert!(File::open("/etc/passwd").is_ok());
        file.write_all(b"y").unwrap();
    }

    #[test]
    fn a_panic_is_handed_on() {
        let caught = std::panic::catch_unwind(|| parse(|| panic!("malformed")));
        assert!(caught.is_err());
    }

    fn tempfile_with(bytes: &[u8]) -> File {
        use std::io::Seek;
        let path = std::env::temp_dir().join(format!("onggi-jail-{}-{:?}", std::process::id(), thread::current().id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }
}
