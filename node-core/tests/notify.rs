//! Notifications on a real D-Bus, shown by a service that keeps what it is told and clicks the button.
#![allow(missing_docs, reason = "the interface's macro makes public methods")]

mod programs;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use potluck_model::notify::{Ended, Happened, Settings};
use potluck_node::notify::Notifier;
use programs::{NODE, until, wrapper};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedValue;

/// Generous: other tests have the machine as well.
const SOON: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq)]
struct Shown {
    app: String,
    icon: String,
    title: String,
    body: String,
    actions: Vec<String>,
}

/// `org.freedesktop.Notifications`, as the desktops have it.
struct Service {
    shown: mpsc::Sender<Shown>,
    is_inhibited: Arc<AtomicBool>,
    closed: mpsc::Sender<u32>,
    next: u32,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Service {
    #[zbus(property)]
    fn inhibited(&self) -> bool {
        self.is_inhibited.load(Ordering::SeqCst)
    }

    fn get_capabilities(&self) -> Vec<String> {
        vec!["actions".to_owned(), "body".to_owned(), "body-markup".to_owned()]
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        ("keeper".to_owned(), "test".to_owned(), "1".to_owned(), "1.2".to_owned())
    }

    #[allow(clippy::too_many_arguments, reason = "the interface has them")]
    fn notify(
        &mut self,
        #[zbus(connection)] connection: &zbus::Connection,
        app: String,
        _replaces: u32,
        icon: String,
        title: String,
        body: String,
        actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _timeout: i32,
    ) -> u32 {
        self.next += 1;
        let (id, connection) = (self.next, connection.clone());
        let key = actions.first().cloned();
        let _ = self.shown.send(Shown { app, icon, title, body, actions });
        // The person clicks after the answer; whoever waits for it has subscribed by then, or sees the banner close.
        tokio::spawn(async move {
            let emitter = SignalEmitter::new(&connection, "/org/freedesktop/Notifications").unwrap();
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if let Some(key) = &key {
                    Service::action_invoked(&emitter, id, key).await.unwrap();
                }
            }
            Service::notification_closed(&emitter, id, 2).await.unwrap();
        });
        id
    }

    fn close_notification(&self, id: u32) {
        let _ = self.closed.send(id);
    }

    #[zbus(signal)]
    async fn action_invoked(emitter: &SignalEmitter<'_>, id: u32, key: &str) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn notification_closed(emitter: &SignalEmitter<'_>, id: u32, reason: u32) -> zbus::Result<()>;
}

fn build(id: &str, name: &str) -> Happened {
    Happened::Build {
        id: id.to_owned(),
        name: name.to_owned(),
        ended: Ended::Failed,
        took: Duration::from_secs(112),
        jobs: 1830,
        remote: 1684,
        failed: 1,
        first: Some("a<b>&c.cpp".to_owned()),
        fell_back: None,
        watched: false,
    }
}

#[test]
fn a_banner_says_what_was_decided_waits_for_the_end_of_quiet_and_its_button_opens_the_build() {
    let mut bus = Command::new("dbus-run-session");
    let script = "echo $DBUS_SESSION_BUS_ADDRESS; read end";
    let bus = bus.args(["--", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    // Its end closes the pipe, and with it the bus.
    let mut bus = bus.expect("dbus-run-session (package dbus-daemon)");
    let mut address = String::new();
    BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
    // SAFETY: this program has one test, and nothing of it has started a thread that reads the environment.
    unsafe { std::env::set_var("DBUS_SESSION_BUS_ADDRESS", address.trim()) };

    let (shown, banners) = mpsc::channel();
    let is_inhibited = Arc::new(AtomicBool::new(true));
    let (close, closed) = mpsc::channel();
    let service = Service { shown, is_inhibited: Arc::clone(&is_inhibited), closed: close, next: 0 };
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let builder = zbus::connection::Builder::session().unwrap();
            let builder = builder.serve_at("/org/freedesktop/Notifications", service).unwrap();
            let connection = builder.name("org.freedesktop.Notifications").unwrap().build().await.unwrap();
            ready.send(()).unwrap();
            connection.closed().await;
        });
    });
    is_ready.recv_timeout(SOON).unwrap();

    let (click, clicks) = mpsc::channel();
    let notifier = Notifier::start(move |view| click.send(view).unwrap_or_default());
    let tell = |at, happened| notifier.tell(Duration::from_secs(at), Settings::default(), happened);
    // Do-not-disturb: the newer one replaces the older, and comes when it is over.
    tell(10, build("b1", "wine"));
    tell(100, build("b2", "a<b>"));
    let quiet = Happened::Solved { cause: "nothing".to_owned() };
    // Told in order: when the last of them was looked at, nothing has been shown.
    tell(101, quiet.clone());
    assert!(banners.recv_timeout(Duration::from_secs(2)).is_err());
    is_inhibited.store(false, Ordering::SeqCst);
    tell(102, quiet);
    let expected = Shown {
        app: "Potluck".to_owned(),
        icon: "potluck".to_owned(),
        title: "a<b> failed".to_owned(),
        body: "1 error: a&lt;b&gt;&amp;c.cpp".to_owned(),
        actions: vec!["show".to_owned(), "Show errors".to_owned()],
    };
    assert_eq!(banners.recv_timeout(SOON).unwrap(), expected);
    assert_eq!(clicks.recv_timeout(SOON).unwrap(), "builds/b2");
    // A problem's banner goes with its cause, and is not there twice in a week.
    let problem = |text: &str| Happened::Problem {
        cause: "S1".to_owned(),
        title: "The safe box doesn't work".to_owned(),
        text: text.to_owned(),
    };
    tell(200, problem("No user namespaces."));
    assert_eq!(banners.recv_timeout(SOON).unwrap().body, "No user namespaces.");
    tell(201, problem("Still none."));
    tell(202, Happened::Solved { cause: "another".to_owned() });
    tell(203, Happened::Solved { cause: "S1".to_owned() });
    assert_eq!(closed.recv_timeout(SOON).unwrap(), 2);
    assert!(banners.try_recv().is_err());
    while_somebody_looks_at_the_window_a_build_is_told_by_none(&banners);
    drop(bus.stdin.take());
    bus.wait().unwrap();
}

/// A real node on the same bus, and real builds.
fn while_somebody_looks_at_the_window_a_build_is_told_by_none(banners: &mpsc::Receiver<Shown>) {
    let dir = tempfile::tempdir().unwrap();
    let program = |path: &Path| {
        let mut command = Command::new(path);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", dir.path()).env("XDG_RUNTIME_DIR", dir.path());
        command.env("DBUS_SESSION_BUS_ADDRESS", std::env::var_os("DBUS_SESSION_BUS_ADDRESS").unwrap());
        command.current_dir(dir.path());
        command
    };
    let run = |args: &[&str]| {
        let ran = program(wrapper()).args(args).output().unwrap();
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    // Chosen before the node starts, and nothing else changes.
    run(&["config", "set", "notify.finished_after", "0s"]);
    let mut node = program(Path::new(NODE));
    node.args(["node", "--listen", "127.0.0.1:0", "--no-discovery"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut node = node.spawn().unwrap();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    std::fs::write(dir.path().join("a.c"), "int a;\n").unwrap();
    let socket = until("the node's socket", || {
        let places = ["potluck/node.sock", "node.sock"].map(|name| dir.path().join(name));
        places.into_iter().find(|path| path.exists())
    });
    let call = |json: &str| potluck_node::client::call(&socket, json).unwrap();
    let focus = |on: bool| assert_eq!(call(&format!(r#"{{"call":"focus","on":{on}}}"#)), r#"{"ok":true}"#);
    let build = |name: &str| {
        let twice = "for n in 1 2; do \"$0\" gcc -c a.c -o $n.o || exit 1; done";
        run(&["run", "--name", name, "--", "sh", "-c", twice, wrapper().to_str().unwrap()]);
    };
    focus(true);
    build("seen");
    focus(false);
    build("unseen");
    let told = banners.recv_timeout(SOON).unwrap();
    assert_eq!((told.title.as_str(), told.actions[1].as_str()), ("unseen finished", "Show report"));
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(banners.try_recv().is_err());
}
