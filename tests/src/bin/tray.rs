//! `make tray-test`: the tray app on a desktop of its own, driven the way a person drives it: by the tray's menu, by
//! closing its window, by starting it again. With `--demo` against a simulated node, else against its embedded one.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use potluck_node::client;
use potluck_node::dirs::Dirs;
use potluck_tests::desktop::display::Display;
use potluck_tests::desktop::tray::{Panel, TrayItem};
use potluck_tests::desktop::{Bus, Program};
use potluck_tests::idle::{Goal, Watch};
use potluck_tests::node::family;
use potluck_tests::person::{Person, is_root};
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Outcome, Trouble};

/// Tests the tray app.
#[derive(Parser)]
struct Args {
    /// Attach to a simulated node
    #[arg(long)]
    demo: bool,
    /// Keep pictures of the window here
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
    /// At the end, let it idle in the tray for so long, beside a node without a desktop, and measure what both cost
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,
    /// Only ask the node of this environment
    #[arg(long, hide = true)]
    call: Option<String>,
}

/// Starting a page takes seconds on a machine that builds something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// UX 2.2: jobs are handed back, and the app is gone.
const QUIT: Duration = Duration::from_secs(3);
const TITLE: &str = "Potluck";
/// The app without a window (UX: 40 MB resident at most).
const TRAY: Goal = Goal { mib: 40.0, cpu_percent: 0.1, wakes_per_s: 1.0 };
/// A node without a desktop.
const NODE: Goal = Goal { mib: 25.0, cpu_percent: 0.1, wakes_per_s: 1.0 };
/// The sandbox's self-test runs when nobody else wants the CPU: a minute where three programs want each core.
const SELF_TEST: Duration = Duration::from_secs(300);
/// What a start does is over by then.
const SETTLED: Duration = Duration::from_secs(15);

fn main() {
    let args = Args::parse();
    if let Some(json) = &args.call {
        let answer = client::call(&Dirs::from_env().socket(), json);
        return println!("{}", answer.unwrap_or_else(|e| e.to_string()));
    }
    match test(&args) {
        Ok(sentence) => println!("tray: ok: {sentence}"),
        Err(e) => {
            println!("tray: FAILED: {e}");
            std::process::exit(1);
        }
    }
}

/// Whoever sits at this desktop: an ordinary user, also where the test is root, because a root's node lends nothing. A
/// session bus serves only users whom the system knows.
fn person() -> Person {
    const NOBODY: u32 = 65_534;
    if is_root() { Person { uid: NOBODY, gid: NOBODY } } else { Person::submitter() }
}

/// One person's folders, display and, perhaps, session bus.
struct Stage<'a> {
    dir: tempfile::TempDir,
    display: Option<&'a Display>,
    bus: Option<&'a Bus>,
}

impl<'a> Stage<'a> {
    fn new(display: Option<&'a Display>, bus: Option<&'a Bus>) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let run = dir.path().join("run");
        std::fs::create_dir_all(&run)?;
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700))?;
        person().own(dir.path())?;
        person().own(&run)?;
        Ok(Self { dir, display, bus })
    }

    /// A program of ours, in this person's environment and nothing else.
    fn command(&self, program: &str, args: &[&str]) -> Outcome<Command> {
        let own = std::env::current_exe()?.with_file_name(program);
        if !own.is_file() {
            let text = format!("{} is missing\nhint: cargo build -p potluck-tray -p potluck-node", own.display());
            return Err(Trouble::new(text));
        }
        let at = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(own);
        person().adopt(&mut command);
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir.path()).env("LANG", "C.UTF-8").env("GDK_BACKEND", "x11").env("NO_AT_BRIDGE", "1");
        command.env("XDG_CONFIG_HOME", at("config")).env("XDG_STATE_HOME", at("state"));
        command.env("XDG_CACHE_HOME", at("cache")).env("XDG_DATA_HOME", at("data")).env("XDG_RUNTIME_DIR", at("run"));
        if let Some(display) = self.display {
            command.env("DISPLAY", display.name());
        }
        if let Some(bus) = self.bus {
            command.env("DBUS_SESSION_BUS_ADDRESS", &bus.address);
        }
        Ok(command)
    }

    fn app(&self, args: &[&str]) -> Outcome<Program> {
        let log = std::fs::File::create(self.dir.path().join("app.log"))?;
        Program::start("potluck-tray", self.command("potluck-tray", args)?.stdout(log.try_clone()?).stderr(log))
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("app.log")).unwrap_or_default()
    }

    /// What `potluck-node status` answers.
    fn status(&self) -> Outcome<String> {
        let output = self.command("potluck-node", &["status"])?.output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(Trouble::new(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        }
    }

    fn demo(&self) -> Outcome<Program> {
        let mut command = self.command("potluck-node", &["node", "--demo", "1"])?;
        Ok(Program::start_and_hear("potluck node --demo", command.stderr(Stdio::null()))?.0)
    }
}

fn test(args: &Args) -> Outcome<String> {
    let display = Display::start()?;
    let began = Instant::now();
    menu_and_window(args, &display)?;
    no_tray_area(&display)?;
    no_session_bus(&display)?;
    no_display()?;
    let took = began.elapsed().as_secs();
    args.idle.map(|seconds| idle(&display, args.demo, Duration::from_secs(seconds))).transpose()?;
    let end = if args.idle.is_some() { ", and idle they cost no more than their goal" } else { "" };
    Ok(format!("menu, window, starts and ends as they should in {took} s{end}"))
}

fn done(what: &str) {
    println!("  {what}");
}

/// Nothing of the page's programs is left below the app.
fn no_page_left(app: u32) -> Outcome<()> {
    wait_until("the page's programs end", PATIENCE, || {
        let left = family(app).into_iter().any(|p| p.name.starts_with("WebKit") && p.state != 'Z');
        Ok((!left).then_some(()))
    })
}

fn menu_and_window(args: &Args, display: &Display) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::start(person(), dir.path())?;
    let panel = Panel::start(&bus)?;
    let stage = Stage::new(Some(display), Some(&bus))?;
    let demo = args.demo.then(|| stage.demo()).transpose()?;
    let mut app = stage.app(&["--hidden"])?;
    let item = panel.item(PATIENCE)?;
    done(&format!("the icon is there: {:?}", item.property("Title")?));
    menu(&item)?;
    if !args.demo {
        start_at_login(&stage, &item)?;
    }
    share_and_pause(&stage, &item)?;
    if !display.windows(TITLE)?.is_empty() || family(app.pid()).iter().any(|p| p.name.starts_with("WebKit")) {
        return Err(Trouble::new("there is a page although nobody asked for one"));
    }
    window(args, display, &stage, &item, app.pid())?;
    if let Some(demo) = demo {
        node_that_ends(&stage, &item, demo)?;
    }
    item.shows("Quit Potluck", PATIENCE)?;
    let asked = Instant::now();
    item.choose("Quit Potluck", PATIENCE)?;
    let status = app.ends_within(QUIT)?;
    if !status.success() {
        return Err(Trouble::new(format!("after Quit the app ended with {status}: {}", stage.said())));
    }
    if stage.status().is_ok() {
        return Err(Trouble::new("a node still runs after Quit"));
    }
    done(&format!("Quit ends it with 0 after {} ms, and its node with it", asked.elapsed().as_millis()));
    Ok(())
}

fn menu(item: &TrayItem) -> Outcome<()> {
    item.shows("Share my CPU", PATIENCE)?;
    let lines = item.lines()?;
    let first = lines.first().context(|| "the menu is empty".into())?;
    if first.enabled || first.label.is_empty() {
        return Err(Trouble::new(format!("the first line is no sentence to read: {first:?}")));
    }
    for wanted in ["Open Potluck", "Quit Potluck"] {
        item.shows(wanted, PATIENCE)?;
    }
    done(&format!("the menu is there, and begins with {:?}", first.label));
    Ok(())
}

const SWITCH: &str = "Share my CPU";

fn snapshot(stage: &Stage<'_>) -> Outcome<serde_json::Value> {
    call(stage, r#"{"call":"snapshot"}"#)
}

/// What the node says comes first: a menu that says the same before would have said it by itself.
fn switch_is(stage: &Stage<'_>, item: &TrayItem, on: bool) -> Outcome<()> {
    wait_until(&format!("a node that shares: {on}"), PATIENCE, || {
        Ok((snapshot(stage)?["share"]["on"] == on).then_some(()))
    })?;
    wait_until(&format!("a switch that is {on}"), PATIENCE, || {
        Ok(item.line(SWITCH)?.is_some_and(|line| line.checked == Some(on)).then_some(()))
    })
}

/// The entry comes with the first sharing, stays when it is switched off, and goes when the person says so.
fn start_at_login(stage: &Stage<'_>, item: &TrayItem) -> Outcome<()> {
    let entry = stage.dir.path().join("config/autostart/potluck.desktop");
    let is_there = |wanted: bool, when: &str| {
        wait_until(&format!("start at login {when}: {wanted}"), PATIENCE, || {
            Ok((entry.exists() == wanted).then_some(()))
        })
    };
    switch_is(stage, item, false)?;
    if entry.exists() {
        return Err(Trouble::new("it starts at login although nobody switched sharing on"));
    }
    item.choose(SWITCH, PATIENCE)?;
    is_there(true, "with sharing on")?;
    item.choose(SWITCH, PATIENCE)?;
    // What the menu shows is drawn after the entry was seen to.
    switch_is(stage, item, false)?;
    if !entry.exists() {
        return Err(Trouble::new("switching sharing off took the start at login away"));
    }
    let mut settings = snapshot(stage)?["share"]["settings"].take();
    let mut wish = |wish: bool| {
        settings["start_at_login"] = wish.into();
        call(stage, &serde_json::json!({"call": "share_settings", "settings": settings}).to_string())
    };
    wish(false)?;
    is_there(false, "when it is not wanted")?;
    wish(true)?;
    item.choose(SWITCH, PATIENCE)?;
    is_there(true, "wanted again, with sharing on")?;
    item.choose(SWITCH, PATIENCE)?;
    switch_is(stage, item, false)?;
    done("it starts at login once sharing was switched on, until the person says no");
    Ok(())
}

fn share_and_pause(stage: &Stage<'_>, item: &TrayItem) -> Outcome<()> {
    let begins = SWITCH;
    let is = |on: bool| switch_is(stage, item, on);
    let numbers = || -> Outcome<Vec<i32>> {
        let number = |begins| Ok(item.shows(begins, PATIENCE)?.id);
        [begins, "Open Potluck", "Quit Potluck"].into_iter().map(number).collect()
    };
    let before = numbers()?;
    // There, and back to what it was.
    for _ in 0..2 {
        let was = item.choose(begins, PATIENCE)?;
        is(was.checked != Some(true))?;
    }
    done("the switch moves, and the node with it");
    if item.line(begins)?.is_some_and(|line| line.checked != Some(true)) {
        item.choose(begins, PATIENCE)?;
        is(true)?;
    }
    item.choose("1 hour", PATIENCE)?;
    let resume = item.shows("Resume now (paused until ", PATIENCE)?;
    let end = resume.label.trim_start_matches("Resume now (paused until ").trim_end_matches(')');
    let is_time = end.len() == 5 && end.as_bytes()[2] == b':';
    if !is_time || item.line("Pause sharing")?.is_some() {
        return Err(Trouble::new(format!("a pause without its end: {:?}", resume.label)));
    }
    item.choose("Resume now", PATIENCE)?;
    item.shows("Pause sharing", PATIENCE)?;
    done(&format!("a pause of an hour shows its end, {end}, and can be ended"));
    let after = numbers()?;
    if before != after {
        let text = format!("lines {before:?} are now {after:?}: who has the menu open, and chooses one, is not heard");
        return Err(Trouble::new(text));
    }
    done("lines that stay keep their numbers, so that a menu that is open stays true");
    Ok(())
}

/// Asks the app's node. A node answers only its own user, so this program asks as that one.
fn call(stage: &Stage<'_>, json: &str) -> Outcome<serde_json::Value> {
    let output = stage.command("tray", &["--call", json])?.output()?;
    serde_json::from_slice(&output.stdout).context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn window(args: &Args, display: &Display, stage: &Stage<'_>, item: &TrayItem, app: u32) -> Outcome<()> {
    let picture = |name: &str| -> Outcome<()> {
        let folder = args.pictures.clone().unwrap_or_else(|| stage.dir.path().to_path_buf());
        std::fs::create_dir_all(&folder)?;
        // An empty page is one colour; letters alone have more.
        let colours = wait_until("a page with something on it", PATIENCE, || {
            Ok(Some(display.picture(&folder.join(name))?).filter(|colours| *colours > 8))
        })?;
        done(&format!("a picture with {colours} colours: {name}"));
        Ok(())
    };
    item.choose("Open Potluck", PATIENCE)?;
    let window = display.window(TITLE, PATIENCE)?;
    picture("opened.png")?;
    display.close(window)?;
    display.no_window(TITLE, PATIENCE)?;
    no_page_left(app)?;
    done("a closed window leaves nothing of its page");
    let mut second = Program::start("potluck-tray, again", &mut stage.command("potluck-tray", &[])?)?;
    let status = second.ends_within(PATIENCE)?;
    if !status.success() {
        return Err(Trouble::new(format!("the second start ended with {status}")));
    }
    let window = display.window(TITLE, PATIENCE)?;
    picture("again.png")?;
    display.close(window)?;
    display.no_window(TITLE, PATIENCE)?;
    let mut link = Program::start("potluck-tray LINK", &mut stage.command("potluck-tray", &["pool:join?t=1"])?)?;
    link.ends_within(PATIENCE)?;
    let window = display.window(TITLE, PATIENCE)?;
    picture("link.png")?;
    display.close(window)?;
    display.no_window(TITLE, PATIENCE)?;
    no_page_left(app)?;
    done("a second start opens the window of the first, and ends with 0");
    Ok(())
}

/// The node that the app was attached to ends: it says so, and starts one of its own when it is asked to.
fn node_that_ends(stage: &Stage<'_>, item: &TrayItem, demo: Program) -> Outcome<()> {
    demo.terminate(PATIENCE)?;
    item.shows("Potluck isn't running in the background.", PATIENCE)?;
    item.choose("Start", PATIENCE)?;
    wait_until("a node of the app's own", PATIENCE, || Ok(stage.status().ok()))?;
    done("a node that ended is said, and another one can be started");
    Ok(())
}

fn no_tray_area(display: &Display) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::start(person(), dir.path())?;
    let stage = Stage::new(Some(display), Some(&bus))?;
    let app = stage.app(&[])?;
    display.window(TITLE, PATIENCE)?;
    if !stage.said().contains("no tray area") {
        return Err(Trouble::new(format!("nothing was said of the missing tray: {}", stage.said())));
    }
    // Its page still starts, and for that it has its own time; the node has ended long before.
    let status = app.terminate(PATIENCE)?;
    if !status.success() {
        return Err(Trouble::new(format!("SIGTERM: {status}")));
    }
    display.no_window(TITLE, PATIENCE)?;
    done("without a tray area the window opens");
    Ok(())
}

fn no_session_bus(display: &Display) -> Outcome<()> {
    let stage = Stage::new(Some(display), None)?;
    let mut app = stage.app(&["--show"])?;
    let window = display.window(TITLE, PATIENCE)?;
    display.close(window)?;
    display.no_window(TITLE, PATIENCE)?;
    wait_until("a node", PATIENCE, || Ok(stage.status().ok()))?;
    if !app.runs()? {
        return Err(Trouble::new(format!("the app ended with its window: {}", stage.said())));
    }
    let status = app.terminate(QUIT)?;
    if !status.success() {
        return Err(Trouble::new(format!("SIGTERM: {status}")));
    }
    done("without a session bus it runs, with its window and a node");
    Ok(())
}

fn no_display() -> Outcome<()> {
    let stage = Stage::new(None, None)?;
    let app = stage.app(&[])?;
    wait_until("a node", PATIENCE, || Ok(stage.status().ok()))?;
    if !stage.said().contains("no display answers") {
        return Err(Trouble::new(format!("nothing was said of the missing display: {}", stage.said())));
    }
    let mut second = stage.command("potluck-tray", &[])?;
    let second = second.stderr(Stdio::piped()).output()?;
    if !second.status.success() || !String::from_utf8_lossy(&second.stderr).contains("a node runs already") {
        return Err(Trouble::new(format!("a second one without a display: {}", second.status)));
    }
    let status = app.terminate(QUIT)?;
    if !status.success() {
        return Err(Trouble::new(format!("SIGTERM: {status}")));
    }
    done("without a display it is a node, and says so");
    Ok(())
}

/// The app in the tray, and a node without a desktop: both share, and nobody is there. A line for each.
fn idle(display: &Display, demo: bool, time: Duration) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::start(person(), dir.path())?;
    let panel = Panel::start(&bus)?;
    let (stage, alone) = (Stage::new(Some(display), Some(&bus))?, Stage::new(None, None)?);
    let _demo = demo.then(|| stage.demo()).transpose()?;
    let app = stage.app(&["--hidden"])?;
    let mut node = alone.command("potluck-node", &["node"])?;
    let (node, _) = Program::start_and_hear("potluck-node node", node.stderr(Stdio::null()))?;
    panel.item(PATIENCE)?.shows("Share my CPU", PATIENCE)?;
    for stage in [&stage, &alone] {
        call(stage, r#"{"call":"share","on":true}"#)?;
        wait_until("a sandbox that is known to work", SELF_TEST, || {
            let checked = &call(stage, r#"{"call":"status"}"#)?["sandbox"]["checked"];
            Ok((*checked == true || demo).then_some(()))
        })?;
    }
    // The time that passes is what is measured, and before it the time that a start takes.
    std::thread::sleep(SETTLED);
    let watches = [("idle", Watch::start(app.pid())?, TRAY), ("idle node", Watch::start(node.pid())?, NODE)];
    std::thread::sleep(time);
    let mut missed = Vec::new();
    for (what, watch, goal) in watches {
        let cost = watch.end()?;
        println!("tray: {what}: {}", cost.says(goal));
        if !cost.meets(goal) {
            missed.push(what);
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(Trouble::new(format!("more than the goal: {}", missed.join(", ")))) }
}
