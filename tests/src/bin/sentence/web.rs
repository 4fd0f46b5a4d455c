//! A person at the window: WebDriver over HTTP, elements found by what they are and what they say.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use potluck_tests::wait::wait_until;
use potluck_tests::{Context, Outcome, Trouble};
use serde_json::{Value, json};

use crate::pc::Network;

/// A page that is being drawn, on a machine that builds something.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer of the driver.
const ANSWER_MAX: u64 = 16 << 20;
/// How WebDriver names an element in JSON (W3C WebDriver, 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Finds what is visible, has a role, and is called like this, or begins so.
const FIND: &str = r#"
const [role, name] = arguments;
const roles = {button: 'button', link: 'a', field: 'input, select, textarea', heading: 'h1, h2, h3', switch: '[role=switch]', radio: 'input[type=radio]'};
const said = (e) => (e.getAttribute('aria-label') || (e.labels && e.labels[0] && e.labels[0].innerText) || e.innerText || '').trim().replace(/\s+/g, ' ');
const seen = [...document.querySelectorAll(roles[role])].filter((e) => e.getClientRects().length > 0);
return seen.find((e) => said(e) === name) || seen.find((e) => said(e).startsWith(name)) || null;
"#;

/// The window of the tray app of one PC.
pub struct Window<'a> {
    network: &'a dyn Network,
    address: String,
    session: String,
}

impl<'a> Window<'a> {
    /// Starts the tray app through the driver at `address`, with its window.
    pub fn open(network: &'a dyn Network, address: &str) -> Outcome<Self> {
        let mut window = Self { network, address: address.to_owned(), session: String::new() };
        let options = json!({"binary": "/usr/bin/potluck-tray", "args": ["--show"]});
        let wanted = json!({"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}});
        let made =
            wait_until("a WebDriver session", PATIENCE, || match window.ask("POST", "/session", Some(&wanted)) {
                Err(e) if e.to_string().contains("Connection refused") => Ok(None),
                other => other.map(Some),
            })?;
        let id = made["sessionId"].as_str().context(|| format!("no session in {made}"))?;
        window.session = format!("/session/{id}");
        Ok(window)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.session,
            self.address,
            body.len()
        );
        let mut answer = Vec::new();
        self.network.inside(&mut || {
            answer = http(&self.address, &request)?;
            Ok(())
        })?;
        let text = String::from_utf8_lossy(&answer);
        let (_, json) = text.split_once("\r\n\r\n").context(|| format!("the driver said {text:?}"))?;
        let value: Value = serde_json::from_str(json).context(|| format!("the driver said {text:?}"))?;
        let value = &value["value"];
        match value["error"].as_str() {
            Some(error) => {
                Err(Trouble::new(format!("the window: {error}: {}", value["message"].as_str().unwrap_or(""))))
            }
            None => Ok(value.clone()),
        }
    }

    /// Runs a script in the page: only to look.
    pub fn look(&self, script: &str, args: Value) -> Outcome<Value> {
        self.ask("POST", "/execute/sync", Some(&json!({"script": script, "args": args})))
    }

    /// What can be read.
    pub fn text(&self) -> Outcome<String> {
        let text = self.look("return document.body.innerText", json!([]))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits for words on the page; the whole text.
    pub fn reads(&self, words: &str, within: Duration) -> Outcome<String> {
        let read = wait_until(&format!("{words:?} in the window"), within, || {
            Ok(Some(self.text()?).filter(|text| text.contains(words)))
        });
        read.map_err(|e| {
            Trouble::new(format!("{e}; it says: {}", self.text().unwrap_or_default().replace('\n', " | ")))
        })
    }

    fn find(&self, role: &str, name: &str) -> Outcome<String> {
        let found = wait_until(&format!("a {role} {name:?} in the window"), PATIENCE, || {
            let found = self.look(FIND, json!([role, name]))?;
            Ok(found[ELEMENT].as_str().map(str::to_owned))
        });
        found.map_err(|e| {
            Trouble::new(format!("{e}; it says: {}", self.text().unwrap_or_default().replace('\n', " | ")))
        })
    }

    /// Clicks it.
    pub fn click(&self, role: &str, name: &str) -> Outcome<()> {
        // A list that is being redrawn takes an element away between finding and clicking it.
        wait_until(&format!("clicking {name:?}"), PATIENCE, || {
            let element = self.find(role, name)?;
            match self.ask("POST", &format!("/element/{element}/click"), Some(&json!({}))) {
                Err(e) if e.to_string().contains("stale") || e.to_string().contains("intercepted") => Ok(None),
                other => other.map(Some),
            }
        })?;
        Ok(())
    }

    /// Types into a field.
    pub fn types(&self, name: &str, text: &str) -> Outcome<()> {
        let element = self.find("field", name)?;
        self.ask("POST", &format!("/element/{element}/value"), Some(&json!({"text": text}))).map(drop)
    }

    /// Chooses an entry of a list.
    pub fn chooses(&self, name: &str, entry: &str) -> Outcome<()> {
        let list = self.find("field", name)?;
        let script = "return [...arguments[0].options].find((o) => o.text.trim() === arguments[1]) || null";
        let option = self.look(script, json!([{ELEMENT: list}, entry]))?;
        let option = option[ELEMENT].as_str().context(|| format!("no {entry:?} in {name:?}"))?;
        self.ask("POST", &format!("/element/{option}/click"), Some(&json!({}))).map(drop)
    }

    /// Goes to a view by what leads there.
    pub fn view(&self) -> Outcome<String> {
        let at = self.look("return location.hash", json!([]))?;
        Ok(at.as_str().unwrap_or_default().to_owned())
    }

    /// A picture of the page, for whoever wonders.
    pub fn picture(&self) -> Outcome<String> {
        let picture = self.ask("GET", "/screenshot", None)?;
        Ok(picture.as_str().unwrap_or_default().to_owned())
    }
}

fn http(address: &str, request: &str) -> Outcome<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    // The driver leaves connections open: the head says how long its answer is.
    let mut all = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        let n = stream.read(&mut buffer).context(|| "waiting for the driver".into())?;
        all.extend_from_slice(&buffer[..n]);
        let head = all.windows(4).position(|w| w == b"\r\n\r\n");
        let wanted = head.and_then(|end| {
            let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
            Some(end + 4 + length)
        });
        if n == 0 || wanted.is_some_and(|wanted| all.len() >= wanted) || all.len() as u64 > ANSWER_MAX {
            return Ok(all);
        }
    }
}
