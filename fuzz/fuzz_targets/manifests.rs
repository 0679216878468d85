//! Manifests, indexes and configurations. See `onggi_fuzz::manifests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::manifests(data));
