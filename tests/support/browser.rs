//! A real Chromium, driven through chromedriver by the WebDriver protocol (W3C WebDriver, plain HTTP and JSON).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{SOON, wait_for};

/// A browser with one window. Gone when dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it and opens a page.
    pub fn open(url: &str) -> Self {
        Self::open_with(url, &[])
    }

    /// As somebody in the network who knows the gateway by `name` and takes its self-signed certificate for good.
    pub fn open_as(name: &str, url: &str) -> Self {
        Self::open_with(url, &[format!("--host-resolver-rules=MAP {name} 127.0.0.1")])
    }

    fn open_with(url: &str, more: &[String]) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines
            .find(|line| line.contains("successfully"))
            .and_then(|line| line.split("on port ").nth(1)?.trim_end_matches('.').parse().ok())
            .expect("chromedriver names its port");
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self { driver, port, session: String::new(), profile };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=390,844",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.extend_from_slice(more);
        arguments.push(format!("--user-data-dir={}", browser.profile.path().display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": !more.is_empty(),
            "goog:chromeOptions": {"args": arguments}
        }}});
        let session = browser.ask("POST", "/session", &wanted);
        session["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser.go(url);
        browser
    }

    /// Goes to another page.
    pub fn go(&self, url: &str) {
        self.command("POST", "url", &json!({ "url": url }));
    }

    /// Makes the window so many CSS pixels wide, as on a phone: what is too wide counts, and scroll bars take no room.
    pub fn width(&self, pixels: u32) {
        let metrics = json!({"width": pixels, "height": 844, "deviceScaleFactor": 1, "mobile": true});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.command("POST", "goog/cdp/execute", &command);
    }

    /// Presses keys, as WebDriver names them: text, or the private characters of special keys.
    pub fn press(&self, keys: &str) {
        let each = keys.chars().flat_map(|key| {
            [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
        });
        let actions: Vec<Value> = each.collect();
        self.command(
            "POST",
            "actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}),
        );
    }

    /// Runs JavaScript in the page; what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until JavaScript returns something true.
    pub fn wait(&self, what: &str, script: &str) -> Value {
        wait_for(what, SOON, || {
            Some(self.run(script)).filter(|v| !matches!(v, Value::Null | Value::Bool(false)))
        })
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("/session/{}/{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, text) = http(self.port, method, path, &body.to_string());
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(status, 200, "{method} {path}: {text}");
        value["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = http(self.port, "DELETE", &format!("/session/{}", self.session), "{}");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One HTTP/1.1 exchange with a server on this machine: (status, body).
pub fn http(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).expect("a reply") > 2 {}
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).expect("a status line");
    let field = |name: &str| {
        let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with(name))?;
        line.split(':').nth(1).map(|v| v.trim().to_owned())
    };
    let mut text = Vec::new();
    match field("content-length").and_then(|n| n.parse::<u64>().ok()) {
        Some(length) => reader.take(length).read_to_end(&mut text).unwrap(),
        None => reader.read_to_end(&mut text).unwrap(),
    };
    (status, String::from_utf8_lossy(&text).into_owned())
}
