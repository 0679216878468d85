//! Mount options. See `onggi_fuzz::mount_options`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::mount_options(data));
