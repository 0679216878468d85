//! What we accept, everyone reads the same way.
//!
//! Archives are put together at random from the pieces on which readers are known to disagree (PAX sizes, long names,
//! headers inside content, odd numbers, stray zero blocks; CVE-2025-62518, RUSTSEC-2026-0112, GHSA-3cv2-h65g-fgmm). For
//! each that we accept, GNU tar, bsdtar and Python must list the same names, or fail. The generator is seeded: a failure
//! repeats.

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use common::{H, Tar, fingerprint};
use onggi_storage::extract::{ExtractOptions, Privilege, extract};
use onggi_storage::tar::TarReader;
use onggi_sys::fs;

/// A small generator of pseudo-random numbers (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// One piece of an archive; `n` makes its name unique.
fn piece(t: &mut Tar, r: &mut Random, n: usize) {
    let name = format!("n{n}");
    let hidden = Tar::default().file(format!("hidden{n}"), "x").0.clone();
    match r.below(22) {
        0..=3 => _ = t.file(&name, &hidden),
        4 => _ = t.dir(format!("{name}/")),
        5 => _ = t.sym(&name, "target"),
        6 => _ = t.pax(&[("size", hidden.len().to_string().as_bytes())]).raw(H::new(b'0', &name), &hidden),
        7 => _ = t.pax(&[("size", b"0")]).raw(H::new(b'0', &name).size(hidden.len() as u64), &hidden),
        8 => _ = t.pax(&[("size", b"512")]).file(&name, &hidden),
        9 => _ = t.pax(&[("path", format!("pax{n}").as_bytes()), ("mtime", b"1.5")]).file(&name, ""),
        10 => _ = t.long(b'L', format!("long{n}")).file(&name, &hidden),
        11 => _ = t.pax(&[("path", format!("pax{n}").as_bytes())]).long(b'L', format!("long{n}")).file(&name, &hidden),
        12 => _ = t.pax(&[("size", b"1024")]).long(b'L', format!("long{n}")).file(&name, &hidden),
        13 => _ = t.raw(H::new(b'5', &name).size(512), Tar::default().file("hidden", "").0.clone()),
        14 => _ = t.raw(H::new(b'2', &name).link("x").size(512), Tar::default().file("hidden", "").0.clone()),
        15 => _ = t.raw(H::new(b'0', &name).bytes(124, b"\x80\0\0\0\0\0\0\0\0\0\x04\0"), [b'x'; 1024]),
        16 => _ = t.raw(H::new(b'0', &name).bytes(124, b"       2000 "), [b'x'; 1024]),
        17 => t.0.extend([0; 512]),
        18 => _ = t.global(&[("comment", b"x"), ("mtime", b"7")]).file(&name, ""),
        19 => {
            let map = format!("1\n0\n{}\n", hidden.len());
            let mut content = map.into_bytes();
            content.resize(512, 0);
            content.extend(&hidden);
            let real = format!("sparse{n}");
            let keys: [(&str, &[u8]); 4] = [
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", real.as_bytes()),
                ("GNU.sparse.realsize", b"5000"),
            ];
            t.pax(&keys).raw(H::new(b'0', &name).size(content.len() as u64), content);
        }
        20 => _ = t.raw(H::new(0, &name).v7().size(hidden.len() as u64), &hidden),
        _ => {
            // A byte of the last header changes; the checksum is made right again.
            t.file(&name, "");
            let at = t.0.len() - 512;
            let mut block: [u8; 512] = t.0[at..].try_into().unwrap();
            block[r.below(512)] = [0, b' ', b'7', b'S', b'/', 0xff][r.below(6)];
            t.0.truncate(at);
            t.raw(H(block), "");
        }
    }
}

fn archive(seed: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut tar = Tar::default();
    for n in 0..=random.below(5) {
        piece(&mut tar, &mut random, n);
    }
    tar.end()
}

fn our_names(data: &[u8]) -> Option<Vec<String>> {
    let mut tar = TarReader::new(data);
    let mut names = Vec::new();
    loop {
        match tar.next_entry() {
            Ok(Some(entry)) => names.push(normal(&String::from_utf8_lossy(&entry.path))),
            Ok(None) => return Some(names),
            Err(_) => return None,
        }
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('/').to_owned()
}

/// Lists every archive with one run of a script that prints `= FILE`, the names, and `ok` or `failed`.
fn lists(dir: &Path, program: &str, script: &str) -> HashMap<String, Option<Vec<String>>> {
    let out = Command::new(program).args(["-c", script]).current_dir(dir).env("LC_ALL", "C.UTF-8").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut all = HashMap::new();
    for part in text.split("= ").filter(|p| !p.is_empty()) {
        let mut lines: Vec<&str> = part.lines().collect();
        let ok = lines.pop() == Some("ok");
        let names = lines[1..].iter().map(|l| normal(l)).collect();
        all.insert(lines[0].to_owned(), ok.then_some(names));
    }
    all
}

#[test]
fn cve_2025_62518_rustsec_2026_0112_what_we_accept_is_what_other_readers_list() {
    let dir = tempfile::tempdir().unwrap();
    let mut accepted = HashMap::new();
    for seed in 0..600 {
        let data = archive(seed);
        if let Some(names) = our_names(&data) {
            std::fs::write(dir.path().join(seed.to_string()), data).unwrap();
            accepted.insert(seed.to_string(), names);
        }
    }
    assert!(accepted.len() > 100, "the generator makes too few good archives: {}", accepted.len());
    let shell = |tar: &str| {
        let list = format!("{tar} -tf $f 2>/dev/null && echo ok || echo failed");
        lists(dir.path(), "sh", &format!("for f in *; do echo \"= $f\"; {list}; done"))
    };
    let python = "
import os, tarfile
for f in sorted(os.listdir('.')):
    print('=', f)
    try:
        print(*tarfile.open(f, 'r:').getnames(), 'ok', sep='\\n')
    except Exception:
        print('failed')
";
    let readers =
        [("GNU tar", shell("tar")), ("bsdtar", shell("bsdtar")), ("Python", lists(dir.path(), "python3", python))];
    for (reader, lists) in &readers {
        let read = lists.values().flatten().count();
        assert!(read * 10 > accepted.len() * 9, "{reader} reads only {read} of {}", accepted.len());
    }
    for (seed, ours) in &accepted {
        for (reader, theirs) in &readers {
            if let Some(theirs) = &theirs[seed] {
                assert_eq!(theirs, ours, "{reader} reads archive {seed} differently");
            }
        }
    }
}

#[test]
fn random_damage_never_panics_and_never_reaches_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("f"), "x").unwrap();
    let before = fingerprint(&host);
    let base = Tar::default()
        .sym("out", host.to_str().unwrap())
        .sym("up", "../host")
        .file("out/f", "evil")
        .file("up/f", "evil")
        .hard("h", "up/f")
        .pax(&[("path", b"up/g"), ("SCHILY.xattr.user.x", b"1")])
        .file("x", "evil")
        .long(b'L', "up/long")
        .file("y", "evil")
        .file("up/.wh.f", "")
        .end();
    let mut random = Random(1);
    for round in 0..400 {
        let mut data = base.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(data.len());
            data[at] = [0, b'.', b'/', b'0', 0xff, b'L', b'x'][random.below(7)];
        }
        // Checksums made right again, so that the damage is seen by what comes after them.
        for block in data.chunks_exact_mut(512).filter(|b| b[257..262] == *b"ustar") {
            let fixed = H(block.try_into().unwrap()).done();
            block.copy_from_slice(&fixed);
        }
        let layer = dir.path().join(round.to_string());
        std::fs::create_dir(&layer).unwrap();
        let options = ExtractOptions::new(Privilege::of_this_process());
        let _ = extract(data.as_slice(), fs::open_dir(&layer).unwrap(), options);
        assert_eq!(fingerprint(&host), before, "round {round}");
        std::fs::remove_dir_all(&layer).unwrap();
    }
}
