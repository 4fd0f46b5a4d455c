//! Starts a node: folders, identity, team, socket, listener, dialling, and the loop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Core, Event, Parts, Settings};
use crate::dialler::Dials;
use crate::dirs::Dirs;
use crate::discovery::Discovery;
use crate::keys;
use crate::membership::Membership;
use crate::remembered::Remembered;
use crate::transport::link;
use potluck_model::names;
use potluck_model::team::NAME_BYTES_MAX;

/// Addresses that a person typed: some hundred at most.
const ADDRESSES_BYTES_MAX: u64 = 1 << 20;

/// What `potluck node` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port for peers; None: both families on the usual port, or on any if that one is taken.
    pub listen: Option<SocketAddr>,
    /// Look for other nodes on the local networks, and be found there.
    pub discovery: bool,
    /// Exactly so many slots for others, whatever the settings say; 0: none. None: the settings hold.
    pub serve: Option<u32>,
    /// Local slots; None: the number of cores.
    pub local_slots: Option<u32>,
    /// Compiles that may run here by choice; None: as many as local slots.
    pub local_compiles: Option<u32>,
    /// Name for others.
    pub name: Option<String>,
    /// Part of the tray app: there is a window, and the key belongs into the desktop's keyring.
    pub desktop: bool,
    /// Never use /dev/fuse.
    pub no_fuse: bool,
    /// Bytes of one submitter's mirror.
    pub quota_bytes: u64,
    /// The window's loopback address, if it is to listen from the start.
    pub web: Option<SocketAddr>,
}

/// Runs a node until SIGTERM or SIGINT. The error is a sentence for the user.
pub fn run(options: Options) -> Result<(), String> {
    host(options, None, |listen| {
        println!("potluck node ready on {listen}");
        use std::io::Write;
        let _ = std::io::stdout().flush();
    })
}

/// Runs a node until it is told to end (or, with None, until SIGTERM or SIGINT) on this thread. Says when it is `ready`.
pub(crate) fn host(
    options: Options,
    told: Option<oneshot::Receiver<()>>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), String> {
    // Outputs get the mode that the compiler gave them; own files name theirs.
    rustix::process::umask(rustix::fs::Mode::empty());
    raise_file_limit();
    let dirs = Dirs::from_env();
    dirs.create().map_err(|e| format!("the node's folders: {e}"))?;
    let log = dirs.state.join("node.log");
    crate::log::to_file(&log);
    // One thread for everything that waits; disks and compilers have their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()
        .map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(start(options, dirs, told, ready))
}

async fn start(
    options: Options,
    dirs: Dirs,
    told: Option<oneshot::Receiver<()>>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), String> {
    let want_keyring = options.desktop || std::env::var_os("POTLUCK_KEYRING").is_some_and(|value| value == "1");
    let opened = keys::open(&dirs.state, want_keyring).map_err(|e| e.to_string())?;
    let keys::Opened { identity, place, is_locked, later, is_new } = opened;
    let membership = match is_locked {
        false => Membership::open(identity, &dirs.state),
        true => Membership::open_locked(identity, &dirs.state),
    };
    let membership = Arc::new(membership.map_err(|e| e.to_string())?);
    let socket_path = dirs.socket();
    let socket = crate::ipc::listen(&socket_path)?;
    let taken = crate::ipc::Taken::beside(&socket_path)?;
    let alarm = crate::alarm::Alarm::new().map_err(|e| format!("a timer: {e}"))?;
    let listener = bind(options.listen)?;
    let listen = listener.local_addr().map_err(|e| e.to_string())?;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let local_slots = options.local_slots.unwrap_or(cores).max(1);
    let settings = Settings {
        // What no team would take as a name is cut down to what it would.
        name: names::shown(&options.name.unwrap_or_else(host_name), NAME_BYTES_MAX),
        local_slots,
        local_compiles: options.local_compiles.unwrap_or(local_slots),
        allow_fuse: !options.no_fuse,
        desktop: options.desktop,
        quota_bytes: options.quota_bytes,
        listen,
        discovery: options.discovery,
        dirs: dirs.clone(),
    };
    let (events_tx, events_rx) = mpsc::unbounded_channel();
    let (locals_tx, locals_rx) = mpsc::unbounded_channel();
    let sharing =
        crate::sharing::start(&dirs, options.serve, events_tx.clone()).map_err(|e| format!("sharing: {e}"))?;
    let (dials, orders) = Dials::new();
    tokio::spawn(crate::ipc::serve(socket, locals_tx.clone()));
    let mut accepted = link::listen(Arc::clone(&membership), listener).map_err(|e| format!("TLS: {e}"))?;
    let events = events_tx.clone();
    tokio::spawn(async move {
        while let Some(link) = accepted.recv().await {
            if events.send(Event::LinkUp(Box::new(link))).is_err() {
                return;
            }
        }
    });
    let (stored, named) = typed_addresses(&dirs);
    for address in stored.iter().chain(&named) {
        let _ = dials.send(address.clone());
    }
    let remembered = Remembered::load(&dirs.state);
    for (node, address) in remembered.all() {
        dials.known(node, address.to_string());
    }
    let mut view = membership.subscribe();
    view.mark_changed();
    let events = events_tx.clone();
    tokio::spawn(async move { while view.changed().await.is_ok() && events.send(Event::TeamChanged).is_ok() {} });
    let discovery = if options.discovery {
        // Without it there are addresses still.
        Discovery::start(listen, Arc::clone(&membership), dials.clone(), events_tx.clone())
            .inspect_err(|error| crate::log::warn(&format!("other nodes are not looked for: {error}")))
            .ok()
    } else {
        None
    };
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
    let (mirrors, events) = (dirs.cache.join("mirrors"), events_tx.clone());
    tokio::task::spawn_blocking(move || {
        let _ = events.send(Event::Received(crate::received::look(&mirrors)));
    });
    let parts = Parts { dial: dials, addresses: stored, remembered, locals: locals_tx, sharing };
    let mut core = Core::new(settings, Arc::clone(&membership), events_tx.clone(), parts);
    core.key_lies(place);
    core.key_is_new(is_new);
    if let Some(keys::Later { mut key, again }) = later {
        again.on_changes();
        core.ask_keyring_by(again);
        let events = events_tx.clone();
        tokio::spawn(async move {
            if let Some(identity) = key.recv().await {
                let _ = events.send(Event::Unlocked(identity));
            }
        });
    }
    if let Some(address) = options.web {
        let at = core.web.start(Some(address)).await?;
        println!("the window is at http://{at}; potluck ui opens it");
    } else {
        core.web.resume().await;
    }
    tokio::spawn(crate::dialler::run(orders, membership, events_tx.clone(), core.linked()));
    match told {
        Some(told) => {
            let quit = events_tx.clone();
            tokio::spawn(async move {
                // Whoever could tell is gone: the same.
                let _ = told.await;
                let _ = quit.send(Event::Quit);
            });
        }
        None => quit_on_signals(events_tx.clone())?,
    }
    ready(listen);
    // As a task: whoever wakes the runtime's own future makes it ask the kernel once more.
    tokio::spawn(core.run(locals_rx, events_rx, taken, alarm)).await.map_err(|e| e.to_string())?;
    if let Some(discovery) = discovery {
        discovery.quit().await;
    }
    let _ = std::fs::remove_file(&socket_path);
    Ok(())
}

/// Ends the loop behind `events` at SIGTERM or SIGINT.
pub(crate) fn quit_on_signals(events: mpsc::UnboundedSender<Event>) -> Result<(), String> {
    let mut term =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut int =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        let _ = events.send(Event::Quit);
    });
    Ok(())
}

/// Addresses that a person typed or named for this start: the ones that are stored, and the others.
fn typed_addresses(dirs: &Dirs) -> (Vec<String>, Vec<String>) {
    let file = dirs.config.join("peers.json");
    let stored: Vec<String> = crate::store::read_json(&file, ADDRESSES_BYTES_MAX).unwrap_or_default();
    let named = std::env::var("POTLUCK_PEERS").unwrap_or_default();
    let named = named.split([',', ' ']).filter(|a| !a.is_empty()).map(str::to_owned);
    (stored, named.collect())
}

/// Where a node listens: where it was told to, or on both families.
fn bind(listen: Option<SocketAddr>) -> Result<TcpListener, String> {
    let bound = match listen {
        Some(listen) => std::net::TcpListener::bind(listen).map_err(|e| format!("{listen}: {e}")),
        None => crate::net::listen_default().map_err(|e| format!("listening for other nodes: {e}")),
    }?;
    bound.set_nonblocking(true).and_then(|()| TcpListener::from_std(bound)).map_err(|e| e.to_string())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Every wrapper and every job holds descriptors.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
