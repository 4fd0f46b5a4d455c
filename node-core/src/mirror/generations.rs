//! Immutable layers of output directories. An overlay's lower layers must not change while a job runs (tested: it
//! shows a mix), so a job gets a base layer (hard links to the mirror's files and poisons, empty directories for
//! subdirectories) and, above it, a small layer with what was added since. Layers go when no job uses them.

use std::collections::HashSet;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode};

use super::{Entry, Mirror, MirrorError, Name};
use crate::bytes;

/// Names added since the base layer before a new base is made: linking the additions costs each job some
/// microseconds a name, a new base as much for every name of the directory, once.
const ADDED_MAX: usize = 96;

/// The layers of one directory.
#[derive(Default)]
pub(super) struct State {
    base: Option<Arc<Layer>>,
    added: HashSet<Name>,
    top: Option<Arc<Layer>>,
    stale: bool,
}

/// A directory below `gens/`, removed when the last job lets go.
#[derive(Debug)]
pub struct Layer {
    path: std::path::PathBuf,
    name: String,
}

impl Drop for Layer {
    fn drop(&mut self) {
        if let Err(error) = super::remove_tree(&self.path) {
            crate::log::warn(&format!("layer {} stays: {error}", self.path.display()));
        }
    }
}

/// What a job mounts over one output directory. Holds the layers alive.
#[derive(Clone, Debug)]
pub struct Layers {
    /// Top first; names below `gens/`.
    layers: Vec<Arc<Layer>>,
    /// Subdirectories that are real in the mirror.
    pub binds: Vec<Vec<u8>>,
    /// Mode of the directory.
    pub mode: u32,
}

impl Layers {
    /// Names of the layers, top first.
    pub fn names(&self) -> Vec<Vec<u8>> {
        self.layers.iter().map(|l| l.name.clone().into_bytes()).collect()
    }
}

impl State {
    /// A name was added or replaced.
    pub(super) fn changed(&mut self, name: &[u8]) {
        if self.base.is_some() {
            self.added.insert(name.into());
            self.top = None;
        }
    }

    /// A name vanished: layers cannot express that.
    pub(super) fn structural(&mut self) {
        self.stale = true;
    }
}

impl Mirror {
    /// The layers of an output directory as it is now.
    pub fn layers(&mut self, path: &[u8]) -> Result<Layers, MirrorError> {
        let Some(&index) = self.by_path.get(path) else {
            return Err(MirrorError::Refused(format!("{}: was not sent", bytes::show(path))));
        };
        let state = &self.dir(index).layers;
        if state.base.is_none() || state.stale || state.added.len() > ADDED_MAX {
            let names: Vec<Name> = self.dir(index).names.keys().cloned().collect();
            let base = self.make_layer(index, &names)?;
            self.dir_mut(index).layers = State { base: Some(base), ..State::default() };
        } else if state.top.is_none() && !state.added.is_empty() {
            let names: Vec<Name> = state.added.iter().cloned().collect();
            let top = self.make_layer(index, &names)?;
            self.dir_mut(index).layers.top = Some(top);
        }
        let dir = self.dir(index);
        let layers = dir.layers.top.iter().chain(&dir.layers.base).cloned().collect();
        let binds = dir.names.iter().filter(|(_, e)| matches!(e, Entry::Dir(_))).map(|(n, _)| n.to_vec()).collect();
        Ok(Layers { layers, binds, mode: dir.mode })
    }

    fn make_layer(&mut self, index: usize, names: &[Name]) -> Result<Arc<Layer>, MirrorError> {
        self.generation_counter += 1;
        let name = self.generation_counter.to_string();
        let path = self.generations().join(&name);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755))?;
        let layer = Arc::new(Layer { path: path.clone(), name });
        let to = super::open_dir(&path)?;
        let from = self.open_at(index)?;
        let dir = self.dir(index);
        for name in names {
            let os = bytes::os(name);
            match dir.names.get(name) {
                Some(Entry::Dir(_)) => rustix::fs::mkdirat(&to, os, Mode::from_raw_mode(0o755))?,
                Some(_) => rustix::fs::linkat(&from, os, &to, os, AtFlags::empty())?,
                None => {}
            }
        }
        Ok(layer)
    }
}
