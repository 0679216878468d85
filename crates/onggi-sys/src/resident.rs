//! What a process needs that lives for months beside a container and should weigh almost nothing:
//! memory that can be handed back, and forgetting code that ran only once.
//!
//! Used by the monitor, which is single-threaded. Sizes are fixed when a [`Region`] is made; only the
//! pages that were written since the last [`Region::release`] count as memory of the process.

use std::{
    ops::{Deref, DerefMut},
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

use crate::{Errno, Result, SysError};

/// Anonymous memory of a fixed size, zero-filled, whose pages exist only once they are touched.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

impl Region {
    /// Maps `len` bytes (more than 0). Costs address space, not memory.
    pub fn new(len: usize) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a null hint with MAP_ANONYMOUS lets the kernel choose an unused range; no existing
        // mapping is touched. The result is checked below.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        let failed = || SysError::last("mmap", format!("{len} bytes"));
        if p == libc::MAP_FAILED {
            return Err(failed());
        }
        Ok(Self { start: NonNull::new(p.cast()).ok_or_else(failed)?, len })
    }

    /// Gives the memory back; the content becomes zeroes.
    pub fn release(&mut self) {
        // SAFETY: the range is exactly the private anonymous mapping this value owns, and `&mut self`
        // means nobody reads it now; afterwards it reads as zeroes, a valid content.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTNEED) };
    }
}

impl Deref for Region {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is the beginning of a live mapping of `len` readable bytes, always initialised
        // (zero-filled by the kernel), owned by this value and borrowed for the slice's life.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the slice unique, and the mapping is writable.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly the mapping made in `new`; no slice of it can outlive `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Gives this process `heap` bytes behind what its allocator has handed out and `stack` bytes below the caller, in two
/// calls instead of a page fault for every 4 KiB. A hint: where the kernel refuses (before Linux 5.14), the faults come.
#[inline(never)]
pub fn expect_writes(heap: usize, stack: usize) {
    let handed_out = Box::new(0_u8);
    let first = std::hint::black_box(&raw const *handed_out) as usize;
    // SAFETY: an address of 0 moves nothing; the call answers where the program break is (brk(2)).
    let end = unsafe { libc::syscall(libc::SYS_brk, 0_usize) } as usize;
    // Elsewhere: not the heap that grows by the program break.
    if first <= end && end < first + (1 << 20) {
        populate(first.next_multiple_of(PAGE), heap.min(end.saturating_sub(first + PAGE)));
    }
    let frame = std::hint::black_box(&raw const first) as usize;
    populate(frame.saturating_sub(stack) & !(PAGE - 1), stack);
}

/// Makes the pages of a range present and writable; what they hold stays.
fn populate(start: usize, len: usize) {
    // SAFETY: MADV_POPULATE_WRITE touches pages as a write would and changes no content (madvise(2)); a range that is
    // not mapped or not writable is an error, which is of no interest.
    unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_POPULATE_WRITE) };
}

/// The size of a page.
const PAGE: usize = 4096;

/// Waits for events of `epoll` for ever, after the program's own code and constants were given up: they
/// come back from the page cache when they are used next. Both calls are made right here without going
/// through libc, so that only this function's page is resident during the wait. Returns the number of
/// events stored.
#[inline(never)]
pub(crate) fn forget_and_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
) -> std::result::Result<usize, Errno> {
    let mut segments = [(0, 0); MAX_SEGMENTS];
    for (slot, segment) in segments.iter_mut().zip(read_only_segments()) {
        *slot = segment;
    }
    isolate(forget_then_wait as *const () as usize);
    // SAFETY: the segments come from `read_only_segments`, the slots after them are of length 0; the
    // pointer and length are those of `events`, which is exclusively borrowed; the descriptor is borrowed.
    let n = unsafe { forget_then_wait(&segments, epoll.as_raw_fd(), events.as_mut_ptr(), events.len()) };
    usize::try_from(n).map_err(|_| Errno::from_raw_os_error(-n as i32))
}

/// The part of [`forget_and_wait`] that stays resident.
///
/// # Safety
/// Each segment must be a part of this program that reads the same after its pages were dropped;
/// `events` must be valid for writes of `room` events.
#[inline(never)]
unsafe fn forget_then_wait(
    segments: &[(usize, usize); MAX_SEGMENTS],
    epoll: i32,
    events: *mut libc::epoll_event,
    room: usize,
) -> isize {
    for &(start, len) in segments {
        if len == 0 {
            break;
        }
        // SAFETY: madvise(2) on a range for which the caller vouches.
        unsafe { system_call(libc::SYS_madvise, [start, len, libc::MADV_DONTNEED as usize, 0, 0, 0]) };
    }
    let arguments = [epoll as usize, events as usize, room, usize::MAX, 0, 0];
    // SAFETY: the caller vouches for the buffer; a timeout of -1 waits for ever and a null signal mask
    // changes none (epoll_pwait(2)).
    unsafe { system_call(libc::SYS_epoll_pwait, arguments) }
}

/// A raw system call: its result, or the negated errno.
///
/// # Safety
/// As the call demands.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn system_call(number: libc::c_long, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the x86-64 system call convention: number and result in rax, arguments in rdi, rsi, rdx,
    // r10, r8, r9; the kernel changes rcx and r11 besides and leaves the stack alone.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A raw system call: its result, or the negated errno.
///
/// # Safety
/// As the call demands.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn system_call(number: libc::c_long, a: [usize; 6]) -> isize {
    // SAFETY: the caller vouches for the arguments.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result < 0 {
        -(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) as isize)
    } else {
        result as isize
    }
}

/// Gives the pages of the function at `address` a mapping of their own, by a flag that only a core dump
/// sees. A fault maps up to 64 KiB around it, but never beyond its mapping, so that returning to this
/// function brings back one or two pages instead of sixteen.
fn isolate(address: usize) {
    let (start, len) = page_range(address, LONGEST_WAIT_FUNCTION);
    // SAFETY: MADV_DONTDUMP changes neither content nor rights of the program's own text.
    unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTDUMP) };
}

/// Generous size of `forget_then_wait` in bytes of machine code.
const LONGEST_WAIT_FUNCTION: usize = 512;

/// Segments looked at; a program has about five.
const MAX_SEGMENTS: usize = 16;

fn read_only_segments() -> impl Iterator<Item = (usize, usize)> {
    // SAFETY: getauxval only reads the auxiliary vector that the kernel gave this process.
    let table = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    // SAFETY: as above.
    let count = unsafe { libc::getauxval(libc::AT_PHNUM) } as usize;
    let headers: &[libc::Elf64_Phdr] = if table == 0 || !table.is_multiple_of(8) {
        &[]
    } else {
        // SAFETY: AT_PHDR and AT_PHNUM describe the program header table of the running program, which
        // is mapped read-only for the whole life of the process; the alignment was checked above.
        unsafe { std::slice::from_raw_parts(table as *const libc::Elf64_Phdr, count.min(MAX_SEGMENTS)) }
    };
    let linked = headers.iter().find(|h| h.p_type == libc::PT_PHDR).map(|h| h.p_vaddr as usize);
    // Without PT_PHDR the program is not position-independent and its addresses are final.
    let bias = linked.map_or(0, |at| table.wrapping_sub(at));
    headers
        .iter()
        .filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0)
        .map(move |h| page_range(bias.wrapping_add(h.p_vaddr as usize), h.p_memsz as usize))
}

/// The whole pages of a segment. Its first and last page may be shared with a neighbour, which is
/// writable at worst in a mapping of its own: segments of different rights never share a mapping.
fn page_range(start: usize, len: usize) -> (usize, usize) {
    let first = start & !(PAGE - 1);
    (first, (start + len).next_multiple_of(PAGE) - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_region_is_zero_again_and_usable() {
        let mut region = Region::new(100_000).unwrap();
        region.fill(7);
        region.release();
        assert!(region.iter().all(|&b| b == 0));
        region[99_999] = 1;
        assert_eq!(region[99_999], 1);
    }

    #[test]
    fn memory_that_is_expected_keeps_its_content() {
        let kept = vec![7_u8; 5000];
        expect_writes(96 << 10, 40 << 10);
        assert!(kept.iter().all(|&b| b == 7));
    }

    #[test]
    fn the_program_still_runs_after_its_text_was_forgotten() {
        assert!(read_only_segments().count() >= 1);
        let (r, w) = std::io::pipe().unwrap();
        rustix::io::write(&w, b"x").unwrap();
        let epoll = crate::event::Epoll::new().unwrap();
        epoll.add(&r, 3, crate::event::EventFlags::IN).unwrap();
        let mut buffer = crate::event::EventBuffer::new();
        for _ in 0..100 {
            assert_eq!(epoll.wait_light(&mut buffer).unwrap().map(|e| e.token).sum::<u64>(), 3);
        }
    }
}
