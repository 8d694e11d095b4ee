//! What the operator of a hub sets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The configuration, as it stands in the file.
///
/// # Examples
///
/// ```
/// use leno_hub::config::Config;
///
/// let config = Config::parse(
///     r#"
///     folder = "hub-data"
///     listen = ["/ip4/0.0.0.0/tcp/4001"]
///     control = "127.0.0.1:4080"
///     bytes = 1_000_000_000
///
///     [shared]
///     url = "file:///srv/leno"
///
///     [[account]]
///     name = "songbook"
///     token_sha256 = "d94772fd76a9e3a1c170673847ba8f96851fd423b1a7834871cd2c78633c7e97" # of "the token"
///     bytes = 100_000_000
///     "#,
/// )?;
/// assert_eq!(config.accounts[0].threads, 1_000);
/// # Ok::<(), leno_hub::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the hub keeps everything.
    pub folder: PathBuf,
    /// libp2p multiaddresses to listen on.
    #[serde(default = "listen_anywhere")]
    pub listen: Vec<String>,
    /// Socket addresses to listen on for web sockets, on ports of their own.
    #[serde(default)]
    pub listen_ws: Vec<SocketAddr>,
    /// Whether web sockets are served at `/leno` beside the HTTP interface too.
    #[serde(default)]
    pub serve_ws: bool,
    /// URLs at which a proxy forwards web sockets to the hub, `wss://hub.example/leno` for instance.
    #[serde(default)]
    pub announce_ws: Vec<String>,
    /// Where the HTTP interface is served. It speaks plain HTTP: to serve it beyond this machine, put a
    /// proxy in front that ends TLS.
    #[serde(default = "on_loopback")]
    pub control: SocketAddr,
    /// Most bytes of records that are promised to all accounts together.
    pub bytes: u64,
    /// A store that several hubs share, if there is one.
    pub shared: Option<SharedStore>,
    /// Who may have threads carried.
    #[serde(default, rename = "account")]
    pub accounts: Vec<Account>,
}

/// A store that several hubs share: what one of them carried, another one that is to carry it finds
/// there, also if the first one is gone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedStore {
    /// Where it is: `file:///srv/leno` for hubs of one machine, or `s3://bucket/prefix` if the hub was
    /// built with the feature `s3`. See `leno::Objects::open`.
    pub url: String,
}

/// Somebody who may have threads carried.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// What it is called in the log and in the ledger.
    pub name: String,
    /// SHA-256 of the token that its applications show, in hexadecimal digits.
    pub token_sha256: String,
    /// Most bytes of records of all its threads together.
    pub bytes: u64,
    /// Most bytes of one thread, unless less was asked for; everything that the account has by default.
    pub thread_bytes: Option<u64>,
    /// Most threads.
    #[serde(default = "threads")]
    pub threads: u32,
    /// Most logs that one thread may have.
    #[serde(default = "logs")]
    pub logs: u32,
    /// Whether it sees all threads and accounts.
    #[serde(default)]
    pub operator: bool,
}

fn listen_anywhere() -> Vec<String> {
    ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]
        .map(Into::into)
        .into()
}

fn on_loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4080))
}

fn threads() -> u32 {
    1_000
}

fn logs() -> u32 {
    1_024
}

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not what a configuration looks like.
    #[error("the configuration does not read")]
    Syntax(#[from] toml::de::Error),
    /// Web sockets are announced, and none are served.
    #[error(
        "announce_ws names where web sockets are forwarded from, but neither serve_ws nor listen_ws is set"
    )]
    NobodyServes,
    /// An account has no name, a bad token, or the name or token of another.
    #[error("account {name:?}: {what}")]
    Account {
        /// Which.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl Config {
    /// Whether the hub speaks web sockets.
    #[must_use]
    pub fn has_ws(&self) -> bool {
        self.serve_ws || !self.listen_ws.is_empty()
    }

    /// Reads a file. Relative paths in it count from where the file is.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        let mut config = Self::parse(&text)?;
        if let Some(folder) = path.parent() {
            config.folder = folder.join(&config.folder);
        }
        Ok(config)
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        if !config.announce_ws.is_empty() && !config.has_ws() {
            return Err(ConfigError::NobodyServes);
        }
        let mut names = BTreeSet::new();
        let mut tokens = BTreeSet::new();
        for account in &config.accounts {
            let bad = |what| {
                let name = account.name.clone();
                Err(ConfigError::Account { name, what })
            };
            if account.name.is_empty() || !names.insert(&account.name) {
                return bad("each account has a name of its own");
            }
            let Some(token) = account.token() else {
                return bad("token_sha256 is 64 hexadecimal digits");
            };
            if !tokens.insert(token) {
                return bad("each account has a token of its own");
            }
        }
        Ok(config)
    }

    /// The account whose token this is.
    #[must_use]
    pub fn account_of(&self, token: &str) -> Option<&Account> {
        let shown: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // All are compared, each in constant time, so that the answer's time tells nothing.
        let mut found = None;
        for account in &self.accounts {
            let is_it = account
                .token()
                .is_some_and(|token| bool::from(token.ct_eq(&shown)));
            if is_it {
                found = Some(account);
            }
        }
        found
    }
}

impl Account {
    fn token(&self) -> Option<[u8; 32]> {
        if self.token_sha256.len() != 64 || !self.token_sha256.is_ascii() {
            return None;
        }
        let mut token = [0; 32];
        let digits = self.token_sha256.as_bytes().chunks_exact(2);
        for (byte, pair) in token.iter_mut().zip(digits) {
            let pair = std::str::from_utf8(pair).ok()?;
            // `from_str_radix` takes a sign.
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(token: &str) -> String {
        let hash = Sha256::digest(token.as_bytes());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn account(name: &str, token_sha256: &str) -> String {
        format!("[[account]]\nname = {name:?}\ntoken_sha256 = {token_sha256:?}\nbytes = 10\n")
    }

    fn config(accounts: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("folder = \"data\"\nbytes = 10\n{accounts}"))
    }

    #[test]
    fn tokens_name_their_account() {
        let both = account("a", &digits("one")) + &account("b", &digits("two"));
        let config = config(&both).unwrap_or_else(|error| panic!("{error}"));
        let name = |token| config.account_of(token).map(|it| it.name.as_str());
        assert_eq!(
            (name("one"), name("two"), name("three")),
            (Some("a"), Some("b"), None)
        );
    }

    #[test]
    fn bad_accounts_are_named() {
        let good = digits("one");
        for (accounts, expected) in [
            (account("", &good), "each account has a name of its own"),
            (
                account("a", &good) + &account("a", &digits("two")),
                "each account has a name of its own",
            ),
            (account("a", "12"), "token_sha256 is 64 hexadecimal digits"),
            (
                account("a", &"+1".repeat(32)),
                "token_sha256 is 64 hexadecimal digits",
            ),
            (
                account("a", &good) + &account("b", &good),
                "each account has a token of its own",
            ),
        ] {
            let Err(ConfigError::Account { what, .. }) = config(&accounts) else {
                panic!("{accounts} was taken");
            };
            assert_eq!(what, expected);
        }
        assert!(matches!(config("listn = []"), Err(ConfigError::Syntax(_))));
        let nobody = config("announce_ws = [\"wss://hub.example/leno\"]");
        assert!(matches!(nobody, Err(ConfigError::NobodyServes)));
    }
}
