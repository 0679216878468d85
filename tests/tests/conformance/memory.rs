//! How much memory one run takes at its highest, beside crun's, as `cargo xtask bench --rows 23` takes it.
//!
//! The goal there is half of crun's. The bound here leaves room for what a machine does with the page cache; what exceeds
//! it is an order of functions that no longer fits the program (`crates/onggi-oci/hot.ld`).

use std::{fs, process::Command};

use onggi_tests::{Bundle, Instance, Runtime};

/// In hundredths of crun's.
const AT_MOST: u64 = 60;

/// KiB, by wait4(2): the runtime and what it has waited for.
fn peak(instance: &Instance, name: &str) -> u64 {
    let bundle = Bundle::new(&["true"]);
    bundle.write();
    let (inner, id, report) = (instance.command(&["run", "--bundle"]), instance.id(name), instance.dir().join("peak"));
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M", "-o"]).arg(&report).arg(inner.get_program()).args(inner.get_args());
    let ran = instance.finish(timed.arg(bundle.path()).arg(&id));
    assert_eq!(ran.code, Some(0), "{}", instance.explain(&ran));
    let text = fs::read_to_string(&report).expect("time (Debian package time) writes its report");
    text.trim().parse().unwrap_or_else(|_| panic!("time wrote {text:?}"))
}

#[test]
fn conformance_one_run_takes_little_more_than_half_of_the_memory_of_crun() {
    let (ours, crun) = (Runtime::Onggi.instance(), Runtime::Crun.instance());
    // The second run has everything in the page cache.
    let (_, _) = (peak(&ours, "cold"), peak(&crun, "cold"));
    let (ours, crun) = (peak(&ours, "warm"), peak(&crun, "warm"));
    assert!(
        ours * 100 <= crun * AT_MOST,
        "{ours} KiB, crun {crun} KiB. Is the program built by `cargo xtask`? `cargo xtask bench --hot` writes the order anew"
    );
}
