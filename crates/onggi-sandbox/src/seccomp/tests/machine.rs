//! What a filter meets: system calls, the kernel's interpreter of classic BPF and its checker, and the plain meaning
//! of actions and comparisons. Shared, by its path, with the fuzz target and with the comparison with libseccomp
//! (`tests/tests/conformance/libseccomp.rs`), so it uses nothing of the compiler.

use onggi_spec::oci::runtime::{LinuxSeccompArg, SeccompAction, SeccompOp};

pub(crate) const X86_64: u32 = 0xc000_003e;
pub(crate) const I386: u32 = 0x4000_0003;
pub(crate) const ALLOW: u32 = 0x7fff_0000;
pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;
pub(crate) const ERRNO: u32 = 0x0005_0000;
/// Longest program (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// (opcode, jump when true, jump when false, operand)
pub(crate) type Instruction = (u16, u8, u8, u32);

/// struct seccomp_data without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) nr: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("load at {offset}"),
        }
    }
}

/// Runs a filter as the kernel does; panics on what the kernel's checker would refuse.
pub(crate) fn execute(program: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let (code, jt, jf, k) = program[at];
        let jump = |taken: bool| at + 1 + usize::from(if taken { jt } else { jf });
        at = match code {
            0x06 => return k,
            0x20 => {
                a = call.word(k);
                at + 1
            }
            0x54 => {
                a &= k;
                at + 1
            }
            0x05 => at + 1 + k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            code => panic!("opcode {code:#x}"),
        };
    }
}

/// What the kernel's checker demands: jumps inside the program, known opcodes, a return at the end.
pub(crate) fn check_program(program: &[Instruction]) {
    assert!(program.len() <= MAX_INSTRUCTIONS);
    for (at, (code, jt, jf, k)) in program.iter().enumerate() {
        let far = match code {
            0x05 => *k as usize,
            0x15 | 0x25 | 0x35 => usize::from(*jt.max(jf)),
            0x20 | 0x54 => 0,
            0x06 => continue,
            code => panic!("opcode {code:#x}"),
        };
        assert!(at + 1 + far < program.len(), "jump out of the program at {at}");
    }
    assert_eq!(program.last().map(|(code, ..)| *code), Some(0x06), "a filter ends with an answer");
}

/// What the kernel is answered (seccomp(2)).
pub(crate) fn value(action: SeccompAction, errno: Option<u32>) -> u32 {
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => 0,
        SeccompAction::KillProcess => KILL_PROCESS,
        SeccompAction::Trap => 0x0003_0000,
        SeccompAction::Errno => ERRNO | errno.unwrap_or(1),
        SeccompAction::Trace => 0x7ff0_0000 | errno.unwrap_or(1),
        SeccompAction::Allow => ALLOW,
        SeccompAction::Log => 0x7ffc_0000,
        SeccompAction::Notify => 0x7fc0_0000,
    }
}

/// One comparison.
pub(crate) fn holds(a: &LinuxSeccompArg, args: &[u64; 6]) -> bool {
    let arg = args[a.index as usize];
    match a.op {
        SeccompOp::NotEqual => arg != a.value,
        SeccompOp::LessThan => arg < a.value,
        SeccompOp::LessOrEqual => arg <= a.value,
        SeccompOp::Equal => arg == a.value,
        SeccompOp::GreaterOrEqual => arg >= a.value,
        SeccompOp::GreaterThan => arg > a.value,
        SeccompOp::MaskedEqual => Some(arg & a.value) == a.value_two.map(|two| two & a.value),
    }
}
