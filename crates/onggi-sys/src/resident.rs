//! What a process needs that lives for months beside a container and should weigh almost nothing:
//! memory that can be handed back, and forgetting code that ran only once.
//!
//! Used by the monitor, which is single-threaded. Sizes are fixed when a [`Region`] is made; only the
//! pages that were written since the last [`Region::release`] count as memory of the process.

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use crate::{Result, SysError};

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

/// Forgets the resident pages of the program's own code and constants. They come back from the page
/// cache when they are used next, a few at a time. Segments that were ever writable are left alone.
pub fn forget_program_text() {
    for (start, len) in read_only_segments() {
        // SAFETY: the range is a PT_LOAD segment without PF_W of this program: file-backed and never
        // written (no relocation either), so dropping its pages only means reading the same bytes again.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
}

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
    const PAGE: usize = 4096;
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
    fn the_program_still_runs_after_its_text_was_forgotten() {
        assert!(read_only_segments().count() >= 1);
        for _ in 0..100 {
            forget_program_text();
            assert_eq!("still here".len(), 10);
        }
    }
}
