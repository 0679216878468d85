//! `config.json`: parsed, planned, printed in every form. See `onggi_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::config(data));
