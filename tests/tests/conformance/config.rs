//! config.md: what the process sees, field by field.

use crate::compare::same_view;

#[test]
fn conformance_base_bundle_looks_the_same() {
    same_view(|_| {});
}
