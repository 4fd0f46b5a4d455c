//! The window: built when it is wanted and destroyed when it is closed, because a hidden page costs hundreds of MB; and
//! the commands of its page.

use std::sync::Arc;

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
                    app.state::<Arc<Node>>().end_streams();
                }
            });
        }
        Err(error) => eprintln!("potluck-tray: the window cannot be opened: {error}"),
    }
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
