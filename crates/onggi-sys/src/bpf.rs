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
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Further programs may be attached below and beside this one; all must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;

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
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attr` is a live repr(C) prefix of union bpf_attr and its size is passed; both descriptors are
    // borrowed for the call.
    let r = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attr, size_of::<AttachAttr>()) };
    if r < 0 {
        return Err(SysError::last("bpf", "BPF_PROG_ATTACH, BPF_CGROUP_DEVICE"));
    }
    Ok(())
}
