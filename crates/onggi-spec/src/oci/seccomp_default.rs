//! The default seccomp policy, as data.
//!
//! Allow-list of what ordinary programs use (glibc, musl, Go, Java, servers, package managers, debuggers of
//! one's own processes). System calls that exist and are refused answer EPERM, so that programs see "not
//! permitted"; ones newer than this list answer ENOSYS, so that libraries fall back to older ones. Some are
//! allowed only with the capability that guards them anyway. x86_64 only: the filter compiler kills other
//! architectures.
//!
//! Rules never rely on precedence: for one system call, the conditions of its rules exclude each other, and
//! no rule has two conditions on one argument, which libseccomp would turn from AND into OR.

use super::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompOp};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// The policy for a process whose bounding set is `bounding` (full names).
pub fn default_policy(bounding: &[&str]) -> LinuxSeccomp {
    let has = |cap: &str| bounding.contains(&cap);
    let mut syscalls = vec![rule(SeccompAction::Allow, None, ALLOWED, vec![])];
    let mut denied: Vec<&str> = DENIED.to_vec();
    let mut granted: Vec<&str> = Vec::new();
    for (name, caps) in GUARDED {
        if caps.iter().any(|c| has(c)) { granted.push(name) } else { denied.push(name) }
    }
    syscalls.push(rule(SeccompAction::Allow, None, &granted, vec![]));
    syscalls.push(rule(SeccompAction::Errno, Some(EPERM), &denied, vec![]));
    syscalls.extend(clone_rules(has("CAP_SYS_ADMIN")));
    syscalls.extend(socket_rules(has("CAP_NET_RAW")));
    syscalls.extend(personality_rules());
    LinuxSeccomp {
        default_action: SeccompAction::Errno,
        default_errno_ret: Some(ENOSYS),
        architectures: vec!["SCMP_ARCH_X86_64".to_owned()],
        flags: None,
        listener_path: None,
        listener_metadata: None,
        syscalls: syscalls.into_iter().filter(|s| !s.names.is_empty()).collect(),
    }
}

fn rule(action: SeccompAction, errno_ret: Option<u32>, names: &[&str], args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    LinuxSyscall { names: names.iter().map(ToString::to_string).collect(), action, errno_ret, args }
}

fn equal(index: u32, value: u64) -> Vec<LinuxSeccompArg> {
    vec![LinuxSeccompArg { index, value, value_two: None, op: SeccompOp::Equal }]
}

fn masked(index: u32, mask: u64, value: u64) -> Vec<LinuxSeccompArg> {
    vec![LinuxSeccompArg { index, value: mask, value_two: Some(value), op: SeccompOp::MaskedEqual }]
}

/// `CLONE_NEW*` that clone(2) takes (sched.h): mount, cgroup, uts, ipc, user, pid, net.
const NAMESPACE_FLAGS: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// New namespaces need SYS_ADMIN. clone3's flags are behind a pointer, so it is answered with ENOSYS, upon
/// which libraries use clone.
fn clone_rules(admin: bool) -> Vec<LinuxSyscall> {
    if admin {
        return vec![rule(SeccompAction::Allow, None, &["clone", "clone3"], vec![])];
    }
    let all = NAMESPACE_FLAGS.iter().fold(0, |mask, flag| mask | flag);
    let mut rules = vec![
        rule(SeccompAction::Allow, None, &["clone"], masked(0, all, 0)),
        rule(SeccompAction::Errno, Some(ENOSYS), &["clone3"], vec![]),
    ];
    let refuse = |flag: &u64| rule(SeccompAction::Errno, Some(EPERM), &["clone"], masked(0, *flag, *flag));
    rules.extend(NAMESPACE_FLAGS.iter().map(refuse));
    rules
}

const AF_PACKET: u64 = 17;
/// UNIX, INET, INET6, NETLINK (socket.h).
const FAMILIES: [u64; 4] = [1, 2, 10, 16];
/// One more than the last family of Linux 6.18 (AF_MCTP is 45).
const FAMILY_END: u64 = 46;

/// Allow-listed socket families; the others answer as a kernel without them would.
fn socket_rules(raw: bool) -> Vec<LinuxSyscall> {
    let allowed = |family: u64| FAMILIES.contains(&family) || (raw && family == AF_PACKET);
    let mut rules: Vec<_> = (0..FAMILY_END)
        .map(|family| match allowed(family) {
            true => rule(SeccompAction::Allow, None, &["socket"], equal(0, family)),
            false => rule(SeccompAction::Errno, Some(EAFNOSUPPORT), &["socket"], equal(0, family)),
        })
        .collect();
    let beyond = vec![LinuxSeccompArg { index: 0, value: FAMILY_END, value_two: None, op: SeccompOp::GreaterOrEqual }];
    rules.push(rule(SeccompAction::Errno, Some(EAFNOSUPPORT), &["socket"], beyond));
    rules
}

/// PER_LINUX, PER_LINUX32, UNAME26 and both, and the query; nothing that weakens address randomisation.
fn personality_rules() -> Vec<LinuxSyscall> {
    let values = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    values.iter().map(|v| rule(SeccompAction::Allow, None, &["personality"], equal(0, *v))).collect()
}

/// Allowed whatever the arguments.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    // Files and directories.
    "access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchownat", "fcntl", "fdatasync", "fgetxattr", "file_getattr", "file_setattr", "flistxattr", "flock",
    "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd", "getdents",
    "getdents64", "getxattr", "getxattrat", "ioctl", "lchown", "lgetxattr", "link", "linkat", "listxattr",
    "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "mkdir", "mkdirat", "mknod", "mknodat",
    "name_to_handle_at", "newfstatat", "open", "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64",
    "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "removexattr", "removexattrat",
    "rename", "renameat", "renameat2", "rmdir", "sendfile", "setxattr", "setxattrat", "splice", "stat", "statfs",
    "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate", "umask", "unlink",
    "unlinkat", "utime", "utimensat", "utimes", "vmsplice", "write", "writev", "cachestat", "listmount", "statmount",
    // Waiting for events.
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "pipe", "pipe2", "poll", "ppoll", "pselect6", "select", "signalfd", "signalfd4",
    "timerfd_create", "timerfd_gettime", "timerfd_settime",
    // Asynchronous I/O of the older kind.
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit",
    // Memory.
    "brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock", "mlock2",
    "mlockall", "mmap", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "process_mrelease", "remap_file_pages",
    // Processes and threads.
    "arch_prctl", "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue", "futex_wait",
    "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getcpu", "getpgid", "getpgrp", "getpid",
    "getppid", "getpriority", "getrlimit", "getrusage", "getsid", "gettid", "ioprio_get", "ioprio_set", "kill",
    "modify_ldt", "pause", "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "process_vm_readv",
    "process_vm_writev", "ptrace", "restart_syscall", "rseq", "sched_get_priority_max", "sched_get_priority_min",
    "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "set_robust_list",
    "set_thread_area", "set_tid_address", "setpgid", "setpriority", "setrlimit", "setsid", "sysinfo", "tgkill",
    "times", "tkill", "uname", "uprobe", "uretprobe", "vfork", "wait4", "waitid",
    // Signals.
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack",
    // Credentials and confinement of oneself.
    "capget", "capset", "getegid", "geteuid", "getgid", "getgroups", "getresgid", "getresuid", "getuid",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lsm_get_self_attr", "lsm_list_modules",
    "lsm_set_self_attr", "seccomp", "setfsgid", "setfsuid", "setgid", "setgroups", "setregid", "setresgid",
    "setresuid", "setreuid", "setuid",
    // Clocks and timers. Setting a clock needs CAP_SYS_TIME; adjtimex is also how it is read.
    "adjtimex", "alarm", "clock_adjtime", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer",
    "gettimeofday", "nanosleep", "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun",
    "timer_gettime", "timer_settime",
    // Sockets that are open already.
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
    "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair",
    // System V IPC and POSIX message queues.
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget",
    "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget",
    // Random numbers.
    "getrandom",
];

const ADMIN: &[&str] = &["CAP_SYS_ADMIN"];
const NICE: &[&str] = &["CAP_SYS_NICE"];
const PTRACE: &[&str] = &["CAP_SYS_PTRACE"];
const MODULE: &[&str] = &["CAP_SYS_MODULE"];
const RAWIO: &[&str] = &["CAP_SYS_RAWIO"];
const BOOT: &[&str] = &["CAP_SYS_BOOT"];
const TIME: &[&str] = &["CAP_SYS_TIME"];

/// Allowed with any of the capabilities, EPERM without.
#[rustfmt::skip]
const GUARDED: &[(&str, &[&str])] = &[
    ("bpf", &["CAP_BPF", "CAP_SYS_ADMIN"]),
    ("perf_event_open", &["CAP_PERFMON", "CAP_SYS_ADMIN"]),
    ("syslog", &["CAP_SYSLOG", "CAP_SYS_ADMIN"]),
    ("fanotify_init", ADMIN), ("fsconfig", ADMIN), ("fsmount", ADMIN), ("fsopen", ADMIN), ("fspick", ADMIN),
    ("lookup_dcookie", ADMIN), ("mount", ADMIN), ("mount_setattr", ADMIN), ("move_mount", ADMIN), ("open_tree", ADMIN),
    ("open_tree_attr", ADMIN), ("pivot_root", ADMIN), ("quotactl", ADMIN), ("quotactl_fd", ADMIN),
    ("setdomainname", ADMIN), ("sethostname", ADMIN), ("setns", ADMIN), ("umount2", ADMIN), ("unshare", ADMIN),
    ("get_mempolicy", NICE), ("mbind", NICE), ("migrate_pages", NICE), ("move_pages", NICE), ("set_mempolicy", NICE),
    ("set_mempolicy_home_node", NICE),
    ("kcmp", PTRACE), ("pidfd_getfd", PTRACE), ("process_madvise", PTRACE),
    ("delete_module", MODULE), ("finit_module", MODULE), ("init_module", MODULE),
    ("ioperm", RAWIO), ("iopl", RAWIO),
    ("kexec_file_load", BOOT), ("kexec_load", BOOT), ("reboot", BOOT),
    ("clock_settime", TIME), ("settimeofday", TIME),
    ("acct", &["CAP_SYS_PACCT"]),
    ("chroot", &["CAP_SYS_CHROOT"]),
    ("open_by_handle_at", &["CAP_DAC_READ_SEARCH"]),
    ("vhangup", &["CAP_SYS_TTY_CONFIG"]),
];

/// EPERM whatever the capabilities: rings that bypass filters, handlers of page faults, keys that no
/// namespace separates, and interfaces that nothing needs.
#[rustfmt::skip]
const DENIED: &[&str] = &[
    "io_uring_enter", "io_uring_register", "io_uring_setup",
    "userfaultfd",
    "add_key", "keyctl", "request_key",
    "_sysctl", "afs_syscall", "create_module", "get_kernel_syms", "getpmsg", "nfsservctl", "putpmsg", "query_module",
    "security", "swapoff", "swapon", "sysfs", "tuxcall", "uselib", "ustat", "vserver",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(policy: &LinuxSeccomp, name: &str, arg0: u64) -> (SeccompAction, Option<u32>) {
        let holds = |a: &LinuxSeccompArg| match a.op {
            SeccompOp::Equal => arg0 == a.value,
            SeccompOp::GreaterOrEqual => arg0 >= a.value,
            SeccompOp::MaskedEqual => Some(arg0 & a.value) == a.value_two,
            _ => false,
        };
        let hits: Vec<_> = policy
            .syscalls
            .iter()
            .filter(|s| s.names.iter().any(|n| n == name) && s.args.iter().all(holds))
            .map(|s| (s.action, s.errno_ret))
            .collect();
        assert!(hits.windows(2).all(|w| w[0] == w[1]), "{name}({arg0:#x}) has contradicting rules: {hits:?}");
        hits.first().copied().unwrap_or((policy.default_action, policy.default_errno_ret))
    }

    const ALLOW: (SeccompAction, Option<u32>) = (SeccompAction::Allow, None);

    fn errno(n: u32) -> (SeccompAction, Option<u32>) {
        (SeccompAction::Errno, Some(n))
    }

    #[test]
    fn each_system_call_is_classified_once() {
        let guarded = GUARDED.iter().map(|(n, _)| n);
        let special = ["clone", "clone3", "socket", "personality"];
        let mut all: Vec<&&str> = ALLOWED.iter().chain(DENIED).chain(guarded).chain(&special).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn dangerous_calls_are_refused_and_unknown_ones_do_not_exist() {
        let policy = default_policy(&crate::capability::DEFAULT);
        for name in
            ["io_uring_setup", "userfaultfd", "keyctl", "add_key", "mount", "unshare", "bpf", "kexec_load", "reboot"]
        {
            assert_eq!(verdict(&policy, name, 0), errno(EPERM), "{name}");
        }
        assert_eq!(verdict(&policy, "clone3", 0), errno(ENOSYS));
        assert_eq!(verdict(&policy, "a_call_of_the_future", 0), errno(ENOSYS));
        assert_eq!(verdict(&policy, "chroot", 0), ALLOW);
        assert_eq!(verdict(&policy, "execve", 0), ALLOW);
    }

    #[test]
    fn clone_makes_threads_and_processes_but_no_namespaces() {
        let policy = default_policy(&[]);
        assert_eq!(verdict(&policy, "clone", 0x3d_0f00), ALLOW);
        assert_eq!(verdict(&policy, "clone", 17), ALLOW);
        for flag in NAMESPACE_FLAGS {
            assert_eq!(verdict(&policy, "clone", flag | 17), errno(EPERM), "{flag:#x}");
        }
        assert_eq!(verdict(&policy, "clone", 0x1002_0000), errno(EPERM));
        let admin = default_policy(&["CAP_SYS_ADMIN"]);
        assert_eq!(verdict(&admin, "clone", 0x1002_0000), ALLOW);
        assert_eq!(verdict(&admin, "clone3", 0), ALLOW);
    }

    #[test]
    fn socket_families_are_allow_listed_one_argument_two_conditions() {
        let policy = default_policy(&[]);
        for family in 0..200 {
            let want = if [1, 2, 10, 16].contains(&family) { ALLOW } else { errno(EAFNOSUPPORT) };
            assert_eq!(verdict(&policy, "socket", family), want, "{family}");
        }
        assert_eq!(verdict(&default_policy(&["CAP_NET_RAW"]), "socket", 17), ALLOW);
        assert_eq!(verdict(&policy, "socket", u64::MAX), errno(EAFNOSUPPORT));
    }

    #[test]
    fn no_rule_has_two_conditions_on_one_argument() {
        let everything = crate::capability::ALL;
        for s in default_policy(&everything).syscalls.iter().chain(&default_policy(&[]).syscalls) {
            assert!(s.args.len() <= 1, "{:?}", s.names);
        }
    }

    #[test]
    fn capabilities_unlock_their_calls() {
        for (name, caps) in GUARDED {
            assert_eq!(verdict(&default_policy(&[]), name, 0), errno(EPERM), "{name}");
            for cap in *caps {
                assert_eq!(verdict(&default_policy(&[cap]), name, 0), ALLOW, "{name} with {cap}");
            }
        }
    }
}
