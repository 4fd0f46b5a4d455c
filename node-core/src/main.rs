//! The node and the management commands. The wrapper `potluck` hands over to this program for everything that is no
//! compile.

/// See the workspace's manifest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    potluck_node::cli::main()
}
