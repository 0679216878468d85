//! Blocks of host ids for user namespaces: each container of root with `--userns auto` has one to itself.
//!
//! Nothing on disk ever belongs to these ids: layers and volumes are mounted with the ids mapped back
//! (mount_setattr(2), MOUNT_ATTR_IDMAP). So a block needs to be nobody else's only while its container runs.

use std::{fmt, str::FromStr};

/// Ids of one block, as many as a Linux distribution's images use.
pub const SIZE: u32 = 1 << 16;

/// The upper end of the range that systemd's "Users, Groups, UIDs and GIDs" sets aside for containers
/// (524288 to 1879048191), where neither `useradd` (SUB_UID_MAX) nor directory services allot ids.
const FIRST: u32 = 0x6000_0000;
const COUNT: u32 = 4096;

/// One block, named by its first host id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdBlock {
    start: u32,
}

impl IdBlock {
    /// Host id of the container's id 0.
    pub fn host_start(self) -> u32 {
        self.start
    }

    /// Every block, beginning at a place that `seed` determines: containers that start at the same time rarely
    /// want the same one.
    pub fn all_from(seed: u64) -> impl Iterator<Item = IdBlock> {
        let offset = (seed % u64::from(COUNT)) as u32;
        (0..COUNT).map(move |n| IdBlock { start: FIRST + (offset + n) % COUNT * SIZE })
    }
}

impl fmt::Display for IdBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.start.fmt(f)
    }
}

impl FromStr for IdBlock {
    type Err = &'static str;

    /// Reads the first host id of a block; anything else is refused.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let start: u32 = text.parse().map_err(|_| "not a number")?;
        let inside = start.checked_sub(FIRST).is_some_and(|n| n % SIZE == 0 && n / SIZE < COUNT);
        if inside { Ok(IdBlock { start }) } else { Err("not the first id of a block") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_stay_in_the_range_for_containers() {
        let all: BTreeSet<IdBlock> = IdBlock::all_from(12_345).collect();
        assert_eq!(all.len(), COUNT as usize);
        assert!(all.iter().zip(all.iter().skip(1)).all(|(a, b)| a.start + SIZE <= b.start));
        assert!(all.last().is_some_and(|last| last.start + (SIZE - 1) <= 1_879_048_191));
    }

    #[test]
    fn a_block_is_read_back_and_nothing_else_is_one() {
        let block = IdBlock::all_from(7).next().unwrap();
        assert_eq!(block.to_string().parse(), Ok(block));
        for bad in ["", "0", "1610612737", "-1", "4294967295", "1879048192", "x"] {
            assert!(bad.parse::<IdBlock>().is_err(), "{bad}");
        }
    }
}
