//! Giving capabilities to files: the grammar of setcap(8) and cap_from_text(3), and the attribute that the kernel reads.
//!
//! ```text
//! security.capability, little-endian words (linux/capability.h):
//! revision 2   magic|effective  permitted  inheritable  permitted>>32  inheritable>>32
//! revision 3   … and the uid, outside, of the root of the user namespace that it is for
//! ```

use std::{
    fs::File,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use onggi_spec::{
    ParseError,
    capability::{self, CapArg},
};
use onggi_sys::{fs, trace};
use serde::{Deserialize, Serialize};

use crate::{
    FileCapabilities, PrimitiveError,
    capabilities::{ATTRIBUTE, EFFECTIVE, REVISION_2, REVISION_3},
    shell,
};

/// What cap_from_text(3) reads: a mask for each of the three sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilityText {
    /// `e`.
    pub effective: u64,
    /// `p`.
    pub permitted: u64,
    /// `i`.
    pub inheritable: u64,
}

impl FromStr for CapabilityText {
    type Err = ParseError;

    /// Clauses between spaces: a list of names (or `all`, or nothing for all), then operators `=`, `+` or `-`, each with
    /// flags of `e`, `i`, `p`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut sets = Self::default();
        for clause in text.split_whitespace() {
            sets.clause(clause).map_err(|reason| {
                ParseError::new("capabilities", text, reason)
                    .hint("as in cap_net_raw+ep or cap_chown,cap_kill=p: names, then = + or -, then flags of e, i, p")
            })?;
        }
        Ok(sets)
    }
}

impl CapabilityText {
    fn clause(&mut self, clause: &str) -> Result<(), String> {
        let at = clause.find(['=', '+', '-']).ok_or_else(|| format!("{clause:?} has no =, + or -"))?;
        let (names, mut actions) = clause.split_at(at);
        let mask = match names {
            "" if actions.starts_with('=') => all(),
            "" => return Err(format!("{clause:?} names no capability")),
            names => names.split(',').try_fold(0, |mask, name| Ok::<u64, String>(mask | bit(name)?))?,
        };
        while let Some(operator) = actions.chars().next() {
            let rest = &actions[1..];
            let end = rest.find(['=', '+', '-']).unwrap_or(rest.len());
            self.act(mask, operator, &rest[..end])?;
            actions = &rest[end..];
        }
        Ok(())
    }

    fn act(&mut self, mask: u64, operator: char, flags: &str) -> Result<(), String> {
        if operator == '=' {
            for set in [&mut self.effective, &mut self.permitted, &mut self.inheritable] {
                *set &= !mask;
            }
        } else if flags.is_empty() {
            return Err(format!("{operator} wants flags"));
        }
        for flag in flags.chars() {
            let set = match flag {
                'e' => &mut self.effective,
                'p' => &mut self.permitted,
                'i' => &mut self.inheritable,
                other => return Err(format!("there is no flag {other:?}")),
            };
            *set = if operator == '-' { *set & !mask } else { *set | mask };
        }
        Ok(())
    }

    /// As a file has it: one bit says whether everything is effective.
    ///
    /// # Errors
    /// Some of it would be effective and some not, which no file can say.
    pub fn for_file(self, root: Option<u32>) -> Result<FileCapabilities, PrimitiveError> {
        let held = self.permitted | self.inheritable;
        if self.effective != 0 && self.effective != held {
            return Err(PrimitiveError::Refused {
                message: format!(
                    "a file has one effective flag for all: {} would differ",
                    capability::names(self.effective ^ held)
                ),
                hint: "give e to every capability that has p or i, or to none".to_owned(),
            });
        }
        let Self { permitted, inheritable, effective } = self;
        Ok(FileCapabilities { permitted, inheritable, effective: effective != 0, root })
    }
}

fn all() -> u64 {
    (1 << capability::ALL.len()) - 1
}

/// A name, or a number as libcap writes what it has no name for.
fn bit(name: &str) -> Result<u64, String> {
    if let Some(number) = name.parse::<u32>().ok().filter(|n| *n < 64) {
        return Ok(1 << number);
    }
    match capability::parse_capability(name).map_err(|_| format!("there is no capability {name:?}"))? {
        CapArg::All => Ok(all()),
        CapArg::One(name) => Ok(1 << capability::number(name).unwrap_or_default()),
    }
}

/// What getcap(8) writes: groups of names with the same flags. Empty for nothing.
pub fn text(caps: &FileCapabilities) -> String {
    let flags = |number: u32| {
        let has = |mask: u64| mask >> number & 1 == 1;
        let (permitted, inheritable) = (has(caps.permitted), has(caps.inheritable));
        let effective = caps.effective && (permitted || inheritable);
        [(effective, 'e'), (inheritable, 'i'), (permitted, 'p')]
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, flag)| *flag)
            .collect::<String>()
    };
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for number in capability::numbers(caps.permitted | caps.inheritable) {
        let (flags, name) = (flags(number), capability::lower_name(number));
        match groups.iter_mut().find(|(known, _)| *known == flags) {
            Some((_, names)) => names.push(name),
            None => groups.push((flags, vec![name])),
        }
    }
    groups.iter().map(|(flags, names)| format!("{}={flags}", names.join(","))).collect::<Vec<_>>().join(" ")
}

/// One change of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum FileCapsOp {
    /// setxattr(2) of `security.capability`.
    Set {
        /// The file.
        file: PathBuf,
        /// As setcap(8) would be told.
        text: String,
        /// The root of the user namespace that they are for.
        root: Option<u32>,
        /// The bytes of the attribute.
        value: Vec<u8>,
    },
    /// removexattr(2) of it.
    Remove {
        /// The file.
        file: PathBuf,
    },
}

/// Changes of files, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCapsPlan {
    /// The operations.
    pub ops: Vec<FileCapsOp>,
}

impl FileCapsPlan {
    /// Gives a file capabilities; none for taking them away.
    pub fn new(files: &[PathBuf], caps: Option<FileCapabilities>) -> Self {
        let op = |file: &PathBuf| match caps {
            Some(caps) => {
                FileCapsOp::Set { file: file.clone(), text: text(&caps), root: caps.root, value: encode(&caps) }
            }
            None => FileCapsOp::Remove { file: file.clone() },
        };
        Self { ops: files.iter().map(op).collect() }
    }

    /// One line per operation.
    pub fn words(&self) -> String {
        self.ops.iter().map(|op| op.words() + "\n").collect()
    }

    /// Commands of setcap(8).
    pub fn shell(&self) -> String {
        let line = |op: &FileCapsOp| match op {
            FileCapsOp::Set { file, text, root, .. } => {
                let root = root.map(|root| format!("-n {root} ")).unwrap_or_default();
                // Nothing at all is written as `=`.
                let text = if text.is_empty() { "=" } else { text };
                format!("setcap {root}{} {}\n", shell::quote(text), shell::path(file))
            }
            FileCapsOp::Remove { file } => format!("setcap -r {0} || ! getcap {0} | grep -q .\n", shell::path(file)),
        };
        self.ops.iter().map(line).collect()
    }

    /// Carries it out.
    ///
    /// # Errors
    /// A file is none, or is not ours, or its filesystem has no such attributes.
    pub fn apply(&self) -> Result<(), PrimitiveError> {
        self.ops.iter().try_for_each(|op| trace::step("primitives", || op.words(), || op.apply()))
    }
}

impl FileCapsOp {
    fn words(&self) -> String {
        match self {
            Self::Set { file, text, value, .. } => {
                let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
                format!("setxattr(2) {ATTRIBUTE} of {} to 0x{hex}: {text}", file.display())
            }
            Self::Remove { file } => format!("removexattr(2) {ATTRIBUTE} of {}", file.display()),
        }
    }

    fn apply(&self) -> Result<(), PrimitiveError> {
        let failed = |source| PrimitiveError::Sys { operation: self.words(), source };
        match self {
            Self::Set { file, value, .. } => {
                let opened = open(file)?;
                fs::set_xattr(opened.as_fd(), ATTRIBUTE.as_bytes(), value).map_err(failed)
            }
            Self::Remove { file } => {
                let opened = open(file)?;
                match fs::remove_xattr_handle(opened.as_fd(), ATTRIBUTE.as_bytes()) {
                    // It has none: that is what was asked for.
                    Err(e) if e.errno == rustix::io::Errno::NODATA => Ok(()),
                    other => other.map_err(failed),
                }
            }
        }
    }
}

/// Only a regular file has capabilities; a link has none, and its target is not changed behind somebody's back.
fn open(path: &Path) -> Result<File, PrimitiveError> {
    let unreadable = |source| PrimitiveError::Read { path: path.to_owned(), source };
    let meta = std::fs::symlink_metadata(path).map_err(unreadable)?;
    if meta.is_symlink() {
        let target = path.canonicalize().map_err(unreadable)?;
        return Err(PrimitiveError::Refused {
            message: format!("{} is a symbolic link, which has no capabilities", path.display()),
            hint: format!("name the file that it leads to: {}", target.display()),
        });
    }
    if !meta.is_file() {
        return Err(PrimitiveError::Refused {
            message: format!("{} is no regular file", path.display()),
            hint: "only programs have capabilities".to_owned(),
        });
    }
    File::open(path).map_err(unreadable)
}

fn encode(caps: &FileCapabilities) -> Vec<u8> {
    let low = |mask: u64| (mask & u64::from(u32::MAX)) as u32;
    let high = |mask: u64| (mask >> 32) as u32;
    let magic = if caps.root.is_some() { REVISION_3 } else { REVISION_2 } | if caps.effective { EFFECTIVE } else { 0 };
    let mut words =
        vec![magic, low(caps.permitted), low(caps.inheritable), high(caps.permitted), high(caps.inheritable)];
    words.extend(caps.root);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (u64, u64, u64) {
        let CapabilityText { effective, permitted, inheritable } = text.parse().expect(text);
        (effective, permitted, inheritable)
    }

    #[test]
    fn the_grammar_is_that_of_cap_from_text() {
        const RAW: u64 = 1 << 13;
        const CHOWN: u64 = 1;
        assert_eq!(parse("cap_net_raw+ep"), (RAW, RAW, 0));
        assert_eq!(parse("cap_net_raw=+ep"), (RAW, RAW, 0));
        assert_eq!(parse("CAP_NET_RAW,cap_chown=ip cap_chown-i"), (0, RAW | CHOWN, RAW));
        assert_eq!(parse("="), (0, 0, 0));
        assert_eq!(parse("all=p cap_chown=e"), (CHOWN, all() & !CHOWN, 0));
        assert_eq!(parse("=ep cap_chown-e"), (all() & !CHOWN, all(), 0));
        assert_eq!(parse("13+p"), (0, RAW, 0));
        for wrong in ["cap_net_raw", "+ep", "cap_none+p", "cap_chown+x", "cap_chown+", "cap_chown,+p"] {
            assert!(wrong.parse::<CapabilityText>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_cannot_say_that_half_is_effective() {
        let mixed: CapabilityText = "cap_chown=ep cap_kill=p".parse().expect("it is grammar");
        let error = mixed.for_file(None).expect_err("one bit");
        assert!(error.to_string().contains("CAP_KILL") && error.hint().is_some());
        assert!("cap_chown=ep cap_kill=ei".parse::<CapabilityText>().expect("it is").for_file(None).is_ok());
    }

    #[test]
    fn text_is_read_back_and_groups_have_equal_flags() {
        for line in ["cap_net_raw=ep", "cap_chown,cap_kill=p cap_setpcap=ip", "cap_bpf=i", ""] {
            let caps = line.parse::<CapabilityText>().expect(line).for_file(None).expect(line);
            assert_eq!(text(&caps), line);
        }
    }

    #[test]
    fn the_attribute_has_five_words_or_six() {
        let caps = FileCapabilities { permitted: 1 << 39 | 1, inheritable: 2, effective: true, root: None };
        let words = |bytes: &[u8]| {
            bytes.chunks(4).map(|w| u32::from_le_bytes(w.try_into().expect("four bytes"))).collect::<Vec<_>>()
        };
        assert_eq!(words(&encode(&caps)), [REVISION_2 | 1, 1, 2, 1 << 7, 0]);
        assert_eq!(words(&encode(&FileCapabilities { root: Some(7), ..caps })), [REVISION_3 | 1, 1, 2, 1 << 7, 0, 7]);
    }
}
