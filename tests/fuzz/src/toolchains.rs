//! Toolchains: manifests, files, traces, programs.

use std::path::{Component, Path};

use potluck_model::ids::Digest;
use potluck_node::toolchain::{Entry, Manifest, Store, Touched, archive as file, elf as programs};

/// What is accepted has one spelling, stays where it may be, and every question about it ends.
pub fn manifest(input: &[u8]) {
    let Ok(manifest) = Manifest::decode(input) else { return };
    assert_eq!(manifest.encode(), input, "a manifest has one spelling");
    for entry in &manifest.entries {
        let path = entry.path();
        assert!(path.is_absolute());
        let plain = path.components().skip(1).all(|c| matches!(c, Component::Normal(_)));
        assert!(plain, "{path:?} is not in its simplest form");
        if let Entry::File { mode, .. } = entry {
            assert_eq!(mode & !0o777, 0, "{path:?}");
        }
    }
    for program in &manifest.programs {
        manifest.follow(&program.path);
    }
    assert!(manifest.follow(&manifest.driver).is_some());
    assert!(manifest.contents().len() <= manifest.entries.len());
}

/// Records of a tracer that follows foreign programs.
pub fn trace(input: &[u8]) {
    let mut touched = Touched::default();
    let _ = touched.read(input, Path::new("/scratch"));
    let all = touched.present.iter().chain(&touched.opened).chain(&touched.executed).chain(&touched.absent);
    assert!(all.clone().all(|p| p.is_absolute() && !p.starts_with("/scratch")));
}

/// Names in a program are no longer than the program.
pub fn elf(input: &[u8]) {
    let Some(object) = programs::read_object(input) else { return };
    for name in object.needed.iter().chain(&object.rpath).chain(&object.runpath) {
        assert!(name.len() <= input.len());
    }
}

/// As it is, or (first byte not zstd's) as the tar inside: whatever is in it, the store afterwards holds nothing or a whole
/// toolchain, and nothing lies beside it.
pub fn archive(input: &[u8]) {
    const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let packed;
    let input = match input.starts_with(&ZSTD_MAGIC) {
        true => input,
        false => {
            packed = zstd::bulk::compress(input, 1).expect("memory is there");
            &packed[..]
        }
    };
    let dir = crate::paths::scratch();
    let cache = dir.path().join("cache");
    let store = Store::open(&cache).expect("a scratch folder can be written");
    let taken = file::import(&store, input);
    let inside: Vec<_> = std::fs::read_dir(store.dir()).expect("its folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(std::fs::read_dir(dir.path()).expect("its folder").count(), 1, "something lies beside the store");
    match taken {
        Err(why) => {
            assert!(inside.is_empty(), "refused ({why}), and left {inside:?}");
            assert!(!why.to_string().is_empty());
        }
        Ok(id) => {
            assert_eq!(inside, [id.to_string().as_str()], "more than the toolchain was made");
            let (manifest, files) = store.imported(id).expect("it was imported");
            assert_eq!(manifest.id(), id);
            for (digest, size) in manifest.contents() {
                let bytes = files.read(&digest).expect("every content is there");
                assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest, size));
            }
        }
    }
}
