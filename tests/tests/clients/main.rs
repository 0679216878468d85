//! Other people's engines with `onggi-oci` as their runtime, and with runc as the control.
//!
//! Each test has a private machine (see [`onggi_tests::isolated`]) and starts its own daemon on a root of its
//! own. A script is run once per runtime with the same assertions, so a failure of the machine shows as a
//! failure of both. They need root; `cargo xtask test` builds the programs first.

mod buildah;
mod containerd;
mod docker;
mod docker_build;
mod docker_more;
mod docker_run;
mod docker_verbs;
mod docs;
mod formats;
mod podman;
mod podman_more;
mod rootless;
mod stress;
mod support;
