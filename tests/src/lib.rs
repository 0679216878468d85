//! What the end-to-end tests are made of: a private machine per test, images, registries, and the two
//! installed programs run as a user runs them.
//!
//! A test begins with [`isolated`], which gives it its own network, mount and pid namespaces; it makes an
//! [`Onggi`] with a store of its own; it ends with [`Onggi::assert_nothing_left`].
//!
//! Nothing here links the programs under test: what is tested is what is installed under `target/dist`.

pub mod assertions;
pub mod bundle;
pub mod cve;
pub mod fake_registry;
pub mod gate;
pub mod groups;
pub mod image;
pub mod isolation;
pub mod labs;
pub mod leaks;
pub mod machine;
pub mod nginx;
pub mod onggi;
pub mod recorder;
pub mod registry;
pub mod runtime;
pub mod tarball;

pub use assertions::{assert_refused, eventually};
pub use bundle::Bundle;
pub use groups::Lab;
pub use isolation::isolated;
pub use onggi::{Onggi, Ran};
pub use runtime::{Instance, Runtime};
