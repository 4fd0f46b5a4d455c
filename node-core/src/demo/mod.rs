//! A simulated node behind the real api and transports: `potluck node --demo SEED`. It talks to no other PC and runs no
//! compiler; the same seed and the same calls show the same things.
//!
//! `world`: all that is simulated, and how time moves it. `calls`: what it answers. `scenes`: states that are raised by
//! name. `pool`, `sharing`, `joining`, `tools`, `trouble`: its parts. `builds`, `schedule`, `live`: builds whose numbers agree. `shown`: the
//! snapshot.
//! `words`: sentences. This file is the shell: socket, web server, clock.

mod builds;
mod calls;
mod joining;
mod live;
mod pool;
mod random;
mod scenes;
mod schedule;
mod sharing;
mod shown;
mod tools;
mod trouble;
mod words;
mod world;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use potluck_api::call::Call;
use potluck_wire::ipc::Reply;
use serde_json::json;
use tokio::sync::mpsc;

use crate::core::Event;
use crate::dirs::Dirs;
use crate::watch::Watch;
use crate::web::Web;
pub use world::World;

/// Runs a simulated node until SIGTERM or SIGINT. The error is a sentence for the user.
pub fn run(seed: u64, web: Option<SocketAddr>) -> Result<(), String> {
    let dirs = Dirs::from_env();
    dirs.create().map_err(|e| format!("the node's folders: {e}"))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(start(seed, dirs, web))
}

async fn start(seed: u64, dirs: Dirs, address: Option<SocketAddr>) -> Result<(), String> {
    let socket_path = dirs.socket();
    let socket = crate::ipc::listen(&socket_path)?;
    let (events_tx, events) = mpsc::unbounded_channel();
    tokio::spawn(crate::ipc::serve(socket, events_tx.clone()));
    crate::node::quit_on_signals(events_tx.clone())?;
    let web = Web::new(events_tx, &dirs.state);
    if let Some(address) = address {
        let at = web.start(Some(address)).await?;
        println!("the window is at http://{at}; potluck ui opens it");
    } else {
        web.resume().await;
    }
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut world = World::new(seed, wall.as_millis() as u64);
    world.zone_s = zone_s(wall.as_secs());
    println!("potluck node ready: a simulation (seed {seed}); nothing that it shows is real");
    let _ = std::io::stdout().flush();
    Shell { world, web, watch: Watch::default(), replies: HashMap::new(), started: Instant::now() }.run(events).await;
    let _ = std::fs::remove_file(&socket_path);
    Ok(())
}

/// Seconds that local time is ahead of UTC.
fn zone_s(unix_s: u64) -> i64 {
    // SAFETY: `tm` is plain numbers and a pointer that is not followed; zero is a value of all of them.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    let at = unix_s as libc::time_t;
    // SAFETY: both point to values that live here.
    let known = unsafe { libc::localtime_r(&at, &mut tm) };
    if known.is_null() { 0 } else { tm.tm_gmtoff }
}

/// The simulation's own loop.
struct Shell {
    world: World,
    watch: Watch,
    web: Web,
    /// Connections that wait for more.
    replies: HashMap<u64, mpsc::UnboundedSender<Reply>>,
    started: Instant,
}

impl Shell {
    async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut steps = tokio::time::interval(Duration::from_millis(world::STEP_MS));
        steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while !self.world.stopped {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Quit) | None => return,
                    Some(event) => self.take(event),
                },
                _ = steps.tick() => {}
            }
            self.world.advance(self.started.elapsed().as_millis() as u64);
            self.pass_on();
        }
        // The answer to the call that ended it is on its way.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Api(conn, _, json, replies) => self.api(conn, &json, replies),
            Event::Compile(_, _, _, replies) => {
                let _ = replies.send(Reply::Local { reason: "policy".into() });
            }
            Event::Gone(conn) => {
                self.watch.remove(conn);
                self.replies.remove(&conn);
                self.world.gone(conn);
            }
            _ => {}
        }
    }

    fn api(&mut self, conn: u64, text: &str, replies: mpsc::UnboundedSender<Reply>) {
        self.world.advance(self.started.elapsed().as_millis() as u64);
        let refuse = |error: String| {
            let _ = replies.send(Reply::Api { json: json!({"error": error}).to_string(), last: true });
        };
        match serde_json::from_str::<Call>(text) {
            Err(error) => refuse(format!("not a call of this version: {error}")),
            Ok(Call::Watch { every_ms }) => {
                if let Err(error) = self.watch.add(conn, every_ms, replies.clone()) {
                    refuse(error);
                }
            }
            Ok(Call::Ui) => self.web.answer(replies),
            Ok(call) => {
                self.replies.insert(conn, replies);
                self.world.call(conn, call);
            }
        }
    }

    /// Answers and updates.
    fn pass_on(&mut self) {
        for (conn, value, last) in self.world.take_answers() {
            let Some(replies) = self.replies.get(&conn) else { continue };
            let _ = replies.send(Reply::Api { json: value.to_string(), last });
            if last {
                self.replies.remove(&conn);
            }
        }
        if self.world.take_changed() {
            self.watch.touch();
        }
        self.watch.tick(self.started.elapsed(), || self.world.snapshot());
    }
}
