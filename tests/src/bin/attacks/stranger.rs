//! Strangers in the same network: connections with any certificate (case 1), and invented answers to the question who
//! is there (case 5).

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use potluck_model::ids::{NodeId, TeamId};
use potluck_model::limits::TEAMS_NEARBY_MAX;
use potluck_model::nearby::{NodePrefix, TeamTag};
use potluck_node::discovery::SERVICE;
use potluck_node::identity::Identity;
use potluck_node::transport::tls;
use potluck_tests::lab::base_dir;
use potluck_tests::net::{Outsider, worker_address};
use potluck_tests::person::Person;
use potluck_tests::run::{Job, Via, run};
use potluck_tests::{Context, Lab, Outcome, Plan, Trouble};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::board::{Attack, Board};
use crate::compiler::{last_record, lossy};

/// Cases and names of its attacks.
pub const ATTACKS: &[(&str, &str)] = &[("1", "stranger: any certificate"), ("5", "stranger: invented peers")];
/// Attempts per second ...
const PER_SECOND: u32 = 100;
/// ... for so long.
const SECONDS: u32 = 10;
/// What they may cost the node: of one core.
const CPU_MAX: f64 = 0.01;
/// What a stranger may delay a compile by.
const DELAY_MAX: Duration = Duration::from_millis(250);
/// Invented peers.
const INVENTED: usize = 300;
/// A ClientHello is some hundred bytes; a job or a file would be more.
const HELLO_BYTES_MAX: u64 = 2048;
/// Index of the stranger's PC in the Lab's network.
const PLACE: usize = 60;

struct Scene {
    lab: Lab,
    dir: PathBuf,
    outsider: Outsider,
    /// Its threads are in the stranger's PC.
    runtime: Runtime,
}

/// All attacks of strangers.
pub fn attacks(board: &mut Board) -> Outcome<()> {
    let mut scene = Scene::start()?;
    board.attack(ATTACKS[0].0, ATTACKS[0].1, |attack| scene.any_certificate(attack));
    board.attack(ATTACKS[1].0, ATTACKS[1].1, |attack| scene.invented_peers(attack));
    scene.lab.check_isolation()
}

impl Scene {
    fn start() -> Outcome<Self> {
        let dir = base_dir()?.join("src/stranger");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let person = Person::submitter();
        person.make_dir(&dir)?;
        fs::write(dir.join("a.c"), "int a;\n")?;
        person.own(&dir.join("a.c"))?;
        let lab = Lab::start(Plan::new("strangers", 1, 2, std::slice::from_ref(&dir)))?;
        lab.sync_toolchains(&["/usr/bin/gcc"])?;
        let outsider = lab.network()?.outsider(PLACE)?;
        let runtime = outsider.inside(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            Ok(builder.worker_threads(2).enable_all().build()?)
        })?;
        let scene = Self { lab, dir, outsider, runtime };
        // Mirror and sandbox stand before anything is measured.
        scene.compile(true)?;
        Ok(scene)
    }

    /// One compile, elsewhere or here; how long it took.
    fn compile(&self, elsewhere: bool) -> Outcome<Duration> {
        // A program that only preprocesses never travels.
        let mode = if elsewhere { "-c" } else { "-E" };
        let argv = ["/usr/bin/gcc", mode, "a.c", "-o", "a.o"].map(Into::into).to_vec();
        let seen = run(Via::Pool(&self.lab.submitter.node).command(&Job { cwd: self.dir.clone(), argv }), "potluck")?;
        if seen.exit != 0 {
            return Err(Trouble::new(format!("a compile failed: {}", lossy(&seen.stderr))));
        }
        let record = last_record(&self.lab)?;
        if (record["where"] == "remote") == elsewhere {
            Ok(seen.wall)
        } else {
            Err(Trouble::new(format!("a compile ran where it should not: {record}")))
        }
    }

    /// The slowest of some compiles.
    fn slowest(&self, elsewhere: bool) -> Outcome<Duration> {
        (0..10).map(|_| self.compile(elsewhere)).try_fold(Duration::ZERO, |worst, one| Ok(worst.max(one?)))
    }

    fn worker_cpu(&self) -> Outcome<Duration> {
        let nodes = self.lab.workers[0].named("potluck-node");
        Ok(nodes.first().context(|| "the worker has no node".into())?.cpu())
    }

    /// Lines of the worker's log that tell of refused connections.
    fn refusals_logged(&self) -> usize {
        let log = fs::read_to_string(self.lab.workers[0].state.join("state/potluck/node.log")).unwrap_or_default();
        log.lines().filter(|l| l.contains("was refused")).count()
    }

    /// Case 1.
    fn any_certificate(&mut self, attack: &mut Attack) -> Outcome<()> {
        let address = self.lab.workers[0].node.address.clone();
        let dir = self.lab.dir.join("keys");
        let mut configs = Vec::new();
        for n in 0..4 {
            let dir = dir.join(n.to_string());
            fs::create_dir_all(&dir)?;
            let identity = Identity::load_or_create(&dir).context(|| "a key".into())?;
            for alpn in [tls::ALPN_POOL, b"h2", b"pool/2"] {
                configs.push(tls::client(&identity, alpn, Arc::new(|_| true)).context(|| "TLS".into())?);
            }
        }
        let logged = self.refusals_logged();
        let (before, start) = (self.worker_cpu()?, Instant::now());
        std::thread::sleep(Duration::from_secs(5));
        let idle = (self.worker_cpu()? - before).as_secs_f64() / start.elapsed().as_secs_f64();
        let (before, start) = (self.worker_cpu()?, Instant::now());
        let told = Arc::new(AtomicU64::new(0));
        let attempts = PER_SECOND * SECONDS;
        let flood = {
            let told = Arc::clone(&told);
            async move {
                let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
                let mut all = tokio::task::JoinSet::new();
                for n in 0..attempts as usize {
                    tick.tick().await;
                    let (config, address) = (Arc::clone(&configs[n % configs.len()]), address.clone());
                    let told = Arc::clone(&told);
                    all.spawn(async move {
                        let bytes = tokio::time::timeout(Duration::from_secs(20), attempt(n, config, &address)).await;
                        told.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
                    });
                }
                all.join_all().await;
            }
        };
        self.runtime.block_on(self.runtime.spawn(flood)).map_err(|e| Trouble::new(e.to_string()))?;
        let took = start.elapsed().as_secs_f64();
        let cpu = (self.worker_cpu()? - before).as_secs_f64() / took - idle;
        let told = told.load(Ordering::Relaxed);
        attack.check(told == 0, || format!("{told} application bytes were sent to strangers"));
        attack.check(cpu < CPU_MAX, || format!("the node's CPU: {:.2} %", cpu * 100.0));
        let lines = self.refusals_logged() - logged;
        attack.check((1..=3).contains(&lines), || format!("{lines} lines in the log"));
        attack.check(self.compile(true).is_ok(), || "the pair does not build any more".into());
        attack.saw(format!(
            "{attempts} attempts in {took:.1} s: {:.2} % CPU ({:.2} % idle), {lines} log lines, 0 bytes told",
            cpu * 100.0,
            idle * 100.0
        ));
        Ok(())
    }

    /// Case 5.
    fn invented_peers(&mut self, attack: &mut Attack) -> Outcome<()> {
        let id = |text: &serde_json::Value| -> Outcome<NodeId> {
            text.as_str().and_then(|t| t.parse().ok()).context(|| format!("{text} is no node id"))
        };
        let status = self.lab.submitter.node.status()?.0;
        let (submitter, worker) = (id(&status["node"]["id"])?, id(&status["peers"][0]["id"])?);
        let team: serde_json::Value =
            serde_json::from_str(&self.lab.submitter.node.potluck(&["team", "list", "--json"])?)?;
        let team: TeamId = team["id"].as_str().and_then(|t| t.parse().ok()).context(|| format!("no team: {team}"))?;
        let quiet = (self.slowest(true)?, self.slowest(false)?);

        let seen = Arc::new(Seen::default());
        let ports = self.listen(&seen)?;
        let daemon = self.outsider.inside(|| {
            let daemon = ServiceDaemon::new().map_err(|e| Trouble::new(e.to_string()))?;
            let loopback = vec![IfKind::LoopbackV4, IfKind::LoopbackV6];
            daemon.disable_interface(loopback).map_err(|e| Trouble::new(e.to_string()))?;
            Ok(daemon)
        })?;
        let address = worker_address(PLACE);
        for n in 0..INVENTED {
            let node = match n % 3 {
                0 => NodePrefix::of(submitter),
                1 => NodePrefix::of(worker),
                _ => NodePrefix(n as u64),
            };
            // A third of them are of other teams.
            let tag = if n % 9 < 6 { TeamTag::of(team) } else { TeamTag(n as u64) };
            let (node, tag) = (node.text(), tag.text());
            let txt = [("v", "1"), ("id", &node), ("team", &tag), ("name", "\u{202e}evil\u{7}"), ("keeper", "1")];
            let (name, host) = (format!("evil{n}"), format!("evil{n}.local."));
            let service = ServiceInfo::new(SERVICE, &name, &host, address.as_str(), ports[n % ports.len()], &txt[..]);
            let mut service = service.map_err(|e| Trouble::new(e.to_string()))?;
            service.set_requires_probe(false);
            register(&daemon, service)?;
        }
        let flooded = (self.slowest(true)?, self.slowest(false)?);
        // With its link gone each of the two looks for the other, among all that was invented.
        self.lab.workers[0].signal("potluck-node", rustix::process::Signal::KILL);
        let here = run(
            Via::Pool(&self.lab.submitter.node).command(&Job {
                cwd: self.dir.clone(),
                argv: ["/usr/bin/gcc", "-c", "a.c", "-o", "a.o"].map(Into::into).to_vec(),
            }),
            "potluck",
        )?;
        attack.check(here.exit == 0, || format!("without a worker: {}", lossy(&here.stderr)));
        self.lab.workers[0].start_node()?;
        let start = Instant::now();
        self.lab.wait_for_workers(1)?;
        let back = start.elapsed();
        self.lab.sync_toolchains(&["/usr/bin/gcc"])?;
        self.compile(true)?;
        let nearby = self.lab.submitter.node.status()?.number("/discovery/nearby")?;
        if let Ok(done) = daemon.shutdown() {
            let _ = done.recv_timeout(Duration::from_secs(2));
        }

        for (what, quiet, flooded) in [("elsewhere", quiet.0, flooded.0), ("here", quiet.1, flooded.1)] {
            attack.check(flooded < quiet + DELAY_MAX, || format!("a compile {what}: {flooded:?} instead of {quiet:?}"));
            attack.saw(format!("{what} {} ms, quiet {} ms", flooded.as_millis(), quiet.as_millis()));
        }
        let (dials, most, passed) = seen.figures();
        attack.check(dials > 0, || "nobody dialled what was invented: nothing is shown".into());
        attack.check(dials < 300, || format!("{dials} dials"));
        attack.check(most <= HELLO_BYTES_MAX, || format!("{most} bytes on one connection"));
        attack.check(passed == 0, || format!("{passed} handshakes with a stranger"));
        attack.check(nearby > 0 && nearby <= TEAMS_NEARBY_MAX as u64, || format!("{nearby} teams nearby"));
        attack.saw(format!(
            "{INVENTED} invented: {dials} wasted dials, at most {most} bytes, {nearby} teams nearby, back in {:.1} s",
            back.as_secs_f64()
        ));
        Ok(())
    }

    /// Listeners that hang up, say nothing, talk nonsense, and have a key of their own.
    fn listen(&self, seen: &Arc<Seen>) -> Outcome<Vec<u16>> {
        let dir = self.lab.dir.join("keys/server");
        fs::create_dir_all(&dir)?;
        let identity = Identity::load_or_create(&dir).context(|| "a key".into())?;
        let config = tls::server(&identity, tls::ALPN_POOL, Arc::new(|_| true)).context(|| "TLS".into())?;
        let mut ports = Vec::new();
        for kind in [Kind::HangsUp, Kind::Silent, Kind::Nonsense, Kind::Stranger] {
            let (seen, acceptor) = (Arc::clone(seen), TlsAcceptor::from(Arc::clone(&config)));
            let listener = self.runtime.spawn(async { TcpListener::bind("0.0.0.0:0").await });
            let listener = self.runtime.block_on(listener).map_err(|e| Trouble::new(e.to_string()))??;
            ports.push(listener.local_addr()?.port());
            self.runtime.spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    seen.dials.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(kind.answer(tcp, acceptor.clone(), Arc::clone(&seen)));
                }
            });
        }
        Ok(ports)
    }
}

/// The daemon's queue is short.
fn register(daemon: &ServiceDaemon, service: ServiceInfo) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match daemon.register(service.clone()) {
            Ok(()) => return Ok(()),
            Err(mdns_sd::Error::Again) if Instant::now() < end => std::thread::yield_now(),
            Err(e) => return Err(Trouble::new(format!("announcing: {e}"))),
        }
    }
}

/// One connection of a stranger; application bytes that it was sent.
async fn attempt(n: usize, config: Arc<tokio_rustls::rustls::ClientConfig>, address: &str) -> u64 {
    let Ok(mut tcp) = TcpStream::connect(address).await else { return 0 };
    if n % 5 == 4 {
        // No TLS at all.
        let _ = tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut said = Vec::new();
        let _ = tcp.read_to_end(&mut said).await;
        // An alert of TLS is seven bytes, and no application's.
        return if said.len() > 7 { said.len() as u64 } else { 0 };
    }
    let Ok(mut tls) = TlsConnector::from(config).connect(tls::server_name(), tcp).await else { return 0 };
    // The client's side of TLS 1.3 is done before the server has looked at its certificate.
    let _ = tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut said = Vec::new();
    let _ = tls.read_to_end(&mut said).await;
    said.len() as u64
}

/// What came to the stranger's listeners.
#[derive(Default)]
struct Seen {
    dials: AtomicU64,
    most: AtomicU64,
    passed: AtomicU64,
}

impl Seen {
    fn figures(&self) -> (u64, u64, u64) {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (read(&self.dials), read(&self.most), read(&self.passed))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    HangsUp,
    Silent,
    Nonsense,
    Stranger,
}

impl Kind {
    async fn answer(self, mut tcp: TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>) {
        match self {
            Self::HangsUp => return,
            Self::Stranger => {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    // The client may give up after the server is done: only what it says counts.
                    let said = tls.read(&mut [0; 64]).await.unwrap_or(0);
                    seen.passed.fetch_add(u64::from(said > 0), Ordering::Relaxed);
                }
                return;
            }
            Self::Nonsense => drop(tcp.write_all(&[0x5a; 64 << 10]).await),
            Self::Silent => {}
        }
        let mut said = Vec::new();
        let _ = tcp.read_to_end(&mut said).await;
        seen.most.fetch_max(said.len() as u64, Ordering::Relaxed);
    }
}
