//! User strings. See `onggi_fuzz::users`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::users(data));
