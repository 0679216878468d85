//! Layers: an archive made of the input is unpacked below a directory, and compared with a model in memory that knows
//! nothing of files: who replaces whom, which links lead where inside the layer, what whiteouts hide, what is refused.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use onggi_storage::{
    extract::{ExtractOptions, Privilege, extract},
    tar::{Entry, Kind, TarReader, TarWriter},
};
use onggi_sys::fs::Time;

/// Entries of one archive: more say nothing new.
const MAX_ENTRIES: usize = 24;
/// Parts of names. The short ones meet often.
const PARTS: [&str; 12] = ["a", "b", "c", "a", "b", "d", ".", ".wh.a", ".wh.b", ".wh..wh..opq", "..", ".wh."];
/// Targets of symbolic links; none may lead anywhere but inside of the layer.
const TARGETS: [&str; 12] =
    ["a", "b", "c", "/a", "..", "../b", "a/b", "/", "../../../../host", "/a/../c", "d/c", "../../host/dir"];

/// One entry as the input asks for it.
#[derive(Debug, Clone)]
enum Wanted {
    Dir,
    File(u8),
    Link(&'static str),
    Hard(String),
    Fifo,
}

/// The input as entries: every byte means something.
fn read(data: &[u8]) -> Vec<(String, Wanted)> {
    let mut bytes = data.iter().copied();
    let mut out = Vec::new();
    while out.len() < MAX_ENTRIES {
        let Some(kind) = bytes.next() else { break };
        let Some(name) = name(&mut bytes) else { break };
        let wanted = match kind % 8 {
            0 | 1 => Wanted::Dir,
            2 | 3 => Wanted::File(kind >> 3),
            4 | 5 => Wanted::Link(TARGETS[usize::from(kind >> 3) % TARGETS.len()]),
            6 => match self::name(&mut bytes) {
                Some(target) => Wanted::Hard(target),
                None => break,
            },
            _ => Wanted::Fifo,
        };
        out.push((name, wanted));
    }
    out
}

/// One to three parts.
fn name(bytes: &mut impl Iterator<Item = u8>) -> Option<String> {
    let first = bytes.next()?;
    let mut parts = vec![PARTS[usize::from(first >> 2) % PARTS.len()]];
    for _ in 0..usize::from(first & 3) % 3 {
        parts.push(PARTS[usize::from(bytes.next()?) % PARTS.len()]);
    }
    Some(parts.join("/"))
}

fn archive(entries: &[(String, Wanted)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (path, wanted) in entries {
        let kind = match wanted {
            Wanted::Dir => Kind::Directory,
            Wanted::File(_) => Kind::File { size: 1 },
            Wanted::Link(target) => Kind::Symlink(target.as_bytes().to_vec()),
            Wanted::Hard(target) => Kind::HardLink(target.as_bytes().to_vec()),
            Wanted::Fifo => Kind::Fifo,
        };
        let path = path.as_bytes().to_vec();
        let mtime = Time::default();
        let entry = Entry { offset: 0, path, kind, mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
        tar.entry(&entry).expect("memory takes it");
        if let Wanted::File(content) = wanted {
            tar.content(&[*content]).expect("memory takes it");
        }
    }
    tar.finish().expect("memory takes it")
}

/// What is refused, without the words.
#[derive(Debug)]
struct Refused;

type Answer<T> = Result<T, Refused>;

#[derive(Debug, Clone)]
enum Node {
    Dir { names: BTreeMap<String, usize>, opaque: bool },
    File(u8),
    Link(&'static str),
    Fifo,
    Hidden,
}

/// The layer as it must become. Nodes by number; 0 is the root.
struct Model {
    nodes: Vec<Node>,
}

/// What an entry's name means.
enum Place {
    Root,
    Plain(Vec<String>, String),
    Hide(Vec<String>, String),
    Opaque(Vec<String>),
    Skip,
}

impl Model {
    fn new() -> Self {
        Self { nodes: vec![Node::Dir { names: BTreeMap::new(), opaque: false }] }
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn names(&mut self, dir: usize) -> &mut BTreeMap<String, usize> {
        match &mut self.nodes[dir] {
            Node::Dir { names, .. } => names,
            other => panic!("a directory, not {other:?}"),
        }
    }

    fn child(&self, dir: usize, name: &str) -> Option<usize> {
        match &self.nodes[dir] {
            Node::Dir { names, .. } => names.get(name).copied(),
            _ => None,
        }
    }

    fn hide_below(&mut self, dir: usize) {
        if let Node::Dir { opaque, .. } = &mut self.nodes[dir] {
            *opaque = true;
        }
    }

    /// The directory of that path, links followed inside the layer. With `make`, what is missing is made, and a whiteout
    /// in the way becomes a directory that hides what is below.
    fn dir(&mut self, path: &[String], make: bool) -> Answer<Option<usize>> {
        let mut at = vec![0];
        let mut todo: Vec<String> = path.iter().rev().cloned().collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    if at.len() > 1 {
                        at.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = at[at.len() - 1];
            let found = self.child(here, &name);
            match found.map(|id| (id, self.nodes[id].clone())) {
                Some((id, Node::Dir { .. })) => at.push(id),
                Some((_, Node::Link(target))) => {
                    links += 1;
                    if links > 40 {
                        return if make { Err(Refused) } else { Ok(None) };
                    }
                    if target.starts_with('/') {
                        at.truncate(1);
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
                Some((_, Node::Hidden)) | None if make => {
                    let hid = found.is_some();
                    let made = self.add(Node::Dir { names: BTreeMap::new(), opaque: hid });
                    self.names(here).insert(name, made);
                    at.push(made);
                }
                _ if make => return Err(Refused),
                _ => return Ok(None),
            }
        }
        Ok(Some(at[at.len() - 1]))
    }

    fn apply(&mut self, path: &str, wanted: &Wanted) -> Answer<()> {
        let empty = matches!(wanted, Wanted::File(_) | Wanted::Hard(_));
        match place(path)? {
            Place::Skip => Ok(()),
            Place::Root if matches!(wanted, Wanted::Dir) => Ok(()),
            Place::Root => Err(Refused),
            Place::Plain(parent, name) => self.put(&parent, &name, wanted),
            Place::Hide(..) | Place::Opaque(_) if !empty => Err(Refused),
            Place::Hide(parent, name) => {
                let dir = self.parent(&parent)?;
                match self.child(dir, &name) {
                    None => {
                        let hidden = self.add(Node::Hidden);
                        self.names(dir).insert(name, hidden);
                    }
                    Some(own) => self.hide_below(own),
                }
                Ok(())
            }
            Place::Opaque(dir) => {
                let dir = self.parent(&dir)?;
                self.hide_below(dir);
                Ok(())
            }
        }
    }

    fn parent(&mut self, path: &[String]) -> Answer<usize> {
        self.dir(path, true)?.ok_or(Refused)
    }

    fn put(&mut self, parent: &[String], name: &str, wanted: &Wanted) -> Answer<()> {
        let dir = self.parent(parent)?;
        let old = self.child(dir, name);
        let node = match wanted {
            Wanted::Dir => match old.map(|id| self.nodes[id].clone()) {
                Some(Node::Dir { .. }) => return Ok(()),
                Some(Node::Hidden) => Node::Dir { names: BTreeMap::new(), opaque: true },
                _ => Node::Dir { names: BTreeMap::new(), opaque: false },
            },
            Wanted::File(content) => Node::File(*content),
            Wanted::Link(target) => Node::Link(target),
            Wanted::Fifo => Node::Fifo,
            Wanted::Hard(target) => return self.link(dir, name, old, target),
        };
        let made = self.add(node);
        self.names(dir).insert(name.to_owned(), made);
        Ok(())
    }

    fn link(&mut self, dir: usize, name: &str, old: Option<usize>, target: &str) -> Answer<()> {
        let mut parts = split(target)?;
        let last = parts.pop().ok_or(Refused)?;
        let from = self.dir(&parts, false)?.ok_or(Refused)?;
        let id = self.child(from, &last).ok_or(Refused)?;
        if matches!(self.nodes[id], Node::Hidden | Node::Dir { .. }) {
            return Err(Refused);
        }
        if old == Some(id) {
            return Ok(());
        }
        // What gives way may have held the target.
        if old.is_some_and(|old| self.holds(old, from)) {
            return Err(Refused);
        }
        self.names(dir).insert(name.to_owned(), id);
        Ok(())
    }

    fn holds(&self, top: usize, wanted: usize) -> bool {
        top == wanted
            || match &self.nodes[top] {
                Node::Dir { names, .. } => names.values().any(|id| self.holds(*id, wanted)),
                _ => false,
            }
    }

    /// A line per name, with the number of the file that it names first.
    fn lines(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        self.walk(0, "", &mut BTreeMap::new(), &mut out);
        out
    }

    fn walk(&self, dir: usize, at: &str, first: &mut BTreeMap<usize, String>, out: &mut BTreeMap<String, String>) {
        let Node::Dir { names, .. } = &self.nodes[dir] else { return };
        for (name, id) in names {
            let path = join(at, name);
            let words = match &self.nodes[*id] {
                Node::Dir { opaque, .. } => format!("directory opaque={opaque}"),
                node => {
                    let same = first.entry(*id).or_insert_with(|| path.clone());
                    let what = match node {
                        Node::File(content) => format!("file {content}"),
                        Node::Link(target) => format!("link {target}"),
                        Node::Fifo => "fifo".to_owned(),
                        _ => "whiteout".to_owned(),
                    };
                    format!("{what} = {same}")
                }
            };
            out.insert(path.clone(), words);
            self.walk(*id, &path, first, out);
        }
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") }
}

fn split(path: &str) -> Answer<Vec<String>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match parts.contains(&"..") {
        true => Err(Refused),
        false => Ok(parts.into_iter().map(str::to_owned).collect()),
    }
}

fn place(path: &str) -> Answer<Place> {
    let mut parent = split(path)?;
    let Some(name) = parent.pop() else { return Ok(Place::Root) };
    let first = parent.first().unwrap_or(&name);
    if [".wh..wh.plnk", ".wh..wh.aufs", ".wh..wh.orph"].contains(&first.as_str()) {
        return Ok(Place::Skip);
    }
    if parent.iter().any(|part| part.starts_with(".wh.")) {
        return Err(Refused);
    }
    if name == ".wh..wh..opq" {
        return Ok(Place::Opaque(parent));
    }
    match name.strip_prefix(".wh.") {
        None => Ok(Place::Plain(parent, name)),
        Some("" | "." | "..") => Err(Refused),
        Some(hidden) if hidden.starts_with(".wh.") => Err(Refused),
        Some(hidden) => Ok(Place::Hide(parent, hidden.to_owned())),
    }
}

/// The same of what is on the disk.
fn found(root: &Path, at: &str, first: &mut BTreeMap<u64, String>, out: &mut BTreeMap<String, String>) {
    let mut names: Vec<String> = fs::read_dir(root.join(at))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("our own names"))
        .collect();
    names.sort();
    for name in names {
        let path = join(at, &name);
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).expect("it is there");
        let kind = meta.file_type();
        let same =
            if kind.is_dir() { String::new() } else { first.entry(meta.ino()).or_insert_with(|| path.clone()).clone() };
        let words = match kind {
            _ if kind.is_dir() => {
                let mut value = [0u8; 1];
                let opaque = rustix::fs::getxattr(&full, "user.overlay.opaque", &mut value[..]).is_ok();
                format!("directory opaque={opaque}")
            }
            _ if kind.is_symlink() => format!("link {} = {same}", fs::read_link(&full).expect("a link").display()),
            _ if kind.is_file() => format!("file {} = {same}", fs::read(&full).expect("a file")[0]),
            _ if kind.is_fifo() => format!("fifo = {same}"),
            _ if kind.is_char_device() && meta.rdev() == 0 => format!("whiteout = {same}"),
            other => format!("{other:?}"),
        };
        out.insert(path.clone(), words);
        if kind.is_dir() {
            found(root, &path, first, out);
        }
    }
}

/// An archive of the input's making: unpacked as the model says, or refused where it refuses; nothing beside changes.
pub fn layer_apply(data: &[u8]) {
    let entries = read(data);
    let mut model = Model::new();
    let expected = entries.iter().try_for_each(|(path, wanted)| model.apply(path, wanted));
    let bytes = archive(&entries);
    let dir = tempfile::tempdir().expect("make a directory");
    let (host, layer) = (dir.path().join("host"), dir.path().join("layer"));
    fs::create_dir_all(host.join("dir")).expect("make the sentinel");
    fs::create_dir(&layer).expect("make the layer");
    let root = onggi_sys::fs::open_dir(&layer).expect("open the layer");
    let options = ExtractOptions::new(Privilege::of_this_process());
    let done = extract(&bytes[..], root, options);
    assert_eq!(done.is_ok(), expected.is_ok(), "{entries:?}: {done:?}");
    assert_eq!(fs::read_dir(&host).expect("the sentinel").count(), 1, "{entries:?}");
    assert_eq!(fs::read_dir(host.join("dir")).expect("the sentinel").count(), 0, "{entries:?}");
    assert_eq!(fs::read_dir(dir.path()).expect("the directory").count(), 2, "{entries:?}");
    if done.is_ok() {
        let mut seen = BTreeMap::new();
        found(&layer, "", &mut BTreeMap::new(), &mut seen);
        assert_eq!(seen, model.lines(), "{entries:?}");
    }
}

/// Bytes of a stranger as a tar archive: read to an end or refused, and what is read is bounded.
pub fn tar_entries(data: &[u8]) {
    let mut reader = TarReader::new(data);
    for _ in 0..10_000 {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                assert!(!entry.path.is_empty() && entry.path.len() <= 4095 && !entry.path.contains(&0));
                assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX);
                if let Kind::Sparse { segments, size } = &entry.kind {
                    let mut end = 0;
                    for (offset, length) in segments {
                        assert!(*offset >= end && offset + length <= *size, "{segments:?} of {size}");
                        end = offset + length;
                    }
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}
