//! The linker script: what was entered, then what may be entered after the next change.
//!
//! Three loaded parts come of it, by `AT`, because the kernel never maps around a fault, nor the rest of a large folio of
//! the page cache, beyond the part that the fault is in:
//!
//! ```text
//! .rodata                        constants
//! .rodata.cold .eh_frame …       constants and tables that only panics and numbers with a point read
//! .text                          cold code
//! .text.hot .init .fini          the functions that were entered, then equal ones, then their neighbours
//! ```
//! All of the last may become resident and a run still takes less than half of crun's memory; so a new function costs
//! something only when it is in a module that no start had to do with.

use crate::build::Static;

/// Generic functions of which each build keeps other instances.
const FAMILIES: [&str; 8] = [
    "*(.text._RINv*_4core3ptr13drop_in_place*)",
    "*(.text._R*_5alloc7raw_vec*)",
    "*(.text._R*_5alloc3vec*4drop*)",
    "*(.text._R*_3std4path*)",
    "*(.text._R*_4core3str4iter*)",
    "*(.text._R*_4core5slice3cmp*)",
    "*(.text._R*_5alloc3vec11spec_extend*)",
    "*(.text._R*_10serde_json2de* .text._R*_10serde_json4read* .text.unlikely._R*_10serde_json4read*)",
];

/// Variants of the C library's functions for processors. A breakpoint cannot stand on most of them, and another
/// processor chooses others; a program with the short start (onggi_sys, `start.rs`) has the first kind.
const VARIANTS: [(&str, &str); 3] = [("sse2*", ".text"), ("*", ".text.avx"), ("*", ".text.evex")];
const VARIED: [&str; 9] =
    ["memchr", "memcmp", "memmove", "memset", "rawmemchr", "strchr", "strcmp", "strlen", "strrchr"];

/// Modules through which every start goes, as they stand in symbols.
const NEIGHBOURS: [&str; 22] = [
    "9onggi_oci3cli4args",
    "9onggi_oci3cli6create",
    "9onggi_oci3cli10foreground",
    "9onggi_oci3cli3log",
    "9onggi_oci3cli8readonly",
    "13onggi_sandbox5child",
    "13onggi_sandbox4plan",
    "13onggi_sandbox6create",
    "13onggi_sandbox6launch",
    "13onggi_sandbox7sources",
    "13onggi_sandbox7channel",
    "13onggi_sandbox9lifecycle",
    "13onggi_sandbox5state",
    "13onggi_sandbox5error",
    "13onggi_sandbox13mount_sources",
    "13onggi_sandbox11host_mounts",
    "12onggi_cgroup4plan",
    "12onggi_cgroup5apply",
    "12onggi_cgroup11controllers",
    "12onggi_cgroup6layout",
    "12onggi_cgroup6remove",
    "9onggi_sys",
];

/// Constants that no start of a container reads, by archive or crate: floating point, character classes, messages.
const COLD_CONSTANTS: [&str; 9] = [
    "*libc.a:C-*.o(.rodata .rodata.*)",
    "*libc.a:fpioconst.o(.rodata .rodata.*)",
    "*libc.a:loadmsgcat.o(.rodata .rodata.*)",
    "*libc.a:loadlocale.o(.rodata .rodata.*)",
    "*libc.a:plural.o(.rodata .rodata.*)",
    "*libm-*.a:*(.rodata .rodata.*)",
    "*(.rodata._RN*_4core3num*)",
    "*(.rodata._R*_4core7unicode*)",
    "*(.rodata._R*_5gimli*)",
];

/// What the C library calls at start and end belongs to the hot part too.
const START: &str =
    "SECTIONS {\n  .init : { KEEP(*(.init)) }\n  .fini : { KEEP(*(.fini)) }\n} INSERT AFTER .text.hot;\n";

/// The script for functions in this order.
pub(super) fn text(patterns: &[String], of: Static) -> String {
    let variants =
        VARIANTS.iter().flat_map(|(kind, section)| VARIED.map(|name| format!("*libc.a:{name}-{kind}.o({section})")));
    // The engine is too large for whole modules, and nobody counts its memory.
    let (neighbours, cold) = match of {
        Static::Engine => (&[][..], &[][..]),
        Static::Runtime => (&NEIGHBOURS[..], &COLD_CONSTANTS[..]),
    };
    let neighbours = neighbours.iter().map(|module| format!("*(.text._R*{module}*)"));
    let families = FAMILIES.map(str::to_owned).into_iter().filter(|_| of == Static::Runtime);
    let hot = patterns.iter().cloned().chain(variants).chain(families).chain(neighbours);
    let (option, what) = match of {
        Static::Engine => {
            ("--hot-engine", "daily commands are given, those\n   of all of them first, then by who has them")
        }
        Static::Runtime => ("--hot", "a container is made, in the order\n   of their first call"),
    };
    let mut text = format!(
        "/* Written by `cargo xtask bench {option}`: the functions that run when {what}.\n   \
         Names that no longer exist are ignored. See docs/performance.md, \"Peak memory\". */\n{}{}",
        section(".text.hot", hot, ".text"),
        START,
    );
    if !cold.is_empty() {
        text += &section(".rodata.cold", cold.iter().map(|&pattern| pattern.to_owned()), ".rodata");
    }
    text
}

fn section(name: &str, patterns: impl Iterator<Item = String>, after: &str) -> String {
    let lines: String = patterns.map(|pattern| format!("    {pattern}\n")).collect();
    format!("SECTIONS {{\n  {name} : AT(ADDR({name})) {{\n{lines}  }}\n}} INSERT AFTER {after};\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_entered_comes_before_its_neighbours_and_in_a_part_of_its_own() {
        let script = text(&["*(.text._RNvCs*_9onggi_oci4main)".to_owned()], Static::Runtime);
        let at = |text: &str| script.find(text).unwrap_or_else(|| panic!("{text}: {script}"));
        assert!(at(".text.hot : AT(ADDR(.text.hot)) {\n    *(.text._RNvCs*_9onggi_oci4main)\n") < at("drop_in_place"));
        assert!(at("*libc.a:memset-*.o(.text.avx)") < at("*(.text._R*9onggi_sys*)"));
        assert!(at("} INSERT AFTER .text;") < at(".rodata.cold") && script.ends_with("} INSERT AFTER .rodata;\n"));
        let engine = text(&["*(.text._RNvCs*_5onggi4main)".to_owned()], Static::Engine);
        assert!(
            engine.contains("{\n    *(.text._RNvCs*_5onggi4main)\n") && !engine.contains("drop_in_place"),
            "{engine}"
        );
        assert!(!engine.contains(".rodata"), "{engine}");
    }
}
