//! fstab-like mount options → attribute bits, superblock flags, propagation, data. mount(8), config.md "mounts".

use onggi_sys::mount::attr;

use super::Propagation;

/// The options of one mount, sorted by where they take effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// `bind` or `rbind` (true).
    pub bind: Option<bool>,
    /// Attribute bits of the mount itself.
    pub set: u64,
    /// Attribute bits to clear.
    pub clear: u64,
    /// Attribute bits of the mount and everything below it.
    pub recursive_set: u64,
    /// The same, to clear.
    pub recursive_clear: u64,
    /// Propagation; recursive.
    pub propagation: Option<(Propagation, bool)>,
    /// What goes to the filesystem: `key` or `key=value`, in order.
    pub data: Vec<(String, Option<String>)>,
    /// `idmap` or `ridmap`.
    pub id_map: bool,
    /// `tmpcopyup`: a tmpfs starts with what its mount point holds.
    pub copy_up: bool,
    /// An option of this runtime's specification that it does not implement.
    pub unsupported: Option<String>,
}

impl MountOptions {
    /// Sorts `options`. A later option overrides an earlier one that contradicts it.
    pub fn parse(options: &[String]) -> Self {
        let mut out = Self::default();
        for option in options {
            out.add(option);
        }
        out
    }

    fn add(&mut self, option: &str) {
        if let Some((set, clear)) = attribute(option) {
            (self.set, self.clear) = merge((self.set, self.clear), (set, clear));
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            (self.recursive_set, self.recursive_clear) =
                merge((self.recursive_set, self.recursive_clear), (set, clear));
        } else if let Some(p) = propagation(option) {
            self.propagation = Some(p);
        } else {
            self.add_other(option);
        }
    }

    fn add_other(&mut self, option: &str) {
        match option {
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            "idmap" | "ridmap" => self.id_map = true,
            "tmpcopyup" => self.copy_up = true,
            "copy-symlink" | "src-nofollow" | "dest-nofollow" => {
                self.unsupported = Some(option.to_owned());
            }
            // The kernel's defaults, and words that only mount(8) understands.
            "defaults" | "async" | "loud" | "nomand" | "noiversion" | "nolazytime" | "auto" | "noauto" | "nofail"
            | "_netdev" | "remount" => {}
            _ => self.data.push(match option.split_once('=') {
                Some((k, v)) => (k.to_owned(), Some(v.to_owned())),
                None => (option.to_owned(), None),
            }),
        }
    }
}

/// Later bits win over earlier ones.
fn merge(old: (u64, u64), new: (u64, u64)) -> (u64, u64) {
    ((old.0 & !new.1) | new.0, (old.1 & !new.0) | new.1)
}

/// `ro` → (set, clear).
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        // Access-time modes exclude each other; the mask is cleared whenever one is set.
        "noatime" => (attr::NOATIME, attr::ATIME & !attr::NOATIME),
        "strictatime" => (attr::STRICTATIME, attr::ATIME & !attr::STRICTATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (0, attr::ATIME),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<(Propagation, bool)> {
    Some(match option {
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

/// `rslave` and so on, as `rootfsPropagation` has it.
pub(super) fn parse_propagation(text: &str) -> Option<(Propagation, bool)> {
    propagation(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> MountOptions {
        MountOptions::parse(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_later_option_overrides_an_earlier_one() {
        let o = parse(&["ro", "nosuid", "rw"]);
        assert_eq!((o.set, o.clear), (attr::NOSUID, attr::RDONLY));
    }

    #[test]
    fn recursive_options_are_kept_apart() {
        let o = parse(&["rbind", "rro", "nodev", "rslave"]);
        assert_eq!((o.bind, o.recursive_set, o.set), (Some(true), attr::RDONLY, attr::NODEV));
        assert_eq!(o.propagation, Some((Propagation::Slave, true)));
    }

    #[test]
    fn what_is_left_goes_to_the_filesystem() {
        let o = parse(&["mode=755", "size=64k", "relatime", "newinstance"]);
        assert_eq!(o.data.len(), 3);
        assert_eq!(o.clear, attr::ATIME);
    }
}
