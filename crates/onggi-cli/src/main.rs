//! onggi
fn main() {}
