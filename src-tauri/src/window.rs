//! The window: built when it is wanted and destroyed when it is closed, because a hidden page costs hundreds of MB; and
//! the commands of its page.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tauri::image::Image;
use tauri::ipc::Channel;
use tauri::{AppHandle, Emitter, Manager, State, WebviewUrl, WebviewWindowBuilder, WindowEvent};

use crate::icons;
use crate::node::Node;

/// Its only one.
const LABEL: &str = "main";

/// Opens the window, or brings it to the front; at a view if there is one.
pub fn open(app: &AppHandle, view: Option<&str>) {
    if let Some(window) = app.get_webview_window(LABEL) {
        let _ = window.unminimize();
        let _ = window.show();
        let _ = window.set_focus();
        if let Some(view) = view {
            let _ = app.emit_to(LABEL, "open", view);
        }
        return;
    }
    let page = view.map_or_else(|| "index.html".to_owned(), |view| format!("index.html#/{view}"));
    let icon = Image::from_bytes(icons::APP);
    let built = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App(page.into()))
        .title("Potluck")
        .inner_size(1100.0, 720.0)
        .min_inner_size(640.0, 480.0)
        .disable_drag_drop_handler()
        .on_navigation(|url| url.scheme() == "tauri")
        .on_new_window(|_, _| tauri::webview::NewWindowResponse::Deny)
        .build();
    match built {
        Ok(window) => {
            if let Ok(icon) = icon {
                let _ = window.set_icon(icon);
            }
            let app = app.clone();
            window.on_window_event(move |event| {
                if matches!(event, WindowEvent::Destroyed) {
                    let node = Arc::clone(&app.state::<Arc<Node>>());
                    node.end_streams();
                    // Whether the page still came to say so is not known.
                    std::thread::spawn(move || node.call(r#"{"call":"focus","on":false}"#));
                    end_network_process_later(&app);
                }
            });
        }
        Err(error) => eprintln!("potluck-tray: the window cannot be opened: {error}"),
    }
}

/// What the page stored is on disk by then: WebKit's network process writes it half a second after the change.
const STORED: Duration = Duration::from_secs(2);

/// WebKit keeps its network process for as long as the app runs, window or not, and starts another one when a window
/// needs it. The app's time in the tray is long: it goes.
fn end_network_process_later(app: &AppHandle) {
    let app = app.clone();
    std::thread::spawn(move || {
        std::thread::sleep(STORED);
        let handle = app.clone();
        // On the toolkit's thread no window can appear in between.
        let _ = app.run_on_main_thread(move || {
            if handle.get_webview_window(LABEL).is_none() {
                for pid in network_processes() {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        });
    });
}

/// Children of this process with the name of WebKit's network process, as the kernel cuts it.
fn network_processes() -> Vec<Pid> {
    let own = std::process::id().to_string();
    let is_ours = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.split_once(" (WebKitNetworkPr) ").map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split(' ').nth(1)) == Some(&own)
    };
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_ours).filter_map(Pid::from_raw).collect()
}

/// One call to the node: JSON in, the last answer out, a refusal as well.
#[tauri::command]
pub async fn call(node: State<'_, Arc<Node>>, json: String) -> Result<String, String> {
    let node = Arc::clone(&node);
    blocking(move || node.call(&json)).await
}

/// A call with several answers. Ends with the last one.
#[tauri::command]
pub async fn watch(node: State<'_, Arc<Node>>, json: String, channel: Channel<String>) -> Result<(), String> {
    let node = Arc::clone(&node);
    blocking(move || node.stream(&json, |answer| channel.send(answer).is_ok())).await
}

/// Starts a node where none runs.
#[tauri::command]
pub async fn start_node(node: State<'_, Arc<Node>>) -> Result<(), String> {
    let node = Arc::clone(&node);
    blocking(move || node.start()).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tauri::async_runtime::spawn_blocking(work).await.map_err(|e| e.to_string())?
}
