//! A strict tar reader, and a deterministic writer (`writer.rs`).
//!
//! In: bytes in pieces ([`Source`]). Out: [`Entry`] after entry with every extension applied (PAX, GNU long
//! names, the four GNU sparse formats), and the content in pieces. It exists because image layers are hostile
//! input, and because the readers in the field disagree on odd archives: what two of them read differently is
//! an error here, so what is unpacked is what everyone else saw. The crates at hand are more lenient: tar-core 0.1, say, ends
//! a PAX header silently at a malformed record, reads on after a lone zero block, takes `+7` for a number, and has neither
//! negative nor fractional times. This one never touches a file, allocates no more
//! than `limits` allow and never panics on input.

mod error;
mod header;
mod pax;
mod reader;
mod writer;

pub use error::{TarError, TarErrorKind};
pub use header::BLOCK;
pub use reader::{Entry, Kind, Source, TarReader};
pub use writer::TarWriter;
