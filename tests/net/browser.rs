//! A headless browser, driven by the Chrome DevTools Protocol.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use testbed::clock::wait_until;
use testbed::netns::Namespace;
use testbed::packaged::Packages;
use testbed::process::Process;
use tungstenite::{Message, WebSocket};

const PACKAGES: Packages = Packages {
    variable: "MIRROR_BROWSER",
    verb: "test",
};
/// The program itself; what the package has in its folder of programs is a script for desktops.
const PROGRAM: &str = "../lib/chromium/chromium-headless-shell";
/// Where it tells its port and path, in its profile.
const PORT_FILE: &str = "DevToolsActivePort";
const START_LIMIT: Duration = Duration::from_secs(30);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A page of this host is there at once, unless the machine is busy.
const OPEN_LIMIT: Duration = Duration::from_secs(40);

/// A browser with one page.
pub(crate) struct Browser {
    socket: WebSocket<TcpStream>,
    session: String,
    last: u64,
    complaints: Vec<String>,
    /// Ends with the handle.
    _process: Process,
}

impl Browser {
    /// Starts one in a namespace, with its profile in a folder.
    pub(crate) fn start(namespace: &Namespace, dir: &Path) -> Result<Self> {
        let profile = dir.join("browser");
        let command = PACKAGES.find(&[PROGRAM])?.command(
            namespace,
            &[
                // It runs as root in a namespace that leads nowhere.
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-port=0",
                &format!("--user-data-dir={}", profile.display()),
            ],
        )?;
        let process = Process::start("the browser", command)?;
        let told = wait_until("the browser's port", START_LIMIT, || {
            let text = fs::read_to_string(profile.join(PORT_FILE)).unwrap_or_default();
            let mut lines = text.lines();
            let port = lines.next().and_then(|line| line.parse::<u16>().ok());
            Ok(port.zip(lines.next().map(str::to_owned)))
        });
        let (port, path) = told.with_context(|| process.said())?;
        let stream = namespace.run(|| TcpStream::connect(("127.0.0.1", port)))??;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tungstenite::client(url, stream)?;
        let mut browser = Self {
            socket,
            session: String::new(),
            last: 0,
            complaints: Vec::new(),
            _process: process,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let to = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", to)?;
        browser.session = attached["sessionId"]
            .as_str()
            .context("a session")?
            .to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Makes the page as large as a screen of so many CSS pixels.
    pub(crate) fn resize(&mut self, width: u32, height: u32, mobile: bool) -> Result<()> {
        let screen =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", screen)
            .map(drop)
    }

    /// Goes to an address.
    pub(crate) fn open(&mut self, url: &str) -> Result<()> {
        // What is there when navigation has begun may still be the page before.
        self.value("window.before = true")?;
        let answer = self.call("Page.navigate", json!({"url": url}))?;
        if let Some(error) = answer["errorText"]
            .as_str()
            .filter(|error| !error.is_empty())
        {
            bail!("{url}: {error}");
        }
        let there = "window.before === undefined && document.readyState === 'complete'";
        self.wait(there, OPEN_LIMIT)
    }

    /// The value of a JavaScript expression.
    pub(crate) fn value(&mut self, expression: &str) -> Result<Value> {
        let what = json!({"expression": expression, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", what)?;
        match &answer["exceptionDetails"] {
            Value::Null => Ok(answer["result"]["value"].take()),
            thrown => bail!("{expression}: {thrown}"),
        }
    }

    /// Waits until a JavaScript expression is true.
    pub(crate) fn wait(&mut self, expression: &str, limit: Duration) -> Result<()> {
        let waited = wait_until(expression, limit, || {
            Ok((self.value(expression)? == Value::Bool(true)).then_some(()))
        });
        waited.or_else(|error| {
            let text = self.value("document.body.innerText")?;
            Err(error.context(format!("the page: {text}, {:?}", self.complaints)))
        })
    }

    /// A picture of the screen, as PNG.
    pub(crate) fn screenshot(&mut self) -> Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        Ok(BASE64_STANDARD.decode(answer["data"].as_str().context("a picture")?)?)
    }

    /// Errors that the page made: exceptions, what could not be loaded, what its policy forbids.
    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Calls a method and waits for its answer.
    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last += 1;
        let mut call = json!({"id": self.last, "method": method, "params": parameters});
        if !self.session.is_empty() {
            call["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(call.to_string()))?;
        loop {
            let message = self.socket.read().with_context(|| method.to_owned())?;
            let Message::Text(text) = message else {
                continue;
            };
            let mut message: Value = serde_json::from_str(&text)?;
            if message["id"] == json!(self.last) {
                return match &message["error"] {
                    Value::Null => Ok(message["result"].take()),
                    error => bail!("{method}: {error}"),
                };
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &parameters["exceptionDetails"],
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                &parameters["entry"]
            }
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }
}
