//! Benign archives, by writers of the field, unpacked by us and by their own programs: the trees must be equal in everything.

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use onggi_storage::extract::{ExtractOptions, Privilege, extract};
use onggi_sys::fs;
use sha2::{Digest as _, Sha256};

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn unpack(archive: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    let data = std::fs::read(archive).unwrap();
    let options = ExtractOptions::new(Privilege::of_this_process());
    extract(data.as_slice(), fs::open_dir(to).unwrap(), options).unwrap();
}

/// Every name with type, mode, owner, size, device, modification time, attributes, content hash and link group.
fn full_tree(root: &Path) -> BTreeMap<String, String> {
    let mut first_link = BTreeMap::new();
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let m = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let kind = m.file_type();
        let size = if kind.is_file() { m.len() } else { 0 };
        let mut words = format!(
            "{:o} {}:{} size {size} dev {} mtime {}.{}",
            m.mode(),
            m.uid(),
            m.gid(),
            m.rdev(),
            m.mtime(),
            m.mtime_nsec()
        );
        if kind.is_symlink() {
            words.push_str(&format!(" -> {}", std::fs::read_link(&path).unwrap().display()));
        }
        if kind.is_file() {
            words.push_str(&format!(" {:x?}", &Sha256::digest(std::fs::read(&path).unwrap())[..6]));
            let first = first_link.entry(m.ino()).or_insert_with(|| name.clone());
            words.push_str(&format!(" link of {first} x{}", m.nlink()));
        }
        words.push_str(&xattrs(&path));
        if kind.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            todo.extend(names.into_iter().rev());
        }
        out.insert(name, words);
    }
    out
}

fn xattrs(path: &Path) -> String {
    let dir = fs::open_dir(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().as_encoded_bytes();
    let handle = fs::open_handle(std::os::fd::AsFd::as_fd(&dir), name).unwrap();
    let handle = std::os::fd::AsFd::as_fd(&handle);
    let mut names = fs::list_xattr_handle(handle).unwrap_or_default();
    names.sort();
    let value = |n: &[u8]| fs::get_xattr_handle(handle, n).unwrap();
    names.iter().map(|n| format!(" {}={:?}", String::from_utf8_lossy(n), value(n))).collect()
}

fn same(ours: &Path, theirs: &Path, label: &str) {
    let (mut ours, mut theirs) = (full_tree(ours), full_tree(theirs));
    if label.starts_with("bsdtar") {
        // It does not touch the directory that it unpacks into.
        ours.remove("");
        theirs.remove("");
    }
    let differing: Vec<_> = theirs
        .iter()
        .filter(|(name, words)| ours.get(*name) != Some(words))
        .map(|(name, words)| format!("{name}\n  theirs {words}\n  ours   {:?}", ours.get(name)))
        .chain(ours.keys().filter(|n| !theirs.contains_key(*n)).map(|n| format!("{n} only ours")))
        .collect();
    assert!(differing.is_empty(), "{label}:\n{}", differing.join("\n"));
    assert!(ours.len() > 3, "{label}: nothing compared");
}

/// A tree with everything that an image may hold.
fn rich_tree(dir: &Path) {
    let at = |p: &str| dir.join(p);
    std::fs::create_dir_all(at("usr/lib/deep/er")).unwrap();
    std::fs::write(at("usr/lib/file"), "content").unwrap();
    std::fs::write(at("usr/lib/empty"), "").unwrap();
    std::fs::write(at("usr/lib/big"), vec![7u8; 3_000_001]).unwrap();
    std::fs::write(at("usr/lib/a name with spaces\nand a newline"), "x").unwrap();
    std::fs::write(at(&format!("usr/lib/{}", "n".repeat(200))), "long").unwrap();
    let deep = format!("usr/{}", "d".repeat(150) + "/" + &"e".repeat(150));
    std::fs::create_dir_all(at(&deep)).unwrap();
    std::fs::write(at(&format!("{deep}/f")), "deep").unwrap();
    std::os::unix::fs::symlink("usr/lib", at("lib")).unwrap();
    std::os::unix::fs::symlink("t".repeat(300), at("longlink")).unwrap();
    std::fs::hard_link(at("usr/lib/file"), at("usr/hard")).unwrap();
    std::os::unix::fs::symlink("file", at("usr/lib/link")).unwrap();
    std::fs::hard_link(at("usr/lib/link"), at("usr/hardlink-of-link")).unwrap();
    std::fs::write(at("su"), "x").unwrap();
    for (path, mode) in
        [("su", 0o4755), ("usr/lib", 0o2775), ("usr", 0o1777), ("usr/lib/empty", 0), ("usr/lib/deep", 0o555)]
    {
        std::fs::set_permissions(at(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let sparse = std::fs::File::create(at("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"middle", 5_000_000).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"start", 0).unwrap();
    sparse.set_len(20_000_000).unwrap();
    run("mkfifo", &[at("fifo").to_str().unwrap()]);
    special(dir);
    run("touch", &["-h", "-d", "2001-02-03 04:05:06.123456789", at("lib").to_str().unwrap()]);
    run("touch", &["-d", "1960-01-01 00:00:00.5", at("usr/lib/empty").to_str().unwrap()]);
    run("touch", &["-d", "2033-01-01", at("usr/lib/deep").to_str().unwrap()]);
}

/// What only root can make.
fn special(dir: &Path) {
    let at = |p: &str| dir.join(p).to_str().unwrap().to_owned();
    rustix::fs::setxattr(dir.join("su"), "user.note", b"line\nwith newline\0and nul", rustix::fs::XattrFlags::empty())
        .unwrap();
    rustix::fs::setxattr(dir.join("usr"), "user.dir", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    if common::is_root() {
        run("mknod", &[&at("null"), "c", "1", "3"]);
        run("mknod", &[&at("loop"), "b", "7", "0"]);
        run("chown", &["-h", "1234:4321", &at("lib")]);
        run("chown", &["70000:2000000000", &at("usr/lib/file")]);
        run("chown", &["33:33", &at("usr/lib/deep")]);
        std::fs::write(dir.join("ping"), "x").unwrap();
        // Contains 0x0a, which readers that split lines lose.
        run("setcap", &["cap_net_raw,cap_kill,cap_fowner=ep", &at("ping")]);
    }
}

#[test]
fn root_unpacks_as_gnu_tar_does_every_format_and_option() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    rich_tree(&source);
    let variants: [(&str, &[&str]); 8] = [
        ("pax", &["--format=pax", "--xattrs", "--xattrs-include=*"]),
        ("pax-sparse", &["--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"]),
        ("pax-sparse-0.0", &["--format=pax", "--sparse", "--sparse-version=0.0"]),
        ("pax-sparse-0.1", &["--format=pax", "--sparse", "--sparse-version=0.1"]),
        ("gnu", &["--format=gnu"]),
        ("gnu-sparse", &["--format=gnu", "--sparse"]),
        ("pax-sorted-reverse", &["--format=pax", "--hard-dereference", "--sort=name"]),
        ("pax-global", &["--format=pax", "--pax-option=globexthdr.name=/tmp/g,comment=hello"]),
    ];
    for (label, options) in variants {
        let archive = dir.path().join(format!("{label}.tar"));
        let mut args = vec!["-C", source.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "--numeric-owner"];
        args.extend(options);
        args.push(".");
        run("tar", &args);
        compare(dir.path(), label, &archive, "tar", &["--same-owner", "--xattrs", "--xattrs-include=*"]);
    }
}

#[test]
fn root_unpacks_bsdtar_archives_as_bsdtar_does() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    rich_tree(&source);
    // bsdtar writes fractions before 1970 the wrong way round.
    run("touch", &["-d", "1960-01-01 00:00:00", source.join("usr/lib/empty").to_str().unwrap()]);
    for format in ["pax", "gnutar"] {
        let archive = dir.path().join(format!("{format}.tar"));
        let out = archive.to_str().unwrap();
        run("bsdtar", &["-C", source.to_str().unwrap(), "--no-xattrs", "--format", format, "-cf", out, "."]);
        // GNU tar gives up on directory times when directories come in bsdtar's order.
        compare(dir.path(), &format!("bsdtar-{format}"), &archive, "bsdtar", &["--same-owner"]);
    }
}

fn compare(dir: &Path, label: &str, archive: &Path, tar: &str, options: &[&str]) {
    let (ours, theirs) = (dir.join(format!("{label}-ours")), dir.join(format!("{label}-theirs")));
    unpack(archive, &ours);
    std::fs::create_dir(&theirs).unwrap();
    let (to, from) = (theirs.to_str().unwrap(), archive.to_str().unwrap());
    run(tar, &[&["-C", to, "-xpf", from, "--numeric-owner"], options].concat());
    same(&ours, &theirs, label);
}
