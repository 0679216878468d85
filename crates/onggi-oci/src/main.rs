//! onggi-oci
fn main() {}
