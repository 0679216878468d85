//! Archives of images as `load` reads them. See `onggi_fuzz::archives`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::archives(data));
