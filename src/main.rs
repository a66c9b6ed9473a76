//! The `strowger` command: arguments to [`strowger::io::cli`], which does the rest.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    strowger::io::cli::main()
}
