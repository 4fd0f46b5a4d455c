//! Members that send without end, and strangers who begin to join and say nothing (case 21): compiles and `potluck status`
//! beside each flood, as ratios within one run. And a peer of a newer release (case 24).

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use potluck_node::identity::Identity;
use potluck_node::transport::tls;
use potluck_tests::hostile::{Hostile as Member, Make};
use potluck_tests::lab::base_dir;
use potluck_tests::person::Person;
use potluck_tests::run::{Job, Via, run};
use potluck_tests::{Context, Lab, Outcome, Plan, Trouble};
use potluck_wire::pool::{self, Frame, frame::Kind};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::board::{Attack, Board};
use crate::compiler::lossy;

/// Cases and names of its attacks.
pub const ATTACKS: &[(&str, &str)] = &[
    ("21", "flood: pings"),
    ("21", "flood: demands"),
    ("21", "flood: results of nothing"),
    ("21", "flood: refused jobs"),
    ("21", "flood: useless statements"),
    ("21", "flood: silent joins"),
    ("24", "flood: unknown messages"),
];
/// Compiles that a median is of.
const COMPILES: usize = 15;
/// What a flood may make of the median compile ...
const SLOWER_MAX: f64 = 1.5;
/// ... and the time of `potluck status`, whose program starts anew each time.
const STATUS_MAX: Duration = Duration::from_millis(200);
/// A flood is noticed within this time.
const CUT_WITHIN: Duration = Duration::from_secs(20);
/// A valid join beside silent ones.
const JOIN_MAX: Duration = Duration::from_secs(3);
/// Silent joins of one address in a second ...
const SILENT_PER_S: u64 = 6;
/// ... and for how long.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// The stranger's place in the network.
const PLACE: usize = 61;

struct Scene {
    lab: Lab,
    dir: PathBuf,
    members: usize,
}

/// All floods.
pub fn attacks(board: &mut Board) -> Outcome<()> {
    if !ATTACKS.iter().any(|(case, name)| board.wants(case, name)) {
        return Ok(());
    }
    let mut scene = Scene::start()?;
    for (case, name) in ATTACKS {
        let name = *name;
        board.attack(case, name, |attack| match name {
            "flood: silent joins" => scene.silent_joins(attack),
            "flood: unknown messages" => scene.newer_release(attack),
            _ => scene.flood(attack, name),
        });
    }
    scene.lab.check_isolation()
}

fn frame(kind: Kind) -> Frame {
    Frame { kind: Some(kind) }
}

/// What is sent under this name.
fn make(name: &str, member: &Member) -> Outcome<Make> {
    Ok(match name {
        "flood: pings" => Box::new(|id| frame(Kind::Ping(pool::Ping { id }))),
        "flood: demands" => Box::new(|n| frame(Kind::Demand(pool::Demand { slots: n as u32 % 7 }))),
        "flood: results of nothing" => {
            let content = vec![7; 300_000];
            Box::new(move |id| {
                let outputs = vec![pool::Harvested { content: Some(content.clone()), ..pool::Harvested::default() }];
                frame(Kind::Result(pool::Result { id, outputs, ..pool::Result::default() }))
            })
        }
        "flood: refused jobs" => Box::new(|id| frame(Kind::Job(pool::Job { id, ..pool::Job::default() }))),
        "flood: useless statements" => {
            let statements = member.outdated(500)?;
            Box::new(move |_| {
                frame(Kind::Gossip(pool::Gossip { membership: Vec::new(), statements: statements.clone() }))
            })
        }
        other => return Err(Trouble::new(format!("{other} is no flood"))),
    })
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

impl Scene {
    fn start() -> Outcome<Self> {
        let dir = base_dir()?.join("src/flood");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let person = Person::submitter();
        person.make_dir(&dir)?;
        fs::write(dir.join("a.c"), "#include <stdio.h>\nint main(void) { return puts(\"a\"); }\n")?;
        person.own(&dir.join("a.c"))?;
        let lab = Lab::start(Plan::new("floods", 1, 2, std::slice::from_ref(&dir)))?;
        lab.sync_toolchains(&["/usr/bin/gcc"])?;
        let scene = Self { lab, dir, members: 0 };
        // Mirror and sandbox stand before anything is measured.
        scene.compiles(3)?;
        Ok(scene)
    }

    fn member(&mut self) -> Outcome<Member> {
        self.members += 1;
        let dir = self.lab.dir.join(format!("member{}", self.members));
        Member::join(&self.lab, &dir, &self.lab.submitter.node.invite(1)?)
    }

    /// The median of some compiles.
    fn compiles(&self, number: usize) -> Outcome<Duration> {
        let argv = ["/usr/bin/gcc", "-O2", "-c", "a.c", "-o", "a.o"].map(Into::into).to_vec();
        let job = Job { cwd: self.dir.clone(), argv };
        let one = || {
            let seen = run(Via::Pool(&self.lab.submitter.node).command(&job), "potluck")?;
            if seen.exit == 0 {
                Ok(seen.wall)
            } else {
                Err(Trouble::new(format!("a compile failed: {}", lossy(&seen.stderr))))
            }
        };
        Ok(median((0..number).map(|_| one()).collect::<Outcome<_>>()?))
    }

    /// The median of some calls of `potluck status`.
    fn status(&self) -> Outcome<Duration> {
        let one = || {
            let start = Instant::now();
            self.lab.submitter.node.status().map(|_| start.elapsed())
        };
        Ok(median((0..COMPILES).map(|_| one()).collect::<Outcome<_>>()?))
    }

    /// How often this member was cut off by the submitter's node.
    fn marks(&self, member: &Member) -> Outcome<u64> {
        let status = self.lab.submitter.node.status()?.0;
        let all = status["floods"].as_array().context(|| format!("status has no floods: {status}"))?;
        let mine = all.iter().find(|one| one["id"] == member.id().to_string());
        Ok(mine.and_then(|one| one["floods"].as_u64()).unwrap_or(0))
    }

    /// Case 21: one kind of message without end, to the submitter's node.
    fn flood(&mut self, attack: &mut Attack, name: &str) -> Outcome<()> {
        let member = self.member()?;
        let quiet = (self.compiles(COMPILES)?, self.status()?);
        let flood = member.flood(&self.lab.submitter.node.address, make(name, &member)?)?;
        let start = Instant::now();
        let mut loud = (self.compiles(COMPILES)?, self.status()?);
        let cut = loop {
            match self.marks(&member)? {
                0 if start.elapsed() > CUT_WITHIN => break None,
                // It goes on: what is measured is what it does.
                0 => loud = (loud.0.max(self.compiles(COMPILES)?), loud.1.max(self.status()?)),
                _ => break Some(start.elapsed()),
            }
        };
        let (sent, hung_up) = flood.figures();
        drop(flood);
        let ratio = loud.0.as_secs_f64() / quiet.0.as_secs_f64();
        attack.check(cut.is_some(), || format!("{sent} messages, and nobody minded"));
        attack.check(ratio <= SLOWER_MAX, || format!("a compile takes {ratio:.2} times as long"));
        attack.check(loud.1 <= STATUS_MAX.max(quiet.1 * 2), || format!("potluck status takes {:?}", loud.1));
        attack.saw(format!(
            "{sent} sent, cut off {hung_up} times, marked within {:.1} s; compile {ratio:.2} x of {} ms, status {} ms (quiet {})",
            cut.unwrap_or_default().as_secs_f64(),
            quiet.0.as_millis(),
            loud.1.as_millis(),
            quiet.1.as_millis(),
        ));
        Ok(())
    }

    /// Case 21: connections that begin to join and say nothing.
    fn silent_joins(&mut self, attack: &mut Attack) -> Outcome<()> {
        let outsider = self.lab.network()?.outsider(PLACE)?;
        let runtime = outsider.inside(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            Ok(builder.worker_threads(1).enable_all().build()?)
        })?;
        let dir = self.lab.dir.join("silent");
        fs::create_dir_all(&dir)?;
        let identity = Identity::load_or_create(&dir).context(|| "a key".into())?;
        let config = tls::client(&identity, tls::ALPN_JOIN, Arc::new(|_| true)).context(|| "TLS".into())?;
        let address = self.lab.submitter.node.address.clone();
        let silent = runtime.spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(1000 / SILENT_PER_S));
            loop {
                tick.tick().await;
                let (config, address) = (Arc::clone(&config), address.clone());
                tokio::spawn(async move {
                    let Ok(tcp) = TcpStream::connect(&address).await else { return };
                    let Ok(mut tls) = TlsConnector::from(config).connect(tls::server_name(), tcp).await else { return };
                    let _ = tls.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        let mut joins = 0;
        while start.elapsed() < SILENT_FOR {
            std::thread::sleep(Duration::from_secs(5));
            let began = Instant::now();
            match self.member() {
                Ok(_) => slowest = slowest.max(began.elapsed()),
                Err(error) => attack.wrong(format!("a valid invitation does not work: {error}")),
            }
            joins += 1;
        }
        silent.abort();
        attack.check(slowest <= JOIN_MAX, || format!("a join took {slowest:?}"));
        attack.saw(format!("{joins} joins with a valid invitation, the slowest {:.2} s", slowest.as_secs_f64()));
        Ok(())
    }

    /// Case 24: a peer of a newer release names abilities and says things that this one does not know.
    fn newer_release(&mut self, attack: &mut Attack) -> Outcome<()> {
        let member = self.member()?;
        let address = self.lab.submitter.node.address.clone();
        let wire = member.dial(&address)?;
        for _ in 0..20 {
            wire.say_nothing_known();
        }
        wire.say(Kind::Pulse(pool::Pulse::default()));
        attack.check(!wire.is_hung_up(Duration::from_secs(2)), || "the node hangs up on what it does not know".into());
        drop(wire);
        let abilities = ["mirror-1", "mirror-9", "telepathy-1"].map(String::from).to_vec();
        let wire = member.dial_as(&address, pool::Hello { major: 1, abilities, ..pool::Hello::default() })?;
        attack.check(!wire.is_hung_up(Duration::from_secs(2)), || "the node hangs up on unknown abilities".into());
        drop(wire);
        let wire = member.dial_as(&address, pool::Hello { major: 2, ..pool::Hello::default() })?;
        attack.check(wire.is_hung_up(Duration::from_secs(5)), || "another protocol is spoken with".into());
        drop(wire);
        attack.check(self.marks(&member)? == 0, || "a newer release counts as a flood".into());
        self.compiles(1)?;
        attack.saw("unknown messages and abilities are passed over; another protocol is refused");
        Ok(())
    }
}
