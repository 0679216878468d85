//! A seccomp policy: compiled, checked as the kernel does, and run beside a direct reading of its rules. See `onggi_fuzz::seccomp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onggi_fuzz::seccomp(data));
