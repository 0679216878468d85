//! The runtime's own `state.json`. See `onggi_fuzz::state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::state(data));
