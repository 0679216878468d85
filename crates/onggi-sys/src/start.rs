//! The C library's start without its questions to the processor.
//!
//! glibc 2.36 asks some 40 times what the processor is and how large its caches are, to choose among variants of
//! `memcpy` and its like. Each `cpuid` leaves a virtual machine: 6.6 µs where it was measured, 0.27 ms in all, a
//! twentieth of a container's life. A runtime copies a few kilobytes, for which the variants that every x86-64
//! processor has (SSE2) are as good.
//!
//! So this does what `__libc_start_main` of a static program does, in its order, and leaves out `init_cpu_features`: the
//! table of the processor's features stays empty, as on the plainest processor. It stands on the insides of one version
//! of the library, so `cargo xtask` asks for it (`--cfg onggi_short_start`) only where it links that version;
//! everywhere else [`crate::entry`] goes on to `_start`. Left out besides: `__libc_check_standard_fds`
//! ([`crate::begin`] does that for every caller), arrays of destructors (the program has none; streams are flushed by
//! exit(3) itself), and the way back for pthread_exit(3) of the first thread.

// The stack pointer leads to argc, argv, envp and the auxiliary vector, rdx to a function for atexit(3) or is 0 (System
// V ABI, "Process Initialization"). Before `_dl_relocate_static_pie` no address may be read from memory; before
// `__libc_setup_tls` nothing may use %fs. rbx, r12, r14 and r15 survive calls: envp, rdx, argv, argc.
std::arch::global_asm!(
    ".pushsection .text.onggi_start, \"ax\", @progbits",
    ".globl onggi_start",
    ".hidden onggi_start",
    ".type onggi_start, @function",
    "onggi_start:",
    "xor ebp, ebp",
    "mov r12, rdx",
    "mov r15, [rsp]",
    "lea r14, [rsp + 8]",
    "lea rbx, [r14 + r15 * 8 + 8]",
    "mov [rip + __libc_stack_end], rsp",
    "mov [rip + __environ], rbx",
    "and rsp, -16",
    // The auxiliary vector begins behind the null pointer that ends the environment.
    "mov rdi, rbx",
    "20: add rdi, 8",
    "cmp qword ptr [rdi - 8], 0",
    "jne 20b",
    "call _dl_aux_init",
    "mov rdi, rbx",
    "call __tunables_init",
    // From this size on memcpy goes past the caches: what the library takes for a shared cache of 1 MiB, its own guess.
    "mov qword ptr [rip + __x86_shared_non_temporal_threshold], {past_caches}",
    "mov qword ptr [rip + __x86_rep_movsb_stop_threshold], {past_caches}",
    "call _dl_relocate_static_pie",
    // Functions that choose themselves, in a program that is not relocated.
    ".weak __rela_iplt_start",
    ".weak __rela_iplt_end",
    "mov r13, [rip + __rela_iplt_start@GOTPCREL]",
    "30: cmp r13, [rip + __rela_iplt_end@GOTPCREL]",
    "jae 40f",
    "call [r13 + 16]",
    "mov rdx, [r13]",
    "mov [rdx], rax",
    "add r13, 24",
    "jmp 30b",
    "40: call __libc_setup_tls",
    // The canary of stacks, whose first byte ends strings, and the guard of stored addresses: 16 random bytes of the kernel.
    "mov rdx, [rip + _dl_random]",
    "mov rax, [rdx]",
    "xor al, al",
    "mov fs:[0x28], rax",
    "mov rax, [rdx + 8]",
    "mov fs:[0x30], rax",
    "test r12, r12",
    "jz 50f",
    "mov rdi, r12",
    "xor esi, esi",
    "xor edx, edx",
    "call __cxa_atexit",
    "50: mov edi, 1",
    "call __libc_early_init",
    "mov edi, r15d",
    "mov rsi, r14",
    "mov rdx, rbx",
    "call __libc_init_first",
    "call _init",
    // Constructors: std keeps its arguments by one.
    "lea r13, [rip + __init_array_start]",
    "60: lea rax, [rip + __init_array_end]",
    "cmp r13, rax",
    "jae 70f",
    "mov edi, r15d",
    "mov rsi, r14",
    "mov rdx, rbx",
    "call [r13]",
    "add r13, 8",
    "jmp 60b",
    "70: mov edi, r15d",
    "mov rsi, r14",
    "mov rdx, rbx",
    "call main",
    "mov edi, eax",
    "call exit",
    "ud2",
    ".size onggi_start, . - onggi_start",
    ".popsection",
    past_caches = const 3 << 18,
);
