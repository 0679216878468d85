//! Options of a filesystem that are longer than one string of fsconfig(2) may be: 255 bytes.
//!
//! overlayfs takes its lower directories one by one (`lowerdir+`, Linux 6.6); everything else goes by mount(2), whose
//! options are one page. Only the options differ: target, attributes and propagation are handled as always.

use std::{ffi::CString, os::fd::AsFd, path::Path};

use onggi_sys::{
    Errno, SysContext, SysError,
    mount::{self, Depth, FsContext, MountFlags, attr},
    path::{self, OFlags},
};

use super::{
    Child, copy_up,
    filesystem::Target,
    mounts::{change, set_propagation},
};
use crate::plan::FsMount;

/// Longest string of fsconfig(2), without its end.
const MAX_STRING: usize = 255;

/// Options of every filesystem that are flags of mount(2), or the absence of one.
const SB_FLAGS: [(&str, MountFlags); 6] = [
    ("rw", MountFlags::empty()),
    ("async", MountFlags::empty()),
    ("ro", MountFlags::RDONLY),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("lazytime", MountFlags::LAZYTIME),
];

fn is_long(value: &str) -> bool {
    value.len() > MAX_STRING
}

/// A list of layers that has to be given one by one.
pub(super) fn is_lower_list(m: &FsMount, key: &str, value: &str) -> bool {
    m.fstype == "overlay" && key == "lowerdir" && is_long(value) && layers(value).is_some()
}

/// There is such a list.
pub(super) fn has_lower_list(m: &FsMount) -> bool {
    m.data.iter().any(|(key, value)| value.as_deref().is_some_and(|v| is_lower_list(m, key, v)))
}

/// Some other option is too long.
pub(super) fn needs_mount_2(m: &FsMount) -> bool {
    let too_long = |(key, value): &(String, Option<String>)| {
        value.as_deref().is_some_and(|v| is_long(v) && !is_lower_list(m, key, v))
    };
    m.data.iter().any(too_long)
}

/// The layers of `lowerdir`, each short enough. `::` (data-only layers) has no other form here.
fn layers(value: &str) -> Option<Vec<String>> {
    let mut all = vec![String::new()];
    let mut letters = value.chars();
    while let Some(c) = letters.next() {
        let last = all.last_mut()?;
        match c {
            '\\' => last.extend(letters.next()),
            ':' => all.push(String::new()),
            c => last.push(c),
        }
    }
    all.iter().all(|layer| !layer.is_empty() && !is_long(layer)).then_some(all)
}

pub(super) fn set_lower(fs: &FsContext, value: &str) -> onggi_sys::Result<()> {
    let layers = layers(value).unwrap_or_default();
    layers.iter().try_for_each(|layer| fs.set("lowerdir+", layer.as_bytes()))
}

impl Child {
    /// Mounts by mount(2) on the directory that was found, and goes on with what is there then.
    pub(super) fn mount_long(&mut self, m: &FsMount, target: Target) -> onggi_sys::Result<()> {
        // What fsopen(2) takes by name is a flag here, and older kernels know it as nothing else.
        let mut flags = MountFlags::empty();
        let mut options = m.clone();
        options.data.retain(|(key, value)| match SB_FLAGS.iter().find(|(name, _)| name == key && value.is_none()) {
            Some((_, bit)) => {
                flags |= *bit;
                false
            }
            None => true,
        });
        let text =
            CString::new(options.data_text()).map_err(|_| SysError::new("mount", "NUL in an option", Errno::INVAL))?;
        rustix::process::fchdir(&target.fd).sys("fchdir", || format!("{:?}", m.target))?;
        mount::mount_on_cwd(Path::new(&m.source), &m.fstype, flags, &text)?;
        let root = self.root.as_ref().ok_or_else(|| SysError::new("mount", "no root", Errno::INVAL))?;
        let fd = path::open_in_root(root.as_fd(), &m.target, OFlags::PATH)?;
        if mount::id(fd.as_fd())? == mount::id(target.fd.as_fd())? {
            return Err(SysError::new("mount", format!("{:?} is not what was mounted", m.target), Errno::XDEV));
        }
        if m.copy_up && target.existed {
            copy_up::tree(target.fd.as_fd(), fd.as_fd(), &m.data)?;
        }
        mount::set_attributes(fd.as_fd(), Depth::One, change(m.attributes, attr::ATIME))?;
        if let Some((p, recursive)) = m.propagation {
            set_propagation(&fd, p, recursive)?;
        }
        self.keep(fd, m);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_at_colons_that_are_not_escaped() {
        assert_eq!(layers("/a:/b\\:c").unwrap(), ["/a", "/b:c"]);
        assert_eq!(layers("/a::/b"), None);
        assert_eq!(layers(&"x".repeat(300)), None);
    }
}
