//! Authentication challenges. See `onggi_fuzz::challenges`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::challenges(data));
