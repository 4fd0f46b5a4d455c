//! The node's one loop. Everything that can wake a node is an `Event`; everything that a node knows is in `Core`.
//! One thread takes events in batches, so that nothing here needs a lock, and the tree is looked at once a batch.
//!
//! `submit`: a compile from the wrapper to its reply. `compilers`: compilers, toolchains and search lists.
//! `peers`: links, what each worker holds, proving a toolchain there. `serve`: other submitters' jobs.
//! `flood`: what a member may send. `audit`: whether what came back is right. `sharing`: slots given and taken back. `finish`: results, faults, outputs. `builds`: jobs into builds. `network`: who
//! is there. `view`: what is shown of all that, and `snapshot` of all at once.

mod accept;
mod arrivals;
mod audit;
mod builds;
mod builds_view;
mod by_products;
mod compilers;
mod faults;
mod finish;
pub(crate) mod flood;
mod job;
mod machines;
pub(crate) mod network;
mod peers;
mod problems;
mod pulse;
mod roles;
mod scrub;
mod serve;
mod sharing;
mod snapshot;
mod submit;
pub mod team;
mod understood;
mod view;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use potluck_model::ids::{JobId, NodeId};
use potluck_model::nearby::Nearby;
use potluck_model::place::{self, Arch};
use potluck_model::reason::Reason;
use potluck_wire::ipc;
use potluck_wire::pool::{Chunk, frame};
use tokio::sync::{mpsc, watch};

use crate::alarm::Alarm;
use crate::dialler::Dials;
use crate::dirs::Dirs;
use crate::discovery::News;
use crate::guest::{GuestEvent, GuestSettings, Served};
use crate::ipc::Taken;
use crate::membership::Membership;
use crate::remembered::Remembered;
use crate::root::{Asker, Root};
use crate::transport::link::Link;
use crate::tree::Tree;

/// The longest time between two looks at what makes no event.
const IDLE: Duration = Duration::from_secs(5);

/// How a node was started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folders.
    pub dirs: Dirs,
    /// Name shown to others.
    pub name: String,
    /// Compiles that run here at a time.
    pub local_slots: u32,
    /// Compiles that could travel and may run here all the same; 0 keeps them off this PC.
    pub local_compiles: u32,
    /// Use /dev/fuse if it is there.
    pub allow_fuse: bool,
    /// Part of the tray app.
    pub desktop: bool,
    /// Bytes of one submitter's mirror.
    pub quota_bytes: u64,
    /// Address that peers are told.
    pub listen: SocketAddr,
    /// Other nodes are looked for on the local networks.
    pub discovery: bool,
}

/// What has a task or thread of its own beside the loop.
pub struct Parts {
    /// To the dialler.
    pub dial: Dials,
    /// Addresses that a person typed.
    pub addresses: Vec<String>,
    /// Addresses that worked before.
    pub remembered: Remembered,
    /// For what the web asks: the queue that goes first.
    pub locals: mpsc::UnboundedSender<Event>,
    /// The share policy with its sensors.
    pub sharing: (crate::sharing::Shared, crate::sharing::Handle),
}

/// Where the answers to one wrapper go.
pub type Replies = mpsc::UnboundedSender<ipc::Reply>;
/// Number of a wrapper's or command line's connection.
pub type ConnId = u64;

/// Everything that can wake a node.
///
/// They wait in two queues, that of the local socket and the web, which goes first, and that of everything else. Neither
/// needs a bound of its own, because whoever fills them has one: a local connection (`ipc::CONNECTIONS_MAX`, and the web's
/// calls) has one question and one end there, a link its `flood` places, a job, an upload and a thread one end each. What
/// discovery, sensors and statements tell comes at their own pace.
pub enum Event {
    /// A wrapper asks.
    Compile(ConnId, Asker, Box<ipc::Compile>, Replies),
    /// A wrapper ran a compiler without asking.
    Notice(String),
    /// A management call.
    Api(ConnId, Asker, String, Replies),
    /// A local connection ended: the wrapper, or the compiler that held its slot.
    Gone(ConnId),
    /// How a compile ended here that had failed elsewhere.
    LocalEnded(ConnId, i32),
    /// A link stands.
    LinkUp(Box<Link>),
    /// A link ended.
    LinkDown(NodeId, u64),
    /// A frame came.
    Frame(NodeId, u64, frame::Kind, flood::Place),
    /// A bulk chunk came; its place goes with it, until it is written.
    Chunk(NodeId, u64, Chunk, flood::Place),
    /// More comes over a link than any honest peer sends: of what.
    Flood(NodeId, u64, &'static str),
    /// Statements of a member were looked at.
    Looked(NodeId, flood::Looked),
    /// A peer is being dialled.
    Dialing(NodeId),
    /// A guest did something.
    Guest(GuestEvent),
    /// The share policy decided anew.
    Share(Box<crate::sharing::Update>),
    /// A compiler was found, packed or asked.
    Compiler(compilers::Found),
    /// `-M` ran for a job.
    Depended(JobId, Option<Vec<Vec<u8>>>),
    /// A large content was read and sent, or could not be.
    Uploaded(NodeId, u64, potluck_model::ids::Digest, Result<u64, String>),
    /// Something is known of the network.
    Discovery(News),
    /// Other teams that are seen on it.
    Nearby(Vec<Nearby>),
    /// The team's statements changed.
    TeamChanged,
    /// What submitters had left here was looked through.
    Received(Vec<(NodeId, u64, Option<u64>)>),
    /// A process is gone that builds began with.
    RootEnded(potluck_model::builds::Root),
    /// The history was read: all builds, oldest first.
    History(Vec<crate::builds::Meta>),
    /// Builds that went from it.
    HistoryGone(Vec<String>),
    /// Show a view of the window, such as `builds/ID`: somebody clicked a notification.
    Open(String),
    /// Somebody wants to join the team, or joined it.
    Asking(crate::membership::door::News),
    /// How far this node's own joining is, and which attempt that is.
    Joining(u64, potluck_api::view::Joining),
    /// The key came out of the keyring.
    Unlocked(Arc<crate::identity::Identity>),
    /// A result that is compiled again goes on.
    Audit(audit::News),
    /// Time passed.
    Tick,
    /// End the node.
    Quit,
}

/// Totals since the node's start; every number that `status` shows.
#[derive(Default, Clone, serde::Serialize)]
pub struct Totals {
    /// Jobs whose outputs came from a peer.
    pub remote: u64,
    /// Jobs that ran here, by reason.
    pub local: HashMap<String, u64>,
    /// Runs that ended by themselves on workers, by what became of them: `used`, `faulted`, `void`, or a reason. Their sum
    /// is what the workers' own logs count.
    pub runs: BTreeMap<String, u64>,
    /// Touched poisons that jobs were run again for.
    pub faults: u64,
    /// Runs beyond the first of a job.
    pub retries: u64,
    /// Results that nobody waited for any more: second copies, cancelled jobs.
    pub void: u64,
    /// Jobs that a worker refused.
    pub refusals: u64,
    /// Of them, because the mirror was not what the job needed.
    pub version_refusals: u64,
    /// Jobs that failed elsewhere and not here.
    pub differing: u64,
    /// Names that workers asked for, got, and no scan had predicted.
    pub unpredicted: u64,
    /// Paths that a worker asked for and must not have.
    pub fault_refusals: u64,
    /// Outputs or lists of workers that broke a rule.
    pub bad_outputs: u64,
    /// Bytes sent to peers, before TLS.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
}

/// What a peer did since the node's start that no honest one does, or seldom.
#[derive(Default, Clone, serde::Serialize)]
pub struct Marks {
    /// Results with outputs or lists that broke a rule.
    pub bad_output: u64,
    /// When the last of them came.
    #[serde(skip)]
    pub refused_at: Option<Instant>,
    /// Paths that it asked for and must not have.
    pub fault_refused: u64,
    /// How often it was cut off because it sent more than anybody needs.
    pub floods: u64,
    /// When that was last.
    #[serde(skip)]
    pub flooded_at: Option<Instant>,
    /// Evidence against others that does not hold.
    pub false_word: u64,
    /// Names that it asked for, got, and no scan had predicted: some are usual (computed includes), many are not.
    pub unpredicted: u64,
    /// Results whose messages held what could steer a terminal: an odd source has it too.
    pub messages: u64,
    /// The last refusal, for people.
    pub last: String,
}

/// The node.
pub struct Core {
    pub(crate) settings: Settings,
    pub(crate) membership: Arc<Membership>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) started: Instant,
    pub(crate) tree: Tree,
    pub(crate) submitter: place::Submitter,
    pub(crate) worker: place::Worker,
    pub(crate) asks: HashMap<u64, submit::Ask>,
    pub(crate) jobs: HashMap<JobId, job::Job>,
    pub(crate) conns: HashMap<ConnId, submit::Conn>,
    pub(crate) next_job: u64,
    pub(crate) compilers: compilers::State,
    pub(crate) understood: understood::Understood,
    pub(crate) by_products: by_products::ByProducts,
    pub(crate) peers: HashMap<NodeId, peers::Peer>,
    pub(crate) next_link: u64,
    /// Peers with a link, for the dialler: an address whose node is linked otherwise is not dialled.
    pub(crate) linked: watch::Sender<HashSet<NodeId>>,
    pub(crate) probes: HashMap<JobId, peers::ProbeRun>,
    pub(crate) guests: serve::Guests,
    pub(crate) sharing: sharing::Sharing,
    scrub: scrub::Scrub,
    pub(crate) totals: Totals,
    /// Members only, so there are not many.
    pub(crate) marks: HashMap<NodeId, Marks>,
    pub(crate) floods: flood::Floods,
    pub(crate) records: VecDeque<view::Record>,
    pub(crate) served: VecDeque<Served>,
    pub(crate) served_jobs: u64,
    pub(crate) watchers: Vec<view::Watcher>,
    /// Whoever watches everything.
    pub(crate) watch: crate::watch::Watch,
    pub(crate) web: crate::web::Web,
    pub(crate) addresses: Vec<String>,
    pub(crate) dial: Dials,
    pub(crate) network: network::Network,
    pub(crate) pulse: pulse::Pulse,
    /// Since when each problem is one, milliseconds since 1970.
    pub(crate) since: BTreeMap<String, u64>,
    pub(crate) problems_due_ms: u64,
    /// Problems that were told by a notification, and when that was tried last.
    pub(crate) told: BTreeMap<String, u64>,
    /// Members whose protocol is another one: name and version.
    pub(crate) strange: HashMap<NodeId, (String, String)>,
    /// Teams on this network that this PC is not in: hearsay, cleaned and bounded.
    pub(crate) nearby: Vec<Nearby>,
    /// Asks that wait for the first worker to have their toolchain.
    pub(crate) waiting_tools: HashMap<potluck_model::ids::ToolchainId, Vec<u64>>,
    pub(crate) predictions: HashMap<PathBuf, (u32, u64)>,
    pub(crate) builds: builds::Builds,
    pub(crate) team: team::State,
    pub(crate) audit: audit::Audit,
    actions: Vec<place::Action>,
    quit: bool,
}

/// The processor family of this machine.
pub fn own_arch() -> Arch {
    Arch::from_name(std::env::consts::ARCH)
}

impl Core {
    /// A node that knows nothing yet.
    pub fn new(
        settings: Settings,
        membership: Arc<Membership>,
        events: mpsc::UnboundedSender<Event>,
        parts: Parts,
    ) -> Self {
        let Parts { dial, addresses, remembered, locals, sharing } = parts;
        let me = membership.identity().id();
        let root = Root::own();
        let config = place::Config {
            arch: own_arch(),
            local_slots: settings.local_slots,
            local_compiles: settings.local_compiles,
            ..place::Config::default()
        };
        let guest_settings = GuestSettings {
            mirrors: settings.dirs.cache.join("mirrors"),
            quota_bytes: settings.quota_bytes,
            limits: potluck_model::limits::JobLimits::default(),
            allow_fuse: settings.allow_fuse,
            signer: Some(crate::signed::Signer::new(Arc::clone(&membership))),
            room: Arc::default(),
            idle: Arc::default(),
        };
        let mut core = Self {
            builds: builds::Builds::new(&settings.dirs, &events),
            compilers: compilers::State::new(&settings.dirs),
            understood: understood::Understood::default(),
            by_products: by_products::ByProducts::default(),
            submitter: place::Submitter::new(me, config),
            worker: place::Worker::new(place::WorkerConfig::default()),
            guests: serve::Guests::new(guest_settings, events.clone()),
            network: network::Network::new(settings.discovery, remembered),
            pulse: pulse::Pulse::default(),
            since: BTreeMap::new(),
            problems_due_ms: 0,
            told: BTreeMap::new(),
            strange: HashMap::new(),
            sharing: sharing::Sharing::new(sharing.0, sharing.1, &settings.dirs.state),
            scrub: scrub::Scrub::default(),
            nearby: Vec::new(),
            membership,
            runtime: tokio::runtime::Handle::current(),
            started: Instant::now(),
            tree: Tree::new(root),
            asks: HashMap::new(),
            jobs: HashMap::new(),
            conns: HashMap::new(),
            next_job: 1,
            peers: HashMap::new(),
            next_link: 1,
            linked: watch::Sender::default(),
            probes: HashMap::new(),
            totals: Totals::default(),
            marks: HashMap::new(),
            floods: flood::Floods::default(),
            records: VecDeque::new(),
            served: VecDeque::new(),
            served_jobs: 0,
            watchers: Vec::new(),
            watch: crate::watch::Watch::default(),
            web: crate::web::Web::new(locals, &settings.dirs.state),
            addresses,
            dial,
            waiting_tools: HashMap::new(),
            predictions: HashMap::new(),
            team: team::State::default(),
            audit: audit::Audit::new(&settings.dirs.state),
            actions: Vec::new(),
            quit: false,
            settings,
            events,
        };
        core.watch_door();
        core.note_roles();
        let slots = if core.team.serves() { core.sharing.shared.decision.slots } else { 0 };
        core.work(place::WorkerEvent::Slots(slots));
        core
    }

    /// The peers that there are links with.
    pub fn linked(&self) -> watch::Receiver<HashSet<NodeId>> {
        self.linked.subscribe()
    }

    /// Runs until told to quit.
    pub async fn run(
        mut self,
        mut locals: mpsc::UnboundedReceiver<Event>,
        mut events: mpsc::UnboundedReceiver<Event>,
        taken: Taken,
        alarm: Alarm,
    ) {
        let (mut batch, mut others, mut last) = (Vec::new(), Vec::new(), 0);
        loop {
            // Where nothing happens, a problem may be told some seconds later.
            let idle = if self.builds.open.is_empty() { IDLE } else { builds::LOOK_EVERY };
            let audit = self.audit.next_wake();
            let wake =
                [self.submitter.next_wake(), self.worker.next_wake(), self.watch.next_wake(), self.links_due(), audit];
            let wake = wake.into_iter().flatten().min();
            let wait = wake.map_or(idle, |at| at.saturating_sub(self.now()).min(idle));
            alarm.set(wait);
            tokio::select! {
                biased;
                _ = locals.recv_many(&mut batch, 256) => {}
                _ = events.recv_many(&mut others, 256) => {}
                () = alarm.rings() => {}
            }
            // Whoever is ready to speak joins this batch: the tree is then looked at once for all of them. Not where the
            // last one had a single event: then nobody else speaks, and asking the kernel costs more than it saves.
            if batch.len() + others.len() + last > 2 {
                tokio::task::yield_now().await;
            }
            // Whoever sits here goes first, whatever comes over the network.
            while batch.len() < 1024
                && let Ok(event) = locals.try_recv()
            {
                batch.push(event);
            }
            while others.len() < 1024
                && let Ok(event) = events.try_recv()
            {
                others.push(event);
            }
            last = batch.len() + others.len();
            self.tree.begin_batch();
            let asked = batch.iter().any(|e| matches!(e, Event::Compile(..)));
            for event in batch.drain(..).chain(others.drain(..)) {
                self.take(event);
            }
            self.place(place::Event::Tick);
            self.work(place::WorkerEvent::Tick);
            self.tell_sharing();
            self.tell_pulse();
            self.note_problems();
            self.guests.make_room(Self::clock_us() / 1000);
            self.scrub();
            self.watch_links();
            self.builds_tick();
            self.audit_tick();
            if asked {
                taken.all();
            }
            self.tell_watching(last > 0);
            if self.quit {
                self.builds_end();
                self.end_audit();
                return;
            }
        }
    }

    /// Time since the start: the clock of the state machines.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Compile(conn, asker, compile, replies) => self.compile(conn, asker, *compile, replies),
            Event::Notice(reason) => *self.totals.local.entry(reason).or_default() += 1,
            Event::Api(conn, asker, json, replies) => self.api(conn, asker, &json, replies),
            Event::Gone(conn) => self.conn_gone(conn),
            Event::LocalEnded(conn, exit) => self.local_ended(conn, exit),
            Event::LinkUp(link) => self.link_up(*link),
            Event::LinkDown(peer, link) => self.link_down(peer, link),
            // The place is given back at the end.
            Event::Frame(peer, link, kind, _place) => self.frame(peer, link, kind),
            Event::Chunk(peer, link, chunk, place) => self.chunk(peer, link, chunk, place.into_permit()),
            Event::Flood(peer, link, what) => self.flooded(peer, link, what),
            Event::Looked(peer, looked) => self.looked(peer, looked),
            Event::Dialing(peer) => self.place(place::Event::PeerExpected { peer }),
            Event::Guest(event) => self.guest_event(event),
            Event::Share(update) => self.share(*update),
            Event::Compiler(found) => self.compiler_found(found),
            Event::Depended(job, list) => self.depended(job, list),
            Event::Uploaded(peer, link, digest, result) => self.uploaded(peer, link, digest, result),
            Event::Discovery(news) => self.discovered(news),
            Event::Nearby(nearby) => self.nearby = nearby,
            Event::TeamChanged => self.team_changed(),
            Event::Received(found) => self.guests.received.found(found),
            Event::RootEnded(root) => self.build_root_ended(root),
            Event::History(metas) => self.history_loaded(metas),
            Event::HistoryGone(ids) => self.history_gone(&ids),
            Event::Open(view) => self.builds.opened(view),
            Event::Asking(news) => self.door_news(news),
            Event::Joining(attempt, joining) => self.joining(attempt, joining),
            Event::Unlocked(identity) => self.unlocked(identity),
            Event::Audit(news) => self.audit_news(news),
            Event::Tick => {}
            Event::Quit => {
                self.quit = true;
                self.end_sharing();
                self.guests.clear();
            }
        }
    }

    /// Feeds the placing of own jobs and does what it says.
    pub(crate) fn place(&mut self, event: place::Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.submitter.handle(self.started.elapsed(), event, &mut actions);
        for action in actions.drain(..) {
            self.act(action);
        }
        // What the actions fed back has its own list.
        if self.actions.capacity() < actions.capacity() {
            self.actions = actions;
        }
    }

    fn act(&mut self, action: place::Action) {
        match action {
            place::Action::Send { job, peer } => self.send_job(job, peer),
            place::Action::RunLocal { job, reason } => {
                let reason = self.why_alone(reason);
                self.run_local(job, reason);
            }
            place::Action::CancelRemote { job, peer } => self.cancel_remote(job, peer),
            place::Action::RunLost { job, peer, reason } => self.run_lost(job, peer, &reason),
            place::Action::Demand { peer, slots } => self.tell_demand(peer, slots),
            place::Action::Ping { peer } => self.ping(peer),
            place::Action::PeerLost { peer } => self.peer_lost(peer),
            place::Action::Fail { job, reason } => self.fail_job(job, reason),
        }
    }

    /// Wall clock in microseconds since 1970.
    pub(crate) fn clock_us() -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_micros() as u64
    }

    /// Counts a local run.
    pub(crate) fn count_local(&mut self, reason: &Reason) {
        *self.totals.local.entry(reason.to_string()).or_default() += 1;
    }
}
