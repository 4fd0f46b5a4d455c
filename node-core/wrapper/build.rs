//! Links the wrapper statically with a plain `cargo build`, because the dynamic loader would be more than half of its
//! CPU time. Where the C library's archives are missing (or `POTLUCK_DYNAMIC` is set) it stays dynamic: only slower.

use std::path::{Path, PathBuf};
use std::process::Command;

/// rustc asks for shared libraries by these names; a linker script under the same name hands it the archives.
const SHARED: &[&str] = &["gcc_s", "c", "m", "rt", "pthread", "util", "dl"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(bare_start)");
    println!("cargo::rerun-if-env-changed=POTLUCK_DYNAMIC");
    println!("cargo::rerun-if-env-changed=CC");
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    let native = of("HOST") == of("TARGET");
    let glibc = of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu";
    // A sanitizer or an explicit crt-static has its own opinion about linking.
    let flags = of("CARGO_ENCODED_RUSTFLAGS");
    let chosen = of("CARGO_CFG_TARGET_FEATURE").split(',').any(|f| f == "crt-static") || flags.contains("sanitizer");
    if !native || !glibc || chosen || !of("POTLUCK_DYNAMIC").is_empty() {
        return;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if write_scripts(&out).is_some() {
        if of("CARGO_CFG_TARGET_ARCH") == "x86_64" {
            // An entry of its own, in a program that needs no relocation: see `bare`.
            println!("cargo::rustc-cfg=bare_start");
            println!("cargo::rustc-link-arg-bins=-no-pie");
            println!("cargo::rustc-link-arg-bins=-static");
            println!("cargo::rustc-link-arg-bins=-Wl,--entry=potluck_start");
            // Nothing is relocated, so there is nothing to protect after it: one mapping less.
            println!("cargo::rustc-link-arg-bins=-Wl,-z,norelro");
        } else {
            println!("cargo::rustc-link-arg-bins=-static-pie");
        }
        println!("cargo::rustc-link-arg-bins=-L{}", out.display());
    }
}

/// Writes the linker scripts; `None` when an archive that is needed is not installed.
fn write_scripts(out: &Path) -> Option<()> {
    let (c, eh, gcc) = (archive("c")?, archive("gcc_eh")?, archive("gcc")?);
    for name in SHARED {
        // Since glibc 2.34 most of these are part of libc; an archive that is missing is then not needed either.
        let own = archive(name).map(|p| p.display().to_string()).unwrap_or_default();
        let script = format!("GROUP ( {own} {} {} {} )\n", eh.display(), gcc.display(), c.display());
        std::fs::write(out.join(format!("lib{name}.so")), script).ok()?;
    }
    Some(())
}

/// The archive that the C compiler would link, if there is one.
fn archive(name: &str) -> Option<PathBuf> {
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(cc).arg(format!("-print-file-name=lib{name}.a")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (path.is_absolute() && path.is_file()).then_some(path)
}
