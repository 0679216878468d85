//! A compiled program as a file, so that a policy is compiled once and not at every start.
//!
//! ```text
//! magic "onggiBPF" | version u16 | flags u32 | notify u8 | fingerprint 16 | count u32 |
//! count × (code u16, jt u8, jf u8, k u32) | checksum u64        all little-endian
//! ```
//!
//! The fingerprint is of the policy and of this compiler's version: a program of another policy, or of an
//! older Onggi, is not used but compiled anew. It guards against staleness, not against an attacker: who
//! can write the file can write config.json beside it.

use onggi_spec::oci::runtime::LinuxSeccomp;
use onggi_sys::seccomp::{MAX_INSTRUCTIONS, SockFilter};

use super::{Program, SeccompError};

const MAGIC: &[u8; 8] = b"onggiBPF";

/// Raised whenever the compiler's output or the system call table changes.
const VERSION: u16 = 3;

const HEADER: usize = 8 + 2 + 4 + 1 + 16 + 4;
const INSTRUCTION: usize = 8;
const CHECKSUM: usize = 8;

/// Identifies a policy as far as the compiled program depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

/// The fingerprint of a policy. Where its agent listens does not matter to the program.
pub fn fingerprint(seccomp: &LinuxSeccomp) -> Fingerprint {
    let mut hash = Hash::new();
    hash.number(u64::from(VERSION));
    hash.number(seccomp.default_action as u64);
    hash.optional(seccomp.default_errno_ret.map(u64::from));
    hash.list(&seccomp.architectures);
    hash.number(u64::from(seccomp.flags.is_some()));
    hash.list(seccomp.flags.as_deref().unwrap_or_default());
    hash.number(seccomp.syscalls.len() as u64);
    for rule in &seccomp.syscalls {
        hash.list(&rule.names);
        hash.number(rule.action as u64);
        hash.optional(rule.errno_ret.map(u64::from));
        hash.number(rule.args.len() as u64);
        for arg in &rule.args {
            hash.number(u64::from(arg.index));
            hash.number(arg.value);
            hash.optional(arg.value_two);
            hash.number(arg.op as u64);
        }
    }
    Fingerprint(hash.finish())
}

/// A program as bytes, for [`decode`].
pub fn encode(program: &Program, policy: Fingerprint) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + program.instructions.len() * INSTRUCTION + CHECKSUM);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(program.flags.to_le_bytes());
    out.push(u8::from(program.notify));
    out.extend(policy.0);
    out.extend((program.instructions.len() as u32).to_le_bytes());
    for i in &program.instructions {
        out.extend(i.code.to_le_bytes());
        out.extend([i.jt, i.jf]);
        out.extend(i.k.to_le_bytes());
    }
    out.extend(checksum(&out));
    out
}

/// The program in `bytes`, if it is whole and was compiled from the policy with this fingerprint.
///
/// # Errors
/// [`SeccompError::Stored`]: compile the policy instead.
pub fn decode(bytes: &[u8], policy: Fingerprint) -> Result<Program, SeccompError> {
    let stored = |reason| SeccompError::Stored { reason };
    let body = bytes.len().checked_sub(CHECKSUM).ok_or(stored("it is cut"))?;
    let (body, sum) = bytes.split_at(body);
    if checksum(body) != *sum {
        return Err(stored("its checksum is wrong"));
    }
    let mut reader = Reader(body);
    let read = |reader: &mut Reader<'_>| -> Option<_> {
        let (magic, version) = (reader.take::<8>()?, u16::from_le_bytes(reader.take()?));
        let (flags, notify) = (u32::from_le_bytes(reader.take()?), reader.take::<1>()? == [1]);
        let (fingerprint, count) = (Fingerprint(reader.take()?), u32::from_le_bytes(reader.take()?));
        Some((magic == *MAGIC && version == VERSION, flags, notify, fingerprint, count as usize))
    };
    let (ours, flags, notify, fingerprint, count) = read(&mut reader).ok_or(stored("it is cut"))?;
    if !ours {
        return Err(stored("it was written by another version"));
    }
    if fingerprint != policy {
        return Err(stored("it belongs to another policy"));
    }
    if !(1..=MAX_INSTRUCTIONS).contains(&count) || reader.0.len() != count * INSTRUCTION {
        return Err(stored("its length is wrong"));
    }
    let instructions = reader.0.chunks_exact(INSTRUCTION).map(instruction).collect();
    Ok(Program { instructions, flags, notify, unknown: Vec::new() })
}

fn instruction(b: &[u8]) -> SockFilter {
    let (code, k) = (u16::from_le_bytes([b[0], b[1]]), u32::from_le_bytes([b[4], b[5], b[6], b[7]]));
    SockFilter { code, jt: b[2], jf: b[3], k }
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut hash = Hash::new();
    hash.number(bytes.len() as u64);
    hash.bytes(bytes);
    (hash.0 ^ hash.1).to_le_bytes()
}

/// Two 64-bit sums in the manner of FNV-1a, eight bytes at a time. Every part is preceded by its length or
/// its presence, so that no two policies have the same stream.
struct Hash(u64, u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325, 0x9ae1_6a3b_2f90_404f)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }

    /// Both steps are bijections of the sum; the rotations carry high bits back to where they spread.
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.1 = (self.1.rotate_left(23) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }

    fn number(&mut self, n: u64) {
        self.word(n);
    }

    fn optional(&mut self, n: Option<u64>) {
        self.number(u64::from(n.is_some()));
        self.number(n.unwrap_or(0));
    }

    fn list(&mut self, texts: &[String]) {
        self.number(texts.len() as u64);
        for text in texts {
            self.number(text.len() as u64);
            self.bytes(text.as_bytes());
        }
    }

    fn finish(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.0.to_le_bytes());
        out[8..].copy_from_slice(&self.1.to_le_bytes());
        out
    }
}
