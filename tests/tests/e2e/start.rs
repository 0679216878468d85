//! The start of the static runtime asks the processor nothing: `cpuid` leaves a virtual machine, each time
//! (`crates/onggi-sys/src/start.rs`). Every instruction of a short life is looked at by ptrace(2), because the code
//! that asks is still in the program, where other ways could lead to it.

use std::{fs, path::Path, process::Command};

use onggi_tests::Onggi;

/// `cpuid` among how many instructions of a program that must succeed.
fn count(program: &Path, args: &[&str]) -> (u64, u64) {
    let mut python = Command::new("python3");
    python.args(["-c", include_str!("start.py")]).arg(program).args(args);
    let out = python.output().expect("start python3");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [cpuids, all, 0] = numbers[..] else {
        panic!("{}: {text} {}", program.display(), String::from_utf8_lossy(&out.stderr))
    };
    (cpuids, all)
}

/// No program interpreter (`PT_INTERP`, elf(5)) is asked for.
fn is_static(program: &Path) -> bool {
    const INTERPRETER: u32 = 3;
    let elf = fs::read(program).expect("read the program");
    let number = |at: usize, size: usize| elf[at..at + size].iter().rev().fold(0_u64, |n, b| n << 8 | u64::from(*b));
    let (table, size, entries) = (number(32, 8) as usize, number(54, 2) as usize, number(56, 2) as usize);
    assert_eq!(&elf[..5], b"\x7fELF\x02", "a 64-bit program");
    (0..entries).all(|n| number(table + n * size, 4) != u64::from(INTERPRETER))
}

fn libc() -> String {
    let out = Command::new("getconf").arg("GNU_LIBC_VERSION").output().expect("start getconf");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

#[test]
fn e2e_runtime_start_asks_the_processor_nothing() {
    // The control: a program that starts as the C library has it is seen to ask.
    let (asked, all) = count(Path::new("/bin/true"), &[]);
    assert!(asked > 0 && all > 1000, "{asked} cpuid in {all} instructions of /bin/true");
    let onggi = Onggi::new();
    let program = onggi.runtime();
    let (asked, all) = count(&program, &["--version"]);
    assert!(all > 1000, "only {all} instructions were seen");
    // The rule of `cargo xtask` (`xtask/src/build.rs`).
    let short = is_static(&program) && libc() == "glibc 2.36";
    if short {
        assert_eq!(asked, 0, "cpuid in {all} instructions of {}", program.display());
    } else {
        assert!(asked > 0, "{} starts short although the libc is {}", program.display(), libc());
        eprintln!("the short start is not in use: {} static, {}", is_static(&program), libc());
    }
}
