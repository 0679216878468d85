//! Device rules of version 2: an eBPF program that is attached to the container's group.
//!
//! It gives the answers of version 1's controller for the same rules: they are read in order, so the last
//! one that matches an access decides; a rule for all devices makes the earlier ones void; without one,
//! what no rule matches is allowed (a parent group may still refuse it). bpf(2), `struct
//! bpf_cgroup_dev_ctx`.

use std::{fs, os::fd::AsFd, path::Path};

use onggi_sys::bpf::{self, Instruction};
use serde::{Deserialize, Serialize};

use crate::CgroupError;

/// Rules of one container: more than any engine writes; one takes at most ten instructions.
pub(crate) const MAX_RULES: usize = 400;

/// A device rule, normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allowed or denied.
    pub allow: bool,
    /// Which kind of device; `None` is all.
    pub kind: Option<DeviceKind>,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making device nodes.
    pub mknod: bool,
}

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Block device.
    Block,
    /// Character device.
    Char,
}

/// BPF_DEVCG_ACC_* (linux/bpf.h).
const ACC_MKNOD: u32 = 1;
const ACC_READ: u32 = 2;
const ACC_WRITE: u32 = 4;
/// All three.
const ACC_ALL: u32 = 7;

impl DeviceRule {
    fn access(&self) -> u32 {
        [(self.read, ACC_READ), (self.write, ACC_WRITE), (self.mknod, ACC_MKNOD)]
            .into_iter()
            .filter(|(has, _)| *has)
            .fold(0, |bits, (_, bit)| bits | bit)
    }

    fn is_for_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access() == ACC_ALL
    }

    /// As version 1's files show it: `c 1:3 rwm`.
    pub fn words(&self) -> String {
        let kind = match self.kind {
            None => 'a',
            Some(DeviceKind::Block) => 'b',
            Some(DeviceKind::Char) => 'c',
        };
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')];
        let access: String = letters.into_iter().filter(|(has, _)| *has).map(|(_, c)| c).collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// Loads the rules' program and attaches it to the version 2 group `dir`.
pub(crate) fn attach(dir: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let fail = |source: onggi_sys::SysError| CgroupError::DeviceFilter { path: dir.to_owned(), source };
    let group = fs::File::open(dir).map_err(|source| CgroupError::Read { path: dir.to_owned(), source })?;
    let program = bpf::load_device_filter(&program(rules)).map_err(fail)?;
    bpf::attach_device_filter(group.as_fd(), program.as_fd()).map_err(fail)
}

/// Puts the rules' program in the place of the one that is attached: at no moment are both or none in force
/// where the kernel can swap them (5.6); else the new one is attached before the old ones go.
pub(crate) fn replace(dir: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let fail = |source: onggi_sys::SysError| CgroupError::DeviceFilter { path: dir.to_owned(), source };
    let group = fs::File::open(dir).map_err(|source| CgroupError::Read { path: dir.to_owned(), source })?;
    let old = bpf::attached_device_filters(group.as_fd()).map_err(fail)?;
    let program = bpf::load_device_filter(&program(rules)).map_err(fail)?;
    if let [only] = old.as_slice()
        && bpf::replace_device_filter(group.as_fd(), program.as_fd(), only.as_fd()).is_ok()
    {
        return Ok(());
    }
    bpf::attach_device_filter(group.as_fd(), program.as_fd()).map_err(fail)?;
    old.iter().try_for_each(|o| bpf::detach_device_filter(group.as_fd(), o.as_fd())).map_err(fail)
}

/// Registers: r0 is the answer, r1 the context on entry.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program: the last rule is tested first.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let from = rules.iter().rposition(DeviceRule::is_for_all);
    let mut code = vec![
        load(KIND, 0),
        alu(op::AND, KIND, 0xffff),
        load(ACCESS, 0),
        alu(op::RSH, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().skip(from.map_or(0, |at| at + 1)).rev() {
        code.extend(block(rule));
    }
    code.extend(answer(from.is_none_or(|at| rules[at].allow)));
    code
}

/// One rule: when it does not match, its jumps lead to the end of the block.
fn block(rule: &DeviceRule) -> Vec<Instruction> {
    let kind = rule.kind.map(|k| match k {
        DeviceKind::Block => 1,
        DeviceKind::Char => 2,
    });
    // Each test is some preparation and the opcode, register and value of a jump out of the block.
    let mut tests: Vec<(Option<[Instruction; 2]>, u8, u8, u32)> = Vec::new();
    tests.extend(kind.map(|k| (None, op::JNE, KIND, k)));
    let access = rule.access();
    match (rule.allow, access == ACC_ALL) {
        (_, true) => {}
        // An allowed access has nothing beyond what the rule grants.
        (true, _) => {
            let beyond = [copy(ANSWER, ACCESS), alu(op::AND, ANSWER, !access & ACC_ALL)];
            tests.push((Some(beyond), op::JNE, ANSWER, 0));
        }
        // A denied one has anything of what the rule refuses.
        (false, _) => {
            let refused = [copy(ANSWER, ACCESS), alu(op::AND, ANSWER, access)];
            tests.push((Some(refused), op::JEQ, ANSWER, 0));
        }
    }
    tests.extend(rule.major.map(|n| (None, op::JNE, MAJOR, n)));
    tests.extend(rule.minor.map(|n| (None, op::JNE, MINOR, n)));

    let length: usize = tests.iter().map(|(before, ..)| 1 + before.map_or(0, |b| b.len())).sum();
    let mut code = Vec::with_capacity(length + 2);
    for (before, jump_op, register, value) in tests {
        code.extend(before.into_iter().flatten());
        // Over the rest of the tests and the two instructions of the answer.
        code.push(jump(jump_op, register, value, (length - code.len() - 1 + 2) as u8));
    }
    code.extend(answer(rule.allow));
    code
}

/// Opcodes (linux/bpf.h, linux/bpf_common.h); 32-bit operations, which have no sign to extend.
mod op {
    pub(super) const LDX_W: u8 = 0x61;
    pub(super) const AND: u8 = 0x54;
    pub(super) const RSH: u8 = 0x74;
    pub(super) const MOV_X: u8 = 0xbc;
    pub(super) const MOV_K: u8 = 0xb4;
    pub(super) const JNE: u8 = 0x56;
    pub(super) const JEQ: u8 = 0x16;
    pub(super) const EXIT: u8 = 0x95;
}

fn encode(code: u8, to: u8, from: u8, offset: u8, value: u32) -> Instruction {
    let registers = to | from << 4;
    Instruction(u64::from_le_bytes({
        let v = value.to_le_bytes();
        [code, registers, offset, 0, v[0], v[1], v[2], v[3]]
    }))
}

fn load(to: u8, offset: u8) -> Instruction {
    encode(op::LDX_W, to, CONTEXT, offset, 0)
}

fn alu(code: u8, to: u8, value: u32) -> Instruction {
    encode(code, to, 0, 0, value)
}

fn copy(to: u8, from: u8) -> Instruction {
    encode(op::MOV_X, to, from, 0, 0)
}

fn jump(code: u8, register: u8, value: u32, offset: u8) -> Instruction {
    encode(code, register, 0, offset, value)
}

fn answer(allow: bool) -> [Instruction; 2] {
    [encode(op::MOV_K, ANSWER, 0, 0, u32::from(allow)), encode(op::EXIT, 0, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    /// An access as the kernel shows it to the program.
    #[derive(Debug, Clone, Copy)]
    struct Access {
        kind: DeviceKind,
        bits: u32,
        major: u32,
        minor: u32,
    }

    /// Runs a program; panics on anything the verifier would refuse.
    fn run(program: &[Instruction], access: &Access) -> bool {
        let kind = if access.kind == DeviceKind::Block { 1 } else { 2 };
        let context = [access.bits << 16 | kind, access.major, access.minor];
        let (mut registers, mut at) = ([0u32; 6], 0);
        loop {
            let [code, r, offset, zero, value @ ..] = program[at].0.to_le_bytes();
            let (to, from, value) = (usize::from(r & 15), usize::from(r >> 4), u32::from_le_bytes(value));
            assert_eq!(zero, 0);
            at += 1;
            match code {
                op::LDX_W => registers[to] = context[usize::from(offset) / 4],
                op::AND => registers[to] &= value,
                op::RSH => registers[to] >>= value,
                op::MOV_X => registers[to] = registers[from],
                op::MOV_K => registers[to] = value,
                op::JNE if registers[to] != value => at += usize::from(offset),
                op::JEQ if registers[to] == value => at += usize::from(offset),
                op::JNE | op::JEQ => {}
                op::EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    /// The rules read in order, as version 1 takes them.
    fn direct(rules: &[DeviceRule], access: &Access) -> bool {
        rules.iter().fold(true, |allowed, rule| {
            let same = |want: Option<u32>, have| want.is_none_or(|w| w == have);
            let device = rule.kind.is_none_or(|k| k == access.kind)
                && same(rule.major, access.major)
                && same(rule.minor, access.minor);
            let bits = match rule.allow {
                true => access.bits & !rule.access() == 0,
                false => access.bits & rule.access() != 0,
            };
            if device && bits { rule.allow } else { allowed }
        })
    }

    fn rules() -> impl Strategy<Value = DeviceRule> {
        let kind = option::of(prop_oneof![Just(DeviceKind::Block), Just(DeviceKind::Char)]);
        let number = || option::of(prop_oneof![0u32..3, Just(u32::MAX)]);
        (any::<bool>(), kind, number(), number(), 1u32..8).prop_map(|(allow, kind, major, minor, bits)| DeviceRule {
            allow,
            kind,
            major,
            minor,
            read: bits & ACC_READ != 0,
            write: bits & ACC_WRITE != 0,
            mknod: bits & ACC_MKNOD != 0,
        })
    }

    fn accesses() -> impl Strategy<Value = Access> {
        let kind = prop_oneof![Just(DeviceKind::Block), Just(DeviceKind::Char)];
        let number = || prop_oneof![0u32..3, Just(u32::MAX)];
        (kind, 1u32..8, number(), number()).prop_map(|(kind, bits, major, minor)| Access { kind, bits, major, minor })
    }

    proptest! {
        #[test]
        fn the_program_answers_as_the_rules_read(rules in vec(rules(), 0..12), accesses in vec(accesses(), 30)) {
            let program = program(&rules);
            for access in &accesses {
                prop_assert_eq!(run(&program, access), direct(&rules, access), "{:?}", access);
            }
        }
    }

    #[test]
    fn the_largest_policy_fits() {
        let rule = DeviceRule {
            allow: true,
            kind: Some(DeviceKind::Char),
            major: Some(1),
            minor: Some(3),
            read: true,
            write: false,
            mknod: false,
        };
        assert!(program(&[rule; MAX_RULES]).len() <= bpf::MAX_INSTRUCTIONS);
    }
}
