//! The disk by which the two sides talk: the host's order in front, the guest's log behind (`guest.sh` describes it).
//!
//! A line that the guest has logged has left it: unlike one on a serial line, it cannot be under way when the machine is
//! killed. So nothing counts as acknowledged too late, and nothing as still there whose removal has begun.

use std::{collections::BTreeMap, fs, fs::File, io::ErrorKind, os::unix::fs::FileExt, path::Path};

use crate::Outcome;

const ORDER_BYTES: usize = 16 << 10;
const SECTOR: usize = 512;
const DISK_BYTES: usize = 1 << 20;

/// Writes an order, and forgets the log.
pub(super) fn write(disk: &Path, order: &str) -> Outcome {
    let mut bytes = vec![0; DISK_BYTES];
    let room = bytes[..ORDER_BYTES].get_mut(..order.len()).ok_or("the order is too long")?;
    room.copy_from_slice(order.as_bytes());
    fs::write(disk, bytes).map_err(|e| format!("write {}: {e}", disk.display()))
}

/// The lines that the guest has logged.
pub(super) fn log(disk: &Path) -> Outcome<Vec<String>> {
    let bytes = fs::read(disk).map_err(|e| format!("read {}: {e}", disk.display()))?;
    Ok(bytes.get(ORDER_BYTES..).unwrap_or_default().chunks(SECTOR).map_while(line).collect())
}

/// A sector's line, once all of it is there.
fn line(sector: &[u8]) -> Option<String> {
    (sector.last() == Some(&b'\n')).then(|| String::from_utf8_lossy(sector).trim().to_owned())
}

/// The log while it grows.
pub(super) struct Follower {
    disk: File,
    offset: u64,
}

impl Follower {
    /// From its first line.
    pub(super) fn open(disk: &Path) -> Outcome<Follower> {
        let file = File::open(disk).map_err(|e| format!("open {}: {e}", disk.display()))?;
        Ok(Follower { disk: file, offset: ORDER_BYTES as u64 })
    }

    /// The next line, if it has been said.
    pub(super) fn next(&mut self) -> Outcome<Option<String>> {
        let mut sector = [0; SECTOR];
        match self.disk.read_exact_at(&mut sector, self.offset) {
            Err(e) if e.kind() != ErrorKind::UnexpectedEof => return Err(format!("follow the guest's log: {e}")),
            _ => {}
        }
        let said = line(&sector);
        self.offset += said.as_ref().map_or(0, |_| SECTOR as u64);
        Ok(said)
    }
}

/// What the guest has acknowledged.
#[derive(Default)]
pub(super) struct Known {
    /// Image and kind of content.
    pub(super) present: BTreeMap<String, String>,
    /// The operation that has begun and not yet succeeded.
    pub(super) under_way: Option<String>,
}

impl Known {
    /// Takes a line of the log; true when it acknowledges an image.
    pub(super) fn hear(&mut self, line: &str) -> bool {
        match line.split_once(' ') {
            Some(("+", image)) => {
                let (name, kind) = image.split_once(' ').unwrap_or((image, ""));
                self.present.insert(name.to_owned(), kind.to_owned());
                return true;
            }
            Some(("-", "*")) => self.present.clear(),
            Some(("-", name)) => drop(self.present.remove(name)),
            Some((">" | "!", operation)) => self.under_way = Some(operation.to_owned()),
            Some(("<", _)) => self.under_way = None,
            _ => {}
        }
        false
    }

    /// As the order names them.
    pub(super) fn words(&self) -> Vec<String> {
        self.present.iter().map(|(name, kind)| format!("{name}={kind}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_is_expected_until_its_removal_begins() {
        let mut known = Known::default();
        let lines = ["> import", "< import", "+ a0-1 a+1", "> commit", "< commit", "+ h:5000/p1 p1", "- a0-1", "! rmi"];
        assert_eq!(lines.iter().filter(|line| known.hear(line)).count(), 2);
        assert_eq!(known.words(), ["h:5000/p1=p1"]);
        assert_eq!(known.under_way.as_deref(), Some("rmi"));
        known.hear("< rmi");
        assert_eq!(known.under_way, None);
        known.hear("- *");
        assert!(known.present.is_empty());
    }

    #[test]
    fn an_order_is_in_front_of_the_log() {
        let path = std::env::temp_dir().join(format!("onggi-xtask-orders-{}", std::process::id()));
        write(&path, "go 1").unwrap();
        assert_eq!(log(&path), Ok(Vec::new()));
        let mut follower = Follower::open(&path).unwrap();
        assert_eq!(follower.next(), Ok(None));
        let mut bytes = fs::read(&path).unwrap();
        bytes[ORDER_BYTES..ORDER_BYTES + 2 * SECTOR]
            .copy_from_slice(format!("{:<511}\n{:<511}\n", "> pull", "+ a p1").as_bytes());
        // The third is on its way.
        bytes[ORDER_BYTES + 2 * SECTOR] = b'<';
        fs::write(&path, bytes).unwrap();
        assert_eq!(log(&path).unwrap(), ["> pull", "+ a p1"]);
        let followed: Vec<_> = (0..3).map(|_| follower.next().unwrap()).collect();
        assert_eq!(followed, [Some("> pull".to_owned()), Some("+ a p1".to_owned()), None]);
        assert!(write(&path, &"x".repeat(ORDER_BYTES + 1)).is_err());
        fs::remove_file(path).unwrap();
    }
}
