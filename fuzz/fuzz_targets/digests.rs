//! Digests. See `onggi_fuzz::digests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::digests(data));
