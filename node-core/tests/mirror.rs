//! A worker's mirror against submitters that break rules, disks that fail, and a simple model of what it should hold.

mod tree_space;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use potluck_model::ids::Digest;
use potluck_node::bytes;
use potluck_node::image::Image;
use potluck_node::mirror::{Mirror, MirrorError, kept_mode};
use potluck_node::root::Root;
use potluck_node::tree::Tree;
use potluck_wire::pool::{DeltaOps, DirOps};
use tree_space::{
    Is, Random, Space, as_user, assert_image, dir_ops, down_to, file_op, fresh_seed, link_op, on_disk, told, what,
};

type Held = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Is>>;

fn one(dir: DirOps) -> DeltaOps {
    DeltaOps { dirs: vec![dir] }
}

#[track_caller]
fn assert_refused(mirror: &mut Mirror, ops: DirOps) {
    let before = (told(mirror), mirror.size());
    let path = bytes::show(&ops.path);
    match mirror.apply(&one(ops)) {
        Err(MirrorError::Refused(_)) => {}
        other => panic!("{path}: {other:?}"),
    }
    assert_eq!((told(mirror), mirror.size()), before, "{path}");
    assert_eq!(told(mirror), on_disk(mirror), "{path}");
    assert_eq!(
        fs::read_dir(mirror.root().with_file_name("stage")).unwrap().count(),
        0,
        "{path}: something stays behind"
    );
}

#[test]
fn paths_and_names_that_lead_elsewhere_are_refused() {
    let space = Space::new("mirror-paths");
    let mut mirror = space.mirror();
    mirror.apply(&down_to("/a/b")).unwrap();
    let deep = format!("/a{}", "/x".repeat(80));
    let long = format!("/a/{}", "x".repeat(256));
    let too_long = format!("/a{}", format!("/{}", "y".repeat(200)).repeat(25));
    for path in [
        "",
        "a",
        "/a/../b",
        "/a/./b",
        "//a",
        "/a//b",
        "/a/",
        "..",
        "/..",
        "/a\0b",
        "/missing/b",
        &deep,
        &long,
        &too_long,
    ] {
        assert_refused(&mut mirror, DirOps { path: path.as_bytes().to_vec(), mode: 0o755, ..DirOps::default() });
    }
    let long_name = "n".repeat(256);
    for name in ["", ".", "..", "a/b", "/etc/passwd", "../x", "x\0y", &long_name] {
        let mut file = dir_ops("/a/b");
        file.files.push(file_op(name, b"x"));
        assert_refused(&mut mirror, file);
        let mut link = dir_ops("/a/b");
        link.links.push(link_op(name, "x"));
        assert_refused(&mut mirror, link);
        let mut poison = dir_ops("/a/b");
        poison.poison.push(name.as_bytes().to_vec());
        assert_refused(&mut mirror, poison);
        // What is not there can be said to be absent without harm.
        let mut absent = dir_ops("/a/b");
        absent.absent.push(name.as_bytes().to_vec());
        mirror.apply(&one(absent)).unwrap();
    }
    let name = "n".repeat(255);
    let mut good = dir_ops("/a/b");
    good.files.push(file_op(&name, b"x"));
    mirror.apply(&one(good)).unwrap();
    assert_eq!(told(&mirror), on_disk(&mirror));
}

#[test]
fn the_sandbox_keeps_its_places() {
    let space = Space::new("mirror-places");
    let mut mirror = space.mirror();
    mirror.apply(&down_to("/")).unwrap();
    for place in ["proc", "dev", "tmp", ".potluck"] {
        for path in [format!("/{place}"), format!("/{place}/x")] {
            assert_refused(&mut mirror, dir_ops(&path));
        }
        let mut ops = dir_ops("/");
        ops.files.push(file_op(place, b"x"));
        assert_refused(&mut mirror, ops);
        let mut ops = dir_ops("/");
        ops.links.push(link_op(place, "/etc"));
        assert_refused(&mut mirror, ops);
        // A submitter lists all names of its root; these stay what they are.
        let mut ops = dir_ops("/");
        ops.poison.push(place.as_bytes().to_vec());
        ops.absent.push(place.as_bytes().to_vec());
        mirror.apply(&one(ops)).unwrap();
        assert!(mirror.root().join(place).symlink_metadata().unwrap().is_dir());
    }
    let mut ops = dir_ops("/");
    ops.links.push(link_op("l", "/.potluck/trap/1"));
    assert_refused(&mut mirror, ops);
    // Deeper down the names are ordinary.
    mirror.apply(&down_to("/home/dev/tmp")).unwrap();
    // Not poisoned by trickery: a directory below is no place of the sandbox.
    assert!(mirror.has_dir(b"/home/dev/tmp"));
}

#[test]
fn links_are_data_and_lead_nowhere() {
    let space = Space::new("mirror-links");
    let outside = space.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let mut mirror = space.mirror();
    let mut ops = down_to("/a");
    ops.dirs[1].links.push(link_op("l", outside.to_str().unwrap()));
    ops.dirs[1].links.push(link_op("up", "../../../../.."));
    mirror.apply(&ops).unwrap();
    // Below a link there is no directory, whatever it points to.
    for path in ["/a/l/b", "/a/up/b"] {
        assert_refused(&mut mirror, dir_ops(path));
    }
    // A directory takes the link's place; what the link pointed to is not touched.
    let mut ops = dir_ops("/a/l");
    ops.files.push(file_op("victim", b"new"));
    ops.poison.push(b"other".to_vec());
    mirror.apply(&one(ops)).unwrap();
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(told(&mirror), on_disk(&mirror));
    // Somebody on this machine puts a link in the place of a directory: writes do not follow it.
    fs::remove_dir_all(mirror.root().join("a/l")).unwrap();
    symlink(&outside, mirror.root().join("a/l")).unwrap();
    let mut ops = dir_ops("/a/l");
    ops.files.push(file_op("new", b"x"));
    assert!(matches!(mirror.apply(&one(ops)), Err(MirrorError::Io(_))));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn contents_that_are_not_what_they_say_are_refused() {
    let space = Space::new("mirror-contents");
    let mut mirror = space.mirror();
    mirror.apply(&down_to("/a")).unwrap();
    let mut cases = Vec::new();
    let mut wrong = file_op("f", b"good");
    wrong.content = Some(b"evil".to_vec());
    cases.push(wrong);
    let mut short = file_op("f", b"good");
    short.size = 3;
    cases.push(short);
    let mut huge = file_op("f", b"good");
    huge.size = u64::MAX;
    cases.push(huge);
    let mut unknown = file_op("f", b"good");
    unknown.content = None;
    cases.push(unknown);
    let mut digest = file_op("f", b"good");
    digest.digest.pop();
    cases.push(digest);
    for file in cases {
        let mut ops = dir_ops("/a");
        ops.files.push(file);
        assert_refused(&mut mirror, ops);
    }
    // A known content under another size, and a stored one.
    let mut ops = dir_ops("/a");
    ops.files.push(file_op("known", b"good"));
    mirror.apply(&one(ops)).unwrap();
    let staged = mirror.blob_path();
    fs::write(&staged, "stored").unwrap();
    mirror.store_blob(Digest::of(b"stored"), &staged, 6).unwrap();
    for content in [&b"good"[..], b"stored"] {
        let mut file = file_op("f", content);
        (file.content, file.size) = (None, 99);
        let mut ops = dir_ops("/a");
        ops.files.push(file);
        assert_refused(&mut mirror, ops);
    }
    // Neither was harmed by that.
    for content in [&b"good"[..], b"stored"] {
        let mut file = file_op("f", content);
        file.content = None;
        let mut ops = dir_ops("/a");
        ops.files.push(file);
        mirror.apply(&one(ops)).unwrap();
        assert!(mirror.has_file(b"/a/f", &Digest::of(content)));
    }
    assert_eq!(told(&mirror), on_disk(&mirror));
}

#[test]
fn odd_modes_and_times_are_tamed() {
    let space = Space::new("mirror-modes");
    let mut mirror = space.mirror();
    mirror.apply(&down_to("/a")).unwrap();
    let mut ops = dir_ops("/a");
    for (name, mode, mtime) in [
        ("setuid", 0o6777, (0, 0)),
        ("none", 0o000, (-1, 999_999_999)),
        ("now", 0o644, (5, 0x3fff_ffff)),
        ("omit", u32::MAX, (i64::MAX, 0x3fff_fffe)),
        ("early", 0o755, (i64::MIN, u32::MAX)),
    ] {
        let mut file = file_op(name, name.as_bytes());
        (file.mode, file.mtime_s, file.mtime_ns) = (mode, mtime.0, mtime.1);
        ops.files.push(file);
    }
    mirror.apply(&one(ops)).unwrap();
    for name in ["setuid", "none", "now", "omit", "early"] {
        let meta = fs::metadata(mirror.root().join("a").join(name)).unwrap();
        assert_eq!(meta.mode() & 0o7022, 0, "{name}");
        assert_eq!(meta.mode() & 0o400, 0o400, "{name}");
    }
    assert_eq!(told(&mirror), on_disk(&mirror));
}

#[test]
fn every_kind_of_name_can_become_every_other() {
    let space = Space::new("mirror-kinds");
    let mut mirror = space.mirror();
    mirror.apply(&down_to("/a")).unwrap();
    let kinds = ["poison", "file", "other file", "link", "dir", "absent"];
    let put = |mirror: &mut Mirror, kind: &str| {
        let mut ops = dir_ops("/a");
        match kind {
            "poison" => ops.poison.push(b"n".to_vec()),
            "file" => ops.files.push(file_op("n", b"one")),
            "other file" => ops.files.push(file_op("n", b"two")),
            "link" => ops.links.push(link_op("n", "nowhere")),
            "dir" => {
                let mut inner = dir_ops("/a/n");
                inner.files.push(file_op("f", b"one"));
                inner.poison.push(b"p".to_vec());
                let deep = dir_ops("/a/n/d");
                return mirror.apply(&DeltaOps { dirs: vec![inner, deep] }).unwrap();
            }
            _ => ops.absent.push(b"n".to_vec()),
        }
        mirror.apply(&one(ops)).unwrap();
    };
    for from in kinds {
        for to in kinds {
            put(&mut mirror, "absent");
            put(&mut mirror, "absent");
            put(&mut mirror, from);
            put(&mut mirror, to);
            let why = format!("{from} -> {to}");
            assert_eq!(told(&mirror), on_disk(&mirror), "{why}");
            let now = mirror.root().join("a/n");
            let is = match (from, to) {
                ("poison" | "absent", "absent") => {
                    assert!(now.symlink_metadata().is_err(), "{why}");
                    continue;
                }
                // What is real becomes poison first: a running job may have seen it.
                (_, "absent") => Is::Poison,
                (_, "poison") => Is::Poison,
                (_, "link") => Is::Link,
                (_, "dir") => Is::Dir,
                _ => what(&now),
            };
            assert_eq!(what(&now), is, "{why}");
        }
    }
    // Nothing is left of all that but what is there.
    put(&mut mirror, "absent");
    put(&mut mirror, "absent");
    assert_eq!(mirror.size(), (0, 1));
}

/// Jobs that run while a delta is applied must find every name of a directory from the moment that it is one.
#[test]
fn a_new_directory_appears_with_all_its_names() {
    let space = Space::new("mirror-gap");
    let mut mirror = space.mirror();
    let root = mirror.root();
    const ROUNDS: usize = 300;
    let mut ops = down_to("/a");
    ops.dirs[1].poison = (0..ROUNDS).map(|n| format!("d{n}").into_bytes()).collect();
    mirror.apply(&ops).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while n < ROUNDS {
                let dir = root.join(format!("a/d{n}"));
                // Poison at first, then a directory, and never nothing.
                let meta = dir.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
                if meta.is_dir() {
                    for name in ["f", "p", "l", "sub"] {
                        let path = dir.join(name);
                        path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    }
                    n += 1;
                } else if done.load(Ordering::Relaxed) {
                    assert!(dir.symlink_metadata().unwrap().is_dir());
                }
            }
        });
        for n in 0..ROUNDS {
            let mut dir = dir_ops(&format!("/a/d{n}"));
            dir.files.push(file_op("f", b"x"));
            dir.poison = vec![b"p".to_vec(), b"sub".to_vec()];
            dir.links.push(link_op("l", "f"));
            let sub = dir_ops(&format!("/a/d{n}/sub"));
            mirror.apply(&DeltaOps { dirs: vec![dir, sub] }).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(told(&mirror), on_disk(&mirror));
}

/// The simplest thing that could be a mirror.
#[derive(Default)]
struct Model {
    dirs: Held,
}

impl Model {
    fn remove(&mut self, dir: &[u8], name: &[u8]) {
        if self.dirs.get_mut(dir).and_then(|names| names.remove(name)) == Some(Is::Dir) {
            let gone = [dir, if dir.len() > 1 { b"/" } else { b"" }, name].concat();
            self.dirs.retain(|path, _| *path != gone && !path.starts_with(&[&gone[..], b"/"].concat()));
        }
    }

    fn put(&mut self, dir: &[u8], name: &[u8], is: Is) {
        self.remove(dir, name);
        self.dirs.get_mut(dir).unwrap().insert(name.to_vec(), is);
    }

    fn apply(&mut self, ops: &DirOps) {
        if !self.dirs.contains_key(&ops.path) {
            let at = ops.path.iter().rposition(|&c| c == b'/').unwrap();
            if ops.path.len() > 1 {
                let parent = if at == 0 { b"/".to_vec() } else { ops.path[..at].to_vec() };
                self.put(&parent, &ops.path[at + 1..], Is::Dir);
            }
            self.dirs.insert(ops.path.clone(), BTreeMap::new());
        }
        for file in &ops.files {
            let mtime = (file.mtime_s, file.mtime_ns.into());
            let is = Is::File { digest: file.digest.clone(), mode: kept_mode(file.mode), mtime };
            self.put(&ops.path, &file.name, is);
        }
        for link in &ops.links {
            self.put(&ops.path, &link.name, Is::Link);
        }
        for name in &ops.poison {
            self.put(&ops.path, name, Is::Poison);
        }
        for name in &ops.absent {
            match self.dirs[&ops.path].get(name) {
                None => {}
                Some(Is::Poison) => self.remove(&ops.path, name),
                Some(_) => self.put(&ops.path, name, Is::Poison),
            }
        }
    }
}

fn pick<'a>(random: &mut Random, list: &[&'a str]) -> &'a str {
    list[random.below(list.len())]
}

/// A delta as some submitter might send it: only the rules hold, there is no sense in it.
fn random_delta(random: &mut Random, model: &Model) -> DirOps {
    const NAMES: &[&str] = &["a", "b", "c", "d", "e"];
    let paths: Vec<&Vec<u8>> = model.dirs.keys().collect();
    let mut path = (*random.pick(&paths)).clone();
    if random.one_in(3) && path.iter().filter(|&&c| c == b'/').count() < 6 {
        if path.len() > 1 {
            path.push(b'/');
        }
        path.extend_from_slice(random.pick(NAMES).as_bytes());
    }
    let mut ops = DirOps { path, mode: 0o755, ..DirOps::default() };
    for _ in 0..random.below(4) {
        let mut file = file_op(pick(random, NAMES), format!("content {}", random.below(6)).as_bytes());
        file.mode = *random.pick(&[0o644, 0o755, 0o444, 0o664]);
        file.mtime_s = random.below(1 << 30) as i64;
        ops.files.push(file);
    }
    for _ in 0..random.below(3) {
        ops.links.push(link_op(pick(random, NAMES), pick(random, &["a", "../b", "/c", "nowhere"])));
    }
    for _ in 0..random.below(3) {
        ops.poison.push(random.pick(NAMES).as_bytes().to_vec());
    }
    for _ in 0..random.below(3) {
        ops.absent.push(random.pick(NAMES).as_bytes().to_vec());
    }
    ops
}

fn play(seed: u64, deltas: u32) {
    let space = Space::new(&format!("mirror-model-{seed}"));
    let folder = space.path(".mirror");
    let mut random = Random::new(seed);
    let mut mirror = space.mirror();
    let mut model = Model::default();
    model.dirs.insert(b"/".to_vec(), BTreeMap::new());
    mirror.apply(&down_to("/")).unwrap();
    for n in 0..deltas {
        let why = format!("seed {seed}, delta {n}");
        let mut ops = random_delta(&mut random, &model);
        // Contents that are there already need not travel.
        for file in &mut ops.files {
            let known = model.dirs.values().flat_map(BTreeMap::values);
            if random.one_in(2)
                && known.into_iter().any(|is| matches!(is, Is::File { digest, .. } if *digest == file.digest))
            {
                file.content = None;
            }
        }
        match mirror.apply(&one(ops.clone())) {
            Ok(()) => model.apply(&ops),
            // The place that a content was to be taken from was overwritten by the same message.
            Err(MirrorError::Refused(text)) if text.contains("was not sent before") => {
                model = Model { dirs: told(&mirror) }
            }
            Err(error) => panic!("{why}: {error}"),
        }
        assert_eq!(told(&mirror), model.dirs, "{why}");
        assert_eq!(told(&mirror), on_disk(&mirror), "{why}");
        let names: usize = model.dirs.values().map(BTreeMap::len).sum();
        let bytes: u64 = fs_bytes(&mirror.root());
        assert_eq!(mirror.size(), (bytes, names), "{why}");
        if random.one_in(40) {
            drop(mirror);
            mirror = Mirror::open(&folder, 1 << 30).unwrap();
            assert_eq!(told(&mirror), model.dirs, "{why}, opened again");
            assert_eq!(mirror.size(), (bytes, names), "{why}, opened again");
        }
    }
}

fn fs_bytes(path: &Path) -> u64 {
    let meta = path.symlink_metadata().unwrap();
    if meta.is_dir() {
        return fs::read_dir(path).unwrap().map(|e| fs_bytes(&e.unwrap().path())).sum();
    }
    if meta.is_file() { meta.len() } else { 0 }
}

#[test]
fn it_holds_what_a_simple_model_holds() {
    for seed in [1, 2, 3, fresh_seed()] {
        play(seed, 250);
    }
}

#[test]
fn a_full_mirror_says_so_and_takes_no_harm() {
    let space = Space::new("mirror-full");
    let mut mirror = Mirror::open(&space.path(".mirror"), 1000).unwrap();
    mirror.apply(&down_to("/a")).unwrap();
    let put = |mirror: &mut Mirror, name: &str, bytes: usize| {
        let mut ops = dir_ops("/a");
        ops.files.push(file_op(name, name.repeat(bytes).as_bytes()));
        mirror.apply(&one(ops))
    };
    put(&mut mirror, "x", 900).unwrap();
    assert!(matches!(put(&mut mirror, "y", 200), Err(MirrorError::Full(_))));
    // Blobs count, also those that are not placed yet, and once when they are.
    let store = |mirror: &mut Mirror, content: &str| {
        let staged = mirror.blob_path();
        fs::write(&staged, content).unwrap();
        mirror.store_blob(Digest::of(content.as_bytes()), &staged, content.len() as u64)
    };
    store(&mut mirror, &"b".repeat(90)).unwrap();
    store(&mut mirror, &"b".repeat(90)).unwrap();
    assert!(matches!(store(&mut mirror, &"c".repeat(90)), Err(MirrorError::Full(_))));
    assert!(matches!(put(&mut mirror, "z", 50), Err(MirrorError::Full(_))));
    let mut file = file_op("b", "b".repeat(90).as_bytes());
    file.content = None;
    let mut ops = dir_ops("/a");
    ops.files.push(file);
    mirror.apply(&one(ops)).unwrap();
    assert_eq!(mirror.size().0, 990);
    // Room comes back.
    let mut ops = dir_ops("/a");
    ops.poison.push(b"x".to_vec());
    mirror.apply(&one(ops)).unwrap();
    assert_eq!(mirror.size().0, 90);
    put(&mut mirror, "y", 200).unwrap();
    assert_eq!(told(&mirror), on_disk(&mirror));
    // A blob that nobody placed goes with its connection.
    store(&mut mirror, &"d".repeat(90)).unwrap();
    mirror.drop_blobs().unwrap();
    assert_eq!(fs::read_dir(mirror.root().with_file_name("blobs")).unwrap().count(), 0);
    put(&mut mirror, "w", 700).unwrap();
}

/// Case 14: what changed on the worker's disk behind its back is found at the start, told truly, and sent again.
#[test]
fn a_flipped_bit_is_found_and_sent_again() {
    let space = Space::new("mirror-flip");
    let files = ["a.h", "b.h", "sub/c.h"].map(|n| space.write(&format!("src/{n}"), format!("// {n}\n")));
    let mut tree = Tree::new(Root::own());
    tree.begin_batch();
    let mut image = Image::new();
    let mut mirror = space.mirror();
    let closure = tree.closure_of_paths(files.iter().map(|f| f.as_path()));
    mirror.apply(&image.delta(&mut tree, &[&closure], &[]).ops).unwrap();
    let there = |mirror: &Mirror, n: usize| mirror.root().join(files[n].strip_prefix("/").unwrap());
    // A flipped bit that keeps size and time; a torn write; a lost file; something that no submitter sent.
    let (flipped, torn, lost) = (there(&mirror, 0), there(&mirror, 1), there(&mirror, 2));
    let time = fs::metadata(&flipped).unwrap().modified().unwrap();
    let mut content = fs::read(&flipped).unwrap();
    content[1] ^= 1;
    for path in [&flipped, &torn] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(&flipped, &content).unwrap();
    fs::File::options().write(true).open(&flipped).unwrap().set_modified(time).unwrap();
    fs::set_permissions(&flipped, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&torn, "").unwrap();
    fs::remove_file(&lost).unwrap();
    fs::write(lost.with_file_name("planted.h"), "evil").unwrap();
    fs::write(mirror.root().with_file_name("stage").join("half"), "half a file").unwrap();
    drop(mirror);
    let mut mirror = space.mirror();
    let mut image = Image::new();
    tree.begin_batch();
    let state = mirror.state();
    mirror.apply(&image.adopt(&mut tree, &state).ops).unwrap();
    assert_image(&mirror, &space.path("src"), "adopted");
    let closure = tree.closure_of_paths(files.iter().map(|f| f.as_path()));
    mirror.apply(&image.delta(&mut tree, &[&closure], &[]).ops).unwrap();
    assert_image(&mirror, &space.path("src"), "sent again");
    for file in &files {
        assert!(mirror.has_file(bytes::of(file), &Digest::of(&fs::read(file).unwrap())));
    }
    assert_eq!(fs::read_dir(mirror.root().with_file_name("stage")).unwrap().count(), 0);
}

#[test]
fn something_that_is_no_mirror_starts_anew() {
    let space = Space::new("mirror-odd");
    let folder = space.path(".mirror");
    let mut mirror = space.mirror();
    mirror.apply(&down_to("/a/b")).unwrap();
    drop(mirror);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.join("root/a/b/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let mut mirror = Mirror::open(&folder, 1 << 30).unwrap();
    assert_eq!(mirror.size(), (0, 0));
    mirror.apply(&down_to("/a/b")).unwrap();
    assert_eq!(told(&mirror), on_disk(&mirror));
}

#[test]
fn layers_do_not_change_while_a_job_holds_them() {
    let space = Space::new("mirror-layers");
    let mut mirror = space.mirror();
    let mut ops = down_to("/w/sub");
    ops.dirs[1].files.push(file_op("a.c", b"one"));
    ops.dirs[1].poison.push(b"p".to_vec());
    mirror.apply(&ops).unwrap();
    let layers = mirror.layers(b"/w").unwrap();
    let see = |mirror: &Mirror, layers: &[Vec<u8>]| -> Vec<BTreeMap<Vec<u8>, Is>> {
        let list = |name: &Vec<u8>| {
            let dir = mirror.generations().join(bytes::path(name));
            fs::read_dir(dir)
                .unwrap()
                .map(|e| e.unwrap())
                .map(|e| (e.file_name().into_encoded_bytes(), what(&e.path())))
                .collect()
        };
        layers.iter().map(list).collect()
    };
    assert_eq!(layers.names().len(), 1);
    assert_eq!(layers.binds, [b"sub".to_vec()]);
    let before = see(&mirror, &layers.names());
    assert_eq!(before[0].len(), 3);
    // Everything in the directory changes.
    let mut ops = dir_ops("/w");
    ops.files = vec![file_op("a.c", b"two"), file_op("p", b"real now"), file_op("new.o", b"x")];
    ops.poison.push(b"sub".to_vec());
    mirror.apply(&one(ops)).unwrap();
    assert_eq!(see(&mirror, &layers.names()), before);
    // The next job has the old layer below and the additions above.
    let next = mirror.layers(b"/w").unwrap();
    assert_eq!(next.names().len(), 2);
    assert_eq!(next.names()[1], layers.names()[0]);
    let top = &see(&mirror, &next.names())[0];
    assert_eq!(top.keys().map(|k| bytes::show(k)).collect::<Vec<_>>(), ["a.c", "new.o", "p", "sub"]);
    assert_eq!(top[&b"sub"[..]], Is::Poison);
    assert!(next.binds.is_empty());
    // A name that is gone: only a new base can say that.
    let mut ops = dir_ops("/w");
    ops.absent.push(b"sub".to_vec());
    mirror.apply(&one(ops)).unwrap();
    let last = mirror.layers(b"/w").unwrap();
    assert_eq!(last.names().len(), 1);
    assert!(!see(&mirror, &last.names())[0].contains_key(&b"sub"[..]));
    assert_eq!(see(&mirror, &layers.names()), before);
    // Layers go with the last job that holds them.
    let count = |mirror: &Mirror| fs::read_dir(mirror.generations()).unwrap().count();
    assert_eq!(count(&mirror), 3);
    drop(layers);
    drop(next);
    assert_eq!(count(&mirror), 1);
    assert_eq!(mirror.layers(b"/w").unwrap().names(), last.names());
    assert!(mirror.layers(b"/nowhere").is_err());
}

#[test]
fn many_additions_make_a_new_base() {
    let space = Space::new("mirror-additions");
    let mut mirror = space.mirror();
    mirror.apply(&down_to("/w")).unwrap();
    let mut most = 0;
    for n in 0..300 {
        let mut ops = dir_ops("/w");
        ops.poison.push(format!("{n}.o").into_bytes());
        mirror.apply(&one(ops)).unwrap();
        let layers = mirror.layers(b"/w").unwrap();
        let top = fs::read_dir(mirror.generations().join(bytes::path(&layers.names()[0]))).unwrap().count();
        if layers.names().len() == 2 {
            most = most.max(top);
        } else {
            assert_eq!(top, n + 1);
        }
    }
    assert!((50..200).contains(&most), "{most} names in a top layer");
}

/// 20,000 directories with a limit of 1024 open files, which is what a desktop gives.
#[test]
fn directories_do_not_use_up_descriptors() {
    let space = Space::new("mirror-descriptors");
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut mirror = space.mirror();
    let before = open();
    let mut ops = down_to("/a");
    ops.dirs.extend((0..3000).map(|n| dir_ops(&format!("/a/{n}"))));
    mirror.apply(&ops).unwrap();
    drop(mirror);
    let mirror = space.mirror();
    assert_eq!(mirror.size().1, 3001);
    // Other tests of this process open some too.
    assert!(open() < before + 200, "{} descriptors", open());
}

#[test]
fn closed_directories_come_and_go_for_an_ordinary_user() {
    if as_user("closed_directories_come_and_go_for_an_ordinary_user") {
        return;
    }
    let space = Space::new("mirror-closed");
    let folder = space.path(".mirror");
    let mut mirror = space.mirror();
    let closed = |path: &str| DirOps { path: path.as_bytes().to_vec(), mode: 0, ..DirOps::default() };
    let mut ops = down_to("/a");
    ops.dirs[1].poison.push(b"secret".to_vec());
    ops.dirs.push(closed("/a/secret"));
    mirror.apply(&ops).unwrap();
    let mode = |mirror: &Mirror| fs::metadata(mirror.root().join("a/secret")).unwrap().mode() & 0o777;
    assert_eq!(mode(&mirror), 0);
    // Nobody sees names in it, so nobody may claim some.
    let mut names = closed("/a/secret");
    names.poison.push(b"x".to_vec());
    assert!(matches!(mirror.apply(&one(names)), Err(MirrorError::Refused(_))));
    // It is the same after a start.
    drop(mirror);
    let mut mirror = Mirror::open(&folder, 1 << 30).unwrap();
    assert!(mirror.has_dir(b"/a/secret"));
    assert_eq!(mode(&mirror), 0);
    // It is opened at the submitter: poisoned, and made anew.
    let mut poison = dir_ops("/a");
    poison.poison.push(b"secret".to_vec());
    mirror.apply(&one(poison.clone())).unwrap();
    let mut open = dir_ops("/a/secret");
    open.files.push(file_op("x", b"y"));
    mirror.apply(&one(open)).unwrap();
    assert!(mirror.has_file(b"/a/secret/x", &Digest::of(b"y")));
    mirror.apply(&one(poison)).unwrap();
    mirror.apply(&one(closed("/a/secret"))).unwrap();
    assert_eq!(fs::read_dir(folder.join("stage")).unwrap().count(), 0);
    assert_eq!(mirror.layers(b"/a").unwrap().binds, [b"secret".to_vec()]);
    // And all of it can be forgotten.
    mirror.clear().unwrap();
    assert_eq!(mirror.size(), (0, 0));
    mirror.apply(&down_to("/a")).unwrap();
}

#[test]
fn poisons_keep_their_paths_as_long_as_a_job_may_report_them() {
    let space = Space::new("mirror-poisons");
    let mut mirror = space.mirror();
    mirror.apply(&down_to("/a")).unwrap();
    let mut poison = dir_ops("/a");
    poison.poison.push(b"x".to_vec());
    mirror.apply(&one(poison)).unwrap();
    let target = fs::read_link(mirror.root().join("a/x")).unwrap();
    let id: u64 = target.file_name().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(mirror.poison_path(id).as_deref(), Some(&b"/a/x"[..]));
    // Replaced, and its directory gone: a job that started before may still touch it.
    let mut real = dir_ops("/a");
    real.files.push(file_op("x", b"1"));
    mirror.apply(&one(real)).unwrap();
    let mut gone = dir_ops("/");
    gone.poison.push(b"a".to_vec());
    mirror.apply(&one(gone)).unwrap();
    assert_eq!(mirror.poison_path(id).as_deref(), Some(&b"/a/x"[..]));
    // But not for ever: memory is bounded whatever a submitter does.
    let deep = format!("/{}", vec!["d".repeat(250); 15].join("/"));
    for round in 0..5 {
        let mut names = down_to(&deep);
        let last = names.dirs.last_mut().unwrap();
        last.poison = (0..2000).map(|n| format!("{round}-{n}").into_bytes()).collect();
        mirror.apply(&names).unwrap();
        let mut gone = dir_ops("/");
        gone.poison.push("d".repeat(250).into_bytes());
        mirror.apply(&one(gone)).unwrap();
    }
    assert_eq!(mirror.poison_path(id), None);
    assert_eq!(mirror.size().1, 2);
}
