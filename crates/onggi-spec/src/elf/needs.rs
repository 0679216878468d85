//! What a program needs to run, read out of its ELF file: interpreter, libraries, where it looks for them. Pure.
//!
//! gABI "Program Loading and Dynamic Linking"; ld.so(8) for the meaning of RPATH and RUNPATH. The dynamic loader is never
//! run for it: `ldd` would execute parts of a file that nobody vouches for.

use super::{Class, PT_INTERP, Segment, machine, number};

/// What an ELF file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// 64 bits.
    pub wide: bool,
    /// `e_machine`.
    pub machine: u16,
    /// `PT_INTERP`.
    pub interpreter: Option<Vec<u8>>,
    /// `DT_NEEDED`, in order.
    pub libraries: Vec<Vec<u8>>,
    /// `DT_RPATH`, split.
    pub rpath: Vec<Vec<u8>>,
    /// `DT_RUNPATH`, split. Where there is one, RPATH means nothing.
    pub runpath: Vec<Vec<u8>>,
}

/// Entries of one table that are looked at: real files have tens.
const MAX_ENTRIES: u64 = 65_536;
const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Reads a little-endian ELF file; `None` when it is none, or damaged.
pub fn needs(file: &[u8]) -> Option<Needs> {
    let class = Class::of(file)?;
    let elf = Elf { file, class };
    let mut found = Needs { wide: class.wide, machine: machine(file)?, ..Needs::default() };
    let segments = elf.segments()?;
    let of = |kind: u64| segments.iter().find(|s| s.kind == kind);
    if let Some(interp) = of(PT_INTERP) {
        found.interpreter = Some(text(elf.bytes(interp.offset, interp.size)?));
    }
    let Some(dynamic) = of(PT_DYNAMIC) else { return Some(found) };
    let entries = elf.dynamic(dynamic)?;
    let value = |tag: u64| entries.iter().find(|(t, _)| *t == tag).map(|(_, v)| *v);
    let (Some(address), Some(size)) = (value(DT_STRTAB), value(DT_STRSZ)) else { return Some(found) };
    let load = segments.iter().find(|s| s.kind == PT_LOAD && address >= s.address && address - s.address < s.size)?;
    let strings = elf.bytes(load.offset.checked_add(address - load.address)?, size)?;
    let string = |at: u64| strings.get(usize::try_from(at).ok()?..).map(text);
    for (tag, at) in &entries {
        match *tag {
            DT_NEEDED => found.libraries.push(string(*at)?),
            DT_RPATH => found.rpath = split(&string(*at)?),
            DT_RUNPATH => found.runpath = split(&string(*at)?),
            _ => {}
        }
    }
    Some(found)
}

/// Up to the NUL.
fn text(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

fn split(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|b| *b == b':').filter(|p| !p.is_empty()).map(<[u8]>::to_vec).collect()
}

struct Elf<'f> {
    file: &'f [u8],
    class: Class,
}

impl Elf<'_> {
    fn bytes(&self, offset: u64, size: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.file.get(start..start.checked_add(usize::try_from(size).ok()?)?)
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let table = self.class.table(self.file)?;
        let one = |at: u64| self.class.segment(self.bytes(table.place(at)?, self.class.segment_size())?);
        (0..table.count).map(one).collect()
    }

    fn dynamic(&self, segment: &Segment) -> Option<Vec<(u64, u64)>> {
        let size = if self.class.wide { 16 } else { 8 };
        let mut entries = Vec::new();
        for at in 0..(segment.size / size).min(MAX_ENTRIES) {
            let entry = self.bytes(segment.offset.checked_add(at * size)?, size)?;
            let tag = self.class.field(entry, (0, 8), (0, 4))?;
            if tag == 0 {
                break;
            }
            entries.push((tag, self.class.field(entry, (8, 8), (4, 4))?));
        }
        Some(entries)
    }
}

/// Paths of libraries by their names, from `/etc/ld.so.cache` (glibc's format 1.1). Several may have one name: of other
/// word sizes or processors.
pub fn loader_cache(file: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    let Some(start) = file.windows(MAGIC.len()).position(|w| w == MAGIC) else { return Vec::new() };
    let cache = &file[start..];
    let at = |place: u64| usize::try_from(place).ok();
    let string = |place: u64| cache.get(at(place)?..).map(text);
    let count = number(cache, 20, 4).unwrap_or(0).min(MAX_ENTRIES);
    let entry = |nth: u64| {
        let base = at(48 + nth * 24)?;
        Some((string(number(cache, base + 4, 4)?)?, string(number(cache, base + 8, 4)?)?))
    };
    (0..count).map_while(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_names_its_loader_and_its_libraries() {
        let program = std::fs::read("/bin/ls").expect("read /bin/ls");
        let found = needs(&program).expect("it is ELF");
        assert!(found.interpreter.is_some_and(|i| i.starts_with(b"/lib")), "a dynamic program");
        assert!(found.libraries.iter().any(|l| l.starts_with(b"libc.so")));
        let cache = loader_cache(&std::fs::read("/etc/ld.so.cache").expect("read the cache"));
        assert!(cache.iter().any(|(name, path)| name == b"libc.so.6" && path.ends_with(b"libc.so.6")));
    }

    #[test]
    fn damaged_files_are_no_programs_and_never_a_panic() {
        let program = std::fs::read("/bin/ls").expect("read /bin/ls");
        assert_eq!(needs(b"#!/bin/sh"), None);
        for length in (0..2048).chain([4096, 65_536]) {
            let _ = needs(&program[..length.min(program.len())]);
        }
        let mut hostile = program[..4096].to_vec();
        for at in 0..4096 {
            hostile[at] ^= 0xff;
            let _ = needs(&hostile);
            hostile[at] ^= 0xff;
        }
    }
}
