//! Device filters of version 2 control groups. bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE.
//!
//! Only loading and attaching: the instructions are made elsewhere, and the kernel verifies them.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result, SysError};

/// `struct bpf_insn` as a number: opcode in the lowest byte, then registers, offset, immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Instruction(pub u64);

/// Longest program of any device policy in use, with room; far below the kernel's own limit.
pub const MAX_INSTRUCTIONS: usize = 4096;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Further programs may be attached below and beside this one; all must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;
/// The program in `replace_bpf_fd` gives way to the new one (Linux 5.6).
const BPF_F_REPLACE: u32 = 4;
/// Programs that one group can have (BPF_CGROUP_MAX_PROGS).
const MAX_PROGRAMS: usize = 64;

/// `union bpf_attr` for BPF_PROG_LOAD, up to `expected_attach_type` (Linux 4.17).
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// `union bpf_attr` for BPF_PROG_QUERY.
#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// `union bpf_attr` for BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Loads a device filter; it lives as long as its descriptor or what it is attached to.
///
/// # Errors
/// EPERM without CAP_BPF and CAP_NET_ADMIN, EINVAL or EACCES for a program that the verifier refuses.
pub fn load_device_filter(program: &[Instruction]) -> Result<OwnedFd> {
    let what = || format!("BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE, {} instructions", program.len());
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(SysError::new("bpf", what(), Errno::INVAL));
    }
    let license = c"Apache-2.0";
    let attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"onggi_devices\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: BPF_CGROUP_DEVICE,
    };
    // SAFETY: `attr` is a live repr(C) prefix of union bpf_attr and its size is passed; `insns` is the start
    // of a live slice of `insn_cnt` 8-byte instructions, `license` a live C string; the kernel copies both.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<LoadAttr>()) };
    if fd < 0 {
        return Err(SysError::last("bpf", what()));
    }
    // SAFETY: BPF_PROG_LOAD returned a fresh close-on-exec descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a device filter to the version 2 control group whose directory `cgroup` is. The kernel
/// detaches it when the group is removed.
///
/// # Errors
/// EPERM, EBADF when `cgroup` is no version 2 group.
pub fn attach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    change(BPF_PROG_ATTACH, "BPF_PROG_ATTACH, BPF_CGROUP_DEVICE", (cgroup, program, None), BPF_F_ALLOW_MULTI)
}

/// Puts a device filter in the place of another one, atomically.
///
/// # Errors
/// EINVAL before Linux 5.6, ENOENT when `old` is not attached.
pub fn replace_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, old: BorrowedFd<'_>) -> Result<()> {
    let flags = BPF_F_ALLOW_MULTI | BPF_F_REPLACE;
    change(BPF_PROG_ATTACH, "BPF_PROG_ATTACH, BPF_CGROUP_DEVICE, BPF_F_REPLACE", (cgroup, program, Some(old)), flags)
}

/// Takes a device filter off a group.
///
/// # Errors
/// ENOENT when it is not attached.
pub fn detach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    change(BPF_PROG_DETACH, "BPF_PROG_DETACH, BPF_CGROUP_DEVICE", (cgroup, program, None), 0)
}

type Programs<'a> = (BorrowedFd<'a>, BorrowedFd<'a>, Option<BorrowedFd<'a>>);

fn change(command: libc::c_int, what: &'static str, (cgroup, program, old): Programs<'_>, flags: u32) -> Result<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: flags,
        replace_bpf_fd: old.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // Kernels before 5.6 take no further member than they know unless it is zero.
    let size = if old.is_some() { size_of::<AttachAttr>() } else { size_of::<AttachAttr>() - size_of::<u32>() };
    // SAFETY: `attr` is a live repr(C) prefix of union bpf_attr and at most its size is passed; the
    // descriptors are borrowed for the call.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size) };
    if r < 0 {
        return Err(SysError::last("bpf", what));
    }
    Ok(())
}

/// The device filters that are attached to a group itself, in order.
///
/// # Errors
/// EPERM, EINVAL when the kernel cannot tell (before 4.15).
pub fn attached_device_filters(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        padding: 0,
    };
    // SAFETY: `attr` is a live, writable repr(C) prefix of union bpf_attr and its size is passed; `prog_ids` is
    // the start of a live array of `prog_cnt` numbers that nothing else uses during the call.
    let r = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<QueryAttr>()) };
    if r < 0 {
        return Err(SysError::last("bpf", "BPF_PROG_QUERY, BPF_CGROUP_DEVICE"));
    }
    ids.iter().take(attr.prog_cnt as usize).map(|id| program_by_id(*id)).collect()
}

fn program_by_id(id: u32) -> Result<OwnedFd> {
    let attr = IdAttr { prog_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: `attr` is a live repr(C) prefix of union bpf_attr and its size is passed.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw const attr, size_of::<IdAttr>()) };
    if fd < 0 {
        return Err(SysError::last("bpf", format!("BPF_PROG_GET_FD_BY_ID, {id}")));
    }
    // SAFETY: BPF_PROG_GET_FD_BY_ID returned a fresh close-on-exec descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
