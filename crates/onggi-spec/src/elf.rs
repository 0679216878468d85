//! What decides whether an ELF file can start, and what messages name: its machine and its interpreter (elf(5)); and
//! which libraries it needs.
//!
//! Pure: the caller reads. Files are hostile: every number in them is checked.

mod needs;

pub use needs::{Needs, loader_cache, needs};

/// `e_machine` of the machine that this program was made for.
pub const NATIVE: u16 = match () {
    () if cfg!(target_arch = "aarch64") => 183,
    () if cfg!(target_arch = "riscv64") => 243,
    () if cfg!(target_arch = "s390x") => 22,
    () if cfg!(target_arch = "powerpc64") => 21,
    () => 62,
};

const PT_INTERP: u64 = 3;
/// Longest interpreter path.
const MAX_INTERPRETER: u64 = 4096;
/// Program headers that are looked at.
const MAX_HEADERS: u64 = 128;
/// Bytes of a program header of 64 bits.
const PROGRAM_HEADER: usize = 56;

/// `e_machine` of a file that begins with `head`; `None` when it is no ELF.
pub fn machine(head: &[u8]) -> Option<u16> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let machine = number(head, 18, 2)? as u16;
    // EI_DATA 2 is big-endian.
    Some(if head.get(5) == Some(&2) { machine.swap_bytes() } else { machine })
}

/// OCI's name of a machine, for messages.
pub fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "386",
        8 => "mips",
        20 | 21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        258 => "loong64",
        _ => "an unknown architecture",
    }
}

/// This kernel runs the machine's programs without help: its own, and on amd64 also 386.
pub fn runs_here(machine: u16) -> bool {
    machine == NATIVE || (NATIVE == 62 && machine == 3) || (NATIVE == 183 && machine == 40)
}

/// A little-endian file of 32 or 64 bits (gABI, "ELF Header" and "Program Header").
#[derive(Clone, Copy)]
struct Class {
    wide: bool,
}

/// Where program headers are.
struct Table {
    offset: u64,
    size: u64,
    count: u64,
}

/// A program header, as far as anybody asks.
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

impl Table {
    fn place(&self, nth: u64) -> Option<u64> {
        self.offset.checked_add(nth.checked_mul(self.size)?)
    }
}

impl Class {
    fn of(head: &[u8]) -> Option<Self> {
        if !head.starts_with(b"\x7fELF") || *head.get(5)? != 1 {
            return None;
        }
        match head.get(4)? {
            1 => Some(Self { wide: false }),
            2 => Some(Self { wide: true }),
            _ => None,
        }
    }

    /// A field by its place and length in 64 and in 32 bits.
    fn field(self, from: &[u8], wide: (usize, usize), narrow: (usize, usize)) -> Option<u64> {
        let (at, length) = if self.wide { wide } else { narrow };
        number(from, at, length)
    }

    fn table(self, head: &[u8]) -> Option<Table> {
        Some(Table {
            offset: self.field(head, (32, 8), (28, 4))?,
            size: self.field(head, (54, 2), (42, 2))?,
            count: self.field(head, (56, 2), (44, 2))?,
        })
    }

    /// Bytes of a program header.
    fn segment_size(self) -> u64 {
        if self.wide { PROGRAM_HEADER as u64 } else { 32 }
    }

    fn segment(self, header: &[u8]) -> Option<Segment> {
        Some(Segment {
            kind: number(header, 0, 4)?,
            offset: self.field(header, (8, 8), (4, 4))?,
            address: self.field(header, (16, 8), (8, 4))?,
            size: self.field(header, (32, 8), (16, 4))?,
        })
    }
}

/// PT_INTERP of a little-endian file; `read(offset, buffer)` reads from it, and says how much.
pub fn interpreter(head: &[u8], read: impl Fn(u64, &mut [u8]) -> Option<usize>) -> Option<Vec<u8>> {
    let class = Class::of(head)?;
    let table = class.table(head)?;
    for nth in 0..table.count.min(MAX_HEADERS) {
        let mut header = [0u8; PROGRAM_HEADER];
        let header = &mut header[..class.segment_size() as usize];
        if read(table.place(nth)?, header)? < header.len() {
            return None;
        }
        let segment = class.segment(header)?;
        if segment.kind == PT_INTERP {
            let mut path = vec![0u8; segment.size.min(MAX_INTERPRETER) as usize];
            let n = read(segment.offset, &mut path)?;
            path.truncate(n);
            return Some(path.split(|b| *b == 0).next().unwrap_or_default().to_vec());
        }
    }
    None
}

/// The same, where only the first bytes of the file are at hand.
pub fn interpreter_within(head: &[u8]) -> Option<Vec<u8>> {
    interpreter(head, |at, buffer| {
        let from = head.get(usize::try_from(at).ok()?..)?;
        let n = from.len().min(buffer.len());
        buffer[..n].copy_from_slice(&from[..n]);
        // A path that is cut off is none.
        (n == buffer.len()).then_some(n)
    })
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_itself_is_understood() {
        let me = std::fs::read("/proc/self/exe").expect("it is there");
        assert_eq!(machine(&me), Some(NATIVE));
        assert!(runs_here(NATIVE) && !runs_here(0));
        let found = interpreter_within(&me[..4096]).expect("it is linked dynamically");
        assert!(String::from_utf8_lossy(&found).contains("ld-linux"));
        let read = |at: u64, buffer: &mut [u8]| {
            let from = me.get(at as usize..)?;
            let n = from.len().min(buffer.len());
            buffer[..n].copy_from_slice(&from[..n]);
            Some(n)
        };
        assert_eq!(interpreter(&me[..256], read), Some(found));
    }

    #[test]
    fn a_file_of_32_bits_has_its_fields_elsewhere() {
        let mut file = vec![0u8; 128];
        file[..6].copy_from_slice(b"\x7fELF\x01\x01");
        (file[18], file[28], file[42], file[44]) = (3, 52, 32, 1);
        (file[52], file[56], file[68]) = (3, 100, 12);
        file[100..112].copy_from_slice(b"/lib/ld.so\0x");
        assert_eq!((machine(&file), interpreter_within(&file)), (Some(3), Some(b"/lib/ld.so".to_vec())));
    }

    #[test]
    fn garbage_is_no_program_and_hostile_heads_never_panic() {
        assert_eq!(machine(b"#!/bin/sh"), None);
        assert_eq!(interpreter(b"\x7fELF\x02\x01", |_, _| None), None);
        let real = std::fs::read("/proc/self/exe").expect("it is there");
        for cut in 0..200 {
            interpreter_within(&real[..cut]);
        }
        for at in 0..128 {
            let mut bad = real[..4096].to_vec();
            bad[at] = 0xff;
            interpreter_within(&bad);
        }
    }
}
