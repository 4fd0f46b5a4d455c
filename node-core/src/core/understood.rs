//! What commands mean, remembered: a build that is not the first brings the same commands again. Only what follows from
//! the command alone is kept, nothing that a file said.

use std::sync::Arc;

use potluck_model::ids::Digest;
use potluck_model::plan::Plan;
use potluck_wire::ipc;
use rustc_hash::FxHashMap as HashMap;

use crate::toolchain::{Compiler, SearchList};
use crate::tree::{ConfigId, Want};

/// Commands kept: some 3 kB each.
const COMMANDS_MAX: usize = 8192;

/// Commands by everything of them that can change their meaning.
#[derive(Default)]
pub(crate) struct Understood(HashMap<Digest, Entry>);

struct Entry {
    compiler: Arc<Compiler>,
    plans: Arc<[Plan]>,
    wants: Vec<Option<Wanted>>,
}

/// What one part of a command is known to look at, under one search list.
#[derive(Clone)]
struct Wanted {
    search: Arc<SearchList>,
    want: Arc<Want>,
    config: ConfigId,
}

/// `steering` is the compiler's name and the environment but for PWD.
pub(crate) fn key(steering: &Digest, compile: &ipc::Compile) -> Digest {
    let mut text = Vec::with_capacity(4096);
    text.extend_from_slice(&steering.0);
    let pwd = compile.env.iter().filter(|entry| entry.starts_with(b"PWD="));
    // The directory begins with a slash, PWD's entry does not: neither can be taken for an argument behind it.
    for part in pwd.chain([&compile.cwd]).chain(&compile.argv) {
        text.extend_from_slice(part);
        text.push(0);
    }
    Digest::of(&text)
}

impl Understood {
    /// The plans of a command that was understood before, for the same compiler.
    pub(crate) fn plans(&self, key: &Digest, compiler: &Arc<Compiler>) -> Option<Arc<[Plan]>> {
        let entry = self.0.get(key)?;
        Arc::ptr_eq(&entry.compiler, compiler).then(|| Arc::clone(&entry.plans))
    }

    /// Remembers a command that no file had a say in.
    pub(crate) fn keep(&mut self, key: Digest, compiler: &Arc<Compiler>, plans: &Arc<[Plan]>) {
        if self.0.len() >= COMMANDS_MAX {
            self.0.clear();
        }
        let wants = vec![None; plans.len()];
        self.0.insert(key, Entry { compiler: Arc::clone(compiler), plans: Arc::clone(plans), wants });
    }

    /// What a part of it looked at last time.
    pub(crate) fn want(&self, key: &Digest, part: usize, search: &Arc<SearchList>) -> Option<(Arc<Want>, ConfigId)> {
        let wanted = self.0.get(key)?.wants.get(part)?.as_ref()?;
        Arc::ptr_eq(&wanted.search, search).then(|| (Arc::clone(&wanted.want), wanted.config))
    }

    /// Remembers that.
    pub(crate) fn keep_want(
        &mut self,
        key: &Digest,
        part: usize,
        search: &Arc<SearchList>,
        want: &Arc<Want>,
        config: ConfigId,
    ) {
        if let Some(place) = self.0.get_mut(key).and_then(|entry| entry.wants.get_mut(part)) {
            *place = Some(Wanted { search: Arc::clone(search), want: Arc::clone(want), config });
        }
    }
}
