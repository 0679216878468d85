//! `process.json` of exec. See `onggi_fuzz::process`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::process(data));
