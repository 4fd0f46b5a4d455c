//! The first process of a worker's namespaces; see `potluck_tests::inside`.

fn main() {
    if let Err(e) = potluck_tests::inside::main() {
        eprintln!("lab-worker: {e}");
        std::process::exit(1);
    }
}
