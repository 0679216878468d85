//! Code for a [`Policy`]: architecture, then a binary search over ranges of numbers, then conditions.

use onggi_spec::oci::runtime::SeccompOp;
use onggi_sys::seccomp::{MAX_INSTRUCTIONS, SockFilter};

use super::{
    SeccompError,
    assemble::{Assembler, Label, Test},
    policy::{Answers, Condition, Decision, Policy, X32_BIT, ret},
};

/// AUDIT_ARCH_* (linux/audit.h).
const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_I386: u32 = 0x4000_0003;

/// Offsets in struct seccomp_data (linux/seccomp.h).
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

/// What -1 as a number means: a tracer has skipped the call. It gets the default action, not x32's fate.
const SKIPPED: u32 = u32::MAX;

pub(super) fn compile(policy: &Policy) -> Result<Vec<SockFilter>, SeccompError> {
    let mut code = Code { asm: Assembler::default(), policy };
    let mut next = code.asm.ret(ret::KILL_PROCESS);
    // Backwards: what is tested first is added last.
    if let Some(answers) = &policy.i386 {
        let mut ranges = Ranges::new(policy.default);
        ranges.interface(policy, answers, 0);
        next = code.interface(&ranges.finish(policy.default), ARCH_I386, next);
    }
    let mut ranges = Ranges::new(policy.default);
    ranges.interface(policy, &policy.x86_64, 0);
    match &policy.x32 {
        Some(answers) => ranges.interface(policy, answers, X32_BIT),
        None => ranges.push(X32_BIT, Decision::Always(ret::KILL_PROCESS)),
    }
    next = code.interface(&ranges.finish(policy.default), ARCH_X86_64, next);
    code.asm.load(OFFSET_ARCH, next);
    let program = code.asm.finish();
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLarge { found: program.len(), limit: MAX_INSTRUCTIONS });
    }
    Ok(program)
}

/// All of u32, cut where the answer changes: the first number of each range and its answer.
struct Ranges(Vec<(u32, Decision)>);

impl Ranges {
    fn new(default: u32) -> Self {
        Self(vec![(0, Decision::Always(default))])
    }

    /// From `first` on, unless something is pushed later.
    fn push(&mut self, first: u32, decision: Decision) {
        match self.0.last_mut() {
            Some((at, last)) if *at == first => *last = decision,
            _ => self.0.push((first, decision)),
        }
    }

    /// The numbers of one interface, which begin at `base`.
    fn interface(&mut self, policy: &Policy, answers: &Answers, base: u32) {
        let default = || Decision::Always(policy.default);
        self.push(base, default());
        for (number, decision) in &answers.by_number {
            self.push(*number, decision.clone());
            self.push(number + 1, default());
        }
        if let (Some(last), 0) = (answers.last, base) {
            self.push(last + 1, Decision::Always(policy.beyond(answers)));
        }
    }

    fn finish(mut self, default: u32) -> Vec<(u32, Decision)> {
        self.push(SKIPPED, Decision::Always(default));
        self.0.dedup_by(|later, earlier| later.1 == earlier.1);
        self.0
    }
}

/// The code so far.
struct Code<'p> {
    asm: Assembler,
    policy: &'p Policy,
}

impl Code<'_> {
    /// `if arch == this { search } else { otherwise }`.
    fn interface(&mut self, ranges: &[(u32, Decision)], arch: u32, otherwise: Label) -> Label {
        let root = self.search(ranges);
        let entry = self.asm.load(OFFSET_NR, root);
        self.asm.branch(Test::Equal(arch), entry, otherwise)
    }

    /// A binary search; the accumulator holds the number.
    fn search(&mut self, ranges: &[(u32, Decision)]) -> Label {
        match ranges {
            [] => self.asm.ret(self.policy.default),
            [(_, Decision::Always(value))] => self.asm.ret(*value),
            [(_, Decision::First(rules))] => self.first(rules),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let first = high[0].0;
                let yes = self.search(high);
                let no = self.search(low);
                self.asm.branch(Test::GreaterOrEqual(first), yes, no)
            }
        }
    }

    /// The first rule whose conditions all hold.
    fn first(&mut self, rules: &[usize]) -> Label {
        let mut next = self.asm.ret(self.policy.default);
        for rule in rules.iter().rev().map(|index| &self.policy.rules[*index]) {
            for conditions in rule.alternatives.iter().rev() {
                let mut yes = self.asm.ret(rule.answer);
                for condition in conditions.iter().rev() {
                    yes = holds(&mut self.asm, condition, yes, next);
                }
                next = yes;
            }
        }
        next
    }
}

/// One comparison of 64 bits by two of 32, the high half first.
fn holds(asm: &mut Assembler, c: &Condition, yes: Label, no: Label) -> Label {
    if yes == no {
        return yes;
    }
    let low_at = OFFSET_ARGS + 8 * u32::from(c.index);
    let halves = Halves { low_at, high_at: low_at + 4, value: c.value };
    if c.narrow {
        return halves.low_only(asm, c, yes, no);
    }
    match c.op {
        SeccompOp::Equal => halves.equal(asm, yes, no),
        SeccompOp::NotEqual => halves.equal(asm, no, yes),
        SeccompOp::GreaterThan => halves.greater(asm, Test::Greater, yes, no),
        SeccompOp::LessOrEqual => halves.greater(asm, Test::Greater, no, yes),
        SeccompOp::GreaterOrEqual => halves.greater(asm, Test::GreaterOrEqual, yes, no),
        SeccompOp::LessThan => halves.greater(asm, Test::GreaterOrEqual, no, yes),
        SeccompOp::MaskedEqual => halves.masked(asm, c.value_two, yes, no),
    }
}

/// An argument in memory and the constant that it is compared with.
struct Halves {
    low_at: u32,
    high_at: u32,
    value: u64,
}

impl Halves {
    fn equal(&self, asm: &mut Assembler, yes: Label, no: Label) -> Label {
        let (high, low) = split(self.value);
        let decide = asm.branch(Test::Equal(low), yes, no);
        let low_half = asm.load(self.low_at, decide);
        let decide = asm.branch(Test::Equal(high), low_half, no);
        asm.load(self.high_at, decide)
    }

    /// `low_test` decides when the high halves are equal.
    fn greater(&self, asm: &mut Assembler, low_test: fn(u32) -> Test, yes: Label, no: Label) -> Label {
        let (high, low) = split(self.value);
        let decide = asm.branch(low_test(low), yes, no);
        let low_half = asm.load(self.low_at, decide);
        let equal = asm.branch(Test::Equal(high), low_half, no);
        let decide = asm.branch(Test::Greater(high), yes, equal);
        asm.load(self.high_at, decide)
    }

    /// The comparison of 32 bits.
    fn low_only(&self, asm: &mut Assembler, c: &Condition, yes: Label, no: Label) -> Label {
        let (_, low) = split(self.value);
        let decide = match c.op {
            SeccompOp::Equal => asm.branch(Test::Equal(low), yes, no),
            SeccompOp::NotEqual => asm.branch(Test::Equal(low), no, yes),
            SeccompOp::GreaterThan => asm.branch(Test::Greater(low), yes, no),
            SeccompOp::LessOrEqual => asm.branch(Test::Greater(low), no, yes),
            SeccompOp::GreaterOrEqual => asm.branch(Test::GreaterOrEqual(low), yes, no),
            SeccompOp::LessThan => asm.branch(Test::GreaterOrEqual(low), no, yes),
            SeccompOp::MaskedEqual => return self.masked(asm, c.value_two, yes, no),
        };
        asm.load(self.low_at, decide)
    }

    /// `(argument & value) == wanted`; a half that the mask leaves out is not looked at.
    fn masked(&self, asm: &mut Assembler, wanted: u64, yes: Label, no: Label) -> Label {
        let ((mask_high, mask_low), (high, low)) = (split(self.value), split(wanted));
        let mut next = yes;
        for (at, mask, half) in [(self.low_at, mask_low, low), (self.high_at, mask_high, high)] {
            if mask != 0 {
                let decide = asm.branch(Test::Equal(half), next, no);
                let masked = asm.and(mask, decide);
                next = asm.load(at, masked);
            }
        }
        next
    }
}

fn split(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
