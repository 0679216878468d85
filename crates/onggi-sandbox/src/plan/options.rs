//! fstab-like mount options → attribute bits, superblock flags, propagation, data. mount(8), config.md "mounts".
//!
//! What the words mean for a bind is what runc makes of them: without any, the mount is as its source is; with
//! any, the attributes that were not asked for are cleared, except the access-time mode, which stays unless
//! another one is asked for.

use onggi_spec::oci::runtime::Linux;
use onggi_sys::mount::attr;

use super::{HostPeers, Propagation};

/// Attributes that a bind clears when it was not asked for them.
const PLAIN: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;

/// Access-time words, kept apart from the kernel's bits: those have none for relatime.
pub(crate) mod atime {
    /// `noatime`.
    pub(crate) const NO: u8 = 1;
    /// `relatime`.
    pub(crate) const RELATIVE: u8 = 2;
    /// `strictatime`.
    pub(crate) const STRICT: u8 = 4;
    /// `nodiratime`.
    pub(crate) const NO_DIRECTORIES: u8 = 8;
}

/// Ids of a bind are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdMapDepth {
    /// `idmap`: the top mount.
    Top,
    /// `ridmap`: all its mounts.
    All,
}

/// The options of one mount, sorted by where they take effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// `bind` or `rbind` (true).
    pub bind: Option<bool>,
    /// Attribute bits of the mount itself.
    pub set: u64,
    /// Attribute bits to clear.
    pub clear: u64,
    /// Access-time words: asked for, refused.
    pub atime: (u8, u8),
    /// Any word that is about flags at all.
    pub any: bool,
    /// Attribute bits of the mount and everything below it.
    pub recursive_set: u64,
    /// The same, to clear.
    pub recursive_clear: u64,
    /// Propagation; recursive.
    pub propagation: Option<(Propagation, bool)>,
    /// Flags of the filesystem (`sync`), then what only it understands: `key` or `key=value`, in order.
    pub data: Vec<(String, Option<String>)>,
    /// `idmap` or `ridmap`.
    pub id_map: Option<IdMapDepth>,
    /// `tmpcopyup`: a tmpfs starts with what its mount point holds.
    pub copy_up: bool,
    /// `copy-symlink`: a source that is a link is copied, not mounted (crun).
    pub copy_symlink: bool,
    /// `src-nofollow`: a source that is a link is mounted itself (crun).
    pub source_no_follow: bool,
    /// `dest-nofollow`: a destination that is a link is covered itself (crun).
    pub target_no_follow: bool,
}

impl MountOptions {
    /// Sorts `options`. A later option overrides an earlier one that contradicts it.
    pub fn parse(options: &[String]) -> Self {
        let mut out = Self::default();
        for option in options.iter().flat_map(|option| words(option)) {
            out.add(option);
        }
        out
    }

    /// Attribute bits of a new filesystem's mount.
    pub fn of_filesystem(&self) -> u64 {
        let recursive_atime = self.recursive_set & attr::ATIME;
        let mode = if recursive_atime == 0 { atime_bits(self.atime.0) } else { recursive_atime };
        self.set | (self.recursive_set & !attr::ATIME) | mode
    }

    /// Attribute bits that a bind sets and clears on its top mount.
    pub fn of_bind(&self) -> (u64, u64) {
        if !self.any {
            return (0, 0);
        }
        let (mut set, mut clear) = (self.set, PLAIN & !self.set);
        if self.atime.0 != 0 {
            set |= atime_bits(self.atime.0);
            clear |= attr::ATIME | attr::NODIRATIME;
        }
        (set, clear)
    }

    fn add(&mut self, option: &str) {
        if let Some((set, clear)) = attribute(option) {
            (self.set, self.clear) = merge((self.set, self.clear), (set, clear));
            self.any = true;
        } else if let Some((set, clear)) = atime_words(option) {
            self.atime = ((self.atime.0 & !clear) | set, (self.atime.1 & !set) | clear);
            self.any = true;
        } else if let Some(change) = option.strip_prefix('r').and_then(recursive) {
            (self.recursive_set, self.recursive_clear) = merge((self.recursive_set, self.recursive_clear), change);
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
            "idmap" => self.id_map = Some(IdMapDepth::Top),
            "ridmap" => self.id_map = Some(IdMapDepth::All),
            "tmpcopyup" => self.copy_up = true,
            "copy-symlink" => self.copy_symlink = true,
            "src-nofollow" => self.source_no_follow = true,
            "dest-nofollow" => self.target_no_follow = true,
            "sync" | "dirsync" | "lazytime" | "mand" => {
                self.any = true;
                self.data.push((option.to_owned(), None));
            }
            "async" | "nolazytime" | "nomand" => {
                self.any = true;
                let contrary = if option == "async" { "sync" } else { &option[2..] };
                self.data.retain(|(key, value)| key != contrary || value.is_some());
            }
            // No filesystem takes these words any more; they still count as flags.
            "acl" | "noacl" | "iversion" | "noiversion" | "silent" | "loud" => self.any = true,
            // The kernel's defaults, and words that only mount(8) understands.
            "" | "defaults" | "remount" | "auto" | "noauto" | "nofail" | "_netdev" => {}
            _ => self.data.push(match option.split_once('=') {
                Some((k, v)) => (k.to_owned(), Some(v.to_owned())),
                None => (option.to_owned(), None),
            }),
        }
    }
}

/// The words of an option that is several, as mount(2) takes them: a comma ends one, but after a backslash (overlayfs) or
/// between quotes (labels). Those that add one directory take it as it is.
fn words(option: &str) -> Vec<&str> {
    if option.starts_with("lowerdir+=") || option.starts_with("datadir+=") {
        return vec![option];
    }
    let (mut escaped, mut quoted) = (false, false);
    let ends = |c: char| {
        let ends = c == ',' && !escaped && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    };
    option.split(ends).collect()
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
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        _ => return None,
    })
}

/// `noatime` → (asked for, refused).
fn atime_words(option: &str) -> Option<(u8, u8)> {
    Some(match option {
        "noatime" => (atime::NO, 0),
        "atime" => (0, atime::NO),
        "relatime" => (atime::RELATIVE, 0),
        "norelatime" => (0, atime::RELATIVE),
        "strictatime" => (atime::STRICT, 0),
        "nostrictatime" => (0, atime::STRICT),
        "nodiratime" => (atime::NO_DIRECTORIES, 0),
        "diratime" => (0, atime::NO_DIRECTORIES),
        _ => return None,
    })
}

/// mount(2): strictatime beats noatime beats relatime, which is the default.
fn atime_bits(words: u8) -> u64 {
    let mode = match words {
        w if w & atime::STRICT != 0 => attr::STRICTATIME,
        w if w & atime::NO != 0 => attr::NOATIME,
        _ => 0,
    };
    mode | if words & atime::NO_DIRECTORIES != 0 { attr::NODIRATIME } else { 0 }
}

/// The word after `r`: an attribute of all mounts of a tree. Access-time modes exclude each other: the kernel
/// wants the whole mask cleared with any of them (mount_setattr(2)).
fn recursive(option: &str) -> Option<(u64, u64)> {
    let plain = attribute(option);
    plain.or_else(|| {
        Some(match option {
            "noatime" => (attr::NOATIME, attr::ATIME & !attr::NOATIME),
            "strictatime" => (attr::STRICTATIME, attr::ATIME & !attr::STRICTATIME),
            "relatime" | "atime" | "nostrictatime" => (0, attr::ATIME),
            "norelatime" => (0, 0),
            "nodiratime" => (attr::NODIRATIME, 0),
            "diratime" => (0, attr::NODIRATIME),
            _ => return None,
        })
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

/// What `rootfsPropagation` says of the host's mounts: one that is not recursive is about the root mount alone.
pub(super) fn host_peers(linux: &Linux) -> HostPeers {
    match linux.rootfs_propagation.as_deref().and_then(propagation) {
        None => HostPeers::All(Propagation::Slave),
        Some((p @ (Propagation::Private | Propagation::Slave), true)) => HostPeers::All(p),
        Some((p @ (Propagation::Private | Propagation::Slave), false)) => HostPeers::OnRoot(p),
        Some((Propagation::Shared | Propagation::Unbindable, _)) => HostPeers::Kept,
    }
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
        assert_eq!(parse(&["sync", "async"]).data, []);
        assert_eq!(parse(&["noatime", "atime"]).atime, (0, atime::NO));
    }

    #[test]
    fn an_option_may_be_several() {
        let o = parse(&["bind,ro", "size=4k,mode=1777"]);
        assert_eq!((o.bind, o.set, o.data.len()), (Some(false), attr::RDONLY, 2));
        assert_eq!(words(r"lowerdir=/a\,b:/c,xino=on"), [r"lowerdir=/a\,b:/c", "xino=on"]);
        assert_eq!(words(r"upperdir=/a\\,index=off"), [r"upperdir=/a\\", "index=off"]);
        assert_eq!(words("context=\"a:b:c:s0:c1,c2\",ro"), ["context=\"a:b:c:s0:c1,c2\"", "ro"]);
        assert_eq!(words("lowerdir+=/a,b"), ["lowerdir+=/a,b"]);
        assert_eq!(words(""), [""]);
    }

    #[test]
    fn recursive_options_are_kept_apart() {
        let o = parse(&["rbind", "rro", "nodev", "rslave"]);
        assert_eq!((o.bind, o.recursive_set, o.set), (Some(true), attr::RDONLY, attr::NODEV));
        assert_eq!(o.propagation, Some((Propagation::Slave, true)));
    }

    #[test]
    fn what_is_left_goes_to_the_filesystem() {
        let o = parse(&["mode=755", "size=64k", "relatime", "newinstance", "silent", "iversion"]);
        assert_eq!(o.data.len(), 3);
        assert_eq!(o.atime.0, atime::RELATIVE);
    }

    #[test]
    fn a_bind_without_flags_is_as_its_source() {
        assert_eq!(parse(&["rbind", "rprivate"]).of_bind(), (0, 0));
        assert_eq!(parse(&["rbind", "rro"]).of_bind(), (0, 0));
    }

    #[test]
    fn a_bind_with_any_flag_clears_the_others_and_keeps_the_access_time_mode() {
        assert_eq!(parse(&["bind", "dev"]).of_bind(), (0, PLAIN));
        assert_eq!(parse(&["bind", "ro"]).of_bind(), (attr::RDONLY, PLAIN & !attr::RDONLY));
        assert_eq!(parse(&["bind", "atime"]).of_bind(), (0, PLAIN));
    }

    #[test]
    fn an_access_time_word_of_a_bind_replaces_them_all() {
        let all = PLAIN | attr::ATIME | attr::NODIRATIME;
        assert_eq!(parse(&["bind", "relatime"]).of_bind(), (0, all));
        assert_eq!(parse(&["bind", "nodiratime", "norelatime"]).of_bind(), (attr::NODIRATIME, all));
        let both = attr::NODIRATIME | attr::STRICTATIME;
        assert_eq!(parse(&["bind", "nodiratime", "strictatime"]).of_bind(), (both, all));
    }

    #[test]
    fn a_filesystem_gets_one_access_time_mode() {
        assert_eq!(parse(&["noatime", "strictatime", "ro"]).of_filesystem(), attr::RDONLY | attr::STRICTATIME);
        assert_eq!(parse(&["rnoatime", "rro"]).of_filesystem(), attr::RDONLY | attr::NOATIME);
    }

    #[test]
    fn every_recursive_word_has_an_effect_of_its_own_kind() {
        for word in ["ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nosymfollow", "symfollow"] {
            let o = parse(&[&format!("r{word}")]);
            assert_eq!((o.recursive_set, o.recursive_clear), attribute(word).unwrap(), "{word}");
            assert!(!o.any && o.data.is_empty(), "{word}");
        }
    }
}
