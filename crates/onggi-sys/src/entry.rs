//! The first instructions of the static runtime, before its C library has begun.
//!
//! A verb that comes near a container's files must run from a file that nobody can write (I4, CVE-2019-5736), so
//! the program replaces itself by a read-only view of its own file. What happens before that happens twice; here
//! it is four system calls instead of a whole start: no relocations, no `cpuid` (each leaves a virtual machine), no
//! pages of its own. This is a shortcut and no guard: whatever fails here is left to the program, which looks for
//! itself whether its file is safe and knows further ways.
//!
//! The view is a mount of no namespace. When its descriptor is closed the kernel dissolves it and waits for other
//! processors (a grace period of RCU: 60 µs on an idle machine, many milliseconds on a busy one). So the descriptor
//! survives execveat(2), and [`take_executable`] gives it to the program, which closes it when it waits anyway.
//!
//! The linker's `-e onggi_entry` makes it the start of a program; without that nothing of it is used. `onggi_plain_entry` is the
//! start of the engine, which comes near no container's files by itself and keeps the file that it has.
//! open_tree(2), mount_setattr(2), execveat(2), getauxval(3).

use std::{
    ffi::CStr,
    os::fd::{OwnedFd, RawFd},
};

use rustix::fs::StatVfsMountFlags;

/// What comes next.
#[cfg(onggi_short_start)]
macro_rules! start {
    () => {
        "jmp onggi_start"
    };
}
#[cfg(not(onggi_short_start))]
macro_rules! start {
    () => {
        "jmp _start"
    };
}

// On entry the stack pointer leads to argc, argv and envp, and rdx is for the C library (System V ABI, "Process
// Initialization"); both reach `_start`, or what stands for it (`start.rs`), unchanged. The strings of argv lie below
// those of the environment and the program's name, so four bytes from the beginning of any of them can be read. The
// calls get the stack pointer's own memory, constants of the program, and strings and arrays that the kernel has put
// on the stack; every failure goes on to `_start`.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
std::arch::global_asm!(
    ".pushsection .text.onggi_entry, \"ax\", @progbits",
    // For a program that needs no view: only what stands at 90.
    ".globl onggi_plain_entry",
    ".hidden onggi_plain_entry",
    ".type onggi_plain_entry, @function",
    "onggi_plain_entry:",
    "endbr64",
    "xor ebp, ebp",
    "mov r12, rdx",
    "mov r13, rsp",
    "jmp 90f",
    ".size onggi_plain_entry, . - onggi_plain_entry",
    ".globl onggi_entry",
    ".hidden onggi_entry",
    ".type onggi_entry, @function",
    "onggi_entry:",
    "endbr64",
    "xor ebp, ebp",
    "mov r12, rdx",
    "mov r13, rsp",
    "mov rbx, [r13]",
    // One of the words `run`, `exec`, `create` among the arguments: a guess, which may be wrong at no harm.
    "lea r14, [r13 + 16]",
    "20: mov rdi, [r14]",
    "test rdi, rdi",
    "jz 90f",
    "mov eax, [rdi]",
    "cmp eax, {run}",
    "je 50f",
    "cmp eax, {exec}",
    "je 30f",
    "cmp eax, {crea}",
    "jne 40f",
    "cmp dword ptr [rdi + 3], {ate}",
    "je 50f",
    "jmp 40f",
    "30: cmp byte ptr [rdi + 4], 0",
    "je 50f",
    "40: add r14, 8",
    "jmp 20b",
    // statfs(file, buffer): on a read-only mount already?
    "50: sub rsp, 256",
    "mov eax, {statfs}",
    "lea rdi, [rip + 98f]",
    "mov rsi, rsp",
    "syscall",
    "test rax, rax",
    "jnz 90f",
    "test byte ptr [rsp + {flags}], {rdonly}",
    "jnz 90f",
    // open_tree(AT_FDCWD, file, OPEN_TREE_CLONE)
    "mov eax, {open_tree}",
    "mov edi, {cwd}",
    "lea rsi, [rip + 98f]",
    "mov edx, {clone}",
    "syscall",
    "test eax, eax",
    "js 90f",
    "mov r15d, eax",
    // The number of a standard stream that the caller has closed is none for a file of ours.
    "cmp eax, 3",
    "jb 80f",
    // mount_setattr(view, "", AT_EMPTY_PATH, { attr_set: MOUNT_ATTR_RDONLY }, 32)
    "xor eax, eax",
    "mov [rsp + 8], rax",
    "mov [rsp + 16], rax",
    "mov [rsp + 24], rax",
    "mov qword ptr [rsp], {attr_rdonly}",
    "mov eax, {mount_setattr}",
    "mov edi, r15d",
    "lea rsi, [rip + 99f]",
    "mov edx, {empty_path}",
    "mov r10, rsp",
    "mov r8d, 32",
    "syscall",
    "test eax, eax",
    "jnz 80f",
    // execveat(view, "", argv, envp, AT_EMPTY_PATH)
    "mov eax, {execveat}",
    "mov edi, r15d",
    "lea rsi, [rip + 99f]",
    "lea rdx, [r13 + 8]",
    "lea r10, [r13 + rbx * 8 + 16]",
    "mov r8d, {empty_path}",
    "syscall",
    "80: mov eax, {close}",
    "mov edi, r15d",
    "syscall",
    // madvise(initialised data, MADV_POPULATE_WRITE): relocations and the C library write nearly every page of it now.
    "90: mov rsp, r13",
    "lea rdi, [rip + __fini_array_start]",
    "and rdi, -4096",
    "lea rsi, [rip + _edata]",
    "sub rsi, rdi",
    "mov eax, {madvise}",
    "mov edx, {populate_write}",
    "syscall",
    "mov rdx, r12",
    start!(),
    "98: .asciz \"/proc/self/exe\"",
    "99: .byte 0",
    ".size onggi_entry, . - onggi_entry",
    ".popsection",
    run = const u32::from_le_bytes(*b"run\0"),
    exec = const u32::from_le_bytes(*b"exec"),
    crea = const u32::from_le_bytes(*b"crea"),
    ate = const u32::from_le_bytes(*b"ate\0"),
    statfs = const libc::SYS_statfs,
    // `f_flags` of `struct statfs`, which libc leaves out: behind ten words (statfs(2)).
    flags = const 80,
    rdonly = const libc::ST_RDONLY,
    open_tree = const libc::SYS_open_tree,
    cwd = const libc::AT_FDCWD,
    clone = const 1,
    attr_rdonly = const 1,
    mount_setattr = const libc::SYS_mount_setattr,
    empty_path = const libc::AT_EMPTY_PATH,
    execveat = const libc::SYS_execveat,
    close = const libc::SYS_close,
    madvise = const libc::SYS_madvise,
    populate_write = const libc::MADV_POPULATE_WRITE,
);

/// The descriptor that this program was executed through, if its first instructions left it open; from now on it is
/// close-on-exec. May be called once, before other descriptors are opened.
pub fn take_executable() -> Option<OwnedFd> {
    let number = executed_through()?;
    // A caller that has executed us by a descriptor of its own may have given another file that number.
    let at = format!("/proc/self/fd/{number}");
    let (own, given) = (rustix::fs::stat(c"/proc/self/exe").ok()?, rustix::fs::stat(at.as_str()).ok()?);
    let same = (own.st_dev, own.st_ino) == (given.st_dev, given.st_ino);
    let read_only = || rustix::fs::statvfs(at.as_str()).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    if same && read_only() { crate::spawn::take_inherited(number).ok() } else { None }
}

/// The kernel names a program that was executed by a descriptor alone `/dev/fd/N` (execveat(2)).
fn executed_through() -> Option<RawFd> {
    // SAFETY: getauxval only reads the auxiliary vector that the kernel gave this process.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if name.is_null() {
        return None;
    }
    // SAFETY: AT_EXECFN leads to a string that ends with NUL, on the stack's bottom for the whole life of the process.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().ok()?.strip_prefix("/dev/fd/")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_executed_by_name_has_no_such_descriptor() {
        assert_eq!(executed_through(), None);
        assert!(take_executable().is_none());
    }
}
