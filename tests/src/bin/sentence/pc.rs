//! One PC of the proof: a clean root, a network namespace on the office's switch, a person with a desktop.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use potluck_tests::desktop::Program;
use potluck_tests::net::{Hub, worker_address};
use potluck_tests::node::{Process, family};
use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Outcome, Trouble};
use serde_json::{Value, json};

/// Programs of a desktop start within this on a busy machine.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// Port of the WebDriver in each PC.
const DRIVER_PORT: u16 = 4444;
/// The first user of a Debian system.
const UID: u32 = 1000;

/// Whatever runs something in a network.
pub trait Network: Sync {
    /// Runs it there.
    fn inside(&self, work: &mut (dyn FnMut() -> Outcome<()> + Send)) -> Outcome<()>;
}

impl Network for Hub {
    fn inside(&self, work: &mut (dyn FnMut() -> Outcome<()> + Send)) -> Outcome<()> {
        Hub::inside(self, work)
    }
}

/// A PC.
pub struct Pc {
    /// Its name, and its person's.
    pub name: String,
    /// Its first process, as this machine sees it.
    pub first: u32,
    index: usize,
    folder: PathBuf,
    programs: Vec<Program>,
    desktop: Option<(Child, ChildStdin, BufReader<ChildStdout>)>,
    holder: Child,
    /// A CPU group, where the kernel has the old kind of them: else one PC's programs would starve the jobs on another,
    /// which have the lowest priority on the kernel that all share.
    share: PathBuf,
    _cable: ChildStdin,
}

impl Pc {
    /// Switches it on: nothing of the product is there.
    pub fn start(hub: &Hub, index: usize, name: &str, base: &str, folder: &Path) -> Outcome<Self> {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        // Also when it was built anew in the meantime.
        fs::copy("/proc/self/exe", folder.join("first"))?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sentence.sh");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "sh"]);
        command.arg(script).args(["enter", base]).arg(&folder).arg(name).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C.UTF-8");
        let log = File::create(folder.join("first.log"))?;
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line)?;
        if line.trim() != "ready" {
            let said = fs::read_to_string(folder.join("first.log")).unwrap_or_default();
            let end = holder.wait()?;
            return Err(Trouble::new(format!("{name} does not start: it said {line:?}, {end}; {}", said.trim())));
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id()))?;
        let first: u32 = children.trim().parse().context(|| format!("{name} has the processes {children:?}"))?;
        hub.plug(index, first)?;
        let cable = holder.stdin.take().expect("a pipe");
        let share = Path::new("/sys/fs/cgroup/cpu").join(format!("potluck-sentence-{name}-{}", std::process::id()));
        if fs::create_dir(&share).is_ok() {
            fs::write(share.join("cgroup.procs"), first.to_string())?;
        }
        let pc = Self {
            share,
            name: name.into(),
            first,
            index,
            folder,
            programs: Vec::new(),
            desktop: None,
            holder,
            _cable: cable,
        };
        // What a default route does at home: groups have a way out.
        pc.root(&format!(
            "ip route add 224.0.0.0/4 dev eth0 || nsenter --version >/dev/null; useradd -u {UID} -m -s /bin/bash {name}"
        ))?;
        pc.root(&format!(
            "mkdir -p /run/user && install -d -m 700 -o {UID} -g {UID} /run/user/{UID}; mkdir -p /run/dbus"
        ))?;
        Ok(pc)
    }

    fn enter(&self, words: &[&str]) -> Command {
        // Into its share of the processors first.
        let mut command = Command::new("sh");
        let script = "[ ! -e \"$0\" ] || echo $$ >\"$0\"; exec nsenter \"$@\"";
        command.args(["-c", script]).arg(self.share.join("cgroup.procs")).args([
            "-t",
            &self.first.to_string(),
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "--",
        ]);
        command.args(words).env_clear().env("LANG", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        command.env("HOME", "/root").env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// A line of shell as root: what an administrator does before the proof begins.
    pub fn root(&self, line: &str) -> Outcome<String> {
        finish(&mut self.enter(&["sh", "-c", line]), line)
    }

    /// A program of the person, in the session.
    pub fn person(&self, words: &[&str]) -> Command {
        let uid = UID.to_string();
        let mut all = vec!["setpriv", "--reuid", &uid, "--regid", &uid, "--init-groups", "env", "-i"];
        let session: Vec<String> = vec![
            format!("HOME=/home/{}", self.name),
            format!("USER={}", self.name),
            format!("XDG_RUNTIME_DIR=/run/user/{UID}"),
            format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{UID}/bus"),
            "DISPLAY=:0".into(),
            "PATH=/usr/local/bin:/usr/bin:/bin".into(),
            "LANG=C.UTF-8".into(),
            "GDK_BACKEND=x11".into(),
            "NO_AT_BRIDGE=1".into(),
            // One kernel counts for all PCs: this one's own programs alone are its owner's load.
            "POTLUCK_PROC=/run/pc-proc".into(),
            // The tray app lets itself be driven.
            "TAURI_AUTOMATION=true".into(),
            "TAURI_WEBVIEW_AUTOMATION=true".into(),
        ];
        all.extend(session.iter().map(String::as_str));
        all.extend(words);
        self.enter(&all)
    }

    /// A line of shell of the person; its standard output.
    pub fn shell(&self, line: &str) -> Outcome<String> {
        finish(&mut self.person(&["sh", "-c", line]), line)
    }

    /// Copies files into it.
    pub fn put(&self, files: &[PathBuf], place: &str) -> Outcome<()> {
        for file in files {
            let name = file.file_name().context(|| format!("{} has no name", file.display()))?;
            fs::copy(file, self.path(place).join(name)).context(|| format!("copying {}", file.display()))?;
        }
        Ok(())
    }

    /// Where this machine sees a path of it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first))
    }

    fn log(&self, name: &str) -> Outcome<File> {
        Ok(File::create(self.folder.join(format!("{name}.log")))?)
    }

    fn run(&mut self, name: &str, words: &[&str]) -> Outcome<()> {
        let mut command = self.person(words);
        command.stdout(self.log(name)?).stderr(self.log(&format!("{name}.err"))?);
        self.programs.push(Program::start(name, &mut command)?);
        Ok(())
    }

    /// The person logs in: display, bus, keyring, tray, notifications, and a driver for the window.
    pub fn log_in(&mut self) -> Outcome<()> {
        self.run("Xvfb", &["Xvfb", ":0", "-screen", "0", "1280x800x24", "-nolisten", "tcp", "-noreset", "-ac"])?;
        let bus = format!("--address=unix:path=/run/user/{UID}/bus");
        self.run("dbus-daemon", &["dbus-daemon", "--session", "--nofork", &bus])?;
        for path in ["/tmp/.X11-unix/X0".to_owned(), format!("/run/user/{UID}/bus")] {
            wait_until(&path, UP_WITHIN, || Ok(self.path(&path).exists().then_some(())))?;
        }
        let unlock = "printf secret | exec gnome-keyring-daemon --unlock --components=secrets --foreground";
        self.run("keyring", &["sh", "-c", unlock])?;
        // Asking the keyring itself would make the bus start another one, which is locked.
        let owner = "dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner string:org.freedesktop.secrets";
        wait_until("an open keyring", UP_WITHIN, || Ok(self.shell(owner).ok()))?;
        let mut desktop = self.person(&["/usr/local/bin/pc-desktop", "desktop"]);
        desktop.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(self.log("desktop.err")?);
        let mut desktop = desktop.spawn()?;
        let input = desktop.stdin.take().expect("a pipe");
        let mut output = BufReader::new(desktop.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line)?;
        if !line.contains("ready") {
            return Err(Trouble::new(format!("the desktop of {} said {line:?}", self.name)));
        }
        self.desktop = Some((desktop, input, output));
        let port = format!("--port={DRIVER_PORT}");
        self.run("driver", &["WebKitWebDriver", &port, "--host=all"])
    }

    /// Where its driver answers in the office's network.
    pub fn driver(&self) -> String {
        format!("{}:{DRIVER_PORT}", worker_address(self.index))
    }

    fn ask(&mut self, command: &Value) -> Outcome<Value> {
        let name = self.name.clone();
        let (_, input, output) = self.desktop.as_mut().context(|| format!("{name} has no desktop"))?;
        writeln!(input, "{command}")?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).context(|| format!("the desktop said {line:?}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(Trouble::new(format!("{name}: {error}"))),
            None => Ok(answer["ok"].clone()),
        }
    }

    /// The tray's menu.
    pub fn menu(&mut self) -> Outcome<Value> {
        self.ask(&json!({"do": "menu"}))
    }

    /// Waits for the first line of the tray's menu, which says what is shared.
    pub fn tray_says(&mut self, what: &str, within: Duration, good: impl Fn(&str) -> bool) -> Outcome<String> {
        let mut last = String::new();
        let said = wait_until(what, within, || {
            let menu = self.menu()?;
            last = menu[0]["label"].as_str().unwrap_or_default().to_owned();
            Ok(good(&last).then(|| last.clone()))
        });
        said.map_err(|e| Trouble::new(format!("{e}; the tray of {} says {last:?}", self.name)))
    }

    /// Chooses a line of the tray's menu.
    pub fn choose(&mut self, line: &str) -> Outcome<()> {
        self.ask(&json!({"do": "choose", "line": line})).map(drop)
    }

    /// Notifications that came.
    pub fn banners(&mut self) -> Outcome<Vec<Value>> {
        Ok(self.ask(&json!({"do": "banners"}))?.as_array().cloned().unwrap_or_default())
    }

    /// Presses the button of a notification.
    pub fn press_button(&mut self, banner: &Value) -> Outcome<()> {
        self.ask(&json!({"do": "press", "id": banner["id"], "action": banner["actions"][0]})).map(drop)
    }

    /// Starts something of the person that goes on; what it says goes to `NAME.log`.
    pub fn background(&self, name: &str, line: &str) -> Outcome<Program> {
        // A terminal of its own: the shell leads a session.
        let mut command = self.person(&["setsid", "--wait", "sh", "-c", line]);
        command.stdout(self.log(name)?).stderr(self.log(&format!("{name}.err"))?);
        Program::start(name, &mut command)
    }

    /// What such a program said.
    pub fn said(&self, name: &str) -> String {
        let read = |n: &str| fs::read_to_string(self.folder.join(n)).unwrap_or_default();
        format!("{}{}", read(&format!("{name}.log")), read(&format!("{name}.err.log")))
    }

    /// Compiler processes of others here, in whatever state.
    pub fn foreign(&self) -> Vec<Process> {
        // What entered the PC's namespaces has its parent outside.
        let all = self.programs.iter().flat_map(|p| family(p.pid()));
        all.filter(|p| ["cc1", "cc1plus", "as"].contains(&p.name.as_str()) && p.state != 'Z').collect()
    }
}

impl Drop for Pc {
    fn drop(&mut self) {
        if let Some((desktop, ..)) = &mut self.desktop {
            let _ = desktop.kill();
            let _ = desktop.wait();
        }
        // The first process of a pid namespace takes every other one with it.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let gone = wait_until("the end of a PC's processes", UP_WITHIN, || {
            let procs = fs::read_to_string(self.share.join("cgroup.procs")).unwrap_or_default();
            Ok(procs.is_empty().then_some(()))
        });
        if gone.is_ok() {
            let _ = fs::remove_dir(&self.share);
        }
    }
}

fn finish(command: &mut Command, line: &str) -> Outcome<String> {
    let output = command.output().context(|| line.to_owned())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let tail: Vec<&str> = said.lines().rev().take(12).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(Trouble::new(format!("{line}: {}\n{}", output.status, tail.join("\n"))))
}
