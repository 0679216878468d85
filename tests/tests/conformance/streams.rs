//! Standard streams that the caller has closed.

use std::process::Command;

use onggi_tests::{Bundle, Runtime};

/// No file of the runtime may get the number of a stream, nor the container a descriptor that it was not given.
#[test]
fn conformance_a_stream_that_the_caller_has_closed_is_dev_null_inside() {
    let ours = Runtime::Onggi.instance();
    for (name, script) in [("in", "exec 0<&-; exec \"$@\""), ("in-err", "exec 0<&- 2>&-; exec \"$@\"")] {
        let bundle = Bundle::new(&["sh", "-c", "readlink /proc/self/fd/0; ls /proc/self/fd | wc -l"]);
        bundle.write();
        let inner = ours.command(&["run", "--bundle"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args()).arg(bundle.path());
        let ran = ours.finish(shell.arg(ours.id(name)));
        assert_eq!(ran.code, Some(0), "{}", ours.explain(&ran));
        // ls(1) has the directory open itself.
        assert_eq!(ran.stdout.split_whitespace().collect::<Vec<_>>(), ["/dev/null", "4"], "{}", ours.explain(&ran));
    }
}
