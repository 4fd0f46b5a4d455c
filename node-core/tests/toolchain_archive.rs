//! A toolchain file from a stranger: taken when it is whole, refused without a trace when it is anything else.

use std::fs;
use std::io::Read;
use std::path::Path;

use potluck_model::ids::Digest;
use potluck_model::plan::Family;
use potluck_node::toolchain::{ArchiveError, BadManifest, Entry, FileSource, Manifest, Store, export, import};

/// Two files and a link; contents lie in `dir`.
fn sample(dir: &Path) -> (Manifest, FileSource) {
    let contents: [&[u8]; 2] = [b"driver", &[7; 300_000]];
    for bytes in contents {
        fs::write(dir.join(Digest::of(bytes).to_string()), bytes).unwrap();
    }
    let file = |path: &str, bytes: &[u8]| Entry::File {
        path: path.into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        mode: 0o755,
    };
    let manifest = Manifest {
        family: Family::Gcc,
        cxx: false,
        version: "12.2.0".into(),
        target: "x86_64-linux-gnu".into(),
        driver: "/usr/bin/gcc".into(),
        programs: Vec::new(),
        languages: vec!["c".into()],
        env: Vec::new(),
        entries: vec![
            Entry::Link { path: "/usr/bin/gcc".into(), target: "gcc-12".into() },
            file("/usr/bin/gcc-12", contents[0]),
            file("/usr/lib/cc1", contents[1]),
        ],
        dirs: vec!["/usr/lib".into()],
        probes: Vec::new(),
    };
    let source = FileSource::of_folder(dir, &manifest);
    (manifest, source)
}

/// Nothing may be left in the store.
fn refused(archive: &[u8]) -> ArchiveError {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let error = import(&store, archive).unwrap_err();
    assert_eq!(fs::read_dir(store.dir()).unwrap().count(), 0, "{error}");
    error
}

struct Evil(tar::Builder<Vec<u8>>);

impl Evil {
    fn new(manifest: &Manifest) -> Self {
        let mut evil = Self(tar::Builder::new(Vec::new()));
        evil.add("manifest", tar::EntryType::Regular, &manifest.encode());
        evil
    }

    fn add(&mut self, name: &str, kind: tar::EntryType, bytes: &[u8]) {
        let mut header = tar::Header::new_ustar();
        // Written directly, because the library refuses to make such names.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o4755);
        header.set_entry_type(kind);
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
    }

    fn done(self) -> Vec<u8> {
        zstd::encode_all(&self.0.into_inner().unwrap()[..], 1).unwrap()
    }
}

fn packed() -> (tempfile::TempDir, Manifest, FileSource, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, source) = sample(dir.path());
    let mut archive = Vec::new();
    export(&manifest, &source, &mut archive).unwrap();
    (dir, manifest, source, archive)
}

#[test]
fn an_exported_toolchain_comes_back_whole() {
    let (_dir, manifest, source, archive) = packed();
    let mut twice = Vec::new();
    export(&manifest, &source, &mut twice).unwrap();
    assert_eq!(archive, twice, "the same toolchain gives the same file");

    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let id = import(&store, &archive[..]).unwrap();
    assert_eq!(id, manifest.id());
    assert_eq!(import(&store, &archive[..]).unwrap(), id, "again changes nothing");
    let (there, files) = store.imported(id).unwrap();
    assert_eq!(there, manifest);
    assert_eq!(store.list().unwrap(), [id]);
    for (digest, _) in manifest.contents() {
        assert_eq!(files.read(&digest).unwrap(), source.read(&digest).unwrap());
    }
    // It can be passed on.
    let mut again = Vec::new();
    export(&there, &files, &mut again).unwrap();
    assert_eq!(again, archive);
    store.remove(id).unwrap();
    assert!(store.imported(id).is_none() && store.list().unwrap().is_empty());
}

#[test]
fn a_file_changed_since_packing_is_not_exported() {
    let (dir, manifest, source, _) = packed();
    fs::write(dir.path().join(Digest::of(b"driver").to_string()), b"DRIVER").unwrap();
    assert!(matches!(export(&manifest, &source, Vec::new()), Err(ArchiveError::Io(..))));
}

#[test]
fn names_that_leave_the_folder_links_and_devices_are_refused() {
    let (_dir, manifest, ..) = packed();
    use tar::EntryType as T;
    let inside = format!("files/{}", manifest.contents()[0].0);
    for (name, kind) in [
        ("../../evil", T::Regular),
        ("/etc/evil", T::Regular),
        ("files/../../evil", T::Regular),
        ("files/0000", T::Regular),
        (inside.as_str(), T::Symlink),
        (inside.as_str(), T::Link),
        (inside.as_str(), T::Char),
        (inside.as_str(), T::Fifo),
        (inside.as_str(), T::Directory),
        (inside.as_str(), T::GNULongName),
        (inside.as_str(), T::XHeader),
        (inside.as_str(), T::GNUSparse),
    ] {
        let mut evil = Evil::new(&manifest);
        evil.add(name, kind, b"x");
        assert!(matches!(refused(&evil.done()), ArchiveError::Unexpected(_)), "{name} {kind:?}");
    }
}

#[test]
fn set_user_id_and_escaping_paths_in_the_manifest_are_refused() {
    let (_dir, good, ..) = packed();
    let with = |entry: Entry| {
        let mut bad = good.clone();
        bad.entries = vec![entry];
        refused(&Evil::new(&bad).done())
    };
    let file = |path: &str, mode| Entry::File { path: path.into(), digest: Digest::of(b""), size: 0, mode };
    assert!(matches!(with(file("/usr/bin/su", 0o4755)), ArchiveError::Manifest(BadManifest::BadMode(..))));
    assert!(matches!(with(file("/usr/../etc/x", 0o644)), ArchiveError::Manifest(BadManifest::BadPath(_))));
    assert!(matches!(with(file("/proc/self/mem", 0o644)), ArchiveError::Manifest(BadManifest::PrivatePlace(_))));
}

#[test]
fn wrong_content_wrong_size_and_surplus_are_refused() {
    let (_dir, manifest, source, _) = packed();
    let contents = manifest.contents();
    let name = |i: usize| format!("files/{}", contents[i].0);
    let bytes = |i: usize| source.read(&contents[i].0).unwrap();

    let mut wrong = bytes(0);
    wrong[0] ^= 1;
    let mut evil = Evil::new(&manifest);
    evil.add(&name(0), tar::EntryType::Regular, &wrong);
    assert!(matches!(refused(&evil.done()), ArchiveError::Content(_)));

    let mut evil = Evil::new(&manifest);
    evil.add(&name(0), tar::EntryType::Regular, &[bytes(0), vec![0]].concat());
    assert!(matches!(refused(&evil.done()), ArchiveError::Unexpected(_)));

    let mut evil = Evil::new(&manifest);
    evil.add(&name(0), tar::EntryType::Regular, &bytes(0));
    evil.add(&name(1), tar::EntryType::Regular, &bytes(1));
    evil.add("more", tar::EntryType::Regular, b"x");
    assert!(matches!(refused(&evil.done()), ArchiveError::Unexpected(_)));

    let mut evil = Evil::new(&manifest);
    evil.add(&name(0), tar::EntryType::Regular, &bytes(0));
    assert!(matches!(refused(&evil.done()), ArchiveError::Damaged(_)));
}

/// Endless archive: `count` tiny entries after a good manifest, made on the fly.
struct Entries {
    head: std::io::Cursor<Vec<u8>>,
    block: Vec<u8>,
    at: usize,
    left: u64,
}

impl Read for Entries {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.head.read(buf)?;
        if n > 0 || self.left == 0 {
            return Ok(n);
        }
        let n = (&self.block[self.at..]).read(buf)?;
        self.at += n;
        if self.at == self.block.len() {
            self.at = 0;
            self.left -= 1;
        }
        Ok(n)
    }
}

#[test]
fn ten_million_entries_end_at_the_first_that_does_not_belong() {
    let (_dir, manifest, ..) = packed();
    let mut head = Evil::new(&manifest).0.into_inner().unwrap();
    head.truncate(head.len() - 1024);
    let mut one = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_path("x").unwrap();
    header.set_size(0);
    header.set_cksum();
    one.append(&header, &b""[..]).unwrap();
    let block = one.into_inner().unwrap()[..512].to_vec();
    let entries = Entries { head: std::io::Cursor::new(head), block, at: 0, left: 10_000_000 };
    let archive = zstd::stream::read::Encoder::new(entries, 1).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    assert!(matches!(import(&store, archive), Err(ArchiveError::Unexpected(_))));
}

#[test]
fn a_small_file_that_unpacks_to_terabytes_is_refused() {
    let (_dir, manifest, ..) = packed();
    // A manifest entry of a terabyte of zeros: refused by the size in its header.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_path("manifest").unwrap();
    header.set_size(1 << 32);
    header.set_cksum();
    tar.append(&header, &b""[..]).unwrap();
    let bomb = zstd::stream::read::Encoder::new(
        std::io::Cursor::new(tar.into_inner().unwrap()[..512].to_vec()).chain(std::io::repeat(0)),
        1,
    );
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let error = import(&store, bomb.unwrap()).unwrap_err();
    assert!(matches!(error, ArchiveError::Manifest(BadManifest::TooLong)), "{error}");
    // A manifest that claims more than a toolchain may have.
    let mut big = manifest.clone();
    let size = 512 << 20;
    big.entries = (0..17u8)
        .map(|i| Entry::File { path: format!("/x{i:02}").into(), digest: Digest::of(&[i]), size, mode: 0o644 })
        .collect();
    let error = refused(&Evil::new(&big).done());
    assert!(matches!(error, ArchiveError::Manifest(BadManifest::TooManyBytes(_))), "{error}");
}

#[test]
fn a_cut_or_flipped_file_leaves_nothing_behind() {
    let (_dir, manifest, _, archive) = packed();
    for end in (0..archive.len() - 1).step_by(archive.len() / 64 + 1) {
        refused(&archive[..end]);
    }
    for at in (0..archive.len() * 8).step_by(archive.len() / 8 + 1) {
        let mut bad = archive.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        match import(&store, &bad[..]) {
            // A flip in padding that no content depends on may pass; then everything is what its id says.
            Ok(id) => assert_eq!(store.imported(id).unwrap().0.id(), id),
            Err(_) => assert_eq!(fs::read_dir(store.dir()).unwrap().count(), 0),
        }
    }
    assert!(manifest.check().is_ok());
}
