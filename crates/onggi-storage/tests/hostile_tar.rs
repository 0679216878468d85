//! Hostile archives, each class with its benign twin.
//!
//! Every case unpacks into `case/layer` beside `case/host`, a sentinel of files, directories and links that hostile
//! entries point at. Whatever the outcome, everything but the layer must be untouched to the inode and nanosecond. A
//! case then either has to be refused, with a reason that names the problem, or to give exactly the listed tree.
//!
//! `cargo test -p onggi-storage --test hostile_tar -- cve_2018` runs some of them.

mod common;

use std::path::Path;

use common::{H, Tar, chain, fingerprint, record, tree};
use libtest_mimic::{Arguments, Failed, Trial};
use onggi_storage::extract::{ExtractOptions, Privilege, extract};
use onggi_sys::fs;

/// What must come of a case.
enum Expect {
    /// An error whose chain contains this.
    Refused(&'static str),
    /// Exactly these lines (`path words`); `{host}` stands for the sentinel's path without its leading slash.
    Tree(Vec<String>),
}

use Expect::Refused;

/// Writes the archive; gets the sentinel's path.
type Builder = Box<dyn Fn(&mut Tar, &str) + Send>;

struct Case {
    name: String,
    build: Builder,
    expect: Expect,
}

fn case(name: impl Into<String>, expect: Expect, build: impl Fn(&mut Tar, &str) + Send + 'static) -> Case {
    Case { name: name.into(), build: Box::new(build), expect }
}

fn lines(text: &str) -> Expect {
    Expect::Tree(text.lines().map(|l| l.trim_end().to_owned()).filter(|l| !l.is_empty()).collect())
}

fn run(case: &Case) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let host = dir.path().join("host");
    sentinel(&host);
    let layer = dir.path().join("layer");
    std::fs::create_dir(&layer)?;
    let host_path = host.to_str().ok_or("not UTF-8")?.to_owned();
    let mut tar = Tar::default();
    (case.build)(&mut tar, &host_path);
    let archive = if tar.0.ends_with(b"RAW") { tar.0[..tar.0.len() - 3].to_vec() } else { tar.end() };
    let before = fingerprint(&host);
    let result = extract(archive.as_slice(), fs::open_dir(&layer)?, options());
    if fingerprint(&host) != before {
        return Err("the host was changed".into());
    }
    let beside: Vec<_> = std::fs::read_dir(dir.path())?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    if beside.len() != 2 {
        return Err(format!("something was made beside the layer: {beside:?}").into());
    }
    judge(case, result.map(|_| ()), &layer, &host_path)
}

fn options() -> ExtractOptions {
    let mut options = ExtractOptions::new(Privilege::of_this_process());
    options.max_bytes = 1 << 30;
    options.max_entries = 10_000;
    options
}

fn judge(case: &Case, result: Result<(), onggi_storage::StorageError>, layer: &Path, host: &str) -> Result<(), Failed> {
    match (&case.expect, result) {
        (Refused(reason), Err(e)) if chain(&e).contains(reason) => Ok(()),
        (Refused(reason), Err(e)) => Err(format!("refused, but not for {reason:?}: {}", chain(&e)).into()),
        (Refused(_), Ok(())) => Err(format!("accepted: {:#?}", tree(layer)).into()),
        (Expect::Tree(_), Err(e)) => Err(chain(&e).into()),
        (Expect::Tree(want), Ok(())) => {
            let mut want: Vec<String> = want.iter().map(|l| l.replace("{host}", &host[1..])).collect();
            // Directories that lead to the sentinel's twin inside the layer.
            if want.iter().any(|l| l.starts_with(&host[1..])) {
                let parts: Vec<&str> = host[1..].split('/').collect();
                want.extend((1..=parts.len()).map(|n| format!("{} d 755", parts[..n].join("/"))));
            }
            want.sort();
            want.dedup();
            let mut have: Vec<String> = tree(layer).into_iter().map(|(p, w)| format!("{p} {w}")).collect();
            have.sort();
            if have == want { Ok(()) } else { Err(format!("have {have:#?}\nwant {want:#?}").into()) }
        }
    }
}

/// Things on the host that an archive may want to change.
fn sentinel(host: &Path) {
    std::fs::create_dir_all(host.join("dir/sub")).unwrap();
    std::fs::write(host.join("secret"), "secret").unwrap();
    std::fs::write(host.join("dir/file"), "file").unwrap();
    std::os::unix::fs::symlink("secret", host.join("link")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(host.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Adds one entry of a type under a name.
type Adder = fn(&mut Tar, &str);

/// Every type of entry: label, how to add it, what it looks like; `None` where it depends on the place.
const TYPES: [(&str, Adder, &str); 9] = [
    ("file", |t, n| _ = t.file(n, "x"), "f 644 x"),
    ("dir", |t, n| _ = t.raw(H::new(b'5', n).mode(0o700), []), "d 700"),
    ("symlink", |t, n| _ = t.sym(n, "y"), "l y"),
    ("fifo", |t, n| _ = t.raw(H::new(b'6', n), []), "p 644"),
    ("char", |t, n| _ = t.raw(H::new(b'3', n).device(1, 3), []), "c 1:3 644"),
    ("block", |t, n| _ = t.raw(H::new(b'4', n).device(7, 0), []), "b 7:0 644"),
    ("setuid_file", |t, n| _ = t.raw(H::new(b'0', n).mode(0o4755), []), "f 4755 "),
    ("overlay_whiteout", |t, n| _ = t.raw(H::new(b'3', n).device(0, 0), []), "w"),
    (
        "sparse",
        |t, n| {
            let h = H::new(b'S', n).gnu().size(1).octal(386, 12, 0).octal(398, 12, 1).octal(483, 12, 3);
            t.raw(h, "x");
        },
        "f 644 x\0\0",
    ),
];

/// A link out, then an entry through it, for every type: the entry must end up below the layer's own root.
fn through_links(cases: &mut Vec<Case>) {
    for (label, add, looks) in TYPES {
        let through = "cve_2026_17106_cve_2018_20990_cve_2021_29136";
        cases.push(case(
            format!("{through}_{label}_through_an_absolute_link_stays_in_the_layer"),
            lines(&format!("out l /{{host}}\n{{host}}/new {looks}")),
            move |t, host| {
                t.sym("out", host);
                add(t, "out/new");
            },
        ));
        cases.push(case(
            format!("{through}_{label}_through_a_relative_link_stays_in_the_layer"),
            lines(
                &format!("a d 755\na/out l ../../../../../../../..{{ROOT}}{{host}}\n{{host}}/secret {looks}")
                    .replace("{ROOT}", "/"),
            ),
            move |t, host| {
                t.sym("a/out", format!("../../../../../../../..{host}"));
                add(t, "a/out/secret");
            },
        ));
        cases.push(case(
            format!("cve_2014_9356_cve_2021_32760_{label}_in_place_of_a_link_replaces_the_link"),
            lines(&format!("out {looks}")),
            move |t, host| {
                t.sym("out", format!("{host}/secret"));
                add(t, "out");
            },
        ));
        cases.push(case(
            format!("cve_2021_41089_{label}_in_place_of_a_link_to_a_directory_replaces_the_link"),
            lines(&format!("out {looks}")),
            move |t, host| {
                t.sym("out", format!("{host}/dir"));
                add(t, "out");
            },
        ));
        cases.push(case(
            format!("twin_{label}_through_lib_to_usr_lib_lands_in_usr_lib"),
            lines(&format!("lib l usr/lib\nusr d 755\nusr/lib d 755\nusr/lib/x {looks}")),
            move |t, _| {
                t.dir("usr").dir("usr/lib").sym("lib", "usr/lib");
                add(t, "lib/x");
            },
        ));
        cases.push(case(
            format!("twin_{label}_with_an_absolute_name_lands_in_the_layer"),
            lines(&format!("etc d 755\netc/x {looks}")),
            move |t, _| add(t, "/etc/x"),
        ));
        cases.push(case(format!("{label}_with_a_parent_component_is_refused"), Refused("'..'"), move |t, _| {
            add(t, "a/../../x");
        }));
        cases.push(case(
            format!("{label}_below_a_file_is_refused"),
            Refused("parent is not a directory"),
            move |t, _| {
                t.file("f", "");
                add(t, "f/x");
            },
        ));
        cases.push(case(
            format!("duplicate_{label}_the_last_entry_of_a_name_wins"),
            lines(&format!("x {looks}")),
            move |t, _| {
                t.file("x", "first");
                add(t, "x");
                t.dir("x").file("x/child", "");
                // A directory keeps what is in it when it is described again; everything else replaces it.
                if label == "dir" {
                    t.file("x", "");
                }
                add(t, "x");
            },
        ));
    }
}

fn links(cases: &mut Vec<Case>) {
    let c = |n: &str, e, b: fn(&mut Tar, &str)| case(n, e, b);
    cases.extend([
        c("cve_2014_6407_hard_link_to_a_host_file_is_not_found", Refused("target is not in the layer"), |t, host| {
            t.hard("x", format!("{host}/secret"));
        }),
        c(
            "cve_2021_29136_hard_link_through_a_link_out_is_not_found",
            Refused("target is not in the layer"),
            |t, host| {
                t.sym("out", host).hard("x", "out/secret");
            },
        ),
        c("hard_link_target_with_a_parent_component_is_refused", Refused("hard-link target contains '..'"), |t, _| {
            t.file("a", "").hard("x", "../a");
        }),
        c(
            "cve_2018_20990_hard_link_to_a_link_links_the_link_itself",
            lines("x l /{host}/secret\ny l /{host}/secret"),
            |t, host| {
                t.sym("x", format!("{host}/secret")).hard("y", "x");
            },
        ),
        c("hard_link_then_file_over_it_leaves_the_target_alone", lines("a f 644 old\nb f 644 new"), |t, _| {
            t.file("a", "old").hard("b", "a").file("b", "new");
        }),
        c(
            "hard_link_to_a_link_then_file_over_it_does_not_write_through",
            lines("a l /{host}/secret\nb f 644 new"),
            |t, host| {
                t.sym("a", format!("{host}/secret")).hard("b", "a").file("b", "new");
            },
        ),
        c("hard_link_to_itself_changes_nothing", lines("a f 644 x"), |t, _| {
            t.file("a", "x").hard("a", "a").hard("a", "./a");
        }),
        c("hard_link_to_a_directory_is_refused", Refused("target is a directory"), |t, _| {
            t.dir("d").hard("x", "d");
        }),
        c("hard_link_to_the_root_is_refused", Refused("target is a directory"), |t, _| {
            t.hard("x", "/");
        }),
        c(
            "hard_link_that_replaces_the_directory_of_its_target_is_refused",
            Refused("target is not in the layer"),
            |t, _| {
                t.file("d/a", "").hard("d", "d/a");
            },
        ),
        c("hard_link_to_a_whiteout_is_refused", Refused("target is not in the layer"), |t, _| {
            t.file(".wh.a", "").hard("x", "a");
        }),
        c("hard_link_without_a_target_is_refused", Refused("no target"), |t, _| _ = t.hard("x", "")),
        c("symbolic_link_without_a_target_is_refused", Refused("no target"), |t, _| _ = t.sym("x", "")),
        c("twin_absolute_hard_links_are_in_root", lines("a f 644 x\nb f 644 x"), |t, _| {
            t.file("a", "x").hard("/b", "/a");
        }),
        c(
            "twin_hard_link_through_a_link_in_the_layer_works",
            lines("usr d 755\nusr/a f 644 x\nu l /usr\nb f 644 x"),
            |t, _| {
                t.file("usr/a", "x").sym("u", "/usr").hard("b", "u/a");
            },
        ),
        c("twin_links_may_point_anywhere_as_text", lines("a l /{host}/secret\nb l ../../../x\nc l c"), |t, host| {
            t.sym("a", format!("{host}/secret")).sym("b", "../../../x").sym("c", "c");
        }),
        c("twin_var_run_to_run_works", lines("run d 755\nrun/x f 644 1\nvar d 755\nvar/run l /run"), |t, _| {
            t.dir("var").sym("var/run", "/run").file("var/run/x", "1");
        }),
        c("a_link_loop_as_parent_is_refused", Refused("too many symbolic links"), |t, _| {
            t.sym("a", "b").sym("b", "a").file("a/x", "");
        }),
        c("a_chain_of_dangling_links_beyond_the_limit_is_refused", Refused("too many symbolic links"), |t, _| {
            for n in 0..60 {
                t.sym(format!("l{n}"), format!("l{}", n + 1));
            }
            t.file("l0/x", "");
        }),
        c(
            "a_link_replaced_between_two_entries_is_followed_anew",
            lines("a d 755\na/x f 644 1\nb d 755\nb/x f 644 2\nl l b"),
            |t, _| {
                t.dir("a").dir("b").sym("l", "a").file("l/x", "1").sym("l", "b").file("l/x", "2");
            },
        ),
        c(
            "cve_2025_47290_a_directory_replaced_by_a_link_out_is_not_described_through_it",
            lines("d l /{host}/dir"),
            |t, host| {
                t.raw(H::new(b'5', "d").mode(0o777), []).sym("d", format!("{host}/dir"));
            },
        ),
        c(
            "a_parent_replaced_by_a_link_out_between_files_stays_in_the_layer",
            lines("d l /{host}\n{host}/secret f 644 2"),
            |t, host| {
                t.dir("d").file("d/a", "1").sym("d", host).file("d/secret", "2");
            },
        ),
    ]);
}

fn roots(cases: &mut Vec<Case>) {
    for name in ["/", ".", "./", "//", "/."] {
        for (flag, what) in [(b'2', "symlink"), (b'1', "hard_link"), (b'3', "device"), (b'6', "fifo")] {
            cases.push(case(
                format!("cve_2020_10696_cve_2021_29136_root_{name:?}_as_{what}_is_refused"),
                Refused("root of a layer must be a directory"),
                move |t, host| {
                    t.raw(H::new(flag, name).link(host).device(1, 3), []).file("x", "");
                },
            ));
        }
        cases.push(case(format!("twin_root_{name:?}_as_directory_is_described"), lines("x f 644 "), move |t, _| {
            t.dir(name).file("x", "");
        }));
    }
    for name in ["..", "../x", "a/..", "a/../../x", "/../x", "./../x", "a/b/../c", "..//x"] {
        cases.push(case(format!("cve_2014_9356_name_{name:?}_is_refused"), Refused("'..'"), move |t, _| {
            t.file(name, "");
        }));
    }
    for name in ["..x", "x..", "...", "a/..b/c", ". ", ".. "] {
        cases.push(case(
            format!("twin_name_{name:?}_is_ordinary"),
            {
                let parts: Vec<&str> = name.split('/').collect();
                let dirs = (1..parts.len()).map(|n| format!("{} d 755", parts[..n].join("/")));
                Expect::Tree(dirs.chain([format!("{name} f 644 x")]).collect())
            },
            move |t, _| _ = t.file(name, "x"),
        ));
    }
    cases.push(case("an_empty_name_is_refused", Refused("PAX key name"), |t, _| _ = t.file("", "")));
    cases.push(case("a_component_beyond_name_max_is_refused", Refused("longer than 255"), |t, _| {
        t.pax(&[("path", &[b'a'; 256])]).file("x", "");
    }));
    cases.push(case("a_path_beyond_path_max_is_refused", Refused("longer than 4095"), |t, _| {
        t.pax(&[("path", &b"a/".repeat(2048))]).file("x", "");
    }));
    cases.push(case("a_regular_file_named_like_a_directory_is_refused", Refused("ends in '/'"), |t, _| {
        t.file("x/", "data");
    }));
    cases.push(case("twin_a_v7_directory_is_a_directory", lines("x d 755"), |t, _| {
        t.raw(H::new(0, "x/").v7().mode(0o755), []);
    }));
}

fn whiteouts(cases: &mut Vec<Case>) {
    let c = |n: &str, e, b: fn(&mut Tar, &str)| case(n, e, b);
    cases.extend([
        c("whiteout_of_a_parent_is_refused", Refused("whiteout of nothing"), |t, _| _ = t.file("a/.wh...", "")),
        c("whiteout_of_the_directory_itself_is_refused", Refused("whiteout of nothing"), |t, _| {
            _ = t.file("a/.wh..", "")
        }),
        c("whiteout_without_a_name_is_refused", Refused("whiteout of nothing"), |t, _| _ = t.file("a/.wh.", "")),
        c("whiteout_with_a_parent_component_is_refused", Refused("'..'"), |t, _| _ = t.file("../.wh.x", "")),
        c("entry_below_a_whiteout_is_refused", Refused("reserved"), |t, _| _ = t.file(".wh.a/x", "")),
        c("unknown_aufs_name_is_refused", Refused("reserved"), |t, _| _ = t.file("a/.wh..wh.x", "")),
        c("whiteout_as_link_is_refused", Refused("must be a regular file"), |t, h| _ = t.sym(".wh.x", h)),
        c("whiteout_as_directory_is_refused", Refused("must be a regular file"), |t, _| _ = t.dir(".wh.x")),
        c("opaque_as_directory_is_refused", Refused("must be a regular file"), |t, _| _ = t.dir(".wh..wh..opq")),
        c("whiteout_through_a_link_out_stays_in_the_layer", lines("out l /{host}\n{host}/secret w"), |t, host| {
            t.sym("out", host).file("out/.wh.secret", "");
        }),
        c(
            "opaque_through_a_link_out_stays_in_the_layer",
            lines("out l /{host}/dir\n{host}/x f 644 \n{host}/dir d! 755"),
            |t, host| {
                t.sym("out", format!("{host}/dir")).file("out/.wh..wh..opq", "").file(format!("{host}/x"), "");
            },
        ),
        c("whiteout_of_a_link_of_the_same_layer_keeps_the_link", lines("x l /{host}/secret"), |t, host| {
            t.sym("x", format!("{host}/secret")).file(".wh.x", "");
        }),
        c("twin_whiteouts_become_overlay_whiteouts", lines("a d 755\na/b w\nc w"), |t, _| {
            t.dir("a").file("a/.wh.b", "").file(".wh.c", "");
        }),
        c("twin_opaque_before_and_after_the_content", lines("a d! 755\na/x f 644 \nb d! 755\nb/x f 644 "), |t, _| {
            t.dir("a").file("a/.wh..wh..opq", "").file("a/x", "");
            t.dir("b").file("b/x", "").file("b/.wh..wh..opq", "");
        }),
        c(
            "twin_whiteout_and_new_directory_in_either_order_is_opaque",
            lines("a d! 755\na/x f 644 \nb d! 755\nb/x f 644 "),
            |t, _| {
                t.file(".wh.a", "").dir("a").file("a/x", "");
                t.dir("b").file("b/x", "").file(".wh.b", "");
            },
        ),
        c("twin_whiteout_and_new_directory_that_is_only_implied_is_opaque", lines("a d! 755\na/x f 644 "), |t, _| {
            t.file(".wh.a", "").file("a/x", "");
        }),
        c("twin_whiteout_and_new_file_is_the_file", lines("a f 644 1\nb f 644 2"), |t, _| {
            t.file(".wh.a", "").file("a", "1").file("b", "2").file(".wh.b", "");
        }),
        c("twin_aufs_whiteouts_are_hard_links_of_each_other", lines("a w\nb w"), |t, _| {
            t.file(".wh.a", "").hard(".wh.b", ".wh.a");
        }),
        c("twin_aufs_metadata_is_skipped", lines("x f 644 "), |t, _| {
            t.dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "y").file(".wh..wh.aufs", "").file("x", "");
        }),
        c("twin_names_that_only_resemble_whiteouts", lines(".whale f 644 \n.wh f 644 \na.wh.b f 644 "), |t, _| {
            t.file(".whale", "").file(".wh", "").file("a.wh.b", "");
        }),
        c("twin_a_whiteout_with_content_is_a_whiteout", lines("a w\nb f 644 x"), |t, _| {
            t.file(".wh.a", "content").file("b", "x");
        }),
    ]);
}

fn extensions(cases: &mut Vec<Case>) {
    let c = |n: &str, e, b: fn(&mut Tar, &str)| case(n, e, b);
    cases.extend([
        c("cve_2025_62518_pax_size_against_header_size_is_refused", Refused("contradicts"), |t, _| {
            let hidden = Tar::default().file("smuggled", "").0.clone();
            t.pax(&[("size", b"0")]).raw(H::new(b'0', "a").size(512), hidden);
        }),
        c("cve_2025_62518_smaller_pax_size_is_refused", Refused("contradicts"), |t, _| {
            t.pax(&[("size", b"1")]).file("a", "0123456789");
        }),
        c("cve_2025_62518_zero_header_size_takes_the_pax_size", hidden_content(), |t, _| {
            let mut hidden = Tar::default();
            hidden.file("smuggled", "");
            hidden.0.resize(1024, b'x');
            t.pax(&[("size", b"1024")]).raw(H::new(b'0', "a"), &hidden.0).file("b", "");
        }),
        c("rustsec_2026_0112_pax_size_on_a_link_is_refused", Refused("must not have content"), |t, _| {
            t.pax(&[("size", b"512")]).raw(H::new(b'2', "a").link("b"), [0; 512]);
        }),
        c("ghsa_3cv2_size_on_a_directory_is_refused", Refused("must not have content"), |t, _| {
            t.raw(H::new(b'5', "a").size(512), [0; 512]);
        }),
        c("pax_and_gnu_long_name_together_are_refused", Refused("conflicting extension"), |t, _| {
            t.pax(&[("path", b"a")]).long(b'L', "b").file("c", "");
        }),
        c("gnu_long_name_and_pax_together_are_refused", Refused("conflicting extension"), |t, _| {
            t.long(b'L', "b").pax(&[("path", b"a")]).file("c", "");
        }),
        c("two_pax_headers_are_refused", Refused("conflicting extension"), |t, _| {
            t.pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", "");
        }),
        c("two_long_names_are_refused", Refused("conflicting extension"), |t, _| {
            t.long(b'L', "a").long(b'L', "b").file("c", "");
        }),
        c("extension_without_entry_is_refused", Refused("without an entry"), |t, _| _ = t.pax(&[("path", b"a")])),
        c("pax_path_twice_is_refused", Refused("repeated"), |t, _| {
            t.pax(&[("path", b"a"), ("path", b"b")]).file("c", "");
        }),
        c("pax_path_empty_is_refused", Refused("empty"), |t, _| _ = t.pax(&[("path", b"")]).file("c", "")),
        c("pax_path_with_nul_is_refused", Refused("NUL"), |t, _| _ = t.pax(&[("path", b"a\0b")]).file("c", "")),
        c("pax_linkpath_with_nul_is_refused", Refused("NUL"), |t, _| _ = t.pax(&[("linkpath", b"a\0b")]).sym("c", "x")),
        c("long_name_with_nul_inside_is_refused", Refused("NUL"), |t, _| _ = t.long(b'L', "a\0b").file("c", "")),
        c("pax_path_with_parent_component_is_refused", Refused("'..'"), |t, _| {
            _ = t.pax(&[("path", b"../x")]).file("c", "")
        }),
        c("gnu_long_name_with_parent_component_is_refused", Refused("'..'"), |t, _| {
            _ = t.long(b'L', "a/../../x").file("c", "")
        }),
        c("posix_prefix_with_parent_component_is_refused", Refused("'..'"), |t, _| {
            t.raw(H::new(b'0', "x").bytes(345, b".."), []);
        }),
        c("pax_record_longer_than_the_header_is_refused", Refused("malformed PAX"), |t, _| {
            t.raw(H::new(b'x', "p").size(11), "99 path=ab\n").file("c", "");
        }),
        c("pax_record_without_newline_is_refused", Refused("malformed PAX"), |t, _| {
            t.raw(H::new(b'x', "p").size(11), "11 path=abc").file("c", "");
        }),
        c("pax_record_with_garbage_length_is_refused_not_skipped", Refused("malformed PAX"), |t, _| {
            let data = [record("mtime", b"1"), b"x1 size=5\n".to_vec()].concat();
            t.raw(H::new(b'x', "p").size(data.len() as u64), data).file("c", "");
        }),
        c("pax_header_beyond_its_bound_is_refused", Refused("extension header is longer"), |t, _| {
            t.raw(H::new(b'x', "p").size((1 << 20) + 1), []);
        }),
        c("long_name_beyond_its_bound_is_refused", Refused("extension header is longer"), |t, _| {
            t.raw(H::new(b'L', "p").gnu().size(1 << 40), []);
        }),
        c("xattr_beyond_the_kernels_bound_is_refused", Refused("extended attribute is longer"), |t, _| {
            t.pax(&[("SCHILY.xattr.user.x", &vec![b'a'; 65_537])]).file("c", "");
        }),
        c("cve_2024_40635_pax_uid_2_to_32_is_refused", Refused("out of range"), |t, _| {
            t.pax(&[("uid", b"4294967296")]).file("c", "");
        }),
        c("cve_2024_40635_uid_minus_one_is_refused", Refused("out of range"), |t, _| {
            t.pax(&[("uid", b"4294967295")]).file("c", "");
        }),
        c("negative_pax_uid_is_refused", Refused("malformed number"), |t, _| {
            _ = t.pax(&[("uid", b"-1")]).file("c", "")
        }),
        c("base256_negative_uid_is_refused", Refused("out of range"), |t, _| {
            t.raw(H::new(b'0', "c").bytes(108, [0xff; 8]), []);
        }),
        c("base256_uid_beyond_32_bits_is_refused", Refused("out of range"), |t, _| {
            t.raw(H::new(b'0', "c").bytes(108, [0x80, 0, 0, 1, 0, 0, 0, 0]), []);
        }),
        c("negative_size_is_refused", Refused("out of range"), |t, _| {
            _ = t.raw(H::new(b'0', "c").bytes(124, [0xff; 12]), [])
        }),
        c("pax_global_path_is_refused", Refused("global header sets path"), |t, _| {
            _ = t.global(&[("path", b"evil")]).file("c", "")
        }),
        c("pax_global_size_is_refused", Refused("global header sets size"), |t, _| {
            _ = t.global(&[("size", b"512")]).file("c", "")
        }),
        c("pax_global_linkpath_is_refused", Refused("global header sets linkpath"), |t, h| {
            t.global(&[("linkpath", h.as_bytes())]).sym("c", "x");
        }),
        c("pax_global_xattr_is_refused", Refused("global header sets SCHILY"), |t, _| {
            t.global(&[("SCHILY.xattr.security.capability", b"x")]).file("c", "");
        }),
        c("overlay_redirect_attribute_is_refused", Refused("controls overlayfs"), |t, _| {
            t.pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).dir("c");
        }),
        c("overlay_opaque_user_attribute_is_refused", Refused("controls overlayfs"), |t, _| {
            t.pax(&[("SCHILY.xattr.user.overlay.metacopy", b"")]).file("c", "");
        }),
        c("twin_pax_path_and_linkpath_override_the_header", lines("real d 755\nreal/name l real/target"), |t, _| {
            t.pax(&[("path", b"real/name"), ("linkpath", b"real/target")]).sym("short", "short");
        }),
        c("twin_gnu_long_name_and_target", lines(&format!("{0} l {0}", "n".repeat(120))), |t, _| {
            let long = "n".repeat(120);
            t.long(b'K', &long).long(b'L', &long).raw(H::new(b'2', &long[..100]).gnu().link(&long[..100]), []);
        }),
        c("twin_posix_prefix", lines("a d 755\na/b f 644 x"), |t, _| {
            t.raw(H::new(b'0', "b").bytes(345, b"a").size(1), "x");
        }),
        c("twin_equal_pax_size", lines("a f 644 abc"), |t, _| _ = t.pax(&[("size", b"3")]).file("a", "abc")),
        c("twin_git_archive_global_comment", lines("a f 644 x"), |t, _| {
            t.global(&[("comment", b"0123456789abcdef0123456789abcdef01234567")]).file("a", "x");
        }),
        c("twin_unknown_pax_keys_are_ignored", lines("a f 644 x"), |t, _| {
            t.pax(&[("VENDOR.key", b"\xff\0\n=1"), ("atime", b"1.5"), ("SCHILY.fflags", b"x")]).file("a", "x");
        }),
    ]);
}

/// The PAX-size case, whose hidden header must have become plain content.
fn hidden_content() -> Expect {
    let mut hidden = Tar::default();
    hidden.file("smuggled", "");
    hidden.0.resize(1024, b'x');
    Expect::Tree(vec![format!("a f 644 {}", String::from_utf8_lossy(&hidden.0)), "b f 644".to_owned()])
}

fn headers(cases: &mut Vec<Case>) {
    let c = |n: &str, e, b: fn(&mut Tar, &str)| case(n, e, b);
    cases.extend([
        c("bad_checksum_is_refused", Refused("bad header checksum"), |t, _| {
            t.file("a", "");
            t.0[0] = b'b';
        }),
        c("checksum_with_garbage_is_refused", Refused("bad header checksum"), |t, _| {
            t.file("a", "");
            t.0[148..156].copy_from_slice(b"zzzzzzz\0");
        }),
        c("unknown_magic_is_refused", Refused("unknown tar format"), |t, _| {
            t.raw(H::new(b'0', "a").bytes(257, b"ustar\0xx"), []);
        }),
        c("star_format_is_refused", Refused("unknown tar format"), |t, _| {
            t.raw(H::new(b'0', "a").bytes(508, b"tar\0"), []);
        }),
        c("extension_in_v7_format_is_refused", Refused("unknown tar format"), |t, _| {
            t.raw(H::new(b'x', "a").v7(), []);
        }),
        c("size_with_sign_is_refused", Refused("malformed number"), |t, _| {
            t.raw(H::new(b'0', "a").bytes(124, b"+0000000001\0"), "x");
        }),
        c("size_with_garbage_behind_nul_is_refused", Refused("malformed number"), |t, _| {
            t.raw(H::new(b'0', "a").bytes(124, b"0001\x0077777\0\0"), "x");
        }),
        c("mode_with_garbage_is_refused", Refused("malformed number"), |t, _| {
            t.raw(H::new(b'0', "a").bytes(100, b"rw-r--r-"), "");
        }),
        c("device_number_beyond_the_kernels_is_refused", Refused("out of range"), |t, _| {
            t.raw(H::new(b'3', "a").octal(329, 8, 0o10000).octal(337, 8, 0), []);
        }),
        c("truncated_header_is_refused", Refused("in the middle of an entry"), |t, _| {
            t.file("a", "");
            t.0.truncate(300);
            t.0.extend(b"RAW");
        }),
        c("truncated_content_is_refused", Refused("in the middle of an entry"), |t, _| {
            t.file("a", [b'x'; 2000]);
            t.0.truncate(1000);
            t.0.extend(b"RAW");
        }),
        c("truncated_padding_is_refused", Refused("in the middle of an entry"), |t, _| {
            t.file("a", "x");
            t.0.truncate(600);
            t.0.extend(b"RAW");
        }),
        c("claimed_size_beyond_the_stream_is_refused", Refused("in the middle of an entry"), |t, _| {
            t.raw(H::new(b'0', "a").size(1 << 29), "x");
        }),
        c("claimed_size_beyond_the_limit_is_refused_at_once", Refused("larger than the limit"), |t, _| {
            t.raw(H::new(b'0', "a").size(1 << 31), "x");
        }),
        c("entry_after_the_end_is_refused", Refused("after the end"), |t, _| {
            let end = t.file("a", "").end();
            t.0 = end;
            t.file("smuggled", "");
        }),
        c("entry_after_a_single_zero_block_is_refused", Refused("after the end"), |t, _| {
            t.file("a", "");
            t.0.extend([0; 512]);
            t.file("smuggled", "");
        }),
        c("bytes_after_the_end_are_refused", Refused("after the end"), |t, _| {
            t.0 = t.file("a", "").end();
            t.0.extend(b"xRAW");
        }),
        c("too_many_entries_are_refused", Refused("too many entries"), |t, _| {
            for n in 0..10_001 {
                t.raw(H::new(b'1', format!("f{n}")).link("f0"), []);
                if n == 0 {
                    t.0.clear();
                    t.file("f0", "");
                }
            }
        }),
        c("too_many_implied_directories_are_refused", Refused("too many entries"), |t, _| {
            for n in 0..30 {
                t.pax(&[("path", format!("{n}/{}f", "d/".repeat(400)).as_bytes())]).file("x", "");
            }
        }),
        c("twin_an_archive_without_end_blocks_is_complete", lines("a f 644 x"), |t, _| {
            t.file("a", "x").0.extend(b"RAW");
        }),
        c("twin_an_archive_padded_to_ten_kilobytes", lines("a f 644 x"), |t, _| {
            t.0 = t.file("a", "x").end();
            t.0.resize(10_240, 0);
            t.0.extend(b"RAW");
        }),
        c("twin_an_empty_archive_is_an_empty_layer", lines(""), |_, _| {}),
        c("twin_an_empty_stream_is_an_empty_layer", lines(""), |t, _| t.0.extend(b"RAW")),
        c("twin_file_type_bits_in_the_mode_are_ignored", lines("a f 4755 x"), |t, _| {
            t.raw(H::new(b'0', "a").mode(0o104_755).size(1), "x");
        }),
        c("twin_v7_file_and_link", lines("a f 644 x\nb l a"), |t, _| {
            t.raw(H::new(0, "a").v7().size(1), "x").raw(H::new(b'2', "b").v7().link("a"), []);
        }),
        c("twin_closed_directories_can_be_filled", lines("d d 0\nd/e d 500\nd/e/f f 0 x"), |t, _| {
            t.raw(H::new(b'5', "d").mode(0), []).raw(H::new(b'5', "d/e").mode(0o500), []);
            t.raw(H::new(b'0', "d/e/f").mode(0).size(1), "x");
        }),
    ]);
    for flag in [b'7', b'8', b'A', b'D', b'M', b'N', b'V', b'X', b'Z', 0xff, b' '] {
        cases.push(case(
            format!("unknown_type_{:?}_is_refused", char::from(flag)),
            Refused("unsupported entry type"),
            move |t, _| _ = t.raw(H::new(flag, "a"), []),
        ));
    }
    for flag in [b'1', b'2', b'3', b'4', b'6'] {
        cases.push(case(
            format!("content_on_type_{:?}_is_refused", char::from(flag)),
            Refused("must not have content"),
            move |t, _| _ = t.raw(H::new(flag, "a").gnu().link("x").device(1, 3).size(512), [0; 512]),
        ));
    }
}

/// A PAX sparse file of format 1.0 with this map text.
fn sparse_1_0(t: &mut Tar, map: &str, real: &str, data: &str) {
    let mut content = map.as_bytes().to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content.extend(data.as_bytes());
    let keys: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", real.as_bytes()),
    ];
    t.pax(&keys).raw(H::new(b'0', "GNUSparseFile.0/s").size(content.len() as u64), content);
}

fn sparse(cases: &mut Vec<Case>) {
    let c = |n: &str, e, b: fn(&mut Tar, &str)| case(n, e, b);
    cases.extend([
        c("cve_2025_58183_a_map_of_too_many_segments_is_refused", Refused("too many segments"), |t, _| {
            sparse_1_0(t, "1000000\n", "1", "");
        }),
        c("sparse_bomb_beyond_the_limit_is_refused", Refused("larger than the limit"), |t, _| {
            sparse_1_0(t, "0\n", "4611686018427387904", "");
        }),
        c("sparse_many_bombs_are_counted_together", Refused("larger than the limit"), |t, _| {
            for _ in 0..5 {
                sparse_1_0(t, "0\n", "300000000", "");
            }
        }),
        c("sparse_segment_beyond_the_file_is_refused", Refused("beyond the end"), |t, _| {
            sparse_1_0(t, "1\n8\n4\n", "10", "abcd")
        }),
        c("sparse_overlap_is_refused", Refused("overlapping"), |t, _| {
            sparse_1_0(t, "2\n0\n4\n2\n4\n", "10", "abcdefgh")
        }),
        c("sparse_overflow_is_refused", Refused("invalid sparse map"), |t, _| {
            sparse_1_0(t, "1\n9223372036854775807\n9223372036854775807\n", "10", "");
        }),
        c("sparse_more_than_stored_is_refused", Refused("stored bytes"), |t, _| {
            sparse_1_0(t, "1\n0\n9\n", "10", "abcd")
        }),
        c("sparse_less_than_stored_is_refused", Refused("stored bytes"), |t, _| {
            sparse_1_0(t, "1\n0\n1\n", "10", "abcd")
        }),
        c("sparse_map_with_sign_is_refused", Refused("malformed number"), |t, _| {
            sparse_1_0(t, "1\n-1\n4\n", "10", "abcd")
        }),
        c("sparse_map_without_end_is_refused", Refused("invalid sparse map"), |t, _| {
            sparse_1_0(t, "9\n0\n1\n", "10", "")
        }),
        c("sparse_map_of_digits_only_is_refused", Refused("malformed number"), |t, _| {
            sparse_1_0(t, &"1".repeat(2000), "10", "");
        }),
        c("sparse_unknown_version_is_refused", Refused("unknown version"), |t, _| {
            t.pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")])
                .file("s", "");
        }),
        c("sparse_without_length_is_refused", Refused("no length"), |t, _| {
            t.pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]).file("s", "");
        }),
        c("sparse_keys_on_a_directory_are_refused", Refused("no regular file"), |t, _| {
            t.pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")]).dir("s");
        }),
        c("sparse_name_with_parent_component_is_refused", Refused("'..'"), |t, _| {
            t.pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1"), ("GNU.sparse.name", b"../x")])
                .file("s", "a");
        }),
        c("sparse_odd_map_is_refused", Refused("odd number"), |t, _| {
            t.pax(&[("GNU.sparse.map", b"0,1,2"), ("GNU.sparse.size", b"9")]).file("s", "a");
        }),
        c("sparse_star_format_is_refused", Refused("star"), |t, _| {
            _ = t.pax(&[("SCHILY.realsize", b"9")]).file("s", "a")
        }),
        c("sparse_type_in_posix_format_is_refused", Refused("unsupported entry type"), |t, _| {
            t.raw(H::new(b'S', "s"), []);
        }),
        c("sparse_old_gnu_endless_extension_is_truncated", Refused("in the middle of an entry"), |t, _| {
            let mut more = [0u8; 512];
            more[504] = 1;
            t.raw(H::new(b'S', "s").gnu().bytes(482, [1]).octal(483, 12, 9), [more, more].concat()).0.extend(b"RAW");
        }),
        c("twin_sparse_1_0", lines("s f 644 \0\0ab\0\0cd\0\0"), |t, _| sparse_1_0(t, "2\n2\n2\n6\n2\n", "10", "abcd")),
        c("twin_sparse_0_1", lines("real f 644 \0ab\0"), |t, _| {
            t.pax(&[("GNU.sparse.size", b"4"), ("GNU.sparse.map", b"1,2"), ("GNU.sparse.name", b"real")])
                .file("s", "ab");
        }),
        c("twin_sparse_0_0", lines("s f 644 a\0\0b"), |t, _| {
            let keys: [(&str, &[u8]); 6] = [
                ("GNU.sparse.size", b"4"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"0"),
                ("GNU.sparse.numbytes", b"1"),
                ("GNU.sparse.offset", b"3"),
                ("GNU.sparse.numbytes", b"1"),
            ];
            t.pax(&keys).file("s", "ab");
        }),
        c("twin_sparse_old_gnu_with_extension_block", lines("s f 644 a\0\0b"), |t, _| {
            let h =
                H::new(b'S', "s").gnu().size(2).octal(386, 12, 0).octal(398, 12, 1).bytes(482, [1]).octal(483, 12, 4);
            let block = H([0; 512]).octal(0, 12, 3).octal(12, 12, 1).0;
            t.raw(h, block);
            t.0.extend(b"ab");
            t.0.resize(t.0.len().next_multiple_of(512), 0);
        }),
    ]);
}

/// Every type of entry under every spelling of a name that leads out, and under spellings that do not.
fn spellings(cases: &mut Vec<Case>) {
    type Put = fn(&mut Tar, &str);
    let kinds: [(&str, Put, &str); 5] = [
        ("file", |t, name| _ = t.file(name, "x"), "f 644 x"),
        ("directory", |t, name| _ = t.dir(name), "d 755"),
        ("symlink", |t, name| _ = t.sym(name, "target"), "l target"),
        ("hard_link", |t, name| _ = t.file("0", "x").hard(name, "0"), "f 644 x"),
        ("fifo", |t, name| _ = t.raw(H::new(b'6', name), []), "p 644"),
    ];
    for (kind, put, words) in kinds {
        for (at, name) in
            ["..", "../x", "a/..", "a/../../x", "/../x", "./../x", "a/b/../../../x"].into_iter().enumerate()
        {
            cases.push(case(format!("spelling_{at}_of_a_{kind}_outside_is_refused"), Refused("'..'"), move |t, _| {
                put(t, name);
            }));
        }
        for (at, name) in ["./a", "/a", "a/b", ".//a/./b", "///a", "...", "a..b"].into_iter().enumerate() {
            let path = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>();
            let mut tree = if kind == "hard_link" { "0 f 644 x\n".to_owned() } else { String::new() };
            if path.len() == 2 {
                tree.push_str(&format!("{} d 755\n", path[0]));
            }
            tree.push_str(&format!("{} {words}\n", path.join("/")));
            let mut expected: Vec<&str> = tree.lines().collect();
            expected.sort_unstable();
            let expect = lines(&expected.join("\n"));
            cases.push(case(format!("twin_spelling_{at}_of_a_{kind}"), expect, move |t, _| put(t, name)));
        }
    }
}

/// A header with one byte that the checksum does not know of.
fn checksums(cases: &mut Vec<Case>) {
    for at in (0..512usize).step_by(16).filter(|at| !(144..160).contains(at)) {
        cases.push(case(format!("header_byte_{at}_changed_is_refused"), Refused("checksum"), move |t, _| {
            t.file("a", "x");
            t.0[at] ^= 1;
        }));
    }
}

fn main() {
    let mut cases = Vec::new();
    spellings(&mut cases);
    checksums(&mut cases);
    through_links(&mut cases);
    links(&mut cases);
    roots(&mut cases);
    whiteouts(&mut cases);
    extensions(&mut cases);
    headers(&mut cases);
    sparse(&mut cases);
    // Device nodes need mknod: without root their cases are not this table's business.
    let root = common::is_root();
    let trials = cases.into_iter().map(|case| {
        let needs_root = case.name.contains("char") || case.name.contains("block_");
        Trial::test(case.name.replace(' ', "_"), move || run(&case)).with_ignored_flag(needs_root && !root)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
