//! What everything stands on: one hash, one signature, one pass of the cipher.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use ed25519_dalek::{Signer as _, SigningKey};
use leno_benches::Outcome;
use leno_benches::measure::{Samples, now, timed};
use leno_benches::report::{Goal, Line, Report, Unit};
use sha2::{Digest as _, Sha256};

/// Bytes of a one-op record: its plaintext, its seal context, its sealed body, its header.
const PLAINTEXT_BYTES: usize = 141;
const CONTEXT_BYTES: usize = 170;
const BODY_BYTES: usize = PLAINTEXT_BYTES + 28;
const HEADER_BYTES: usize = CONTEXT_BYTES + 39;

/// What is signed: label, thread, log, seq, record.
const HEAD: [u8; 120] = [7; 120];

/// A block of the disk.
const BLOCK_BYTES: usize = 4096;

const BLOCKS: usize = 256;

pub(crate) fn run(report: &mut Report) -> Outcome {
    let mut add = |name: &str, seconds: f64| {
        let line = Line::new(name, Unit::PerSecond, Goal::None, 1.0 / seconds);
        report.add(line);
    };
    add("floor: sha-256 of a sealed body and a header", hash()?);
    add("floor: AES-256-GCM open of a one-op record", open()?);
    add("floor: ed25519 sign", sign()?);
    add("floor: ed25519 verify, strict", verify()?);
    Ok(())
}

/// Seconds to sign a head.
pub(crate) fn sign() -> Outcome<f64> {
    let key = SigningKey::from_bytes(&[7; 32]);
    per_turn(2_000, || {
        black_box(key.sign(black_box(&HEAD)));
    })
}

/// Seconds to check a signed head by a key that is ready.
pub(crate) fn verify() -> Outcome<f64> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let (key, signature) = (key.verifying_key(), key.sign(&HEAD));
    per_turn(2_000, || {
        let _ = black_box(key.verify_strict(black_box(&HEAD), &signature));
    })
}

/// Seconds for the digests of a record's body and header.
pub(crate) fn hash() -> Outcome<f64> {
    let (body, header) = ([1; BODY_BYTES], [2; HEADER_BYTES]);
    per_turn(100_000, || {
        black_box(Sha256::digest(black_box(&body)));
        black_box(Sha256::digest(black_box(&header)));
    })
}

/// Seconds to open a one-op record with a cipher that is ready.
pub(crate) fn open() -> Outcome<f64> {
    let cipher = Aes256Gcm::new(&[7; 32].into());
    let (nonce, context) = (Nonce::from([7; 12]), [7; CONTEXT_BYTES]);
    let mut sealed = [7; PLAINTEXT_BYTES];
    let tag = cipher
        .encrypt_inout_detached(&nonce, &context, InOutBuf::from(&mut sealed[..]))
        .map_err(|error| error.to_string())?;
    per_turn(100_000, || {
        let mut plaintext = sealed;
        let buffer = InOutBuf::from(&mut plaintext[..]);
        let _ = black_box(cipher.decrypt_inout_detached(&nonce, &context, buffer, &tag));
    })
}

fn per_turn(turns: u32, mut turn: impl FnMut()) -> Outcome<f64> {
    let samples = Samples::take(9, || {
        let (time, ()) = timed(|| {
            (0..turns).for_each(|_| turn());
            Ok(())
        })?;
        Ok(time)
    })?;
    Ok(samples.best() / f64::from(turns))
}

/// A file whose blocks are there already, to be overwritten one at a time.
pub(crate) struct Disk {
    file: File,
    next: usize,
}

impl Disk {
    pub(crate) fn new(folder: &Path) -> Outcome<Self> {
        use std::io::Write as _;
        let path = folder.join("floor");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?;
        file.write_all(&vec![0; BLOCKS * BLOCK_BYTES])?;
        file.sync_all()?;
        Ok(Self { file, next: 0 })
    }

    /// Overwrites a block and waits until it is durable: the least that a durable write can cost.
    pub(crate) fn sync(&mut self) -> Outcome<Duration> {
        use std::io::{Seek as _, SeekFrom, Write as _};
        let begun = now();
        self.next = (self.next + 1) % BLOCKS;
        let offset = (self.next * BLOCK_BYTES) as u64;
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(&[7; BLOCK_BYTES])?;
        self.file.sync_data()?;
        Ok(begun.elapsed())
    }
}
