//! The submitter's side of compilers: finds the real driver, packs it with everything it opens, moves it in one file, and
//! asks it the questions that a job needs answered. It sends nothing; everything here blocks and belongs on threads that may.
//!
//! Reading order: `environment` and `ask` (how a compiler is run and its answers read), `find` (which compiler is meant),
//! `trace` and `elf` (what it opens), `manifest` (the list, also as hostile input), `probe` (how a worker proves itself),
//! `pack` (all together, with the cache on disk), `archive` (one file to carry), `native` (`-march=native`).

pub mod archive;
pub mod ask;
pub mod elf;
pub mod environment;
pub mod find;
pub mod ident;
pub mod manifest;
pub mod native;
pub mod pack;
pub mod probe;
pub mod store;
pub mod trace;
pub mod walk;

pub use archive::{ArchiveError, export, import};
pub use ask::{SearchList, search_list, search_list_of};
pub use environment::Environment;
pub use find::{Compiler, Compilers, FindError, list_compilers};
pub use ident::FileIdent;
pub use manifest::{BadManifest, Entry, Manifest, Probe};
pub use native::{Expanded, Native, expand_native};
pub use pack::{PackError, Packed};
pub use store::{FileSource, Store};
pub use trace::{Touched, runner_path};
pub use walk::lexical;
