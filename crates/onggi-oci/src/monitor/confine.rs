//! The monitor gives up what it does not need, as soon as the workload runs.
//!
//! It reads what the workload writes, so it is worth attacking. What it keeps is what its own work and the exit
//! command (which it becomes, and which inherits all of this) need: files of any owner, signals, the firewall.
//! Where the kernel refuses a step the monitor works without it.

use onggi_sys::{
    cred,
    process::cloexec_from,
    seccomp::{self, SockFilter},
};

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, KILL, LINUX_IMMUTABLE, NET_ADMIN, SYS_ADMIN (by which
/// the engine knows that it is root), SYS_RESOURCE.
const KEPT: u64 = 0b111111 | 1 << 9 | 1 << 12 | cred::CAP_SYS_ADMIN | cred::CAP_SYS_RESOURCE;

/// System calls (x86-64 numbers) that neither the monitor nor the exit command makes: tracing, mounts and
/// namespaces, device nodes, modules, kexec, BPF, perf, io_uring, userfaultfd, keys, clocks, swap, reboot, port I/O.
const DENIED: [u32; 42] = [
    101, 310, 311, // ptrace, process_vm_readv, process_vm_writev
    165, 166, 155, 161, 272, 308, 428, 429, 430, 431, 432, 433, 442, // mount … mount_setattr
    133, 259, 304, // mknod, mknodat, open_by_handle_at
    175, 176, 313, 246, 320, // modules, kexec
    321, 298, 323, 425, 426, 427, // bpf, perf_event_open, userfaultfd, io_uring
    248, 249, 250, // keys
    159, 164, 227, 305, // clocks
    167, 168, 169, 172, 173, // swap, reboot, port I/O
];

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 0x4000_0000;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const KILL_PROCESS: u32 = 0x8000_0000;

/// Everything but [`DENIED`] is allowed; another architecture ends the process.
static FILTER: [SockFilter; DENIED.len() + 7] = filter();

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter { code, jt, jf, k }
}

const fn filter() -> [SockFilter; DENIED.len() + 7] {
    let mut out = [op(RETURN, 0, 0, ALLOW); DENIED.len() + 7];
    let end = DENIED.len() + 4;
    // struct seccomp_data: the number at 0, the architecture at 4.
    out[0] = op(LOAD, 0, 0, 4);
    out[1] = op(JUMP_EQUAL, 0, (end + 2 - 2) as u8, AUDIT_ARCH_X86_64);
    out[2] = op(LOAD, 0, 0, 0);
    out[3] = op(JUMP_AT_LEAST, (end + 2 - 4) as u8, 0, X32_BIT);
    let mut i = 0;
    while i < DENIED.len() {
        out[4 + i] = op(JUMP_EQUAL, (DENIED.len() - i) as u8, 0, DENIED[i]);
        i += 1;
    }
    out[end] = op(RETURN, 0, 0, ALLOW);
    out[end + 1] = op(RETURN, 0, 0, EPERM);
    out[end + 2] = op(RETURN, 0, 0, KILL_PROCESS);
    out
}

/// Gives up capabilities, later privileges, and system calls.
pub(super) fn confine() {
    if rustix::process::geteuid().is_root() {
        // Limiting the bounding set needs CAP_SETPCAP, so it comes first.
        let _ = cred::limit_bounding_set(KEPT);
        if let Ok(mut own) = cred::capabilities() {
            own.effective &= KEPT;
            own.permitted &= KEPT;
            own.inheritable = 0;
            let _ = cred::set_capabilities(own);
        }
    }
    let _ = cred::set_no_new_privs();
    let _ = seccomp::load(&FILTER, 0);
    // Nothing of this survives in the exit command but what was meant to.
    let _ = cloexec_from(3);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would (classic BPF).
    fn verdict(number: u32, arch: u32) -> u32 {
        let (mut pc, mut a) = (0, 0);
        loop {
            let SockFilter { code, jt, jf, k } = FILTER[pc];
            pc += 1;
            match code {
                LOAD => a = if k == 0 { number } else { arch },
                JUMP_EQUAL => pc += usize::from(if a == k { jt } else { jf }),
                JUMP_AT_LEAST => pc += usize::from(if a >= k { jt } else { jf }),
                _ => return k,
            }
        }
    }

    #[test]
    fn only_the_listed_calls_are_denied() {
        for number in 0..600 {
            let expected = if DENIED.contains(&number) { EPERM } else { ALLOW };
            assert_eq!(verdict(number, AUDIT_ARCH_X86_64), expected, "{number}");
        }
    }

    #[test]
    fn other_architectures_and_x32_end_the_process() {
        assert_eq!(verdict(1, 0x4000_0003), KILL_PROCESS);
        assert_eq!(verdict(X32_BIT | 1, AUDIT_ARCH_X86_64), KILL_PROCESS);
    }
}
