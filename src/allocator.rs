//! What allocates for the program, and for programs that measure its parts.
//!
//! # Contract
//! Each of them takes this file as a module of its own: a library does not decide for tests and tools. Elsewhere than on
//! Linux the system's allocator is left as it is.

#![cfg(target_os = "linux")]

/// jemalloc: with the C library's allocator, a quarter of what a small object costs was spent in it and in waiting for
/// the lock of its arena (20,000 objects of 10 KiB: 6.2 instead of 11.3 CPU-seconds).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Settings of the allocator, ended by NUL; `MALLOC_CONF` in the environment goes before them. Batches, pages and files are
/// buffers of 100 KiB to 32 MiB that come and go: given back to the kernel, each is mapped and zeroed again.
///
/// - `oversize_threshold:0`: large buffers are kept as well, instead of being given back at once;
/// - `muzzy_decay_ms:-1`: what has lain unused is marked as free (`MADV_FREE`), and stays mapped: the kernel takes it when memory is short;
/// - `narenas_ratio:1`: one arena for each processor instead of four, since each keeps what it freed: a thousand open partitions
///   take 479 MiB on two processors (364 with one arena, which costs 7 % of the CPU time of staging).
///
/// Source: jemalloc 5.3, `TUNING.md` and `src/jemalloc.c` (`malloc_conf_init_helper`).
#[expect(unsafe_code, reason = "the allocator looks its settings up by this name; nothing else has it")]
// SAFETY: the type is that of `const char *malloc_conf`: a reference's first word is the address of a text that ends in NUL
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8] = b"narenas_ratio:1,oversize_threshold:0,dirty_decay_ms:10000,muzzy_decay_ms:-1\0";
