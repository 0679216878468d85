//! An assembler that works backwards. Jumps of classic BPF lead only forward, so when an instruction is
//! added in front of what exists, every target is known; one that is out of the reach of 8 bits gets a
//! stepping stone in between.
//!
//! Nothing is ever fallen into by accident: an instruction that does not jump names the one that shall
//! follow it, and a stepping stone is put between them where that one is not at the front.

use onggi_sys::seccomp::SockFilter;

/// BPF opcodes (linux/bpf_common.h).
mod code {
    pub(super) const LD_ABS: u16 = 0x20;
    pub(super) const AND: u16 = 0x54;
    pub(super) const RET: u16 = 0x06;
    pub(super) const JA: u16 = 0x05;
    pub(super) const JEQ: u16 = 0x15;
    pub(super) const JGT: u16 = 0x25;
    pub(super) const JGE: u16 = 0x35;
}

/// A place in the program: how many instructions stand from there to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Comparison of the accumulator with a constant, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u32),
    Greater(u32),
    GreaterOrEqual(u32),
}

/// The program so far, last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<SockFilter>,
    /// The foremost copy of each return; a policy has a handful of different ones.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// The finished program, which begins with the instruction added last.
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.reversed.reverse();
        self.reversed
    }

    /// A return with this value; an existing one when it is in reach of a jump.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        let known = self.returns.iter().position(|(v, _)| *v == value);
        match known.map(|at| self.returns[at].1) {
            Some(label) if self.distance(label) <= 200 => label,
            _ => {
                let label = self.add(code::RET, 0, 0, value);
                match known {
                    Some(at) => self.returns[at].1 = label,
                    None => self.returns.push((value, label)),
                }
                label
            }
        }
    }

    /// Loads 32 bits at `offset` of seccomp_data, then continues at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.bring_to_front(next);
        self.add(code::LD_ABS, 0, 0, offset)
    }

    /// Masks the accumulator, then continues at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.bring_to_front(next);
        self.add(code::AND, 0, 0, mask)
    }

    /// Continues at `yes` or at `no`.
    pub(super) fn branch(&mut self, test: Test, mut yes: Label, mut no: Label) -> Label {
        if yes == no {
            return yes;
        }
        // A stepping stone for one moves the other away, so both are looked at until both are near.
        while self.distance(yes) > 255 || self.distance(no) > 255 {
            if self.distance(yes) > 255 {
                yes = self.stone(yes);
            }
            if self.distance(no) > 255 {
                no = self.stone(no);
            }
        }
        let (code, k) = match test {
            Test::Equal(k) => (code::JEQ, k),
            Test::Greater(k) => (code::JGT, k),
            Test::GreaterOrEqual(k) => (code::JGE, k),
        };
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.add(code, jt, jf, k)
    }

    /// A place near the front that leads to a far one: a copy of a return, else a long jump.
    fn stone(&mut self, far: Label) -> Label {
        let target = self.reversed[far.0 - 1];
        if target.code == code::RET { self.ret(target.k) } else { self.jump(far) }
    }

    /// Makes the foremost instruction one that does what `next` does.
    fn bring_to_front(&mut self, next: Label) {
        if self.distance(next) > 0 {
            self.jump(next);
        }
    }

    fn jump(&mut self, to: Label) -> Label {
        let k = self.distance(to) as u32;
        self.add(code::JA, 0, 0, k)
    }

    /// Instructions between the one that is added next and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0
    }

    fn add(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(SockFilter { code, jt, jf, k });
        Label(self.reversed.len())
    }
}
