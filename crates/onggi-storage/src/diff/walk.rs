//! Two trees, side by side, in byte order.

use std::collections::BTreeMap;

use super::dir::{Dir, Found, Tree};
use super::node::{self, Node, NodeKind};
use super::{Change, ChangeKind, DiffOptions};
use crate::error::{Result, StorageError, shown};
use crate::extract::Privilege;
use crate::limits::MAX_PATH;

/// What becomes of the differences.
pub(super) trait Sink {
    /// A file or directory is new or other than before. A directory comes before what is in it.
    fn put(&mut self, path: &[u8], kind: ChangeKind, node: &Node, found: &Found) -> Result<()>;
    /// A name is gone.
    fn delete(&mut self, path: &[u8]) -> Result<()>;
    /// True when it keeps names of one file together: then an unchanged file with several names is told of.
    fn keeps_links(&self) -> bool;
    /// Everything that a directory had is gone. False when the sink wants to be told each name.
    fn clear(&mut self, dir: &[u8]) -> Result<bool>;
}

/// One walk.
pub(super) struct Walk<'a, S> {
    new: &'a Tree,
    old: &'a Tree,
    options: DiffOptions<'a>,
    privilege: Privilege,
    sink: &'a mut S,
    /// Directories on the way that are the same so far; the sink hears of them when something in them differs.
    pending: Vec<Pending>,
}

struct Pending {
    path: Vec<u8>,
    kind: ChangeKind,
    node: Node,
    found: Found,
    told: bool,
}

impl<'a, S: Sink> Walk<'a, S> {
    pub(super) fn new(new: &'a Tree, old: &'a Tree, options: DiffOptions<'a>, sink: &'a mut S) -> Self {
        Self { new, old, options, privilege: Privilege::of_this_process(), sink, pending: Vec::new() }
    }

    pub(super) fn run(mut self) -> Result<()> {
        let root = self.new.root().map_err(|e| failed(b"", e))?;
        let Some(root) = root else { return Ok(()) };
        let old = self.old.root().map_err(|e| failed(b"", e))?;
        let node = self.node(&root, b"", b"")?.without_time();
        let old_node = old.as_ref().map(|o| self.node(o, b"", b"")).transpose()?;
        // The root's time changes whenever something in it does, and a container's root begins with a new one.
        if old_node.is_none_or(|o| !node.same_but_time(&o)) {
            self.sink.put(b"", ChangeKind::Changed, &node, &root)?;
        }
        let Some(dir) = root.dir else { return Ok(()) };
        self.directory(b"", &dir, old.as_ref().and_then(|o| o.dir.as_ref()))
    }

    fn node(&self, found: &Found, path: &[u8], name: &[u8]) -> Result<Node> {
        Node::read(found, name, self.privilege).map_err(|e| failed(path, e))
    }

    fn directory(&mut self, path: &[u8], new: &Dir, old: Option<&Dir>) -> Result<()> {
        let (mut names, shared) = new.names(old).map_err(|e| failed(path, e))?;
        let mut cleared = false;
        if let Some(old) = old.filter(|_| !shared) {
            let before = self.visible(self.old, old, path)?;
            let mut kept = false;
            for name in before.keys().filter(|n| names.contains_key(*n)) {
                kept |= self.entry(self.new, new, name, path)?.is_some();
            }
            // One mark for two names or more.
            cleared = !kept && before.len() > 1 && self.clear(path)?;
            names.extend(before);
        }
        for name in names.into_keys() {
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            if child.len() > MAX_PATH {
                return Err(StorageError::PathTooLong { path: shown(path) });
            }
            let now = self.entry(self.new, new, &name, &child)?;
            let before = match old {
                Some(old) if !cleared => self.entry(self.old, old, &name, &child)?,
                _ => None,
            };
            self.compare(&child, &name, now, before)?;
        }
        Ok(())
    }

    /// The names of a directory that no whiteout hides.
    fn visible(&self, tree: &Tree, dir: &Dir, path: &[u8]) -> Result<BTreeMap<Vec<u8>, ()>> {
        let (mut names, _) = dir.names(None).map_err(|e| failed(path, e))?;
        let mut failure = None;
        names.retain(|name, ()| match tree.entry(dir, name) {
            Ok(found) => found.is_some(),
            Err(e) => {
                failure.get_or_insert(e);
                false
            }
        });
        failure.map_or(Ok(names), |e| Err(failed(path, e)))
    }

    fn entry(&self, tree: &Tree, dir: &Dir, name: &[u8], path: &[u8]) -> Result<Option<Found>> {
        tree.entry(dir, name).map_err(|e| failed(path, e))
    }

    fn clear(&mut self, path: &[u8]) -> Result<bool> {
        self.tell()?;
        self.sink.clear(path)
    }

    fn compare(&mut self, path: &[u8], name: &[u8], now: Option<Found>, before: Option<Found>) -> Result<()> {
        let Some(now) = now else {
            return before.map_or(Ok(()), |before| self.gone(path, name, &before));
        };
        let node = self.node(&now, path, name)?;
        let Some(before) = before else {
            let told = !self.is_stub(path, &node);
            return self.put(path, ChangeKind::Added, node, now, None, told);
        };
        let old_node = self.node(&before, path, name)?;
        if now.dir.is_some() && before.dir.is_some() {
            let told = node != old_node && !(self.holds_stubs(path) && node.same_but_time(&old_node));
            return self.put(path, ChangeKind::Changed, node, now, before.dir, told);
        }
        let linked = now.stat.st_nlink > 1 && self.sink.keeps_links();
        if !linked && node::same(&now, &before, &node, &old_node).map_err(|e| failed(path, e))? {
            return Ok(());
        }
        self.put(path, ChangeKind::Changed, node, now, None, true)
    }

    fn gone(&mut self, path: &[u8], name: &[u8], before: &Found) -> Result<()> {
        if self.options.stubs_in_old {
            let node = self.node(before, path, name)?;
            if self.is_stub(path, &node) {
                return Ok(());
            }
        }
        self.tell()?;
        self.sink.delete(path)
    }

    /// Tells the sink of `path` (a directory that is not worth telling only when something in it is), then goes in.
    fn put(
        &mut self,
        path: &[u8],
        kind: ChangeKind,
        node: Node,
        found: Found,
        old: Option<Dir>,
        tell: bool,
    ) -> Result<()> {
        let Some(dir) = found.dir.clone() else {
            if !tell || node.kind == NodeKind::Socket {
                return Ok(());
            }
            self.tell()?;
            return self.sink.put(path, kind, &node, &found);
        };
        self.pending.push(Pending { path: path.to_vec(), kind, node, found, told: false });
        if tell {
            self.tell()?;
        }
        self.directory(path, &dir, old.as_ref())?;
        self.pending.pop();
        Ok(())
    }

    fn tell(&mut self) -> Result<()> {
        for p in self.pending.iter_mut().filter(|p| !p.told) {
            p.told = true;
            self.sink.put(&p.path, p.kind, &p.node, &p.found)?;
        }
        Ok(())
    }

    /// A mount point that the runtime has made: an empty file, or a directory (told of when something is in it).
    fn is_stub(&self, path: &[u8], node: &Node) -> bool {
        let plain = matches!(node.kind, NodeKind::File { size: 0 } | NodeKind::Directory);
        plain && self.options.stubs.iter().any(|s| s.as_bytes() == path)
    }

    fn holds_stubs(&self, path: &[u8]) -> bool {
        self.options.stubs.iter().any(|s| s.as_bytes().strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/")))
    }
}

impl Sink for Vec<Change> {
    fn put(&mut self, path: &[u8], kind: ChangeKind, _: &Node, _: &Found) -> Result<()> {
        if !path.is_empty() {
            self.push(Change { path: path.to_vec(), kind });
        }
        Ok(())
    }

    fn delete(&mut self, path: &[u8]) -> Result<()> {
        self.push(Change { path: path.to_vec(), kind: ChangeKind::Deleted });
        Ok(())
    }

    fn keeps_links(&self) -> bool {
        false
    }

    fn clear(&mut self, _: &[u8]) -> Result<bool> {
        Ok(false)
    }
}

fn failed(path: &[u8], source: onggi_sys::SysError) -> StorageError {
    StorageError::ReadTree { path: shown(path), source }
}
