//! The pages of `docs/labs`, carried out as they stand there.
//!
//! A page is Markdown. What runs is in its fenced blocks: `console` is typed into a terminal and what is printed is
//! compared, `console 2` is a second terminal, and a block of another language with a file's name (`c busy.c`) is saved
//! under that name. The comment at its top says where it runs and which Debian packages it needs:
//!
//! ```text
//! <!-- lab
//! runs: host
//! packages: busybox-static iproute2
//! -->
//! ```
//! `image: nginx` asks for an image in a registry, whose name is in `$NGINX`.
//!
//!
//! `host` is a private machine ([`machine::Machine`]): network, mounts, processes, control groups and `/tmp` of its own.
//! `vm` is the virtual machine with systemd and control groups of version 2. Neither may have anything left of the page
//! when it has ended. Nothing here knows a command of any page.

pub mod compare;
pub mod coverage;
pub mod machine;
pub mod page;
pub mod terminal;

use std::{collections::BTreeMap, fs, path::PathBuf};

use machine::{IMAGE, Machine};
use page::{Page, Place, Step};
use terminal::Terminal;

use crate::{nginx, registry::Registry};

/// Where a page keeps its files; it makes this directory and removes it.
pub const DIR: &str = "/tmp/lab";

/// The directory of all pages.
pub fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/labs")
}

/// A page in one language (`en`, `ko`).
///
/// # Panics
/// When it is missing or not written as pages are.
pub fn read(language: &str, name: &str) -> Page {
    let path = docs().join(language).join(format!("{name}.md"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}:{error}", path.display()))
}

/// Carries a page out.
///
/// # Panics
/// With the page's line and both texts when something else is printed, and with a list when something is left.
pub fn carry_out(name: &str) {
    let page = read("en", name);
    // Made before the network of the private machine is all there is.
    let mut layout = page.image.as_ref().map(|_| nginx::layout());
    let machine = match page.place {
        Place::Host => Machine::private(layout.as_deref()),
        Place::Vm => Machine::virtual_machine(),
    };
    if page.place == Place::Host && layout.is_some() {
        layout = Some(PathBuf::from(IMAGE));
    }
    machine.assert_installed(&page.packages);
    let registry = layout.as_ref().map(|_| Registry::new());
    let image = layout.zip(registry.as_ref()).map(|(layout, registry)| registry.push_layout("nginx", &layout));
    let shell = || {
        let mut shell = machine.shell();
        shell.envs(image.iter().map(|name| ("NGINX", name)));
        shell
    };
    let before = machine.things();
    let mut terminals: BTreeMap<u8, Terminal> = BTreeMap::new();
    let mut differences = Vec::new();
    for step in &page.steps {
        match step {
            Step::Save { file, text } => {
                fs::write(PathBuf::from(DIR).join(file), text).unwrap_or_else(|e| panic!("save {file}: {e}"));
            }
            Step::Type { terminal, line, command, expected } => {
                let terminal = terminals.entry(*terminal).or_insert_with(|| Terminal::open(shell()));
                let printed = terminal.type_line(command, machine.patience());
                let printed = printed.unwrap_or_else(|error| panic!("{name}.md:{line}: `{command}`: {error}"));
                if let Err(difference) = compare::compare(expected, &printed) {
                    differences.push(format!("{name}.md:{line}: $ {command}\n{difference}"));
                }
            }
        }
    }
    drop(terminals);
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    machine.assert_as_before(&before);
}
