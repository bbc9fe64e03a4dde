//! Parse, start, exit code.

use std::process::ExitCode;

use clap::Parser;
use sluice::cli::{Cli, execute};

fn main() -> ExitCode {
    keep_freed_memory();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: could not start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(execute(cli));
    // what still runs after a drain's deadline loses nothing: it is not committed
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Has the allocator keep what is freed, up to a bound, instead of giving it back to the kernel. Batches, pages and
/// files are buffers of 100 KiB to 32 MiB that come and go: given back, each is mapped and zeroed again (195,000 page
/// faults for 256 MiB of input instead of 131,000, and a fifth of the CPU time).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    /// Larger blocks are mapped alone and given back when freed: whole objects, and few of them. It is the most that
    /// the library takes. Source: glibc 2.36, malloc/malloc.c, HEAP_MAX_SIZE / 2.
    const MMAP_THRESHOLD_BYTES: libc::c_int = 32 << 20;
    /// What may lie unused at the end of the heap.
    const TRIM_THRESHOLD_BYTES: libc::c_int = 512 << 20;
    /// The heap grows by that much.
    const TOP_PAD_BYTES: libc::c_int = 16 << 20;
    // Each arena keeps what it freed, and the library makes eight for each processor. One for two processors is enough: most
    // bytes are in few large buffers, and small ones come from the caches of threads. With two on two processors 1,000 open
    // partitions took 130 MiB more, and the CPU time was the same.
    let arenas_max = std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2)) as libc::c_int;
    let options = [
        (libc::M_ARENA_MAX, arenas_max),
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
        (libc::M_TOP_PAD, TOP_PAD_BYTES),
    ];
    for (option, value) in options {
        #[expect(unsafe_code, reason = "mallopt only sets a number of the allocator; nothing runs beside it yet")]
        // SAFETY: called before any thread is started, with options that this C library knows
        unsafe {
            libc::mallopt(option, value);
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}
