//! The two things about an ELF file that decide whether it can start: its machine and its interpreter (elf(5)).

/// What the first bytes of an ELF file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elf {
    /// `e_machine`.
    pub machine: u16,
    /// `PT_INTERP`, when there is one within the bytes at hand.
    pub interpreter: Option<Vec<u8>>,
}

const PT_INTERP: u32 = 3;

/// Reads the head of a file; `None` when it is no well-formed little-endian ELF.
pub(super) fn parse(head: &[u8]) -> Option<Elf> {
    if head.get(..4)? != b"\x7fELF" || *head.get(5)? != 1 {
        return None;
    }
    let wide = *head.get(4)? == 2;
    let machine = number(head, 18, 2)? as u16;
    let (phoff, phentsize, phnum) = if wide {
        (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?)
    } else {
        (number(head, 28, 4)?, number(head, 42, 2)?, number(head, 44, 2)?)
    };
    let interpreter = (0..phnum).find_map(|i| {
        let at = usize::try_from(phoff.checked_add(i * phentsize)?).ok()?;
        if number(head, at, 4)? != u64::from(PT_INTERP) {
            return None;
        }
        let (offset, size) = if wide {
            (number(head, at.checked_add(8)?, 8)?, number(head, at.checked_add(32)?, 8)?)
        } else {
            (number(head, at.checked_add(4)?, 4)?, number(head, at.checked_add(16)?, 4)?)
        };
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        Some(head.get(start..end)?.split(|b| *b == 0).next()?.to_vec())
    });
    Some(Elf { machine, interpreter })
}

fn number(head: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = head.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b)))
}

/// OCI's name of a machine, for messages.
pub(super) fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "386",
        8 => "mips",
        20 | 21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        258 => "loong64",
        _ => "an unknown architecture",
    }
}

/// This kernel runs the machine's programs without help: its own, and on amd64 also 386.
pub(super) fn runs_here(machine: u16) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => matches!(machine, 62 | 3),
        "aarch64" => matches!(machine, 183 | 40),
        "riscv64" => machine == 243,
        "s390x" => machine == 22,
        "powerpc64" => machine == 21,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_heads_never_panic() {
        let real = std::fs::read("/bin/sh").unwrap();
        assert!(parse(&real[..4096]).is_some_and(|e| runs_here(e.machine)));
        for cut in 0..200 {
            parse(&real[..cut]);
        }
        for at in 0..128 {
            let mut bad = real[..4096].to_vec();
            bad[at] = 0xff;
            parse(&bad);
        }
    }
}
