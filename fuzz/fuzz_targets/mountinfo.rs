//! `mountinfo` and `cgroup` files of procfs. See `onggi_fuzz::mountinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::mountinfo(data));
