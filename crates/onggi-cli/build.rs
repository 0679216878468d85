//! Links again when the order of the functions has changed: cargo does not look into linker scripts.

fn main() {
    println!("cargo::rerun-if-changed=hot.ld");
}
