//! The `strowger` command: arguments to [`strowger::io::cli`], which does the rest.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages would hold 2 MiB for each thread's first few kilobytes. Refused: more memory, nothing worse.
    nix::sys::prctl::set_thp_disable(true).ok();
    strowger::io::cli::main()
}
