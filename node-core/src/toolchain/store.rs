//! Toolchains on disk: manifests of packed ones with what they rest on, and imported ones with their files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use potluck_model::ids::{Digest, ToolchainId};
use potluck_model::limits::BLOB_BYTES_MAX;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::ident::FileIdent;
use super::manifest::{MANIFEST_BYTES_MAX, Manifest, paths_bytes};

/// Largest index: some thousand files and names.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The folder `<cache>/potluck/toolchains`: `<id>.manifest`, `<key>.index` for packed ones, `<id>/` for imported ones.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What a packed toolchain rests on: while all of it holds, packing again gives the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) id: ToolchainId,
    /// Every packed file with its digest.
    pub(super) files: Vec<(FileIdent, Digest)>,
    /// Links that were followed and directories that were listed.
    pub(super) others: Vec<FileIdent>,
    /// Names that were looked for and not there.
    #[serde(with = "paths_bytes")]
    pub(super) absent: Vec<PathBuf>,
}

impl Index {
    pub(super) fn holds(&self) -> bool {
        self.files.iter().all(|(ident, _)| ident.holds())
            && self.others.iter().all(FileIdent::holds)
            && self.absent.iter().all(|path| fs::symlink_metadata(path).is_err())
    }
}

impl Store {
    /// The store below a cache folder (such as `~/.cache`); made if needed, for this user only.
    pub fn open(cache: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = cache.join("potluck/toolchains");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where an imported toolchain is or will be.
    pub(super) fn imported_dir(&self, id: ToolchainId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// A manifest that was packed or imported here. Damaged ones count as absent.
    pub fn manifest(&self, id: ToolchainId) -> Option<Manifest> {
        let bytes = read_bounded(&self.dir.join(format!("{id}.manifest")), MANIFEST_BYTES_MAX as u64)
            .or_else(|_| read_bounded(&self.imported_dir(id).join("manifest"), MANIFEST_BYTES_MAX as u64));
        let manifest = Manifest::decode(&bytes.ok()?).ok()?;
        (manifest.id() == id).then_some(manifest)
    }

    /// An imported toolchain: its manifest and where its files are.
    pub fn imported(&self, id: ToolchainId) -> Option<(Manifest, FileSource)> {
        let dir = self.imported_dir(id);
        let bytes = read_bounded(&dir.join("manifest"), MANIFEST_BYTES_MAX as u64).ok()?;
        let manifest = Manifest::decode(&bytes).ok().filter(|m| m.id() == id)?;
        let source = FileSource::of_folder(&dir.join("files"), &manifest);
        Some((manifest, source))
    }

    /// All toolchains known here, packed or imported.
    pub fn list(&self) -> io::Result<Vec<ToolchainId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            ids.extend(name.strip_suffix(".manifest").unwrap_or(&name).parse::<ToolchainId>().ok());
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Forgets a toolchain: its manifest, its index and its imported files.
    pub fn remove(&self, id: ToolchainId) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "index") && read_index(&path).is_none_or(|i| i.id == id) {
                fs::remove_file(&path)?;
            }
        }
        match fs::remove_file(self.dir.join(format!("{id}.manifest"))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        match fs::remove_dir_all(self.imported_dir(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    pub(super) fn index(&self, key: Digest) -> Option<Index> {
        read_index(&self.dir.join(format!("{key}.index")))
    }

    /// Keeps a packed toolchain. The manifest is on disk before the index that names it. A manifest that no index names
    /// any more (the compiler was upgraded) goes.
    pub(super) fn keep(&self, key: Digest, manifest: &[u8], index: &Index) -> io::Result<()> {
        let before = self.index(key).map(|old| old.id);
        write_whole(&self.dir, &format!("{}.manifest", index.id), manifest)?;
        let bytes = postcard::to_stdvec(index).map_err(io::Error::other)?;
        write_whole(&self.dir, &format!("{key}.index"), &bytes)?;
        match before.filter(|id| *id != index.id) {
            Some(old) if !self.indexed()?.contains(&old) => fs::remove_file(self.dir.join(format!("{old}.manifest"))),
            _ => Ok(()),
        }
    }

    /// The toolchains that some index names.
    fn indexed(&self) -> io::Result<Vec<ToolchainId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "index") {
                ids.extend(read_index(&path).map(|i| i.id));
            }
        }
        Ok(ids)
    }
}

fn read_index(path: &Path) -> Option<Index> {
    read_message(path).ok()
}

fn read_message<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    postcard::from_bytes(&read_bounded(path, INDEX_BYTES_MAX)?).map_err(io::Error::other)
}

/// A whole file, refused above a size.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is too long", path.display())));
    }
    Ok(bytes)
}

/// A file appears complete or not at all, also after a power failure.
fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    crate::store::write_whole(&dir.join(name), bytes)?;
    File::open(dir)?.sync_all()
}

/// Where the contents of one toolchain can be read, by digest.
#[derive(Clone, Debug, Default)]
pub struct FileSource {
    by_digest: HashMap<Digest, PathBuf>,
}

impl FileSource {
    /// The files at their own places on this machine (a packed toolchain).
    pub fn in_place(manifest: &Manifest) -> Self {
        Self { by_digest: manifest.files().map(|(path, digest, _)| (digest, path.to_owned())).collect() }
    }

    /// A folder of files named by digest (an imported toolchain).
    pub fn of_folder(dir: &Path, manifest: &Manifest) -> Self {
        let place = |digest: Digest| (digest, dir.join(digest.to_string()));
        Self { by_digest: manifest.contents().into_iter().map(|(digest, _)| place(digest)).collect() }
    }

    /// Where the content of this digest is. It may have changed since: `read` checks.
    pub fn path(&self, digest: &Digest) -> Option<&Path> {
        self.by_digest.get(digest).map(PathBuf::as_path)
    }

    /// The content, checked against its digest.
    pub fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let path = self.path(digest).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let bytes = read_bounded(path, BLOB_BYTES_MAX)?;
        if Digest::of(&bytes) != *digest {
            let what = format!("{} changed since its toolchain was packed", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(bytes)
    }
}
