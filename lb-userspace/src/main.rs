//! `weir`: the agent and its command line.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The proxy allocates some dozens of pieces a request, some of them buffers of 8 KiB, for which
/// glibc's has no quick way; and what idle connections give back goes back to the kernel without
/// being asked for. Without huge pages, of which an idle connection would hold more.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    lb_userspace::cli::main()
}
