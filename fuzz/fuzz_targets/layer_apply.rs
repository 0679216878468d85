//! Layers against a model in memory. See `onggi_fuzz::layer_apply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::layer_apply(data));
