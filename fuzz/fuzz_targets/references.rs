//! Image references. See `onggi_fuzz::references`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::references(data));
