//! The window in a browser: the page's files and the api over a WebSocket, on loopback only. Knows nothing of what calls
//! mean: they become the same events as those of the local socket.
//!
//! `connections`: how many, and who gives way. `owner`: whose they are. `files`: what is served. `doors`: tokens, and which requests are this PC's own.

mod connections;
mod doors;
mod files;
mod owner;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use potluck_api::view::WebAddress;
use potluck_wire::ipc::Reply;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::core::Event;
use crate::root::Asker;
use doors::Doors;
use files::Files;

/// Longest message of a page: settings and links are some kilobytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Calls of one page that are not answered yet.
const CALLS_MAX: usize = 64;
/// Pages at a time.
const SOCKETS_MAX: usize = 16;
/// A page that has not said its token by then is closed.
const TOKEN_PATIENCE: Duration = Duration::from_secs(5);
/// A page that takes nothing for so long is gone: what it is owed would pile up.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
/// Close code for a missing or wrong token where the status of the upgrade could not say so: 401 of the private range.
const CLOSE_TOKEN: u16 = 4401;
/// RFC 6455: the other side broke a rule.
const CLOSE_POLICY: u16 = 1008;
/// The protocol that is spoken; a page that offers it offers its token as a second one, `token.…`.
const PROTOCOL: &str = "potluck.1";
/// Nothing from elsewhere, and no script or style inside of a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The web server of one node; it listens from the first `start` on.
#[derive(Clone)]
pub struct Web(Arc<Inner>);

struct Inner {
    events: mpsc::UnboundedSender<Event>,
    doors: Doors,
    /// The port of last time: pages that are open come back to it.
    port_file: PathBuf,
    bound: Mutex<Option<SocketAddr>>,
    sockets: Arc<Semaphore>,
}

/// What the handlers know of one listening server.
#[derive(Clone)]
struct Served {
    web: Web,
    at: SocketAddr,
    files: Arc<Files>,
}

/// `--web ADDR`: a loopback address and a port.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("{text:.64} is no address and port, such as 127.0.0.1:8080"))?;
    if !address.ip().is_loopback() {
        return Err(format!("{} is not this computer alone; use 127.0.0.1:{}", address.ip(), address.port()));
    }
    Ok(address)
}

impl Web {
    /// Not started. Calls go to `events`; sessions are kept below `state`.
    pub fn new(events: mpsc::UnboundedSender<Event>, state: &Path) -> Self {
        let (doors, port_file) = (Doors::open(state.join("web-sessions.json")), state.join("web-port"));
        let sockets = Arc::new(Semaphore::new(SOCKETS_MAX));
        Self(Arc::new(Inner { events, doors, port_file, bound: Mutex::default(), sockets }))
    }

    /// At a node's start: listens where it did before, if pages may wait for it there.
    pub async fn resume(&self) {
        if self.0.doors.has_sessions()
            && self.port_before().is_some()
            && let Err(error) = self.start(None).await
        {
            crate::log::warn(&format!("the window in the browser: {error}"));
        }
    }

    fn port_before(&self) -> Option<u16> {
        const BYTES_MAX: u64 = 64;
        crate::store::read_or_set_aside(&self.0.port_file, BYTES_MAX, |text| {
            let port = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
            port.filter(|port| *port > 0).ok_or_else(|| "it holds no port".to_owned())
        })
    }

    /// Listens at `address`, or at the port of last time, or at a free one; where it listens already nothing changes.
    pub async fn start(&self, address: Option<SocketAddr>) -> Result<SocketAddr, String> {
        let mut bound = self.0.bound.lock().await;
        if let Some(at) = *bound {
            return Ok(at);
        }
        let (before, free) = (self.port_before(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, before.unwrap_or(0)));
        let (address, other) = address.map_or((usual, Some(free)), |address| (address, None));
        // Whoever calls has checked it for a person; here it is what must stay true.
        if !address.ip().is_loopback() {
            return Err(format!("{address} is not this computer alone\nhint: use 127.0.0.1"));
        }
        let mut listener = TcpListener::bind(address).await;
        if let (Err(_), Some(other)) = (&listener, other) {
            listener = TcpListener::bind(other).await;
        }
        let listener = listener
            .map_err(|e| format!("{address}: {e}\nhint: another program may use this port; port 0 is any free one"))?;
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        if before != Some(at.port())
            && let Err(error) = crate::store::write_whole(&self.0.port_file, at.port().to_string().as_bytes())
        {
            // Then a page that is open does not come back by itself.
            crate::log::warn(&format!("{}: {error}", self.0.port_file.display()));
        }
        let files = tokio::task::spawn_blocking(Files::find).await.map_err(|e| e.to_string())?;
        let served = Served { web: self.clone(), at, files: Arc::new(files) };
        let app = Router::new()
            .route("/ws", get(upgrade))
            .route("/session", post(session))
            .fallback(get(page))
            .layer(axum::middleware::from_fn_with_state(served.clone(), at_the_door))
            .layer(DefaultBodyLimit::max(4096))
            .with_state(served);
        tokio::spawn(connections::serve(listener, at, app));
        *bound = Some(at);
        Ok(at)
    }

    /// Starts it if need be. The address has a token that is good once, for a minute.
    pub async fn address(&self) -> Result<WebAddress, String> {
        let at = self.start(None).await?;
        let token = self.0.doors.one_time()?;
        Ok(WebAddress { url: format!("http://{at}/#token={token}") })
    }

    /// Answers `Call::Ui`, when the server listens.
    pub fn answer(&self, replies: mpsc::UnboundedSender<Reply>) {
        let web = self.clone();
        tokio::spawn(async move {
            let answer = match web.address().await {
                Ok(address) => json!(address),
                Err(error) => json!({"error": error}),
            };
            let _ = replies.send(Reply::Api { json: answer.to_string(), last: true });
        });
    }
}

/// Every request, before anything looks at it: Host against DNS rebinding; afterwards the headers that all answers have.
async fn at_the_door(State(served): State<Served>, request: Request, next: Next) -> Response {
    let mut response = match doors::own_host(request.headers(), served.at) {
        Some(_) => next.run(request).await,
        None => (StatusCode::FORBIDDEN, "This address is not served here.\n").into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn page(State(served): State<Served>, uri: Uri) -> Response {
    match served.files.get(uri.path()) {
        Some(file) => {
            let mut response = Response::new(Body::from(file.content.clone()));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
            // The builder names assets by their content; everything else may be another file tomorrow.
            let keep = if uri.path().starts_with("/assets/") { "max-age=31536000, immutable" } else { "no-store" };
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
            response
        }
        None => (StatusCode::NOT_FOUND, "There is nothing here.\n").into_response(),
    }
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// Changes a one-time token into a session.
async fn session(State(served): State<Served>, headers: HeaderMap, body: String) -> Response {
    if !doors::own_origin(&headers, served.at) {
        return (StatusCode::FORBIDDEN, "Another page may not ask this.\n").into_response();
    }
    let token = serde_json::from_str::<Token>(&body).map(|t| t.token);
    let web = served.web.clone();
    let made = tokio::task::spawn_blocking(move || token.ok().and_then(|t| web.0.doors.enter(&t))).await;
    match made.ok().flatten() {
        Some(session) => answered(&json!({"session": session})),
        None => (StatusCode::UNAUTHORIZED, "This address was used or is too old; potluck ui makes a new one.\n")
            .into_response(),
    }
}

fn answered(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// Origin first (other sites' pages can open WebSockets to any address), then the token, if the upgrade names one.
async fn upgrade(State(served): State<Served>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if !doors::own_origin(&headers, served.at) {
        return (StatusCode::FORBIDDEN, "Another page may not ask this.\n").into_response();
    }
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL);
    let known = match offered.map(|o| o.to_str().unwrap_or_default()) {
        // The token is the first message.
        None => false,
        Some(list) => {
            let token = list.split(',').find_map(|p| p.trim().strip_prefix("token.")).unwrap_or_default();
            if !served.web.0.doors.knows(token) {
                return (StatusCode::UNAUTHORIZED, "This token is not known here.\n").into_response();
            }
            true
        }
    };
    let Ok(place) = Arc::clone(&served.web.0.sockets).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open.\n").into_response();
    };
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    upgrade.protocols([PROTOCOL]).on_upgrade(move |socket| converse(served.web, socket, known, place))
}

/// What a page says.
#[derive(Deserialize)]
struct Asked {
    id: u64,
    call: Option<Value>,
    /// It does not want to hear of this call any more.
    #[serde(default)]
    cancel: bool,
}

/// One page, until it or the node ends.
async fn converse(web: Web, mut socket: WebSocket, known: bool, _place: OwnedSemaphorePermit) {
    if !known {
        let first = tokio::time::timeout(TOKEN_PATIENCE, socket.recv()).await;
        let token = match &first {
            Ok(Some(Ok(Message::Text(text)))) => serde_json::from_str::<Token>(text).map(|t| t.token).ok(),
            _ => None,
        };
        if !token.is_some_and(|t| web.0.doors.knows(&t)) {
            return close(socket, CLOSE_TOKEN, "unknown token").await;
        }
    }
    let mut page = Page { web, calls: HashMap::new() };
    // One place: whatever is not taken waits in the calls' own queues, whose length WRITE_PATIENCE bounds.
    let (out_tx, mut out) = mpsc::channel::<(u64, Reply)>(1);
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let Some(refused) = page.take(&text, &out_tx) else {
                        return close(socket, CLOSE_POLICY, "not a call").await;
                    };
                    if !refused.is_empty() && !send(&mut socket, refused).await {
                        return;
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => return close(socket, CLOSE_POLICY, "text is spoken here").await,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
            Some((id, reply)) = out.recv() => {
                let Reply::Api { json, last } = reply else { continue };
                if last {
                    page.end(id);
                }
                if !send(&mut socket, framed(id, last, &json)).await {
                    return;
                }
            }
        }
    }
}

fn framed(id: u64, last: bool, json: &str) -> String {
    format!("{{\"id\":{id},\"last\":{last},\"value\":{json}}}")
}

async fn send(socket: &mut WebSocket, text: String) -> bool {
    matches!(tokio::time::timeout(WRITE_PATIENCE, socket.send(Message::Text(text.into()))).await, Ok(Ok(())))
}

async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let _ = tokio::time::timeout(WRITE_PATIENCE, socket.send(frame)).await;
}

/// The open calls of a page: each is a connection of its own to the node's loop.
struct Page {
    web: Web,
    calls: HashMap<u64, (u64, tokio::task::AbortHandle)>,
}

impl Page {
    /// Passes a call on. None: this is no call. Else what the page is told at once, empty if nothing.
    fn take(&mut self, text: &str, out: &mpsc::Sender<(u64, Reply)>) -> Option<String> {
        let asked: Asked = serde_json::from_str(text).ok()?;
        if asked.cancel {
            self.end(asked.id);
            return Some(String::new());
        }
        let refuse = |why: &str| Some(framed(asked.id, true, &json!({"error": why}).to_string()));
        if self.calls.len() >= CALLS_MAX {
            return refuse("too many calls are open\nhint: wait for answers");
        }
        if self.calls.contains_key(&asked.id) {
            return refuse("a call with this number is open");
        }
        let call = asked.call?.to_string();
        let conn = crate::ipc::next_conn();
        let (tx, mut replies) = mpsc::unbounded_channel();
        if self.web.0.events.send(Event::Api(conn, Asker::OwnRoot, call, tx)).is_err() {
            return refuse("the node is ending");
        }
        let (id, out) = (asked.id, out.clone());
        let task = tokio::spawn(async move {
            while let Some(reply) = replies.recv().await {
                let last = matches!(reply, Reply::Api { last: true, .. });
                if out.send((id, reply)).await.is_err() || last {
                    return;
                }
            }
            // The node forgot it: the page shall not wait for ever.
            let error = json!({"error": "the node is ending"}).to_string();
            let _ = out.send((id, Reply::Api { json: error, last: true })).await;
        });
        self.calls.insert(id, (conn, task.abort_handle()));
        Some(String::new())
    }

    fn end(&mut self, id: u64) {
        if let Some((conn, task)) = self.calls.remove(&id) {
            task.abort();
            let _ = self.web.0.events.send(Event::Gone(conn));
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let ids: Vec<u64> = self.calls.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id));
    }
}
