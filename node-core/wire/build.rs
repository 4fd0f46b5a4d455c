//! Compiles the `.proto` files with a pure-Rust compiler: no protoc on the machine.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["pool.proto", "team.proto"], ["proto"])?;
    // Boxed: a frame of every kind is as large as the largest.
    tonic_prost_build::configure()
        .bytes(".potluck.pool.v1.Chunk.data")
        .boxed(".potluck.pool.v1.Frame.kind.evidence")
        .boxed(".potluck.pool.v1.Result.signed")
        .compile_fds(files)?;
    Ok(())
}
