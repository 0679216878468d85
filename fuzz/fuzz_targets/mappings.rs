//! Id mappings of a user namespace. See `onggi_fuzz::mappings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::mappings(data));
