//! Control files of a cgroup, as statistics read them. See `onggi_fuzz::cgroup_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::cgroup_files(data));
