//! Checks that the window's page is built, and declares the three commands that it may use.

fn main() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/dist/index.html");
    println!("cargo::rerun-if-changed={}", page.display());
    if !page.is_file() {
        println!("cargo::error=the window's page is missing: run npm ci && npm run build in ui");
        return;
    }
    let commands = tauri_build::AppManifest::new().commands(&["call", "watch", "start_node"]);
    if let Err(error) = tauri_build::try_build(tauri_build::Attributes::new().app_manifest(commands)) {
        println!("cargo::error={error:#}");
    }
}
