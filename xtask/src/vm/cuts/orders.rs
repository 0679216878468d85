//! The disk by which the two sides talk: the host's order in front, the guest's log behind (`guest.sh` describes it).
//!
//! A line that the guest has logged has left it: unlike one on a serial line, it cannot be under way when the machine is
//! killed. So nothing counts as acknowledged too late, and nothing as still there whose removal has begun.

use std::{collections::BTreeMap, fs, path::Path};

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
    let sectors = bytes.get(ORDER_BYTES..).unwrap_or_default().chunks(SECTOR);
    let lines = sectors.take_while(|sector| sector[0] != 0);
    Ok(lines.map(|sector| String::from_utf8_lossy(sector).trim().to_owned()).collect())
}

/// What the guest has acknowledged.
#[derive(Default)]
pub(super) struct Known {
    /// Image and kind of content.
    pub(super) present: BTreeMap<String, String>,
    /// The command that was begun last.
    pub(super) last: Option<String>,
}

impl Known {
    /// Takes a line of the log; true when it acknowledges an image.
    pub(super) fn hear(&mut self, line: &str) -> bool {
        match line.split_once(' ') {
            Some(("+", image)) => {
                let (name, kind) = image.split_once(' ').unwrap_or((image, ""));
                self.present.insert(name.to_owned(), kind.to_owned());
                self.last = None;
                return true;
            }
            Some(("-", "*")) => self.present.clear(),
            Some(("-", name)) => drop(self.present.remove(name)),
            Some((">", command)) => self.last = Some(command.to_owned()),
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
        let lines = ["> import", "+ a0-1 a+1", "> commit", "+ h:5000/p1 p1", "- a0-1", "> rmi"];
        assert_eq!(lines.map(|line| known.hear(line)), [false, true, false, true, false, false]);
        assert_eq!(known.words(), ["h:5000/p1=p1"]);
        assert_eq!(known.last.as_deref(), Some("rmi"));
        known.hear("- *");
        assert!(known.present.is_empty());
    }

    #[test]
    fn an_order_is_in_front_of_the_log() {
        let path = std::env::temp_dir().join(format!("onggi-xtask-orders-{}", std::process::id()));
        write(&path, "go 1").unwrap();
        assert_eq!(log(&path), Ok(Vec::new()));
        let mut bytes = fs::read(&path).unwrap();
        bytes[ORDER_BYTES..ORDER_BYTES + 2 * SECTOR]
            .copy_from_slice(format!("{:<511}\n{:<511}\n", "> pull", "+ a p1").as_bytes());
        fs::write(&path, bytes).unwrap();
        assert_eq!(log(&path).unwrap(), ["> pull", "+ a p1"]);
        assert!(write(&path, &"x".repeat(ORDER_BYTES + 1)).is_err());
        fs::remove_file(path).unwrap();
    }
}
