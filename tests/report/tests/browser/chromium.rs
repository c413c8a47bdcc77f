//! Headless Chromium, controlled with its debugging protocol: <https://chromedevtools.github.io/devtools-protocol/>.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// The limit for the start of Chromium, and for each answer. Both take less than a second on an idle host, and many
/// times that beside other suites.
const LIMIT: Duration = Duration::from_secs(300);

/// The options: no other process or host is asked for anything.
const OPTIONS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
];

/// A page in a Chromium of its own, with an empty profile. Dropping it ends that Chromium.
pub struct Page {
    process: Child,
    socket: WebSocket<TcpStream>,
    calls: u64,
    /// Errors that the page has reported: exceptions, errors on the console, violations of its policy.
    errors: Vec<String>,
    _profile: TempDir,
}

impl Page {
    /// Starts Chromium and opens the file `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let profile = TempDir::new().context("creating a directory for the profile failed")?;
        let mut process = Command::new("chromium")
            .args(OPTIONS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                format!("starting chromium failed: install {}", test_report::BROWSER_PACKAGES.join(" "))
            })?;
        let socket = match connect(profile.path()) {
            Ok(socket) => socket,
            Err(error) => {
                end(&mut process);
                return Err(error);
            }
        };
        let mut page = Self { process, socket, calls: 0, errors: Vec::new(), _profile: profile };
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}))?;
        }
        page.call("Page.navigate", json!({ "url": format!("file://{}", path.display()) }))?;
        page.wait("document.readyState === 'complete' && location.protocol === 'file:'")?;
        Ok(page)
    }

    /// Sets the size of the window, as that of a phone or of a desktop computer.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// Selects the color scheme that the user prefers: `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] })).map(drop)
    }

    /// The value of the JavaScript expression `expression`.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }))?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// The string that is the value of `expression`.
    pub fn text(&mut self, expression: &str) -> Result<String> {
        Ok(self.value(expression)?.as_str().with_context(|| format!("no string: {expression}"))?.to_owned())
    }

    /// Whether the value of `expression` is true.
    pub fn is(&mut self, expression: &str) -> Result<bool> {
        self.value(expression)?.as_bool().with_context(|| format!("neither true nor false: {expression}"))
    }

    /// Waits until the value of `expression` is true.
    pub fn wait(&mut self, expression: &str) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !self.is(expression)? {
            ensure!(Instant::now() < deadline, "never true: {expression}");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Clicks in the middle of the element that is the value of `element`.
    pub fn click(&mut self, element: &str) -> Result<()> {
        let point = self.value(&format!(
            "(() => {{ const element = {element}; element.scrollIntoView({{ block: 'center' }}); \
             const box = element.getBoundingClientRect(); \
             return {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }}; }})()"
        ))?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": point["x"], "y": point["y"], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Presses the Enter key.
    pub fn press_enter(&mut self) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" });
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Types `text` into the focused element.
    pub fn insert(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text })).map(drop)
    }

    /// Writes a screenshot of the window, or of the whole page, to the file `path`.
    #[cfg_attr(test, expect(dead_code, reason = "for the example"))]
    pub fn screenshot(&mut self, path: &Path, whole: bool) -> Result<()> {
        let image = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": whole }))?;
        let image = BASE64_STANDARD.decode(image["data"].as_str().context("no image")?)?;
        fs::write(path, image).with_context(|| format!("writing {} failed", path.display()))
    }

    /// The errors that the page has reported until now.
    pub fn errors(&mut self) -> Result<Vec<String>> {
        self.value("0")?; // reads all earlier events
        Ok(self.errors.clone())
    }

    /// Calls `method` and returns its result.
    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.calls += 1;
        let call = json!({ "id": self.calls, "method": method, "params": params });
        self.socket.send(Message::text(call.to_string())).with_context(|| format!("calling {method} failed"))?;
        loop {
            let message = self.socket.read().with_context(|| format!("no answer to {method}"))?;
            let Message::Text(message) = message else { continue };
            let message: Value = serde_json::from_str(&message).context("message without JSON")?;
            if message["id"] == self.calls {
                ensure!(message["error"].is_null(), "{method} failed: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    /// Keeps `event` if it is an error.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let is_error = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => params["type"] == "error" || params["type"] == "assert",
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if is_error {
            self.errors.push(event.to_string());
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

/// Connects to the page of the Chromium that has just been started with `profile`.
fn connect(profile: &Path) -> Result<WebSocket<TcpStream>> {
    let (port, browser) = address(profile)?;
    let mut socket = open(port, &browser)?;
    socket.send(Message::text(json!({ "id": 0, "method": "Target.getTargets" }).to_string()))?;
    let answer: Value = serde_json::from_str(socket.read()?.to_text()?)?;
    let targets = answer["result"]["targetInfos"].as_array().context("no targets")?;
    let page = targets.iter().find(|target| target["type"] == "page").context("no page")?;
    let target = page["targetId"].as_str().context("page without an ID")?;
    open(port, &format!("/devtools/page/{target}"))
}

/// The port and the path of the browser's socket. Chromium writes them to a file when it is ready.
fn address(profile: &Path) -> Result<(u16, String)> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let content = fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = content.split_once('\n').filter(|(_, path)| path.starts_with('/')) {
            return Ok((port.parse().context("no port")?, path.trim().to_owned()));
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("Chromium did not start within {} s", LIMIT.as_secs())
}

fn open(port: u16, path: &str) -> Result<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting to Chromium failed")?;
    stream.set_read_timeout(Some(LIMIT))?;
    let (socket, _) = tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream)
        .map_err(|error| anyhow::anyhow!("connecting to Chromium failed: {error}"))?;
    Ok(socket)
}
