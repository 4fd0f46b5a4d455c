//! The ways in which the lying worker's results are not what the command makes. After each of them the compile is right,
//! nothing else in the folder has changed, also not by `make`, and the worker is marked.

use std::fs;

use potluck_node::core_content::{inline, pack_inline};
use potluck_tests::Outcome;
use potluck_tests::hostile::Tamper;
use potluck_tests::run::{Job, Via, run};
use potluck_wire::pool::{self, HarvestKind, Harvested};

use crate::board::Attack;
use crate::compiler::{last_record, lossy, marks};
use crate::worker::Scene;

/// Endings of files that people, tools and compilers make, none of which this command does.
const ENDINGS: &[&str] = &[
    "",
    ".rs",
    ".ts",
    ".js",
    ".go",
    ".l",
    ".y",
    ".proto",
    ".json",
    ".mk",
    ".f90",
    ".cu",
    ".ipp",
    ".tcc",
    ".in",
    ".m4",
    ".lds",
    ".ld",
    ".sh",
    ".py",
    ".c",
    ".cc",
    ".h",
    ".S",
    ".s",
    ".i",
    ".ii",
    ".bc",
    ".su",
    ".ci",
    ".gcno",
    ".gcda",
    ".dwo",
    ".d.mk",
    ".gch",
    ".c.gch",
    ".so",
    ".a",
    ".exe",
    ".service",
    ".desktop",
    ".yml",
    ".toml",
    ".c.005t.original",
    "-x.su",
    ".o.d",
    ".opt.yaml",
    ".sarif",
    ".txt",
];

fn file(path: &str, content: &[u8]) -> Harvested {
    Harvested {
        dir: 0,
        path: path.as_bytes().to_vec(),
        kind: HarvestKind::HarvestFile as i32,
        mode: 0o777,
        size: content.len() as u64,
        content: Some(content.to_vec()),
        raw: true,
        ..Harvested::default()
    }
}

fn add(output: Harvested) -> Tamper {
    Box::new(move |result| result.outputs.push(output.clone()))
}

/// Another content for every output of this ending.
fn edit(ending: &'static str, change: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Tamper {
    Box::new(move |result| {
        for output in result.outputs.iter_mut().filter(|o| o.path.ends_with(ending.as_bytes())) {
            let content = change(&inline(output).unwrap_or_default());
            (output.size, output.raw, output.content) = (content.len() as u64, true, Some(content));
        }
    })
}

fn without(ending: &'static str) -> Tamper {
    Box::new(move |result| result.outputs.retain(|o| !o.path.ends_with(ending.as_bytes())))
}

fn says(stdout: &[u8], stderr: &[u8]) -> Tamper {
    let (stdout, stderr) = (stdout.to_vec(), stderr.to_vec());
    Box::new(move |result| (result.stdout, result.stderr) = (stdout.clone(), stderr.clone()))
}

impl Scene {
    /// Files, folders and modes that the command does not make.
    pub fn adds_files(&self, attack: &mut Attack) -> Outcome<()> {
        self.control(attack)?;
        for ending in ENDINGS {
            let name = format!("main{ending}");
            self.must_end_here(attack, &name, "bad-output", add(file(&name, b"EVIL")))?;
        }
        let folder = Harvested { kind: HarvestKind::HarvestDir as i32, content: None, size: 0, ..file("made", b"") };
        let others: Vec<(&str, Vec<Harvested>)> = vec![
            ("a folder", vec![folder.clone()]),
            ("a folder and a file in it", vec![folder, file("made/main.o", b"EVIL")]),
            ("a file in a folder that is there", vec![file("sub/main.su", b"EVIL")]),
            ("a name with a line break", vec![file("main.o\nmain.su", b"EVIL")]),
            ("a makefile", vec![file("GNUmakefile", b"EVIL")]),
            ("a hook", vec![file(".git/post-checkout", b"EVIL")]),
            ("the object twice", vec![file("main.o", b"EVIL")]),
        ];
        let count = ENDINGS.len() + others.len();
        for (name, outputs) in others {
            let tamper: Tamper = Box::new(move |result| result.outputs.extend(outputs.iter().cloned()));
            self.must_end_here(attack, name, "bad-output", tamper)?;
        }
        // Modes are not the worker's: `compile` compares them.
        let tamper: Tamper = Box::new(|result| result.outputs.iter_mut().for_each(|o| o.mode = 0o777));
        let (_, record) = self.compile(attack, "all bits", tamper, 1)?;
        attack.check(record["where"] == "remote", || format!("all bits: {record}"));
        self.spares_a_persons_by_product(attack)?;
        attack.saw(format!("{count} additions refused, run here, worker marked; modes are the caller's"));
        Ok(())
    }

    /// The option makes `main.su`, and a person has such a file: the compiler's own word stands there afterwards.
    fn spares_a_persons_by_product(&self, attack: &mut Attack) -> Outcome<()> {
        let path = self.dir.join("main.su");
        let before = fs::read(&path)?;
        let argv = ["/usr/bin/gcc", "-fstack-usage", "-c", "main.c", "-o", "main.o"].map(Into::into);
        let job = Job { cwd: self.dir.clone(), argv: argv.to_vec() };
        for (round, place, reason) in [(1, "local", "existing-by-product"), (2, "remote", "")] {
            let seen = run(Via::Pool(&self.lab.submitter.node).command(&job), "potluck")?;
            let record = last_record(&self.lab)?;
            attack.check(seen.exit == 0, || format!("main.su: {}", lossy(&seen.stderr)));
            let fits = record["where"] == place && (reason.is_empty() || record["reason"] == reason);
            attack.check(fits, || format!("main.su, compile {round}: {record}"));
            let now = fs::read(&path)?;
            attack.check(now.starts_with(b"main.c:"), || format!("main.su is {:?}", lossy(&now)));
        }
        // As the scene was.
        fs::write(&path, before)?;
        fs::remove_file(self.dir.join("main.o"))?;
        Ok(())
    }

    /// A compile that ended well and has not made what it makes.
    pub fn leaves_files_out(&self, attack: &mut Attack) -> Outcome<()> {
        self.control(attack)?;
        let deleted: Tamper = Box::new(|result| {
            for output in result.outputs.iter_mut().filter(|o| o.path.ends_with(b".o")) {
                (output.kind, output.content, output.size) = (HarvestKind::HarvestDeleted as i32, None, 0);
            }
        });
        let lies: Vec<(&str, Tamper)> = vec![
            ("nothing at all", without("")),
            ("no object", without(".o")),
            ("no dependency file", without(".d")),
            ("the object deleted", deleted),
            ("an empty object", edit(".o", |_| Vec::new())),
            ("an empty dependency file", edit(".d", |_| Vec::new())),
            ("a linker script for an object", edit(".o", |_| b"OUTPUT(main.rs)\nINPUT(/etc/passwd)\n".to_vec())),
            ("a linker script behind a magic", edit(".o", |_| b"\x7fELF=1; OUTPUT(main.rs)\n".to_vec())),
            ("half an object", edit(".o", |object| object[..object.len() / 2].to_vec())),
            ("an object of zeroes", edit(".o", |object| vec![0; object.len()])),
        ];
        let count = lies.len();
        for (name, tamper) in lies {
            self.must_end_here(attack, name, "bad-output", tamper)?;
        }
        attack.saw(format!("{count} results that lack something refused, run here, worker marked"));
        Ok(())
    }

    /// Dependency files that `make` would run something of, or take something else from than the files that were read.
    pub fn writes_for_make(&self, attack: &mut Attack) -> Outcome<()> {
        self.control(attack)?;
        let behind: &[&str] = &[
            "\n$(shell touch pwned)",
            "$(shell touch pwned)\n",
            "\n\n$(shell touch pwned)\n",
            "\ttouch pwned\n",
            "main.o: other.c\n",
            "all:\n\ttouch pwned\n",
            "all: pwned\npwned:\n\ttouch pwned\n",
            ".PHONY: all\n",
            ".DEFAULT:\n\ttouch pwned\n",
            "include evil.mk\n",
            "-include evil.mk\n",
            "SHELL=/bin/false\n",
            "export PATH=/evil\n",
            "override CC:=touch pwned\n",
            "define x\ntouch pwned\nendef\n",
            "vpath %.c /evil\n",
            "%.o: %.c\n\ttouch pwned\n",
            "load evil.so\n",
            "ifdef x\n",
            "# only a comment\n",
            "sure.h:\n",
            "unsent.txt:\n",
        ];
        let inside: &[(&str, &str)] = &[
            (" sure.h", " sure.h $(shell touch pwned)"),
            (" sure.h", " sure.h ${shell touch pwned}"),
            (" sure.h", " sure.h `touch pwned`"),
            (" sure.h", " sure.h ; touch pwned"),
            (" sure.h", " sure.h;touch\\ pwned"),
            (" sure.h", " sure.h | pwned"),
            (" sure.h", " sure.h CC=evil"),
            (" sure.h", " sure.h *.c"),
            (" sure.h", " sure.h\ttouch"),
            ("main.o:", "main.o all:"),
            ("main.o:", "all:"),
            ("main.o:", "%.o:"),
            ("main.o:", "main.o::"),
            ("main.o:", "$(shell touch pwned):"),
            ("main.o:", "main.o: CC=evil\nmain.o:"),
            ("main.o:", "$(shell touch pwned)\nmain.o:"),
        ];
        let count = behind.len() + inside.len();
        for &text in behind {
            let tamper = edit(".d", move |list| [list, text.as_bytes()].concat());
            self.must_end_here(attack, &format!("{text:?} behind it"), "bad-output", tamper)?;
        }
        for &(from, to) in inside {
            let tamper = edit(".d", move |list| String::from_utf8_lossy(list).replace(from, to).into_bytes());
            self.must_end_here(attack, &format!("{to:?} in it"), "bad-output", tamper)?;
        }
        attack.saw(format!("{count} lists refused, run here, worker marked; make ran nothing"));
        Ok(())
    }

    /// What a terminal obeys instead of showing it.
    pub fn steers_the_terminal(&self, attack: &mut Attack) -> Outcome<()> {
        self.control(attack)?;
        let steering: &[&[u8]] = &[
            b"\x1b]52;c;ZXZpbA==\x07",
            b"\x1b]0;title\x07",
            b"\x1b[2J\x1b[H",
            b"\x1b[1A\x1b[2K",
            b"\x1bc",
            b"\x1bP+q544e\x1b\\\\",
            b"\x1b[?1049h",
            b"\x1b[6n",
            b"\x9b2J",
            b"\xc2\x9b2J",
            b"\rmain.c: fine",
            b"\x07",
            b"a\x08b",
            b"\x1b]8;;javascript:evil\x07x\x1b]8;;\x07",
            b"\xe2\x80\xaetxt",
            b"\0",
        ];
        for text in steering {
            for tamper in [says(text, b""), says(b"", text)] {
                let before = self.messages()?;
                let name = format!("{:?}", String::from_utf8_lossy(text));
                let (seen, record) = self.compile(attack, &name, tamper, 1)?;
                let here = record["where"] == "local" && record["reason"] == "message-bytes";
                attack.check(here, || format!("{name}: {record}"));
                let shown = [&seen.stdout[..], &seen.stderr].concat();
                attack.check(shown.is_empty(), || format!("{name}: it was shown {:?}", lossy(&shown)));
                attack.check(self.messages()? == before + 1, || format!("{name}: not counted"));
            }
        }
        // What compilers print arrives as it is.
        let plain = "main.c:1:5: \u{1b}[01;35m\u{1b}[Kwarning: \u{1b}[m\u{1b}[K\u{2018}x\u{2019}\n".as_bytes();
        let (seen, record) = self.compile(attack, "colours", says(b"", plain), 1)?;
        attack.check(record["where"] == "remote" && seen.stderr == plain, || format!("colours: {record}"));
        // An honest compiler repeats what a source holds: shown from here, as it is, and nobody is blamed.
        let argv = ["/usr/bin/gcc", "-c", "escape.c", "-o", "main.o"].map(Into::into);
        let job = Job { cwd: self.dir.clone(), argv: argv.to_vec() };
        let (blamed, plain) = (marks(&self.lab)?, run(Via::Plain.command(&job), "gcc")?);
        let seen = run(Via::Pool(&self.lab.submitter.node).command(&job), "potluck")?;
        let record = last_record(&self.lab)?;
        attack.check(record["reason"] == "message-bytes", || format!("escape.c: {record}"));
        attack.check(seen.stderr == plain.stderr, || format!("escape.c: {:?}", lossy(&seen.stderr)));
        attack.check(marks(&self.lab)? == blamed, || "escape.c: an honest worker is blamed".into());
        fs::remove_file(self.dir.join("main.o"))?;
        attack.saw(format!("{} sequences not shown, run here, counted", 2 * steering.len()));
        Ok(())
    }

    /// Results whose messages were not shown.
    fn messages(&self) -> Outcome<u64> {
        let status = self.lab.submitter.node.status()?.0;
        let peers = status["peers"].as_array().into_iter().flatten();
        Ok(peers.filter_map(|peer| peer["marks"]["messages"].as_u64()).sum())
    }

    /// More bytes or files than any command makes, in small messages.
    pub fn sends_bombs(&self, attack: &mut Attack) -> Outcome<()> {
        self.control(attack)?;
        const HALF_GIB: usize = 512 << 20;
        let packed = pack_inline(&vec![0; HALF_GIB]);
        let bomb = move |path: &str, size: usize, content: &[u8]| Harvested {
            size: size as u64,
            raw: false,
            content: Some(content.to_vec()),
            ..file(path, b"")
        };
        let instead = |bomb: Harvested| -> Tamper {
            Box::new(move |result: &mut pool::Result| {
                result.outputs.retain(|o| !o.path.ends_with(b".o"));
                result.outputs.push(bomb.clone());
            })
        };
        let small = |count: usize| -> Tamper {
            Box::new(move |result: &mut pool::Result| {
                result.outputs.extend((0..count).map(|n| file(&format!("main-{n}.su"), b"")));
            })
        };
        let lies: Vec<(&str, Tamper)> = vec![
            ("a large file more", add(bomb("main.su", HALF_GIB, &packed))),
            ("a large object", instead(bomb("main.o", HALF_GIB, &packed))),
            ("an object larger than a file may be", instead(bomb("main.o", HALF_GIB + 1, &packed))),
            ("an object that does not unpack", instead(bomb("main.o", 4 << 20, &packed))),
            ("an object that never came", instead(Harvested { transfer: 0, content: None, ..bomb("main.o", 10, b"") })),
            ("4000 small files", small(4000)),
            ("10000 small files", small(10_000)),
        ];
        let count = lies.len();
        let before = self.peak_kib()?;
        for (name, tamper) in lies {
            self.must_end_here(attack, name, "bad-output", tamper)?;
        }
        let grown_mib = (self.peak_kib()? - before) >> 10;
        // One of them was allowed to unpack, because an object may be as large.
        attack.check(grown_mib < 700, || format!("the node grew by {grown_mib} MiB"));
        attack.saw(format!("{count} bombs refused, worker marked; the node grew by {grown_mib} MiB at most"));
        self.control(attack)
    }

    /// The most memory that the submitter's node ever had.
    fn peak_kib(&self) -> Outcome<u64> {
        let pid = self.number("/node/pid")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
        Ok(line.trim().trim_end_matches(" kB").parse().unwrap_or(0))
    }
}
