//! The tray app: carries calls and views between a node, the tray and the window. What is shown and what a click does is
//! decided in `potluck_api::tray`; what happens then, in the node.

mod args;
mod autostart;
mod desktop;
mod icons;
mod node;
mod tray;
mod window;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use potluck_api::tray::{Does, NodeState, Pace, Tray, Wishes, starts_at_login};
use potluck_node::dirs::{Dirs, make_private};
use tauri::{AppHandle, Manager, RunEvent};

use crate::args::{Args, Parsed};
use crate::node::{Node, Seen};

fn main() -> ExitCode {
    potluck_node::presence::desktop::start_no_bus();
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(args)) => args,
        Ok(Parsed::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("potluck-tray: {error}");
            return ExitCode::from(2);
        }
    };
    if !desktop::display() {
        return headless();
    }
    let app = tauri::Builder::default()
        .plugin(tauri_plugin_single_instance::init(|app, argv, _| again(app, argv)))
        .invoke_handler(tauri::generate_handler![window::call, window::watch, window::start_node])
        .setup(move |app| Ok(setup(app.handle(), &args)?))
        .build(tauri::generate_context!());
    let app = match app {
        Ok(app) => app,
        Err(error) => {
            eprintln!("potluck-tray: {error}");
            return ExitCode::FAILURE;
        }
    };
    let exit = app.run_return(|_, event| {
        // The last window was closed: the app stays, in the tray.
        if let RunEvent::ExitRequested { code: None, api, .. } = event {
            api.prevent_exit();
        }
    });
    ExitCode::from(u8::try_from(exit).unwrap_or(1))
}

/// The node alone.
fn headless() -> ExitCode {
    eprintln!("potluck-tray: no display answers, so there is neither tray nor window");
    if node::runs() {
        eprintln!("hint: a node runs already; potluck ui shows it in a browser");
        return ExitCode::SUCCESS;
    }
    eprintln!("hint: this is a node without a window now; potluck ui shows it in a browser");
    match potluck_node::node::run(potluck_node::embedded::options()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("potluck-tray: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setup(app: &AppHandle, args: &Args) -> tauri::Result<()> {
    let (to_tray, news) = channel();
    app.manage(Node::follow(move |seen| drop(to_tray.send(seen))));
    let first = shown(None);
    // Pictures of the icon: in a folder that no other user writes to.
    let dir = Dirs::from_env().runtime.join("tray");
    make_private(&dir)?;
    tray::create(app, &first, &dir)?;
    let follower = app.clone();
    std::thread::spawn(move || follow(&follower, first, &news));
    ask_for_signals(app.clone());
    let has_tray = desktop::has_tray();
    if !has_tray {
        eprintln!("potluck-tray: this desktop has no tray area; starting Potluck again opens its window");
    }
    if let Some(link) = &args.link {
        window::open(app, Some(&args::join_view(link)));
    } else if !has_tray && !args.hidden {
        window::open(app, no_tray_view());
    } else if args.show {
        window::open(app, None);
    }
    Ok(())
}

/// The view that explains a desktop without a tray: the first time only.
fn no_tray_view() -> Option<&'static str> {
    let told = Dirs::from_env().state.join("no-tray-told");
    let first = std::fs::OpenOptions::new().write(true).create_new(true).open(told).is_ok();
    first.then_some("overview/no-tray")
}

/// The app was started again: its window opens here.
fn again(app: &AppHandle, argv: Vec<String>) {
    let Ok(Parsed::Run(args)) = args::parse(argv.into_iter().skip(1)) else { return };
    let view = args.link.as_deref().map(args::join_view);
    if view.is_some() || !args.hidden {
        on_main(app, move |app| window::open(app, view.as_deref()));
    }
}

fn on_main(app: &AppHandle, work: impl FnOnce(&AppHandle) + Send + 'static) {
    let handle = app.clone();
    let _ = app.run_on_main_thread(move || work(&handle));
}

fn shown(seen: Option<&Seen>) -> Tray {
    let state = match seen {
        None => NodeState::Starting,
        Some(Seen::Stopped(why)) => NodeState::Stopped(why.as_deref()),
        Some(Seen::Running(snapshot)) => NodeState::Running(snapshot),
    };
    potluck_api::tray::tray(state, desktop::now_ms(), &desktop::time_of_day)
}

/// The tray's thread: shows what the node says, at a person's pace.
fn follow(app: &AppHandle, first: Tray, news: &Receiver<Seen>) {
    let clock = Instant::now();
    let now = || clock.elapsed().as_millis() as u64;
    let mut pace = Pace::new(first.clone(), 0);
    let (mut seen, mut wanted) = (None, first);
    let (mut started_at_login, mut wishes) = (None, Wishes::default());
    loop {
        let wait = pace.wake(&wanted).map(|at| Duration::from_millis(at.saturating_sub(now()).max(1)));
        let heard = match wait {
            Some(wait) => news.recv_timeout(wait),
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match heard {
            Ok(state) => {
                if let Seen::Running(snapshot) = &state {
                    let wish = starts_at_login(snapshot);
                    if let Some(wish) = wish.filter(|wish| started_at_login.replace(*wish) != Some(*wish)) {
                        start_at_login(wish);
                    }
                    if let Some(view) = wishes.heard(snapshot) {
                        on_main(app, move |app| window::open(app, Some(&view)));
                    }
                } else {
                    wishes = Wishes::default();
                }
                seen = Some(state);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        wanted = shown(seen.as_ref());
        if pace.show(&wanted, now()) {
            let tray = pace.shown().clone();
            on_main(app, move |app| tray::draw(app, &tray));
        }
    }
}

fn start_at_login(on: bool) {
    let (Some(folder), Ok(program)) = (autostart::folder(), std::env::current_exe()) else { return };
    let program = autostart::lasting(program);
    if let Err(error) = autostart::set(&folder, &program, on) {
        eprintln!("potluck-tray: {}: {error}", folder.display());
    }
}

/// A line of the menu was chosen.
fn clicked(app: &AppHandle, id: &str) {
    match tray::chosen(app, id) {
        Some(Does::Call(json)) => {
            let app = app.clone();
            std::thread::spawn(move || {
                if let Err(error) = app.state::<Arc<Node>>().call(&json) {
                    eprintln!("potluck-tray: {error}");
                }
            });
        }
        Some(Does::Open(view)) => window::open(app, view.as_deref()),
        Some(Does::Start) => {
            let app = app.clone();
            std::thread::spawn(move || {
                if let Err(error) = app.state::<Arc<Node>>().start() {
                    eprintln!("potluck-tray: {error}");
                }
            });
        }
        Some(Does::Quit) => quit(app),
        None => {}
    }
}

/// Ends the app: at once for whoever looks, and in fact when jobs are handed back. That does not wait for the toolkit's
/// thread, which is busy for a second while a page starts.
fn quit(app: &AppHandle) {
    on_main(app, tray::hide);
    let app = app.clone();
    std::thread::spawn(move || {
        app.state::<Arc<Node>>().end();
        app.exit(0);
    });
}

/// The desktop ends its programs by signals.
fn ask_for_signals(app: AppHandle) {
    tauri::async_runtime::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else { return };
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, _ = hup.recv() => {} }
        quit(&app);
    });
}
