//! The script of a verb: the lines of sh that do what each operation does.
//!
//! A script never seems to have done what it has not: when a step has no command (a verified blob, a row of many
//! columns), the script says which at its beginning and ends with an error, before it has changed anything.

use std::path::{Path, PathBuf};

use onggi_spec::{overlay::Directories, shell::quote};

use super::{RowChange, VerbOp, VerbPlan};

/// What an operation is in a script.
enum Line {
    /// Commands that do it.
    Commands(String),
    /// Nothing is to be done: it is so already, or a later command of ours will do it.
    Nothing,
    /// No command of a shell does it.
    Impossible,
}

impl VerbPlan {
    /// A script for sh.
    pub fn shell(&self) -> String {
        let mut out = format!("#!/bin/sh\n# {}\nset -u\n", self.title);
        out.extend(self.notes.iter().map(|note| format!("# note: {note}\n")));
        out.push_str(&self.refusal());
        for op in &self.operations {
            out.push_str(&format!("# {}\n", op.words()));
            if let Line::Commands(commands) = line(op) {
                out.push_str(&format!("{commands}\n"));
            }
        }
        if let Some(start) = &self.start {
            let script = start.shell();
            out.push_str(script.strip_prefix("#!/bin/sh\n").unwrap_or(&script));
        }
        out
    }

    /// What no command does, told before anything is changed.
    fn refusal(&self) -> String {
        let missing: Vec<String> = self
            .operations
            .iter()
            .filter(|op| matches!(line(op), Line::Impossible))
            .map(|op| format!("  {}\n", op.words()))
            .collect();
        match missing.is_empty() {
            true => String::new(),
            false => format!(
                "# Without this the script would do the rest alone, and leave a half.\n\
                 printf '%s\\n' {} >&2\nexit 1\n",
                quote(&format!("no command of a shell does this; onggi itself does:\n{}", missing.concat().trim_end()))
            ),
        }
    }
}

fn path(path: &Path) -> String {
    quote(&path.display().to_string())
}

/// Lines of sh that do the same.
fn line(op: &VerbOp) -> Line {
    Line::Commands(match op {
        VerbOp::HoldIntent { path: p } => format!("exec 9>{0}; flock 9; trap 'rm -f {0}' EXIT", path(p)),
        VerbOp::Signal { pid, signal } => format!("kill -{signal} {pid}"),
        VerbOp::WaitThenKill { pid, seconds, asked: (file, text) } => format!(
            "timeout {seconds} tail -s 0.1 --pid={pid} -f /dev/null || {{\n  {}\n  kill -KILL {pid}\n}}",
            write(file, text)
        ),
        // It may go, with its directory, at any moment: then there is nobody to wait for.
        VerbOp::AwaitMonitor { lock } => {
            format!("[ ! -e {0} ] || flock -s {0} true 2> /dev/null || [ ! -e {0} ]", path(lock))
        }
        VerbOp::MakeDir { path: p, .. } => format!("mkdir -p {}", path(p)),
        VerbOp::Write { path: p, text: Some(text), .. } => write(p, text),
        VerbOp::JoinGroup { path: p } => format!("echo $$ > {}", path(&p.join("cgroup.procs"))),
        VerbOp::Remove { path: p, .. } => format!("rm -rf {}", path(p)),
        // The monitor has done so, where there was one.
        VerbOp::RemoveCgroup { path: p } => format!(
            "[ ! -d {0} ] || {{ while read -r pid; do kill -KILL \"$pid\"; done < {0}/cgroup.procs; sleep 0.1; rmdir {0}; }}",
            path(p)
        ),
        VerbOp::Unpublish { set, key } => format!("nft delete element ip onggi {set} '{{ {key} }}' 2>/dev/null || :"),
        VerbOp::Row { database, sql: Some(sql), .. } => sqlite(database, sql),
        VerbOp::Row { database, change: RowChange::Delete, table, key, .. } => {
            sqlite(database, &format!("DELETE FROM {table} WHERE {} = {}", key.0, sql_text(&key.1)))
        }
        VerbOp::Ask { url, .. } => format!("curl -fsSL {} > /dev/null", quote(url)),
        VerbOp::Fetch { digest, from, .. } => format!("curl -fsSLo {} {}", quote(digest.hex()), quote(from)),
        VerbOp::Unpack { blob, dir, .. } => format!("mkdir -p {0}; bsdtar -xpf {1} -C {0}", path(dir), path(blob)),
        VerbOp::Freeze { oci_root, id, stop } => {
            let verb = if *stop { "pause" } else { "resume" };
            format!("onggi-oci --root {} {verb} {}", path(oci_root), quote(id))
        }
        VerbOp::Pack { from, below, to, whole } => pack(from, below, to, *whole),
        VerbOp::Enter { pid, user, cwd, env, args, kinds } => enter(*pid, kinds, *user, cwd, env, args),
        VerbOp::Run { args, .. } => words(args),
        VerbOp::Layer { files, entrypoint, search, name } => layer(files, entrypoint, search, name.as_deref()),
        VerbOp::Keep { .. } | VerbOp::Collect { .. } => return Line::Nothing,
        VerbOp::Write { text: None, .. } | VerbOp::Row { .. } | VerbOp::Send { .. } | VerbOp::Note { .. } => {
            return Line::Impossible;
        }
    })
}

/// `text` is expanded by sh.
fn write(to: &Path, text: &str) -> String {
    format!("printf '%s\\n' \"{text}\" > {}", path(to))
}

fn words(list: &[String]) -> String {
    list.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ")
}

/// A text as SQL writes it.
pub(super) fn sql_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn sqlite(database: &Path, sql: &str) -> String {
    format!("sqlite3 {} {}", path(database), quote(sql))
}

/// A whole tree is seen through an overlay in a mount namespace of its own.
fn pack(from: &Path, below: &[PathBuf], to: &str, whole: bool) -> String {
    let to = if to == super::STDOUT { "-".to_owned() } else { quote(to) };
    let tar = |dir: &str| format!("tar --xattrs --xattrs-exclude='*.overlay.*' --numeric-owner -C {dir} -cf {to} .");
    if !whole || below.is_empty() {
        return tar(&path(from));
    }
    let lower: Vec<&Path> = [from].into_iter().chain(below.iter().map(PathBuf::as_path)).collect();
    let mount = Directories { lower: &lower, upper: None }.command("overlay", ["ro"], "/mnt");
    format!("unshare --mount sh -c {}", quote(&format!("set -e\n{mount}\n{}", tar("/mnt"))))
}

/// The environment is given on the outside: an image need not have env(1). nsenter(1) is looked up before.
fn enter(pid: i32, kinds: &[String], user: (u32, u32), cwd: &str, env: &[String], args: &[String]) -> String {
    let flag = |kind: &String| match kind.as_str() {
        "mnt" => "--mount".to_owned(),
        other => format!("--{other}"),
    };
    let flags: Vec<String> = kinds.iter().map(flag).collect();
    format!(
        "exec env -i {} \"$(command -v nsenter)\" --target {pid} {} --setuid {} --setgid {} --wdns={} -- {}",
        words(env),
        flags.join(" "),
        user.0,
        user.1,
        quote(cwd),
        words(args)
    )
}

fn layer(files: &[PathBuf], entrypoint: &[String], search: &str, name: Option<&str>) -> String {
    let relative = |p: &PathBuf| path(p.strip_prefix("/").unwrap_or(p));
    let files: Vec<String> = files.iter().filter(|p| p.as_os_str() != "/").map(relative).collect();
    let entrypoint = serde_json::Value::from(entrypoint.to_vec());
    format!(
        "tar -C / --no-recursion --owner=0 --group=0 --numeric-owner --mtime=@0 --xattrs --xattrs-include=security.capability \
         -cf - {} |\n  onggi import -c {} -c {} - {}",
        files.join(" "),
        quote(&format!("ENV PATH={search}")),
        quote(&format!("ENTRYPOINT {entrypoint}")),
        name.map(quote).unwrap_or_default()
    )
}
