//! `checkpoint` and `restore`: runc's verbs, which this runtime has no CRIU for. They say so, with runc's exit code,
//! and change nothing.

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag},
};

/// runc's flags, so that a caller hears of what is missing and not of his spelling.
pub(super) const CHECKPOINT_FLAGS: &[Flag] = &[
    Flag::value("image-path", ""),
    Flag::value("work-path", ""),
    Flag::value("parent-path", ""),
    Flag::switch("leave-running", ""),
    Flag::switch("tcp-established", ""),
    Flag::switch("tcp-skip-in-flight", ""),
    Flag::switch("link-remap", ""),
    Flag::switch("ext-unix-sk", ""),
    Flag::switch("shell-job", ""),
    Flag::switch("lazy-pages", ""),
    Flag::value("status-fd", ""),
    Flag::value("page-server", ""),
    Flag::switch("file-locks", ""),
    Flag::switch("pre-dump", ""),
    Flag::value("manage-cgroups-mode", ""),
    Flag::value("empty-ns", ""),
    Flag::switch("auto-dedup", ""),
];

pub(super) const RESTORE_FLAGS: &[Flag] = &[
    Flag::value("console-socket", ""),
    Flag::value("image-path", ""),
    Flag::value("work-path", ""),
    Flag::switch("tcp-established", ""),
    Flag::switch("ext-unix-sk", ""),
    Flag::switch("shell-job", ""),
    Flag::switch("file-locks", ""),
    Flag::value("manage-cgroups-mode", ""),
    Flag::value("bundle", "b"),
    Flag::switch("detach", "d"),
    Flag::value("pid-file", ""),
    Flag::switch("no-subreaper", ""),
    Flag::switch("no-pivot", ""),
    Flag::value("empty-ns", ""),
    Flag::switch("auto-dedup", ""),
    Flag::switch("lazy-pages", ""),
    Flag::value("lsm-profile", ""),
    Flag::value("lsm-mount-context", ""),
];

fn missing(verb: &str) -> Outcome {
    Err(CliError::Usage(format!("{verb} failed: CRIU is not supported: this runtime is built without it")))
}

pub(super) fn checkpoint(global: &Global, args: &Args) -> Outcome {
    // An unknown container is the first thing that is wrong, as with runc.
    onggi_sandbox::listed(&global.root, &args.id()?)?;
    missing("checkpoint")
}

pub(super) fn restore(_global: &Global, args: &Args) -> Outcome {
    onggi_sandbox::check_id(&args.id()?)?;
    missing("restore")
}
