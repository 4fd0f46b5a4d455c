//! The window's TypeScript types are those of the api: `ui/src/lib/api.ts` is generated, committed, and compared here.
//! After a change of the api: `POTLUCK_WRITE_TYPES=1 cargo test -p potluck-tests --test types`.

use std::any::TypeId;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use potluck_api::{build, call, view};
use ts_rs::{Config, TS, TypeVisitor};

const HEAD: &str = "\
// Generated from node-core/api by tests/tests/types.rs; not edited by hand.
// After a change of the api: POTLUCK_WRITE_TYPES=1 cargo test -p potluck-tests --test types

";

/// Declarations by name, so that a change moves no other line.
struct Collector {
    config: Config,
    seen: HashSet<TypeId>,
    declared: BTreeMap<String, String>,
}

impl TypeVisitor for Collector {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        // Only derived types have a place to be exported to; the others are TypeScript's own.
        if T::output_path().is_none() || !self.seen.insert(TypeId::of::<T>()) {
            return;
        }
        let docs = T::docs().unwrap_or_default();
        let text = format!("{docs}export {}\n", T::decl(&self.config));
        let before = self.declared.insert(T::ident(&self.config), text);
        assert!(before.is_none(), "two types of the api are called {}", T::ident(&self.config));
        T::visit_dependencies(self);
    }
}

fn generated() -> String {
    // Every number here is far below 2^53: times in milliseconds, bytes of disks.
    let config = Config::new().with_large_int("number");
    let mut all = Collector { config, seen: HashSet::new(), declared: BTreeMap::new() };
    all.visit::<call::Call>();
    all.visit::<view::Snapshot>();
    all.visit::<view::Update>();
    // What calls answer.
    all.visit::<view::Done>();
    all.visit::<view::Refusal>();
    all.visit::<view::Invitation>();
    all.visit::<view::Joining>();
    all.visit::<view::WebAddress>();
    all.visit::<view::Check>();
    all.visit::<build::Report>();
    all.visit::<build::JobColumns>();
    all.visit::<build::Kind>();
    let declarations: Vec<String> = all.declared.into_values().collect();
    format!(
        "{HEAD}/** Raised when a field changes its meaning; fields are added freely. */\nexport const SCHEMA = {};\n\n{}",
        potluck_api::SCHEMA,
        declarations.join("\n")
    )
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/src/lib/api.ts")
}

#[test]
fn the_windows_types_are_those_of_the_api() {
    let (path, wanted) = (committed(), generated());
    if std::env::var_os("POTLUCK_WRITE_TYPES").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("ui/src/lib can be made");
        std::fs::write(&path, &wanted).expect("api.ts can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is not what the api says\nhint: POTLUCK_WRITE_TYPES=1 cargo test -p potluck-tests --test types",
        path.display()
    );
}
