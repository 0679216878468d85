//! Code for a [`Policy`]: architecture, then a binary search over ranges of numbers, then conditions.

use onggi_spec::oci::runtime::SeccompOp;
use onggi_sys::seccomp::{MAX_INSTRUCTIONS, SockFilter};

use super::{
    SeccompError,
    assemble::{Assembler, Label, Test},
    policy::{Answers, Condition, Policy, Rules, X32_BIT, ret},
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
    let mut asm = Assembler::default();
    let mut next = asm.ret(ret::KILL_PROCESS);
    // Backwards: what is tested first is added last.
    if let Some(answers) = &policy.i386 {
        next = interface(&mut asm, ranges(answers, None), answers.default, ARCH_I386, next);
    }
    let x32 = if policy.x32 { X32::LookedUp } else { X32::Killed };
    next = interface(&mut asm, ranges(&policy.x86_64, Some(x32)), policy.x86_64.default, ARCH_X86_64, next);
    asm.load(OFFSET_ARCH, next);
    let program = asm.finish();
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLarge { found: program.len(), limit: MAX_INSTRUCTIONS });
    }
    Ok(program)
}

/// Numbers from here to the next range have this answer.
struct Range<'p> {
    first: u32,
    answer: Answer<'p>,
}

/// What a system call gets.
#[derive(Clone, Copy, PartialEq)]
enum Answer<'p> {
    Always(u32),
    Depends(&'p Rules),
}

/// What happens to numbers with the x32 bit.
#[derive(Clone, Copy)]
enum X32 {
    Killed,
    LookedUp,
}

/// All of u32, cut where the answer changes.
fn ranges<'p>(answers: &'p Answers, x32: Option<X32>) -> Vec<Range<'p>> {
    let mut cuts: Vec<Range<'p>> = vec![Range { first: 0, answer: Answer::Always(answers.default) }];
    let mut push = |first: u32, answer: Answer<'p>| {
        match cuts.last_mut() {
            Some(last) if last.first == first => last.answer = answer,
            _ => cuts.push(Range { first, answer }),
        };
    };
    let native = || answers.rules.range(..X32_BIT);
    let after = answers.last.map_or(0, |last| last + 1);
    for (number, rules) in native() {
        push(*number, answer(rules));
        push(number + 1, Answer::Always(answers.default));
    }
    push(after, Answer::Always(answers.beyond));
    match x32 {
        None => {}
        Some(X32::Killed) => push(X32_BIT, Answer::Always(ret::KILL_PROCESS)),
        Some(X32::LookedUp) => {
            push(X32_BIT, Answer::Always(answers.default));
            for (number, rules) in answers.rules.range(X32_BIT..) {
                push(*number, answer(rules));
                push(number + 1, Answer::Always(answers.default));
            }
        }
    }
    push(SKIPPED, Answer::Always(answers.default));
    cuts.dedup_by(|later, earlier| later.answer == earlier.answer);
    cuts
}

fn answer(rules: &Rules) -> Answer<'_> {
    match rules.always {
        Some(value) => Answer::Always(value),
        None => Answer::Depends(rules),
    }
}

/// `if arch == this { search } else { otherwise }`.
fn interface(asm: &mut Assembler, ranges: Vec<Range<'_>>, default: u32, arch: u32, otherwise: Label) -> Label {
    let root = search(asm, &ranges, default);
    let entry = asm.load(OFFSET_NR, root);
    asm.branch(Test::Equal(arch), entry, otherwise)
}

/// A binary search; the accumulator holds the number.
fn search(asm: &mut Assembler, ranges: &[Range<'_>], default: u32) -> Label {
    match ranges {
        [] => asm.ret(default),
        [only] => match only.answer {
            Answer::Always(value) => asm.ret(value),
            Answer::Depends(rules) => depends(asm, rules, default),
        },
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let first = high[0].first;
            let yes = search(asm, high, default);
            let no = search(asm, low, default);
            asm.branch(Test::GreaterOrEqual(first), yes, no)
        }
    }
}

/// The first rule whose conditions all hold.
fn depends(asm: &mut Assembler, rules: &Rules, default: u32) -> Label {
    let mut next = asm.ret(default);
    for (conditions, value) in rules.conditional.iter().rev() {
        let mut yes = asm.ret(*value);
        for condition in conditions.iter().rev() {
            yes = holds(asm, condition, yes, next);
        }
        next = yes;
    }
    next
}

/// One comparison of 64 bits by two of 32, the high half first.
fn holds(asm: &mut Assembler, c: &Condition, yes: Label, no: Label) -> Label {
    if yes == no {
        return yes;
    }
    let low_at = OFFSET_ARGS + 8 * u32::from(c.index);
    let halves = Halves { low_at, high_at: low_at + 4, value: c.value };
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

    /// `(argument & value) == wanted`; a half that the mask leaves out is not looked at.
    fn masked(&self, asm: &mut Assembler, wanted: u64, yes: Label, no: Label) -> Label {
        let ((mask_high, mask_low), (high, low)) = (split(self.value), split(wanted));
        if wanted & !self.value != 0 {
            return no;
        }
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
