//! As much of the ELF format as error messages need: machine and interpreter. elf(5).

/// e_machine of x86-64.
pub(crate) const NATIVE: u16 = 62;
const PT_INTERP: u32 = 3;
/// Longest interpreter path.
const MAX_INTERPRETER: usize = 4096;
/// Program headers that are looked at.
const MAX_HEADERS: u16 = 128;

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

/// e_machine of a file that begins with `head`.
pub(crate) fn machine(head: &[u8]) -> Option<u16> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let m = u16_at(head, 18)?;
    // EI_DATA 2 is big-endian.
    Some(if head.get(5) == Some(&2) { m.swap_bytes() } else { m })
}

/// The usual name of a machine.
pub(crate) fn name(machine: u16) -> String {
    match machine {
        3 => "386",
        8 => "mips",
        21 => "ppc64le",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        258 => "loong64",
        n => return format!("ELF machine {n}"),
    }
    .to_owned()
}

/// PT_INTERP of a little-endian 64-bit file; `read(offset, buf)` reads from it.
pub(crate) fn interpreter(head: &[u8], read: impl Fn(u64, &mut [u8]) -> Option<usize>) -> Option<String> {
    // EI_CLASS 2 is 64-bit, EI_DATA 1 is little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (offset, size, count) = (u64_at(head, 32)?, u16_at(head, 54)?, u16_at(head, 56)?);
    for i in 0..count.min(MAX_HEADERS) {
        let mut header = [0u8; 56];
        let at = offset.checked_add(u64::from(i) * u64::from(size))?;
        if read(at, &mut header)? < header.len() {
            return None;
        }
        if u32_at(&header, 0)? == PT_INTERP {
            let length = usize::try_from(u64_at(&header, 32)?).ok()?.min(MAX_INTERPRETER);
            let mut path = vec![0u8; length];
            let n = read(u64_at(&header, 8)?, &mut path)?;
            let end = path[..n].iter().position(|b| *b == 0).unwrap_or(n);
            return Some(String::from_utf8_lossy(&path[..end]).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_itself_is_understood() {
        let me = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(machine(&me), Some(NATIVE));
        let read = |at: u64, buf: &mut [u8]| {
            let from = me.get(at as usize..)?;
            let n = from.len().min(buf.len());
            buf[..n].copy_from_slice(&from[..n]);
            Some(n)
        };
        assert!(interpreter(&me[..256], read).unwrap().contains("ld-linux"));
    }

    #[test]
    fn garbage_is_no_program() {
        assert_eq!(machine(b"#!/bin/sh"), None);
        assert_eq!(interpreter(b"\x7fELF\x02\x01", |_, _| None), None);
    }
}
