//! What an owner's desk has: a screen with keyboard and mouse, and a login that can be locked. A real X server and a real
//! bus; logind itself needs a running systemd and is played by python-dbusmock's template of it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::person::Person;
use crate::wait::wait_until;
use crate::{Context, Outcome, Trouble};

/// Programs that are packages of their own start within this time on a busy machine.
const UP_WITHIN: Duration = Duration::from_secs(30);

/// An X server without a monitor.
#[derive(Debug)]
pub struct Screen {
    server: Child,
    /// What runs a program where the server runs.
    enter: Vec<String>,
    /// Its number.
    pub number: u32,
}

impl Screen {
    /// Starts one. `enter` runs it elsewhere, such as in a Lab's network; nodes there reach it by TCP.
    pub fn start(enter: &[String]) -> Outcome<Self> {
        let mut line = enter.to_vec();
        // Without -noreset the idle time begins anew whenever the last program leaves.
        let server = "Xvfb -displayfd 1 -screen 0 1280x800x24 -noreset -listen tcp -ac";
        line.extend(server.split(' ').map(String::from));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().context(|| "starting Xvfb".into())?;
        let mut said = String::new();
        BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut said)?;
        let number = said.trim().parse().context(|| format!("Xvfb said {said:?}"))?;
        Ok(Self { server, enter: enter.to_vec(), number })
    }

    /// A key is pressed and let go. Returns the moment before.
    pub fn press_a_key(&self) -> Outcome<Instant> {
        self.inject(&["key", "shift"])
    }

    /// The mouse is moved. Returns the moment before.
    pub fn move_the_mouse(&self) -> Outcome<Instant> {
        self.inject(&["mousemove_relative", "3", "3"])
    }

    fn inject(&self, what: &[&str]) -> Outcome<Instant> {
        // By TCP in the server's own network: the socket of this number in /tmp may be another server's.
        let line = [&self.enter[..], &["xdotool".to_owned()]].concat();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(what).env("DISPLAY", format!("127.0.0.1:{}", self.number)).stdout(Stdio::null());
        let before = Instant::now();
        let status = command.status().context(|| "starting xdotool".into())?;
        if status.success() { Ok(before) } else { Err(Trouble::new(format!("xdotool {what:?}: {status}"))) }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A bus of its own with a login on it.
#[derive(Debug)]
pub struct Login {
    bus: Child,
    logind: Child,
    runtime: Runtime,
    connection: zbus::Connection,
    session: String,
}

impl Login {
    /// Starts bus and logind; the socket `bus` lies in `dir`, and the session is that of `owner`.
    pub fn start(dir: &Path, owner: Person) -> Outcome<Self> {
        let socket = dir.join("bus");
        let config = dir.join("bus.conf");
        std::fs::write(&config, bus_config(&socket))?;
        // A bus speaks only with users that have a name; this one is given one that only the bus sees.
        let users = dir.join("passwd");
        let known = std::fs::read_to_string("/etc/passwd")?;
        std::fs::write(&users, format!("{known}owner:x:{}:{}::/:/bin/false\n", owner.uid, owner.gid))?;
        let mut bus = Command::new("unshare")
            .args([
                "--mount",
                "sh",
                "-c",
                "mount --bind \"$1\" /etc/passwd && exec dbus-daemon \"--config-file=$2\" --nofork --print-address",
                "sh",
            ])
            .args([&users, &config])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(|| "starting dbus-daemon".into())?;
        let mut said = String::new();
        BufReader::new(bus.stdout.take().expect("a pipe")).read_line(&mut said)?;
        let address = format!("unix:path={}", socket.display());
        let logind = Command::new("/usr/bin/python3")
            .args(["-m", "dbusmock", "--system", "--template", "logind"])
            .env("DBUS_SYSTEM_BUS_ADDRESS", &address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| "starting /usr/bin/python3 -m dbusmock".into())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let connect = async { zbus::connection::Builder::address(address.as_str())?.build().await };
        let connection = runtime.block_on(connect).context(|| "connecting with the bus".into())?;
        let mut login = Self { bus, logind, runtime, connection, session: String::new() };
        let add = || {
            let body = ("c1", "seat0", owner.uid, "owner", true);
            let path: Result<String, _> = login.ask("/org/freedesktop/login1", "AddSession", &body);
            Ok(path.ok())
        };
        let added = wait_until("logind on its bus", UP_WITHIN, add);
        login.session = added.context(|| login.complaint())?;
        Ok(login)
    }

    fn complaint(&mut self) -> String {
        let _ = self.logind.kill();
        let mut text = String::new();
        if let Some(mut err) = self.logind.stderr.take() {
            let _ = err.read_to_string(&mut text);
        }
        format!("dbusmock: {}", text.trim())
    }

    fn ask<B, T>(&self, path: &str, method: &str, body: &B) -> Outcome<T>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        T: for<'a> serde::Deserialize<'a> + zbus::zvariant::Type,
    {
        let asked = async {
            let to = Some("org.freedesktop.login1");
            let answer = self.connection.call_method(to, path, Some("org.freedesktop.DBus.Mock"), method, body).await?;
            answer.body().deserialize::<T>()
        };
        self.runtime.block_on(asked).map_err(|e| Trouble::new(format!("{method}: {e}")))
    }

    /// The screen is locked, or unlocked. Returns the moment before.
    pub fn lock(&self, locked: bool) -> Outcome<Instant> {
        let hint = std::collections::HashMap::from([("LockedHint", zbus::zvariant::Value::from(locked))]);
        let before = Instant::now();
        self.ask::<_, ()>(&self.session, "UpdateProperties", &("org.freedesktop.login1.Session", hint))?;
        Ok(before)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        for child in [&mut self.logind, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Everybody may say everything: the folder keeps others out.
fn bus_config(socket: &Path) -> String {
    let path: PathBuf = socket.into();
    format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><type>system</type>\
         <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
         <allow user=\"*\"/><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/>\
         <allow own=\"*\"/></policy></busconfig>\n",
        path.display()
    )
}
