//! The thread that senses this PC and its person, asks `model::share` what follows, and tells the core when something
//! changed. Settings, the switch and a pause are kept here; what is done with jobs is the core's.
//!
//! While jobs of others run and nobody is here, presence is looked at every 30 ms, because the person must not notice
//! them; otherwise every few seconds, at the moment at which somebody may count as away, and whenever it matters: before
//! the first job, and for whoever begins to watch.

mod convert;
pub mod local_time;
mod pause;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use potluck_api::call::{Call, Pause};
use potluck_model::share::{self, Contradiction, Decision, Facts, Policy, Presence, State};
use tokio::sync::{Notify, mpsc};

use crate::alarm::Alarm;
use crate::core::{Event, Replies};
use crate::dirs::Dirs;
use crate::presence::desktop::Desktop;
use crate::presence::load::{self, Load};
use crate::presence::logind::Logind;
use crate::presence::power::Power;
use crate::presence::{self, Sensor, boot_time};
use crate::settings::{Settings, Values};
pub use convert::{checked, model_settings};

/// Between two looks while jobs of others run and nobody is here: half of it is the median of what a stop waits for. A
/// look costs 0.7 ms of CPU (measured with Xvfb), so this is 2.3 % of one core.
const LOOK_BUSY: Duration = Duration::from_millis(30);
/// Between two looks while jobs of others run and no person is waited for: load and memory are what may change.
const LOOK_BESIDE: Duration = Duration::from_secs(1);
/// Between two looks where no job of others runs. A look costs connections to the bus and the display, and nothing
/// depends on it: whoever is here is not away before `wake_at`, and the first job that comes has a look of its own. With
/// half of it the idle app woke 1.1 times a second (`make tray-idle`).
const LOOK_CALM: Duration = Duration::from_secs(5);
/// Battery and memory do not change faster than a person.
const MACHINE_EVERY: Duration = Duration::from_millis(900);
/// Disks fill slowly, and asking one that sleeps costs.
const DISK_EVERY: Duration = Duration::from_secs(10);
/// The longest pause that has an end.
const PAUSE_MAX: Duration = Duration::from_secs(31 * 86_400);
/// The sandbox's self-test takes 2 s where nobody else wants the CPU, and a minute where three programs want each core.
/// Whoever switches sharing on, or starts a node, waits so long for what it finds, and no longer.
const CHECK_PATIENCE: Duration = Duration::from_secs(3);
/// A moment computed again counts as the same one within this: it is made of two clocks.
const SAME_MOMENT_MS: u64 = 2000;

/// Whether jobs can be locked in here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SafeBox {
    /// The self-test has run.
    pub checked: bool,
    /// Why nothing is run for others.
    pub fault: Option<String>,
    /// The self-test, line by line.
    pub report: String,
}

impl SafeBox {
    /// Runs the self-test: see [`CHECK_PATIENCE`].
    fn check() -> Self {
        // A program that runs as root would give a job that escapes everything; it may still submit.
        let (fault, report) = if rustix::process::getuid().is_root() {
            let why = "a node that runs as root does not run other people's programs; start it as an ordinary user";
            (Some(why.to_owned()), String::new())
        } else {
            match crate::sandbox::self_test() {
                Ok(report) => (None, report),
                Err(why) => (Some(why), String::new()),
            }
        };
        if let Some(why) = &fault {
            eprintln!("potluck: not serving: {why}");
            crate::log::warn(&format!("not serving: {why}"));
        }
        Self { checked: true, fault, report }
    }
}

/// The self-test while it runs, on a thread of its own: the switch and a pause work meanwhile.
struct Check {
    began: Instant,
    found: Receiver<SafeBox>,
}

impl Check {
    /// Starts it; `ended` is told when it is over.
    fn start(ended: Arc<Notify>) -> Self {
        let (tell, found) = channel();
        let work = move || {
            let _ = tell.send(SafeBox::check());
            ended.notify_one();
        };
        // Without a thread the way back is closed at once, which `found` says.
        let _ = std::thread::Builder::new().name("self-test".into()).spawn(work);
        Self { began: Instant::now(), found }
    }

    /// None while it runs.
    fn found(&self) -> Option<SafeBox> {
        match self.found.try_recv() {
            Ok(found) => Some(found),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let why = "the self-test of the sandbox ended without a word".to_owned();
                Some(SafeBox { checked: true, fault: Some(why), report: String::new() })
            }
        }
    }

    /// How long somebody who asked should still wait for it.
    fn patience(&self) -> Option<Duration> {
        CHECK_PATIENCE.checked_sub(self.began.elapsed()).filter(|rest| !rest.is_zero())
    }
}

/// Everything that the core knows of sharing.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared {
    /// The policy's decision. Its `wake_at` is the thread's own business and empty here.
    pub decision: Decision,
    /// The owner's switch.
    pub on: bool,
    /// An explicit number of slots.
    pub promise: Option<u32>,
    /// Logical cores.
    pub cores: u32,
    /// The state's end by the wall clock, milliseconds since 1970.
    pub resumes_ms: Option<u64>,
    /// What the owner set.
    pub values: Values,
    /// Settings that can never be fulfilled.
    pub never: Option<Contradiction>,
    /// What tells that somebody is there.
    pub presence_source: Option<&'static str>,
    /// Sharing is on, and the disk holds less than is to be kept free, whatever else forbids sharing.
    pub disk_is_full: bool,
    /// This PC has a battery.
    pub has_battery: bool,
    /// It runs on it.
    pub on_battery: bool,
    /// The sandbox.
    pub safe_box: SafeBox,
    /// What is wrong in the settings file.
    pub warnings: Vec<String>,
}

impl Shared {
    /// The most that this node would ever give, as its hello says it; or why it is no worker.
    pub fn serving(&self) -> Result<u32, String> {
        match (&self.safe_box.fault, self.on) {
            (Some(why), true) => Err(why.clone()),
            (_, false) => Err("sharing is off there".to_owned()),
            (None, true) if !self.safe_box.checked => Err("it still checks whether it can lock jobs in".to_owned()),
            (None, true) => Ok(self.decision.slots_max),
        }
    }
}

/// News for the core, and answers to whoever asked for the change.
pub struct Update {
    /// What holds now.
    pub shared: Shared,
    /// Connections that wait, and whether it worked.
    pub answers: Vec<(Replies, Result<(), String>)>,
}

/// What the core tells without waking this thread more than it must.
#[derive(Debug, Default)]
pub struct Live {
    jobs: AtomicU32,
    own_build: AtomicBool,
    /// What a further job is expected to take.
    job_bytes: AtomicU64,
    kick: Arc<Notify>,
}

impl Live {
    /// Jobs of others that run here, and whether own compilers do. Costs two stores, and a wake where the first job
    /// begins: from then on presence is looked at more often.
    pub fn set(&self, jobs: u32, own_build: bool) {
        if self.jobs.swap(jobs, Ordering::Relaxed) == 0 && jobs > 0 {
            self.kick.notify_one();
        }
        if own_build {
            self.own_build.store(true, Ordering::Relaxed);
        }
    }

    /// What a further job is expected to take, in bytes.
    pub fn expect(&self, job_bytes: u64) {
        self.job_bytes.store(job_bytes, Ordering::Relaxed);
    }

    /// Somebody wants to see how things are now.
    pub fn look(&self) {
        self.kick.notify_one();
    }
}

/// The way to the thread.
#[derive(Clone)]
pub struct Handle {
    /// Calls that it answers: `share`, `pause`, `resume`, `share_settings`, `reread`, `role`, `notify_settings`,
    /// `trust_settings`.
    pub calls: mpsc::UnboundedSender<(Call, Replies)>,
    /// For the core's numbers.
    pub live: Arc<Live>,
}

/// Reads settings and state, begins to check the sandbox if it will be needed, decides once, and starts the thread.
pub fn start(
    dirs: &Dirs,
    serve: Option<u32>,
    events: mpsc::UnboundedSender<Event>,
) -> std::io::Result<(Shared, Handle)> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let settings = Settings::read(&Settings::path_in(&dirs.config), Settings::system_path());
    for warning in &settings.warnings {
        crate::log::warn(warning);
    }
    let live = Arc::new(Live::default());
    let mut thread = Thread {
        cores,
        run_switch: serve.map(|slots| slots > 0),
        promise: serve.filter(|slots| *slots > 0),
        policy: Policy::new(cores, model_settings(&settings.values.share)),
        settings,
        pause_file: dirs.state.join("pause.json"),
        pause: None,
        cache: dirs.cache.clone(),
        facts: Facts::default(),
        sensors: None,
        load: Load::default(),
        power: Power::default(),
        has_battery: false,
        source: None,
        machine_at: None,
        disk_at: None,
        safe_box: SafeBox::default(),
        check: None,
        live: Arc::clone(&live),
        resumes_ms: None,
    };
    thread.pause = pause::load(&thread.pause_file, boot_time());
    let (mut first, _) = thread.step();
    if let Some(check) = &thread.check {
        // An explicit number of slots is given from the first moment on.
        let wait = if thread.promise.is_some() { Duration::MAX } else { CHECK_PATIENCE };
        if let Ok(found) = check.found.recv_timeout(wait) {
            (thread.check, thread.safe_box) = (None, found);
            (first, _) = thread.step();
        }
    }
    let shared = first.clone();
    let (calls, receiver) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let alarm = {
        let _inside = runtime.enter();
        Alarm::new()?
    };
    std::thread::Builder::new()
        .name("sharing".into())
        .spawn(move || runtime.block_on(thread.run(first, receiver, events, alarm)))?;
    Ok((shared, Handle { calls, live }))
}

struct Thread {
    cores: u32,
    settings: Settings,
    /// The switch of this run only: with `--serve` the file's is not looked at, and not written.
    run_switch: Option<bool>,
    promise: Option<u32>,
    policy: Policy,
    pause_file: PathBuf,
    pause: Option<share::Pause>,
    cache: PathBuf,
    facts: Facts,
    /// None: not needed so far.
    sensors: Option<Vec<Box<dyn Sensor>>>,
    load: Load,
    power: Power,
    has_battery: bool,
    source: Option<&'static str>,
    machine_at: Option<Duration>,
    disk_at: Option<Duration>,
    safe_box: SafeBox,
    check: Option<Check>,
    live: Arc<Live>,
    resumes_ms: Option<u64>,
}

impl Thread {
    async fn run(
        mut self,
        mut told: Shared,
        mut calls: mpsc::UnboundedReceiver<(Call, Replies)>,
        events: mpsc::UnboundedSender<Event>,
        alarm: Alarm,
    ) {
        let kick = Arc::clone(&self.live.kick);
        let mut answers = Vec::new();
        let mut asked = Duration::ZERO;
        loop {
            self.start_sensors(&kick);
            let (shared, mut wait) = self.step();
            // What is shown changes at once; who asks on a command line hears as well whether jobs can be locked in.
            let patience =
                self.check.as_ref().and_then(Check::patience).filter(|_| self.is_on() && !answers.is_empty());
            let answers_now = if patience.is_none() { std::mem::take(&mut answers) } else { Vec::new() };
            wait = patience.map_or(wait, |rest| wait.min(rest));
            if shared != told || !answers_now.is_empty() {
                told = shared.clone();
                let update = Update { shared, answers: answers_now };
                if events.send(Event::Share(Box::new(update))).is_err() {
                    return;
                }
            }
            alarm.set(wait);
            tokio::select! {
                biased;
                call = calls.recv() => match call {
                    None => return,
                    Some((call, replies)) => {
                        let done = self.call(call);
                        answers.push((replies, done));
                    }
                },
                () = kick.notified() => {
                    // Whoever floods the bus with signals makes this thread no busier than jobs do.
                    let now = boot_time();
                    if now < asked + LOOK_BUSY / 2 {
                        tokio::time::sleep(LOOK_BUSY / 2).await;
                    }
                    asked = now;
                }
                () = alarm.rings() => {}
            }
        }
    }

    fn is_on(&self) -> bool {
        self.run_switch.unwrap_or(self.settings.values.enabled)
    }

    /// Whether anything is to be sensed at all.
    fn senses(&self) -> bool {
        self.is_on() && self.promise.is_none() && self.pause.is_none() && self.safe_box.fault.is_none()
    }

    fn start_sensors(&mut self, changed: &Arc<Notify>) {
        if self.sensors.is_none() && self.senses() && self.policy.settings().looks_at_presence() {
            let mut sensors: Vec<Box<dyn Sensor>> = Vec::new();
            if let Some(desktop) = Desktop::new() {
                sensors.push(Box::new(desktop));
            }
            sensors.push(Box::new(Logind::start(Arc::clone(changed))));
            self.sensors = Some(sensors);
        }
    }

    /// Looks at everything once and decides. Also says when to look again.
    fn step(&mut self) -> (Shared, Duration) {
        if self.settings.refresh() {
            self.settings.warnings.iter().for_each(|warning| crate::log::warn(warning));
            self.policy.set(model_settings(&self.settings.values.share));
        }
        let now = boot_time();
        if self.pause.is_some_and(|pause| pause.until.is_some_and(|until| now >= until)) {
            self.set_pause(None);
        }
        if let Some(found) = self.check.as_ref().and_then(Check::found) {
            (self.check, self.safe_box) = (None, found);
        }
        if self.is_on() && !self.safe_box.checked && self.check.is_none() {
            self.check = Some(Check::start(Arc::clone(&self.live.kick)));
        }
        self.facts.on = self.is_on();
        self.facts.pause = self.pause;
        self.facts.promise = self.promise;
        self.facts.unchecked = !self.safe_box.checked;
        self.facts.blocked = self.safe_box.fault.as_ref().map(|_| "S1".to_owned());
        self.facts.jobs = self.live.jobs.load(Ordering::Relaxed);
        self.facts.job_bytes = self.live.job_bytes.load(Ordering::Relaxed);
        if self.senses() {
            self.sense(now);
        }
        if self.is_on() && self.disk_at.is_none_or(|at| now >= at + DISK_EVERY) {
            self.disk_at = Some(now);
            self.facts.disk = rustix::fs::statvfs(&self.cache)
                .ok()
                .map(|disk| share::Disk { total: disk.f_blocks * disk.f_frsize, free: disk.f_bavail * disk.f_frsize });
        }
        let mut decision = self.policy.decide(now, local_time::wall(unix_ms()), &self.facts);
        let awaits_person = self.policy.settings().looks_at_presence() && !decision.in_use;
        let usual = match (self.senses() && self.facts.jobs > 0, awaits_person) {
            (true, true) => LOOK_BUSY,
            (true, false) => LOOK_BESIDE,
            (false, _) => LOOK_CALM,
        };
        let wait = decision.wake_at.take().map_or(usual, |at| at.saturating_sub(now).min(usual));
        // To the second: it is made of two clocks, and a pause until 08:00 must not be shown as 07:59.
        let shown = |at: Duration| (unix_ms() + at.saturating_sub(now).as_millis() as u64 + 500) / 1000 * 1000;
        let resumes = decision.resumes_at.take().map(shown);
        let same = resumes.zip(self.resumes_ms).is_some_and(|(new, old)| new.abs_diff(old) < SAME_MOMENT_MS);
        if !same {
            self.resumes_ms = resumes;
        }
        if let State::Paused(until) = &mut decision.state {
            // The moment is told by the wall clock.
            *until = None;
        }
        let shared = Shared {
            decision,
            on: self.facts.on,
            promise: self.promise,
            cores: self.cores,
            resumes_ms: self.resumes_ms,
            values: self.settings.values.clone(),
            never: self.policy.settings().contradiction(self.facts.memory, self.facts.disk),
            disk_is_full: self.facts.on && self.policy.settings().is_full(self.facts.disk),
            presence_source: self.source,
            has_battery: self.has_battery,
            on_battery: matches!(self.facts.power, share::Power::Battery(_)),
            safe_box: self.safe_box.clone(),
            warnings: self.settings.warnings.clone(),
        };
        (shared, wait.max(Duration::from_millis(1)))
    }

    fn sense(&mut self, now: Duration) {
        (self.facts.presence, self.source) = match &mut self.sensors {
            Some(sensors) => presence::look(sensors, now),
            None => (Presence::default(), None),
        };
        if self.machine_at.is_none_or(|at| now >= at + MACHINE_EVERY) {
            self.machine_at = Some(now);
            self.facts.load = self.load.look(now);
            self.facts.memory = load::memory(&load::proc_path());
            (self.facts.power, self.has_battery) = self.power.look();
            self.facts.own_build = self.live.own_build.swap(false, Ordering::Relaxed);
        }
    }

    fn call(&mut self, call: Call) -> Result<(), String> {
        let mut values = self.settings.values.clone();
        match call {
            Call::Share { on } => {
                match &mut self.run_switch {
                    Some(switch) => *switch = on,
                    None => {
                        values.enabled = on;
                        self.settings.change(values)?;
                    }
                }
                // Who uses the switch means it.
                self.set_pause(None);
                if on && self.safe_box.fault.is_some() {
                    self.safe_box = SafeBox::default();
                }
                Ok(())
            }
            Call::Pause { .. } if !self.is_on() => {
                Err("sharing is off, so there is nothing to pause\nhint: potluck share on turns it on".to_owned())
            }
            Call::Pause { until } => {
                let now = boot_time();
                let for_time = |time: Duration| Some(now + time.clamp(Duration::from_secs(1), PAUSE_MAX));
                let until_ms = unix_ms();
                let (until, finish) = match until {
                    Pause::For(seconds) => (for_time(Duration::from_secs(seconds.into())), false),
                    Pause::Tomorrow => (for_time(local_time::until_morning(until_ms)), false),
                    Pause::Open => (None, false),
                    Pause::Finish => (None, true),
                };
                self.set_pause(Some(share::Pause { until, finish }));
                Ok(())
            }
            Call::Resume => {
                self.set_pause(None);
                Ok(())
            }
            Call::ShareSettings { settings } => {
                values.share = checked(settings)?;
                self.settings.change(values)?;
                self.policy.set(model_settings(&self.settings.values.share));
                Ok(())
            }
            // The step that follows looks at the file.
            Call::Reread => Ok(()),
            Call::Role { role } => {
                values.role = Some(role);
                self.settings.change(values)
            }
            Call::NotifySettings { settings } => {
                values.notify = settings;
                values.notify.finished_after_s = values.notify.finished_after_s.min(3600);
                self.settings.change(values)
            }
            Call::TrustSettings { settings } => {
                if let Some(bad) = settings.peers.iter().find(|text| !crate::settings::is_node(text)) {
                    return Err(format!("{bad} is no node id\nhint: potluck team list shows them"));
                }
                values.trust = settings;
                self.settings.change(values)
            }
            other => Err(format!("{other:?} does not concern sharing")),
        }
    }

    fn set_pause(&mut self, pause: Option<share::Pause>) {
        if self.pause == pause {
            return;
        }
        self.pause = pause;
        if let Err(error) = pause::keep(&self.pause_file, pause, boot_time()) {
            crate::log::warn(&format!(
                "{}: {error}; a new start will not know of the pause",
                self.pause_file.display()
            ));
        }
    }
}

/// The wall clock, milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
