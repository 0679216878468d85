//! What a seccomp filter decides: the program is run, as the kernel would (Documentation/networking/filter.rst), for every
//! system call of 64-bit x86 with all arguments zero. A call whose path reads an argument is one that depends on them.

use std::collections::BTreeMap;

use onggi_spec::syscalls;
use onggi_sys::seccomp::SockFilter;
use serde::Serialize;

/// AUDIT_ARCH_X86_64.
const ARCH: u32 = 0xc000_003e;
/// Where `struct seccomp_data` has its arguments.
const ARGUMENTS: u32 = 16;
/// Words of scratch memory (BPF_MEMWORDS).
const WORDS: usize = 16;

/// A filter and its decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decoded {
    /// Length of the program.
    pub instructions: usize,
    /// Calls by what becomes of them.
    pub verdicts: Verdicts,
    /// What a program of another architecture gets.
    pub other_architectures: String,
}

/// Names of calls by action: `allow`, `errno(EPERM)`, `kill_process`; those that depend on arguments have their own list.
pub type Verdicts = BTreeMap<String, Vec<String>>;

/// Decodes one filter.
pub fn decode(program: &[SockFilter]) -> Decoded {
    let mut verdicts = Verdicts::new();
    for (name, number) in syscalls::X86_64 {
        let (action, arguments) = run(program, u32::from(*number), ARCH);
        let key = if arguments { "depends on arguments".to_owned() } else { action_name(action) };
        verdicts.entry(key).or_default().push((*name).to_owned());
    }
    // AUDIT_ARCH_AARCH64: no program of this machine.
    let other_architectures = action_name(run(program, 0, 0xc000_00b7).0);
    Decoded { instructions: program.len(), verdicts, other_architectures }
}

/// `SECCOMP_RET_…` with its data.
fn action_name(action: Option<u32>) -> String {
    let Some(action) = action else { return "invalid".to_owned() };
    let data = action & 0xffff;
    match action & 0xffff_0000 {
        0x8000_0000 => "kill_process".to_owned(),
        0x0000_0000 => "kill_thread".to_owned(),
        0x0003_0000 => "trap".to_owned(),
        0x0005_0000 => {
            let name = i32::try_from(data).ok().and_then(onggi_sys::error::name);
            format!("errno({})", name.map_or_else(|| data.to_string(), str::to_owned))
        }
        0x7fc0_0000 => "notify".to_owned(),
        0x7ff0_0000 => "trace".to_owned(),
        0x7ffc_0000 => "log".to_owned(),
        0x7fff_0000 => "allow".to_owned(),
        other => format!("{other:#x}"),
    }
}

struct Machine {
    number: u32,
    arch: u32,
    a: u32,
    x: u32,
    memory: [u32; WORDS],
    arguments: bool,
}

/// What the program returns, and whether it looked at an argument on the way.
fn run(program: &[SockFilter], number: u32, arch: u32) -> (Option<u32>, bool) {
    let mut m = Machine { number, arch, a: 0, x: 0, memory: [0; WORDS], arguments: false };
    let mut pc = 0;
    // Jumps go forward only: every program ends after as many steps as it has instructions.
    while let Some(i) = program.get(pc) {
        pc += 1;
        match i.code & 7 {
            0x06 => return (Some(if i.code & 0x18 == 0x10 { m.a } else { i.k }), m.arguments),
            0x05 => pc += m.jump(i),
            _ => {
                if m.step(i).is_none() {
                    break;
                }
            }
        }
    }
    (None, m.arguments)
}

impl Machine {
    fn jump(&self, i: &SockFilter) -> usize {
        let right = if i.code & 0x08 != 0 { self.x } else { i.k };
        let taken = match i.code & 0xf0 {
            0x00 => return i.k as usize,
            0x10 => self.a == right,
            0x20 => self.a > right,
            0x30 => self.a >= right,
            _ => self.a & right != 0,
        };
        usize::from(if taken { i.jt } else { i.jf })
    }

    /// Loads, stores, arithmetic; `None` for what no filter may hold.
    fn step(&mut self, i: &SockFilter) -> Option<()> {
        let cell = |k: u32| usize::try_from(k).ok().filter(|at| *at < WORDS);
        match i.code {
            0x20 => self.a = self.data(i.k),
            0x00 => self.a = i.k,
            0x01 => self.x = i.k,
            0x60 => self.a = self.memory[cell(i.k)?],
            0x61 => self.x = self.memory[cell(i.k)?],
            // The length of the data.
            0x80 => self.a = 64,
            0x81 => self.x = 64,
            0x02 => self.memory[cell(i.k)?] = self.a,
            0x03 => self.memory[cell(i.k)?] = self.x,
            0x07 => self.x = self.a,
            0x87 => self.a = self.x,
            code if code & 7 == 4 => self.a = self.arithmetic(i)?,
            _ => return None,
        }
        Some(())
    }

    fn arithmetic(&self, i: &SockFilter) -> Option<u32> {
        let right = if i.code & 0x08 != 0 { self.x } else { i.k };
        Some(match i.code & 0xf0 {
            0x00 => self.a.wrapping_add(right),
            0x10 => self.a.wrapping_sub(right),
            0x20 => self.a.wrapping_mul(right),
            0x30 => self.a.checked_div(right)?,
            0x40 => self.a | right,
            0x50 => self.a & right,
            0x60 => self.a.checked_shl(right).unwrap_or(0),
            0x70 => self.a.checked_shr(right).unwrap_or(0),
            0x80 => self.a.wrapping_neg(),
            0xa0 => self.a ^ right,
            _ => return None,
        })
    }

    fn data(&mut self, offset: u32) -> u32 {
        self.arguments |= offset >= ARGUMENTS;
        match offset {
            0 => self.number,
            4 => self.arch,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    #[test]
    fn decisions_are_those_of_the_program() {
        // Another architecture dies; read is allowed; socket depends on its first argument; all else is refused.
        let program = [
            op(0x20, 0, 0, 4),
            op(0x15, 0, 6, ARCH),
            op(0x20, 0, 0, 0),
            op(0x15, 2, 0, 0),
            op(0x15, 2, 0, 41),
            op(0x06, 0, 0, 0x0005_0001),
            op(0x06, 0, 0, 0x7fff_0000),
            op(0x20, 0, 0, 16),
            op(0x06, 0, 0, 0x8000_0000),
        ];
        let found = decode(&program);
        assert_eq!(found.verdicts["allow"], ["read"]);
        assert_eq!(found.verdicts["depends on arguments"], ["socket"]);
        assert!(found.verdicts["errno(EPERM)"].iter().any(|n| n == "mount"));
        assert_eq!((found.other_architectures.as_str(), found.instructions), ("kill_process", 9));
    }

    #[test]
    fn programs_without_an_end_are_invalid_and_never_a_panic() {
        assert!(decode(&[]).verdicts.contains_key("invalid"));
        for code in 0..=255 {
            let _ = decode(&[op(code, 255, 255, u32::MAX), op(code, 0, 0, 0)]);
        }
    }
}
