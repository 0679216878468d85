//! The reader of tar archives. See `onggi_fuzz::tar_entries`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::tar_entries(data));
