//! `cargo xtask bench --hot`: which functions of `onggi-oci` run when containers start, written as the linker
//! script that puts them side by side (`crates/onggi-oci/hot.ld`). `--hot-engine`: the same of `onggi` and its daily commands
//! (`crates/onggi-cli/hot.ld`).
//!
//! A fault maps 64 KiB of program text at once, so scattered functions make all of the program resident. A
//! breakpoint of the kernel (uprobe) on every function tells which are entered, in order. The linker's map
//! tells where they are and which section of which object they come from. A list that is behind the code costs
//! memory, never correctness: what it does not name stands in the ordinary text.

mod names;
mod script;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    peers::silently,
    rows::{Bench, DAILY_COMMANDS},
};
use crate::{
    Outcome,
    build::Static,
    process::{read, run_quietly},
};

/// A section of program text as the linker's map has it.
#[derive(Debug, PartialEq, Eq)]
struct Section {
    address: u64,
    size: u64,
    /// `/usr/lib/libc.a(malloc.o)`.
    object: String,
    /// `.text._RNv…`.
    name: String,
}

/// A loaded part of the program file.
struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

/// Finds out what runs and writes the script.
pub(super) fn record(bench: &Bench, of: Static) -> Outcome {
    let map = of.map();
    let map = fs::read_to_string(&map).map_err(|e| format!("read {}: {e}", map.display()))?;
    let (sections, functions) = parse_map(&map);
    if functions.is_empty() {
        return Err("the linker's map names no function: it has to be lld's".to_owned());
    }
    let entered = match of {
        Static::Engine => {
            // A section is a function, or an object of the C library: all that the script can name.
            let starts: Vec<u64> = sections.iter().map(|section| section.address).collect();
            let entry = symbol(&map, of.entry()).ok_or("the linker's map does not say where the program begins")?;
            together(&executed(bench, entry, ordered(&map))?.map(|one| entered(&starts, &one)))
        }
        Static::Runtime => {
            let probes = Probes::set(bench, &functions, &segments(&bench.programs.onggi_oci)?)?;
            bench.every_verb()?;
            probes.entered()?
        }
    };
    let (begin, size) = ordered(&map);
    let outside = entered.iter().filter(|address| !(begin..begin + size).contains(*address)).count();
    let patterns = patterns(&sections, &entered, of);
    let at = of.hot_functions();
    fs::write(&at, script::text(&patterns, of)).map_err(|e| format!("write {}: {e}", at.display()))?;
    println!(
        "{} functions of {} were entered, {outside} of them outside of the order so far",
        entered.len(),
        functions.len()
    );
    println!("{} patterns: {}", patterns.len(), at.display());
    Ok(())
}

/// Addresses of instructions that each of the daily commands executes. The engine has so many functions that breakpoints on
/// all of them would take a quarter of an hour to set; valgrind takes a second for a command.
fn executed(bench: &Bench, entry: u64, hot: (u64, u64)) -> Outcome<[Vec<u64>; DAILY_COMMANDS]> {
    let engine = bench.own_engine()?;
    let mut all = [const { Vec::new() }; DAILY_COMMANDS];
    for (number, args) in Bench::daily_commands(&engine.image).iter().enumerate() {
        let calls = bench.dir.join(format!("calls.{number}"));
        let inner = engine.command(args);
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["-q", "--tool=callgrind", "--dump-instr=yes", "--compress-pos=no", "--compress-strings=no"]);
        valgrind.arg(format!("--callgrind-out-file={}", calls.display()));
        silently(valgrind.arg(inner.get_program()).args(inner.get_args()))?;
        let text = fs::read_to_string(&calls).map_err(|e| format!("read {}: {e}", calls.display()))?;
        all[number] = instructions(&text, entry, hot);
    }
    Ok(all)
}

/// The addresses, as the linker's map has them, in what callgrind wrote. It knows the first executable part of the program by
/// name; what is in the second, the hot functions, it gives as it was in memory. The entry is there, and tells how far that
/// is from the map.
fn instructions(text: &str, entry: u64, (begin, size): (u64, u64)) -> Vec<u64> {
    let (mut named, mut in_memory, mut known) = (Vec::new(), Vec::new(), true);
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            known = object != "???";
        } else if let Some(address) = instruction(line) {
            if known { &mut named } else { &mut in_memory }.push(address);
        }
    }
    let inside = |distance: &u64| {
        let inside =
            |address: &&u64| address.checked_sub(*distance).is_some_and(|a| (begin..begin + size).contains(&a));
        in_memory.iter().filter(inside).count()
    };
    let page = |distance: &u64| distance.is_multiple_of(4096);
    let distances: HashSet<u64> = in_memory.iter().filter_map(|a| a.checked_sub(entry)).filter(page).collect();
    if let Some(distance) = distances.into_iter().max_by_key(inside) {
        named.extend(in_memory.iter().filter_map(|address| address.checked_sub(distance)));
    }
    named
}

/// Functions of several commands in one order: those of all commands first, then by who has them, so that one command's are
/// on as few pages as can be.
fn together(commands: &[Vec<u64>]) -> Vec<u64> {
    let mut who: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, functions) in commands.iter().enumerate() {
        for function in functions {
            *who.entry(*function).or_default() |= 1 << number;
        }
    }
    let mut functions: Vec<(u64, u64)> = who.into_iter().collect();
    functions.sort_by_key(|(address, who)| (Reverse(who.count_ones()), *who, *address));
    functions.into_iter().map(|(address, _)| address).collect()
}

/// Where the linker has put a symbol.
fn symbol(map: &str, name: &str) -> Option<u64> {
    let line = map.lines().find(|line| line.split_whitespace().last() == Some(name) && !line.contains('('))?;
    u64::from_str_radix(line.split_whitespace().next()?, 16).ok()
}

/// `0xac71e0 1349 15`: address, line, how often.
fn instruction(line: &str) -> Option<u64> {
    u64::from_str_radix(line.strip_prefix("0x")?.split(' ').next()?, 16).ok()
}

/// The functions in which these instructions are, each once, in their order.
fn entered(functions: &[u64], executed: &[u64]) -> Vec<u64> {
    let mut seen = HashSet::new();
    let function = |address: &u64| functions[..functions.partition_point(|f| f <= address)].last().copied();
    executed.iter().filter_map(function).filter(|f| seen.insert(*f)).collect()
}

/// Where the linker has put the functions that the script names: address and size.
fn ordered(map: &str) -> (u64, u64) {
    let line = map.lines().find(|line| line.ends_with(" .text.hot"));
    let numbers =
        line.into_iter().flat_map(str::split_whitespace).take(3).map(|n| u64::from_str_radix(n, 16).unwrap_or(0));
    match numbers.collect::<Vec<_>>()[..] {
        [address, _, size] => (address, size),
        _ => (0, 0),
    }
}

/// Sections and the addresses of functions; lld's format: address twice, size, alignment, then by indentation an
/// output section, an input section, a symbol.
fn parse_map(map: &str) -> (Vec<Section>, Vec<u64>) {
    let (mut sections, mut functions) = (Vec::<Section>::new(), Vec::new());
    for line in map.lines() {
        let Some((head, tail)) = line.split_at_checked(50) else { continue };
        let numbers: Vec<u64> =
            head.split_whitespace().take(3).filter_map(|n| u64::from_str_radix(n, 16).ok()).collect();
        let [address, _, size] = numbers[..] else { continue };
        let rest = tail.trim_start();
        match rest.rsplit_once(":(") {
            Some((object, name)) if name.starts_with(".text") => {
                let name = name.trim_end_matches(')').to_owned();
                // A stripped program's map does not name every function; a Rust function is a section.
                functions.extend(name.contains("._R").then_some(address));
                sections.push(Section { address, size, object: object.to_owned(), name });
            }
            _ => {
                let inside = sections.last().is_some_and(|s| (s.address..s.address + s.size).contains(&address));
                if inside && !rest.contains(' ') {
                    functions.push(address);
                }
            }
        }
    }
    sections.sort_by_key(|section| section.address);
    functions.sort_unstable();
    functions.dedup();
    (sections, functions)
}

fn segments(program: &Path) -> Outcome<Vec<Segment>> {
    let text = read(Command::new("readelf").arg("-lW").arg(program))?;
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let segment = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, offset, address, _, size, ..] = words[..] else { return None };
        let segment = Segment { offset: hex(offset)?, address: hex(address)?, size: hex(size)? };
        (kind == "LOAD").then_some(segment)
    };
    Ok(text.lines().filter_map(segment).collect())
}

/// Breakpoints in a trace instance of their own; removed when dropped.
struct Probes {
    tracing: PathBuf,
    instance: PathBuf,
    group: String,
}

impl Probes {
    fn set(bench: &Bench, functions: &[u64], segments: &[Segment]) -> Outcome<Self> {
        let tracing = bench.dir.join("tracing");
        fs::create_dir_all(&tracing).map_err(|e| format!("make {}: {e}", tracing.display()))?;
        run_quietly(Command::new("mount").args(["-t", "tracefs", "tracefs"]).arg(&tracing))?;
        let group = format!("onggi{}", std::process::id());
        let this = Self { instance: tracing.join("instances").join(&group), tracing, group };
        fs::create_dir(&this.instance).map_err(|e| format!("make {}: {e}", this.instance.display()))?;
        let file = this.tracing.join("uprobe_events");
        let mut events =
            fs::OpenOptions::new().append(true).open(&file).map_err(|e| format!("open {}: {e}", file.display()))?;
        let mut set = 0;
        for address in functions {
            let Some(s) = segments.iter().find(|s| (s.address..s.address + s.size).contains(address)) else { continue };
            let offset = address - s.address + s.offset;
            let program = bench.programs.onggi_oci.display();
            // The kernel refuses a few instructions; what begins with one stays in the ordinary text.
            let event = format!("p:{}/f{address:x} {program}:{offset:#x}\n", this.group);
            set += usize::from(events.write_all(event.as_bytes()).is_ok());
        }
        println!("{set} of {} functions are watched", functions.len());
        this.write("buffer_size_kb", "16384")?;
        this.write(&format!("events/{}/enable", this.group), "1")?;
        Ok(this)
    }

    fn write(&self, file: &str, text: &str) -> Outcome {
        let at = self.instance.join(file);
        fs::write(&at, text).map_err(|e| format!("write {}: {e}", at.display()))
    }

    /// Addresses in the order of their first call.
    fn entered(&self) -> Outcome<Vec<u64>> {
        let at = self.instance.join("trace");
        let trace = fs::read_to_string(&at).map_err(|e| format!("read {}: {e}", at.display()))?;
        Ok(first_calls(&trace))
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let _ = self.write(&format!("events/{}/enable", self.group), "0");
        let _ = fs::remove_dir(&self.instance);
        let events = self.tracing.join("uprobe_events");
        let ours = format!(":{}/", self.group);
        let list = fs::read_to_string(&events).unwrap_or_default();
        if let Ok(mut file) = fs::OpenOptions::new().append(true).open(&events) {
            for name in list.lines().filter_map(|line| line.split_whitespace().next()).filter(|n| n.contains(&ours)) {
                let _ = file.write_all(format!("-{}\n", &name[1..]).as_bytes());
            }
        }
        let _ = run_quietly(Command::new("umount").arg(&self.tracing));
    }
}

/// `onggi-oci-7 [000] ..... 12.3: f5b280: (0x7f…)`.
fn first_calls(trace: &str) -> Vec<u64> {
    let mut seen = HashSet::new();
    let call = |line: &str| {
        let word = line.split_whitespace().find(|w| w.starts_with('f') && w.ends_with(':'))?;
        u64::from_str_radix(&word[1..word.len() - 1], 16).ok()
    };
    trace.lines().filter(|l| !l.starts_with('#')).filter_map(call).filter(|a| seen.insert(*a)).collect()
}

/// The input sections of the linker script, in order. The C library's come last: its objects are sections as a
/// whole, with much besides.
fn patterns(sections: &[Section], entered: &[u64], of: Static) -> Vec<String> {
    let (mut own, mut foreign, mut seen) = (Vec::new(), BTreeMap::new(), HashSet::new());
    for address in entered {
        let after = sections.partition_point(|s| s.address <= *address);
        let Some(section) = after.checked_sub(1).map(|at| &sections[at]) else { continue };
        let pattern = pattern(section, of);
        if !seen.insert(pattern.clone()) {
            continue;
        }
        if pattern.starts_with("*(") {
            own.push(pattern);
        } else {
            foreign.insert(pattern, ());
        }
    }
    own.extend(foreign.into_keys());
    own
}

/// A function that has a section of its own by that section's name, whatever object it comes from; one of the C library
/// by its object.
fn pattern(section: &Section, of: Static) -> String {
    for prefix in [".text.unlikely.", ".text."] {
        if let Some(name) = section.name.strip_prefix(prefix).filter(|name| name.starts_with("_R")) {
            let name = match of {
                Static::Engine => names::instance(name),
                Static::Runtime => names::pattern(name),
            };
            return format!("*({prefix}{name})");
        }
    }
    let (archive, member) = section.object.rsplit_once('(').unwrap_or(("", &section.object));
    let file = |path: &str| path.rsplit('/').next().unwrap_or(path).trim_end_matches(')').to_owned();
    match archive.is_empty() {
        true if section.name != ".text" => format!("*({})", section.name),
        true => format!("*{}({})", file(member), section.name),
        false => format!("*{}:{}({})", file(archive), file(member), section.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
             VMA              LMA     Size Align Out     In      Symbol
           a4600            a4600   1e9ef8    64 .text
           a4600            a4600       40    16         /usr/lib/x/rcrt1.o:(.text)
           a4600            a4600       22     1                 _start
           a4640            a4640       10     1         /t/onggi_oci.o:(.text._RNvCs1DRnZkZK5mh_9onggi_oci4main)
           a4640            a4640       10     1                 _RNvCs1DRnZkZK5mh_9onggi_oci4main
          240130           240130     5c56    16         /usr/lib/libc.a(malloc.o):(.text)
          240130           240130       15     1                 _int_malloc
          290000           290000       10     1         /t/onggi_oci.o:(.rodata..L1)
          290000           290000       10     1                 .L1
";

    #[test]
    fn the_map_has_sections_and_functions() {
        let (sections, functions) = parse_map(MAP);
        assert_eq!(sections.len(), 3);
        assert_eq!(functions, [0xa4600, 0xa4640, 0x240130]);
        assert_eq!(sections[2].object, "/usr/lib/libc.a(malloc.o)");
    }

    #[test]
    fn what_was_executed_is_looked_up_among_the_functions() {
        assert_eq!(instruction("0xac71e0 1349 15"), Some(0xac71e0));
        assert!(instruction("calls=3 0xac71e0 1349").is_none() && instruction("fn=main").is_none());
        assert_eq!(entered(&[0x10, 0x20, 0x30], &[0x35, 0x11, 0x8, 0x30, 0x1f]), [0x30, 0x10]);
    }

    #[test]
    fn what_was_in_memory_is_brought_back_to_the_map_by_the_entry() {
        let text = "ob=/bin/onggi\nfn=a\n0x1010 0 1\nob=???\nfn=b\n0x10a020 0 4\n0x10a100 0 1\n0x10b020 0 1\n";
        assert_eq!(instructions(text, 0x2020, (0x2000, 0x2000)), [0x1010, 0x2020, 0x2100, 0x3020]);
        // Nothing was executed where the program begins: nothing can be said of it.
        assert_eq!(instructions(text, 0x2030, (0x2000, 0x2000)), [0x1010]);
    }

    #[test]
    fn functions_stand_together_by_the_commands_that_have_them() {
        assert_eq!(together(&[vec![5, 1, 3], vec![5, 2, 3], vec![5, 4]]), [5, 3, 1, 2, 4]);
        assert_eq!(symbol(MAP, "_int_malloc"), Some(0x240130));
        assert!(symbol(MAP, "malloc").is_none());
    }

    #[test]
    fn functions_are_named_without_hashes_and_the_c_library_by_object() {
        let (sections, _) = parse_map(MAP);
        let trace = "# header: x\n p-7 [0] ..... 1.0: f240140: (0x7f)\n p-7 [0] ..... 1.1: fa4640: (0x7f)\n";
        let found = patterns(&sections, &first_calls(trace), Static::Runtime);
        assert_eq!(found, ["*(.text._RNvCs*_9onggi_oci4main)", "*libc.a:malloc.o(.text)"]);
    }

    #[test]
    fn a_section_of_its_own_is_named_whatever_its_object_is_called() {
        let section = |object: &str, name: &str| Section {
            address: 0,
            size: 1,
            object: object.to_owned(),
            name: name.to_owned(),
        };
        assert_eq!(pattern(&section("/t/a-1f.rcgu.o", ".text.onggi_entry"), Static::Runtime), "*(.text.onggi_entry)");
        assert_eq!(
            pattern(&section("/t/a-1f.rcgu.o", ".text.unlikely._RNvC1a1b"), Static::Runtime),
            "*(.text.unlikely._RNvC1a1b)"
        );
        assert_eq!(pattern(&section("/l/crti.o", ".text"), Static::Runtime), "*crti.o(.text)");
        assert_eq!(
            pattern(&section("/l/libc.a(memset.o)", ".text.avx"), Static::Runtime),
            "*libc.a:memset.o(.text.avx)"
        );
    }
}
