//! A display nobody sees, its windows and their pictures. There is no window manager, so closing a window the way one
//! does is said in X's own protocol.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Program;
use crate::wait::wait_until;
use crate::{Context, Outcome, Trouble};

/// An X server without a screen.
pub struct Display {
    _server: Program,
    number: u32,
}

impl Display {
    /// Starts one, for every user of this machine. It is not reset when its last client leaves: the idle counter would
    /// be, too.
    pub fn start() -> Outcome<Self> {
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp", "-noreset", "-ac"]);
        let (server, number) = Program::start_and_hear("Xvfb", command.stderr(Stdio::null()))?;
        let number = number.parse().context(|| format!("Xvfb said {number:?} instead of a display"))?;
        Ok(Self { _server: server, number })
    }

    /// For `DISPLAY`.
    pub fn name(&self) -> String {
        format!(":{}", self.number)
    }

    /// Visible windows with exactly this title.
    pub fn windows(&self, title: &str) -> Outcome<Vec<u32>> {
        let pattern = format!("^{title}$");
        let output = Command::new("xdotool")
            .args(["search", "--onlyvisible", "--name", &pattern])
            .env("DISPLAY", self.name())
            .stderr(Stdio::null())
            .output()
            .context(|| "running xdotool".into())?;
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|l| l.trim().parse().context(|| format!("xdotool said {l:?}")))
            .collect()
    }

    /// Waits for the only window with this title.
    pub fn window(&self, title: &str, deadline: Duration) -> Outcome<u32> {
        wait_until(&format!("a window {title:?}"), deadline, || Ok(self.windows(title)?.first().copied()))
    }

    /// Waits until there is none.
    pub fn no_window(&self, title: &str, deadline: Duration) -> Outcome<()> {
        wait_until(&format!("no window {title:?}"), deadline, || Ok(self.windows(title)?.is_empty().then_some(())))
    }

    /// Takes a picture of everything into `file`; the number of its colours.
    pub fn picture(&self, file: &Path) -> Outcome<u32> {
        let run = |program: &str, args: &[&std::ffi::OsStr]| -> Outcome<String> {
            let output = Command::new(program)
                .args(args)
                .env("DISPLAY", self.name())
                .output()
                .context(|| format!("running {program}"))?;
            if !output.status.success() {
                return Err(Trouble::new(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())));
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        run("import", &["-window".as_ref(), "root".as_ref(), file.as_ref()])?;
        let colours = run("identify", &["-format".as_ref(), "%k".as_ref(), file.as_ref()])?;
        colours.trim().parse().context(|| format!("identify said {colours:?}"))
    }

    /// Asks a window to close, as the button in its frame does.
    pub fn close(&self, window: u32) -> Outcome<()> {
        let path = format!("/tmp/.X11-unix/X{}", self.number);
        let mut x = UnixStream::connect(&path).context(|| format!("connecting to {path}"))?;
        close(&mut x, window).context(|| format!("asking window {window} to close"))
    }
}

/// X11 protocol, appendix B: the handshake, two atoms, one client message, and a question whose answer says that it came.
fn close(x: &mut UnixStream, window: u32) -> std::io::Result<()> {
    let mut hello = vec![b'l', 0];
    [11u16, 0, 0, 0, 0].iter().for_each(|n| hello.extend(n.to_le_bytes()));
    x.write_all(&hello)?;
    let mut head = [0; 8];
    x.read_exact(&mut head)?;
    if head[0] != 1 {
        return Err(std::io::Error::other("the display refuses"));
    }
    let mut setup = vec![0; usize::from(u16::from_le_bytes([head[6], head[7]])) * 4];
    x.read_exact(&mut setup)?;
    let protocols = atom(x, "WM_PROTOCOLS")?;
    let delete = atom(x, "WM_DELETE_WINDOW")?;
    let mut send = vec![25, 0];
    send.extend(11u16.to_le_bytes());
    [window, 0].iter().for_each(|n| send.extend(n.to_le_bytes()));
    send.extend([33, 32, 0, 0]);
    [window, protocols, delete, 0, 0, 0, 0].iter().for_each(|n| send.extend(n.to_le_bytes()));
    x.write_all(&send)?;
    // GetInputFocus: answered after everything before it.
    x.write_all(&[43, 0, 1, 0])?;
    answer(x).map(drop)
}

fn atom(x: &mut UnixStream, name: &str) -> std::io::Result<u32> {
    let padded = name.len().div_ceil(4) * 4;
    let mut ask = vec![16, 0];
    ask.extend((2 + padded as u16 / 4).to_le_bytes());
    ask.extend((name.len() as u16).to_le_bytes());
    ask.extend([0, 0]);
    ask.extend(name.as_bytes());
    ask.resize(8 + padded, 0);
    x.write_all(&ask)?;
    let answer = answer(x)?;
    Ok(u32::from_le_bytes([answer[8], answer[9], answer[10], answer[11]]))
}

fn answer(x: &mut UnixStream) -> std::io::Result<[u8; 32]> {
    let mut answer = [0; 32];
    x.read_exact(&mut answer)?;
    if answer[0] == 1 { Ok(answer) } else { Err(std::io::Error::other(format!("the display says {}", answer[1]))) }
}
