//! A hub in a process of its own, and the requests of its accounts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leno::{Address, Card, Peer, Role, Thread, ThreadId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Long enough for what happens within a second on a quiet machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const ANN: &str = "ann's token";
pub(crate) const BOB: &str = "bob's token";
pub(crate) const OPERATOR: &str = "the operator's token";

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Song {
    pub(crate) title: String,
}

/// Writes a configuration into a folder: any free port, three accounts.
pub(crate) fn configure(folder: &Path) {
    let digits = |token: &str| -> String {
        let hash = Sha256::digest(token.as_bytes());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let account = |name: &str, token: &str, more: &str| {
        format!(
            "[[account]]\nname = \"{name}\"\ntoken_sha256 = \"{}\"\nbytes = 10_000_000\n{more}\n",
            digits(token)
        )
    };
    let text = format!(
        "folder = \"data\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n\
         listen_ws = [\"127.0.0.1:0\"]\nserve_ws = true\ncontrol = \"127.0.0.1:0\"\n\
         bytes = 1_000_000_000\n{}{}{}",
        account("ann", ANN, "threads = 2"),
        account("bob", BOB, ""),
        account("operator", OPERATOR, "operator = true"),
    );
    std::fs::write(folder.join("hub.toml"), text).unwrap();
}

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) control: SocketAddr,
    pub(crate) address: Address,
    addresses: Vec<Address>,
}

/// How a peer reaches the hub.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Network {
    Libp2p,
    /// Web sockets on a port of their own.
    Ws,
    /// Web sockets on the port of the HTTP interface.
    WsBesideHttp,
}

impl Process {
    pub(crate) fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_leno-hub"))
            .arg("--config")
            .arg(folder.join("hub.toml"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let addresses = ready["addresses"].as_array().unwrap().iter();
        let addresses: Vec<Address> = addresses.map(|it| text(it).parse().unwrap()).collect();
        Self {
            control: text(&ready["control"]).parse().unwrap(),
            address: addresses[0].clone(),
            addresses,
            child,
        }
    }

    /// Where the hub is on a network.
    pub(crate) fn address(&self, network: Network) -> Address {
        let beside = format!("ws://{}/leno/", self.control);
        let is_there = |address: &&Address| match network {
            Network::Libp2p => address.as_str().starts_with("/ip4/"),
            Network::Ws => {
                address.as_str().starts_with("ws://") && !address.as_str().starts_with(&beside)
            }
            Network::WsBesideHttp => address.as_str().starts_with(&beside),
        };
        self.addresses.iter().find(is_there).unwrap().clone()
    }

    /// As when the power goes: nothing is told, nothing is written.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to end, and checks that it does so in good order.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(asked.success());
        assert!(self.child.wait().unwrap().success());
    }

    /// One request; the status and the body.
    pub(crate) fn ask(&self, token: &str, request: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, text) = self.ask_raw(token, request, &body);
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        (status, value)
    }

    pub(crate) fn ask_raw(&self, token: &str, request: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.control).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // It may answer, and hang up, before it has read all.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.to_owned())
    }

    pub(crate) fn card(&self, token: &str) -> Card {
        let (status, answer) = self.ask(token, "POST /v1/cards", None);
        assert_eq!(status, 200, "{answer}");
        answer["card"].as_str().unwrap().parse().unwrap()
    }

    /// Has the hub carry a thread.
    pub(crate) async fn carry(&self, token: &str, thread: &Thread, role: Role) -> (u16, Value) {
        let ticket = thread.grant(&self.card(token), role).await.unwrap();
        let wish = json!({ "ticket": ticket.to_string() });
        self.ask(token, "POST /v1/threads", Some(&wish))
    }

    /// What an account sees of a thread.
    pub(crate) fn thread(&self, token: &str, id: ThreadId) -> Option<Value> {
        let (status, answer) = self.ask(token, "GET /v1/threads", None);
        assert_eq!(status, 200, "{answer}");
        let id = id.to_string();
        let mut threads = answer["threads"].as_array().unwrap().iter();
        threads.find(|thread| thread["id"] == id).cloned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer on a free port of this machine.
pub(crate) async fn peer() -> Peer {
    let builder = Peer::builder().listen(["/ip4/127.0.0.1/tcp/0"]);
    builder.start().await.unwrap()
}

/// A peer that has one network only.
pub(crate) async fn peer_on(network: Network) -> Peer {
    match network {
        Network::Libp2p => peer().await,
        Network::Ws | Network::WsBesideHttp => {
            let builder = Peer::builder().listen_ws(["127.0.0.1:0"]);
            builder.start().await.unwrap()
        }
    }
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waits = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(DEADLINE, waits).await;
    assert!(done.is_ok(), "{what} did not come about");
}
