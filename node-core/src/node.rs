//! Starts a node: folders, identity, team, socket, listener, dialling, and the loop.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use potluck_model::ids::NodeId;

use crate::core::{Core, Event, Settings};
use crate::dirs::Dirs;
use crate::keys;
use crate::membership::Membership;
use crate::transport::link;

/// What `potluck node` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port for peers.
    pub listen: SocketAddr,
    /// Slots for others.
    pub serve: Option<u32>,
    /// Local slots; None: the number of cores.
    pub local_slots: Option<u32>,
    /// Compiles that may run here by choice; None: as many as local slots.
    pub local_compiles: Option<u32>,
    /// Name for others.
    pub name: Option<String>,
    /// Never use /dev/fuse.
    pub no_fuse: bool,
    /// Bytes of one submitter's mirror.
    pub quota_bytes: u64,
}

/// Runs a node until SIGTERM or SIGINT. The error is a sentence for the user.
pub fn run(options: Options) -> Result<(), String> {
    // Outputs get the mode that the compiler gave them; own files name theirs.
    rustix::process::umask(rustix::fs::Mode::empty());
    raise_file_limit();
    let dirs = Dirs::from_env();
    dirs.create().map_err(|e| format!("the node's folders: {e}"))?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dirs.state.join("node.log"));
    match log {
        Ok(file) => {
            use std::os::unix::fs::PermissionsExt;
            let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
            crate::log::to_file(file);
        }
        Err(error) => return Err(format!("{}: {error}", dirs.state.join("node.log").display())),
    }
    // A program that runs as root would give a job that escapes everything; it may still submit.
    let (not_serving, report) = match options.serve {
        None | Some(0) => (None, String::new()),
        Some(_) if rustix::process::getuid().is_root() => (
            Some(
                "a node that runs as root does not run other people's programs; start it as an ordinary user"
                    .to_owned(),
            ),
            String::new(),
        ),
        Some(_) => match crate::sandbox::self_test() {
            Ok(report) => (None, report),
            Err(why) => (Some(why), String::new()),
        },
    };
    if let Some(why) = &not_serving {
        eprintln!("potluck: not serving: {why}");
        crate::log::warn(&format!("not serving: {why}"));
    }
    // One thread for everything that waits; disks and compilers have their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()
        .map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(start(options, dirs, not_serving, report))
}

async fn start(
    options: Options,
    dirs: Dirs,
    not_serving: Option<String>,
    sandbox_report: String,
) -> Result<(), String> {
    let want_keyring = std::env::var_os("POTLUCK_KEYRING").is_some_and(|value| value == "1");
    let keys::Opened { identity, place, later } = keys::open(&dirs.state, want_keyring).map_err(|e| e.to_string())?;
    let membership = match &later {
        None => Membership::open(identity, &dirs.state),
        Some(_) => Membership::open_locked(identity, &dirs.state),
    };
    let membership = Arc::new(membership.map_err(|e| e.to_string())?);
    let socket_path = dirs.socket();
    let socket = crate::ipc::listen(&socket_path)?;
    let taken = crate::ipc::Taken::beside(&socket_path)?;
    let alarm = crate::alarm::Alarm::new().map_err(|e| format!("a timer: {e}"))?;
    let listener = TcpListener::bind(options.listen).await.map_err(|e| format!("{}: {e}", options.listen))?;
    let listen = listener.local_addr().map_err(|e| e.to_string())?;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let local_slots = options.local_slots.unwrap_or(cores).max(1);
    let settings = Settings {
        name: options.name.unwrap_or_else(host_name),
        serve: options.serve,
        not_serving,
        sandbox_report,
        local_slots,
        local_compiles: options.local_compiles.unwrap_or(local_slots),
        allow_fuse: !options.no_fuse,
        quota_bytes: options.quota_bytes,
        listen,
        dirs: dirs.clone(),
    };
    let (events_tx, events_rx) = mpsc::unbounded_channel();
    let (dial_tx, dial_rx) = mpsc::unbounded_channel::<String>();
    tokio::spawn(crate::ipc::serve(socket, events_tx.clone()));
    let mut accepted = link::listen(Arc::clone(&membership), listener).map_err(|e| format!("TLS: {e}"))?;
    let events = events_tx.clone();
    tokio::spawn(async move {
        while let Some(link) = accepted.recv().await {
            if events.send(Event::LinkUp(Box::new(link))).is_err() {
                return;
            }
        }
    });
    let addresses = known_addresses(&dirs, &membership);
    for address in &addresses {
        let _ = dial_tx.send(address.clone());
    }
    // A new member's addresses are worth a try.
    let mut view = membership.subscribe();
    let (dial, members) = (dial_tx.clone(), Arc::clone(&membership));
    tokio::spawn(async move {
        while view.changed().await.is_ok() {
            for address in members.list().members.iter().filter(|m| !m.this_pc).flat_map(|m| m.addresses.clone()) {
                let _ = dial.send(address);
            }
        }
    });
    let path_env = std::env::var_os("PATH").unwrap_or_default();
    let wrapper = std::env::current_exe().unwrap_or_default().with_file_name("potluck");
    if let Err(error) = crate::masquerade::refresh(&path_env, &dirs.masquerade(), &wrapper) {
        crate::log::warn(&format!("masquerade directory: {error}"));
    }
    let masquerade = dirs.masquerade();
    tokio::spawn(async move {
        // Compilers appear with packages: once a minute is soon enough, and costs some directory reads.
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let (path_env, masquerade, wrapper) = (path_env.clone(), masquerade.clone(), wrapper.clone());
            let _ =
                tokio::task::spawn_blocking(move || crate::masquerade::refresh(&path_env, &masquerade, &wrapper)).await;
        }
    });
    let mut core = Core::new(settings, Arc::clone(&membership), events_tx.clone(), dial_tx, addresses);
    core.key_lies(place);
    if let Some(mut later) = later {
        let events = events_tx.clone();
        tokio::spawn(async move {
            if let Some(identity) = later.recv().await {
                let _ = events.send(Event::Unlocked(identity));
            }
        });
    }
    tokio::spawn(dialler(dial_rx, membership, events_tx.clone(), core.linked(), listen));
    let mut term =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut int =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let quit = events_tx.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        let _ = quit.send(Event::Quit);
    });
    println!("potluck node ready on {listen}");
    use std::io::Write;
    let _ = std::io::stdout().flush();
    // As a task: whoever wakes the runtime's own future makes it ask the kernel once more.
    tokio::spawn(core.run(events_rx, taken, alarm)).await.map_err(|e| e.to_string())?;
    let _ = std::fs::remove_file(&socket_path);
    Ok(())
}

fn known_addresses(dirs: &Dirs, membership: &Membership) -> Vec<String> {
    let file = dirs.config.join("peers.json");
    let mut addresses: Vec<String> = match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
            crate::log::warn(&format!("{} is not read: {error}", file.display()));
            Vec::new()
        }),
        Err(_) => Vec::new(),
    };
    if let Ok(list) = std::env::var("POTLUCK_PEERS") {
        addresses.extend(list.split([',', ' ']).filter(|a| !a.is_empty()).map(str::to_owned));
    }
    addresses.extend(membership.list().members.into_iter().filter(|m| !m.this_pc).flat_map(|m| m.addresses));
    addresses.dedup();
    addresses
}

/// Keeps trying every address that has no link: a worker that comes back is found by itself.
async fn dialler(
    mut addresses: mpsc::UnboundedReceiver<String>,
    membership: Arc<Membership>,
    events: mpsc::UnboundedSender<Event>,
    linked: watch::Receiver<HashSet<NodeId>>,
    own: SocketAddr,
) {
    let mut known = HashSet::new();
    while let Some(address) = addresses.recv().await {
        if address == own.to_string() || !known.insert(address.clone()) {
            continue;
        }
        tokio::spawn(keep_dialling(address, Arc::clone(&membership), events.clone(), linked.clone()));
    }
}

async fn keep_dialling(
    address: String,
    membership: Arc<Membership>,
    events: mpsc::UnboundedSender<Event>,
    mut linked: watch::Receiver<HashSet<NodeId>>,
) {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(5);
    let mut pause = FIRST;
    loop {
        if membership.view().joined {
            let resolved = tokio::net::lookup_host(&address).await.ok().and_then(|mut a| a.next());
            match resolved {
                None => crate::log::debug(|| format!("{address} does not resolve")),
                Some(addr) => match link::dial(&membership, addr, None).await {
                    Ok(link) => {
                        pause = FIRST;
                        let (closer, peer) = (link.closer.clone(), link.peer);
                        if events.send(Event::LinkUp(Box::new(link))).is_err() {
                            return;
                        }
                        closer.closed().await;
                        // Of two connections between two nodes one is closed at once; the other one will do.
                        if linked.wait_for(|linked| !linked.contains(&peer)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => crate::log::debug(|| format!("{error}")),
                },
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// Every wrapper and every job holds descriptors.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
