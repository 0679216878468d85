//! `features`: what this runtime implements (features.md, features-linux.md).

use super::{Outcome, log::print};

pub(super) fn features() -> Outcome {
    print(&format!("{:#}\n", onggi_sandbox::features::document()));
    Ok(0)
}
