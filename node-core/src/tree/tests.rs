//! What may be believed without looking, and what may not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use potluck_model::plan::DepsRule;

use super::{Tree, Want};
use crate::root::Root;

fn want(dir: &Path) -> Want {
    let sub = dir.join("a/b");
    Want {
        cwd: dir.to_owned(),
        source: b"s.c".to_vec(),
        preprocessed_here: true,
        angled: vec![crate::bytes::of(&sub).to_vec()],
        learned_max: usize::MAX,
        ..Want::default()
    }
}

/// Not below /tmp: that is private to every sandbox.
fn project() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().canonicalize().unwrap();
    fs::create_dir_all(path.join("a/b")).unwrap();
    fs::write(path.join("s.c"), "#include <x.h>\n").unwrap();
    fs::write(path.join("a/b/x.h"), "int one;\n").unwrap();
    (dir, path)
}

fn look(tree: &mut Tree, want: &Want) -> (usize, u64) {
    tree.begin_batch();
    let config = tree.config(want);
    let (closure, fingerprint) = tree.closure_since(config, want, tree.batch());
    (closure.files.len(), fingerprint)
}

#[test]
fn a_second_look_reads_no_directory_and_walks_nothing() {
    let (_dir, path) = project();
    let (mut tree, want) = (Tree::new(Root::own()), want(&path));
    let first = look(&mut tree, &want);
    assert_eq!(first.0, 2);
    let before = tree.counts;
    // An output beside the source is a new name, and changes nothing for the compile.
    fs::write(path.join("s.o"), "object").unwrap();
    assert_eq!(look(&mut tree, &want), first);
    assert_eq!((tree.counts.directory_reads, tree.counts.walks), (before.directory_reads, before.walks));
}

#[test]
fn a_folder_that_is_exchanged_above_is_noticed() {
    let (_dir, path) = project();
    let (mut tree, want) = (Tree::new(Root::own()), want(&path));
    let first = look(&mut tree, &want);
    fs::rename(path.join("a"), path.join("old")).unwrap();
    fs::create_dir_all(path.join("a/b")).unwrap();
    fs::write(path.join("a/b/x.h"), "int two;\n").unwrap();
    let second = look(&mut tree, &want);
    assert_ne!(first.1, second.1);
    // Put back: the same files, and a state that was never seen as a whole.
    fs::remove_dir_all(path.join("a")).unwrap();
    assert_eq!(look(&mut tree, &want).0, 1);
    fs::rename(path.join("old"), path.join("a")).unwrap();
    assert_eq!(look(&mut tree, &want).0, 2);
}

#[test]
fn one_stat_serves_all_jobs_that_were_sent_before_it() {
    let (_dir, path) = project();
    let (mut tree, want) = (Tree::new(Root::own()), want(&path));
    fs::create_dir(path.join("elsewhere")).unwrap();
    fs::hard_link(path.join("a/b/x.h"), path.join("elsewhere/y")).unwrap();
    // What was written a moment ago is read again in any case.
    let settle = |tree: &mut Tree| {
        std::thread::sleep(std::time::Duration::from_millis(40));
        look(tree, &want);
    };
    settle(&mut tree);
    let config = tree.config(&want);
    let send = |tree: &mut Tree| {
        tree.begin_batch();
        (tree.closure_expected(config, &want).1, tree.batch())
    };
    let end = |tree: &mut Tree, sent_in: u64| {
        tree.begin_batch();
        let before = tree.counts.stats;
        (tree.closure_since(config, &want, sent_in + 1).1, tree.counts.stats - before)
    };
    let (expected, first) = send(&mut tree);
    let (_, second) = send(&mut tree);
    assert_eq!(end(&mut tree, first), (expected, 2));
    assert_eq!(end(&mut tree, second), (expected, 0), "a look after both were sent was enough");
    let (_, third) = send(&mut tree);
    let (_, fourth) = send(&mut tree);
    fs::write(path.join("elsewhere/y"), "int no_event;\n").unwrap();
    // What was sent before the change hears of it, whichever of the two looks.
    assert_ne!(end(&mut tree, third).0, expected);
    assert_ne!(end(&mut tree, fourth).0, expected);
    settle(&mut tree);
    fs::write(path.join("elsewhere/y"), "int again;\n").unwrap();
    let (stale, fifth) = send(&mut tree);
    assert_ne!(end(&mut tree, fifth).0, stale, "what was sent after it too");
}

/// Many are asked about from one folder: in it, below it, beside it, and above it.
#[test]
fn a_header_written_through_another_name_is_noticed_in_every_folder() {
    let (_dir, path) = project();
    let headers =
        ["a/1.h", "a/2.h", "a/3.h", "a/4.h", "a/5.h", "a/b/below.h", "a/b/c/deep.h", "ab/beside.h", "above.h"];
    fs::create_dir_all(path.join("a/b/c")).unwrap();
    fs::create_dir_all(path.join("ab")).unwrap();
    fs::create_dir(path.join("elsewhere")).unwrap();
    let mut source = String::new();
    for (index, header) in headers.iter().enumerate() {
        source += &format!("#include \"{header}\"\n");
        fs::write(path.join(header), format!("int h{index};\n")).unwrap();
        fs::hard_link(path.join(header), path.join(format!("elsewhere/{index}"))).unwrap();
    }
    fs::write(path.join("s.c"), source).unwrap();
    let (mut tree, want) = (Tree::new(Root::own()), want(&path));
    let mut before = look(&mut tree, &want);
    assert_eq!(before.0, 1 + headers.len());
    for (index, header) in headers.iter().enumerate() {
        assert_eq!(look(&mut tree, &want), before);
        fs::write(path.join(format!("elsewhere/{index}")), "int other;\n").unwrap();
        let now = look(&mut tree, &want);
        assert_ne!(now.1, before.1, "{header}");
        before = now;
    }
}

#[test]
fn a_header_written_through_another_name_is_noticed() {
    let (_dir, path) = project();
    let (mut tree, want) = (Tree::new(Root::own()), want(&path));
    // No event comes: the link's folder is not known to the tree.
    fs::create_dir(path.join("elsewhere")).unwrap();
    fs::hard_link(path.join("a/b/x.h"), path.join("elsewhere/y")).unwrap();
    let first = look(&mut tree, &want);
    assert_eq!(look(&mut tree, &want), first);
    fs::write(path.join("elsewhere/y"), "int three;\n").unwrap();
    assert_ne!(look(&mut tree, &want).1, first.1);
}

/// As a compile reads it whose object has the name that the list begins with.
fn listed(tree: &mut Tree, closure: &Arc<super::Closure>, want: &Want, list: &[u8]) -> super::Listed {
    let target = list.split(|&c| c == b':').next().unwrap().to_vec();
    tree.listed(closure, want, list, &DepsRule { targets: vec![target], phony: false }).unwrap()
}

#[test]
fn a_name_that_make_takes_for_more_must_be_a_file() {
    let (_dir, path) = project();
    fs::write(path.join("a=b.h"), "").unwrap();
    let (mut tree, want) = (Tree::new(Root::own()), want(&path));
    tree.begin_batch();
    let config = tree.config(&want);
    let (closure, _) = tree.closure_since(config, &want, tree.batch());
    let odd = listed(&mut tree, &closure, &want, b"s.o: s.c a=b.h\n").odd;
    assert_eq!(odd.as_deref(), Some(&b"a=b.h"[..]));
    let rule = DepsRule { targets: vec![b"s.o".to_vec()], phony: false };
    for list in [&b"s.o: s.c CC=evil\n"[..], b"s.o: s.c ; touch pwned\n", b"s.o: s.c | x\n", b"s.o: s.c $(x)\n"] {
        let listed = tree.listed(&closure, &want, list, &rule);
        assert!(matches!(listed, Err(potluck_model::depfile::Unlike::Lie(_))), "{}", String::from_utf8_lossy(list));
    }
}

#[test]
fn what_a_dependency_file_names_beyond_the_closure_is_told_each_time() {
    let (_dir, path) = project();
    fs::write(path.join("extra.h"), "").unwrap();
    let (mut tree, want) = (Tree::new(Root::own()), want(&path));
    tree.begin_batch();
    let config = tree.config(&want);
    let (closure, _) = tree.closure_since(config, &want, tree.batch());
    let known = format!("s.o: s.c {}/a/b/x.h\n", path.display());
    for _ in 0..2 {
        assert_eq!(listed(&mut tree, &closure, &want, known.as_bytes()).beyond, Vec::<super::FileId>::new());
        let beyond = listed(&mut tree, &closure, &want, b"s.o: s.c extra.h\n").beyond;
        assert_eq!(beyond.iter().map(|&f| tree.file_path(f)).collect::<Vec<_>>(), [path.join("extra.h")]);
    }
    // The name now leads elsewhere: what was remembered of it is void.
    fs::remove_file(path.join("a/b/x.h")).unwrap();
    std::os::unix::fs::symlink(path.join("extra.h"), path.join("a/b/x.h")).unwrap();
    tree.begin_batch();
    assert_eq!(listed(&mut tree, &closure, &want, known.as_bytes()).beyond.len(), 1);
}

#[test]
fn a_dependency_file_cannot_hide_what_is_included_whatever_is_defined() {
    let (_dir, path) = project();
    let (mut tree, mut want) = (Tree::new(Root::own()), want(&path));
    let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
    write("t.c", "#include \"sure.h\"\n#ifdef X\n#include \"maybe.h\"\n#endif\n");
    write("sure.h", "#include \"deep.h\"\n");
    write("deep.h", "");
    write("maybe.h", "");
    want.source = b"t.c".to_vec();
    tree.begin_batch();
    let config = tree.config(&want);
    let (closure, _) = tree.closure_since(config, &want, tree.batch());
    for _ in 0..2 {
        let mut hidden = |list: &[u8]| {
            let hidden = listed(&mut tree, &closure, &want, list).hidden;
            hidden.iter().map(|&f| tree.file_path(f)).collect::<Vec<_>>()
        };
        assert!(hidden(b"t.o: t.c sure.h deep.h\n").is_empty());
        assert!(hidden(b"t.o: t.c ./sure.h deep.h maybe.h\n").is_empty());
        assert_eq!(hidden(b"t.o: t.c sure.h\n"), [path.join("deep.h")]);
        assert_eq!(hidden(b"t.o: sure.h deep.h\n"), [path.join("t.c")]);
    }
    // What was compiled of a header stands for it.
    write("sure.h.gch", "");
    tree.begin_batch();
    let (closure, _) = tree.closure_since(config, &want, tree.batch());
    assert!(listed(&mut tree, &closure, &want, b"t.o: t.c\n").hidden.is_empty());
}
