//! End-to-end tests: the installed programs, used as a user uses them, in a private machine per test.
//!
//! They need root. Run them with `cargo xtask test`, which builds the programs first.

mod archives;
mod bad_images;
mod bad_input;
mod bootstrap;
mod capabilities;
mod certificates;
mod cgroup;
mod chroot;
mod compressed;
mod concurrency;
mod cp;
mod crash;
mod daily;
mod docs;
mod doctor;
mod explain;
mod explain_verbs;
mod failing_calls;
mod fields;
mod formats;
mod full_disk;
mod habits;
mod image_edges;
mod image_habits;
mod image_mount;
mod images;
mod kernel;
mod kernel_page;
mod learn;
mod limit;
mod limit_terminal;
mod limit_tools;
mod manners;
mod mounts;
mod net_by_hand;
mod network;
mod nginx;
mod ns_enter;
mod options;
mod overlay;
mod pause;
mod port;
mod power;
mod primitives_guide;
mod progress;
mod registry;
mod rename;
mod rootless;
mod run;
mod runtime;
mod security;
mod see_through;
mod shell;
mod start;
mod store;
mod support;
mod terminal;
mod top;
mod top_name;
mod trace;
mod userns;
mod verbs;
mod why;

use onggi_tests::{
    Onggi,
    fake_registry::FakeRegistry,
    image::{self, Flavour},
    isolated,
};

/// A private machine, an empty store, and a registry that serves `busybox`.
struct Stage {
    onggi: Onggi,
    registry: FakeRegistry,
    busybox: String,
}

impl Stage {
    fn new() -> Stage {
        Stage::with(Onggi::new)
    }

    fn with(make: impl FnOnce() -> Onggi) -> Stage {
        isolated();
        let registry = FakeRegistry::new();
        let busybox = registry.serve("busybox", "latest", &image::busybox(Flavour::Oci));
        Stage { onggi: make(), registry, busybox }
    }

    /// `run --rm OPTIONS busybox sh -c SCRIPT`; its output.
    #[track_caller]
    fn script(&self, options: &[&str], script: &str) -> String {
        let image = [self.busybox.as_str(), "sh", "-c", script];
        self.onggi.ok(&[&["run", "--rm", "--network", "none"], options, &image].concat())
    }
}
