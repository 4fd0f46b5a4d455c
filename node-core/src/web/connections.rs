//! The connections of the web server: a bounded number, in which whoever says nothing gives way. Any program of this
//! computer can connect, other users' as well.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tower::Service;

use super::owner;

/// A browser opens six for each page that it loads.
const CONNECTIONS_MAX: usize = 64;
/// Of them those of other users: a proxy of somebody who set one up.
const OTHERS_MAX: usize = 8;
/// The head of a request comes within this time, also that of a next one: a browser connects again at no cost.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// After a request a connection counts as busy for so long: its answer is on the way.
const BUSY_AFTER: Duration = Duration::from_secs(2);
/// Whoever was refused cannot make this node run from one refusal to the next.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

struct Place {
    number: u64,
    is_own: bool,
    /// Requests that are being answered.
    requests: usize,
    last: Option<Instant>,
    task: Option<AbortHandle>,
}

impl Place {
    fn is_idle(&self) -> bool {
        self.requests == 0 && self.last.is_none_or(|at| at.elapsed() >= BUSY_AFTER)
    }
}

/// In the order in which they came.
#[derive(Default)]
struct Table {
    places: Vec<Place>,
    next: u64,
}

impl Table {
    /// A place for one more, and the task of whoever gives way. None: there is none.
    fn enter(&mut self, is_own: bool) -> Option<(u64, Option<AbortHandle>)> {
        let others = self.places.iter().filter(|place| !place.is_own).count();
        let mut gives_way = None;
        if !is_own && others >= OTHERS_MAX || self.places.len() >= CONNECTIONS_MAX {
            let idle = |place: &Place| place.is_idle();
            let of_others = self.places.iter().position(|place| !place.is_own && idle(place));
            let any = || if is_own { self.places.iter().position(idle) } else { None };
            gives_way = self.places.remove(of_others.or_else(any)?).task;
        }
        self.next += 1;
        self.places.push(Place { number: self.next, is_own, requests: 0, last: None, task: None });
        Some((self.next, gives_way))
    }

    fn place(&mut self, number: u64) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.number == number)
    }
}

#[derive(Clone, Default)]
struct Connections(Arc<Mutex<Table>>);

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, given back when it is dropped.
struct Held(Connections, u64);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().places.retain(|place| place.number != self.1);
    }
}

/// Answers at `listener` for as long as the node lives.
pub(super) async fn serve(listener: TcpListener, at: SocketAddr, app: Router) {
    let own = rustix::process::getuid().as_raw();
    let connections = Connections::default();
    loop {
        let Ok((tcp, from)) = listener.accept().await else {
            // Out of descriptors, most likely: wait for some to be closed.
            tokio::time::sleep(REFUSED_PAUSE).await;
            continue;
        };
        // The superuser can be anybody.
        let is_own = owner::of(from, at).is_none_or(|uid| uid == own || uid == 0);
        let Some((number, gives_way)) = connections.lock().enter(is_own) else {
            drop(tcp);
            tokio::time::sleep(REFUSED_PAUSE).await;
            continue;
        };
        if let Some(task) = gives_way {
            task.abort();
        }
        let held = Held(connections.clone(), number);
        let task = tokio::spawn(answer(tcp, app.clone(), held));
        if let Some(place) = connections.lock().place(number) {
            place.task = Some(task.abort_handle());
        }
    }
}

/// One connection, until it ends, says nothing for long, or has become a WebSocket.
async fn answer(tcp: TcpStream, app: Router, held: Held) {
    let (connections, number) = (held.0.clone(), held.1);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mut app, busy) = (app.clone(), Busy::begin(connections.clone(), number));
        async move {
            let _busy = busy;
            let response: Result<Response, Infallible> = app.call(request.map(Body::new)).await;
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(tcp), service)
        .with_upgrades();
    // Whatever ends it is the other side's business.
    let _ = connection.await;
    drop(held);
}

/// A request that is being answered.
struct Busy(Connections, u64);

impl Busy {
    fn begin(connections: Connections, number: u64) -> Self {
        if let Some(place) = connections.lock().place(number) {
            place.requests += 1;
        }
        Self(connections, number)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(place) = self.0.lock().place(self.1) {
            place.requests -= 1;
            place.last = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_says_nothing_gives_way_and_other_users_first() {
        let mut table = Table::default();
        for _ in 0..1000 {
            table.enter(false).unwrap();
        }
        assert_eq!(table.places.len(), OTHERS_MAX);
        let own: Vec<u64> = (0..CONNECTIONS_MAX - OTHERS_MAX).map(|_| table.enter(true).unwrap().0).collect();
        assert_eq!(table.places.len(), CONNECTIONS_MAX);
        for _ in 0..OTHERS_MAX {
            table.enter(true).unwrap();
        }
        assert!(table.places.iter().all(|place| place.is_own));
        assert!(table.enter(false).is_none(), "the owner's are not theirs to take");
        assert!(table.place(own[0]).is_some());
        table.place(own[0]).unwrap().requests = 1;
        table.enter(true).unwrap();
        assert!(table.place(own[0]).is_some() && table.place(own[1]).is_none(), "the oldest that is idle");
        table.places.iter_mut().for_each(|place| place.last = Some(Instant::now()));
        assert!(table.enter(true).is_none(), "all are busy");
    }
}
