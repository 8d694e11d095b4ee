//! Making a thread, keeping it, and loading it again.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Stamp, bug};
use leno_identity::{AgreementKey, SigningKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::append::DataWriter;
use super::log::{Log, Origin, id_of_row};
use super::wraps::wrapped;
use super::{AppendError, Changes, Roster, Seat, Thread};
use crate::acl::{ControlRecord, Governance};
use crate::control::{EpochOp, FrameOp, RosterOp, decode_frame};
use crate::frontier::Frontier;
use crate::seal::{EpochKey, NonceSecret, Padding, ServiceKey};
use crate::store::{StoreError, Table, View, scan_prefix};
use crate::{EpochId, Genesis, Now, Policy, RecordId, RecordRef, Suite, ThreadId, Tip, keys};

/// Why a thread does not load.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no thread of this number.
    #[error("there is no thread of this number in the store")]
    NotHere,
    /// A genesis is not that of the thread.
    #[error("the genesis is not that of the thread")]
    WrongGenesis,
    /// The store failed, or a row does not read as written.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

fn damaged(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        what: format!("a row of a thread: {error}"),
    }
}

impl Thread {
    /// Makes a thread whose owner is this peer's seat.
    ///
    /// `number` is one that no thread in the store has; `about` is stated in the first roster part,
    /// beside the first epochs of both key domains.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the first control record cannot be written.
    ///
    /// # Examples
    ///
    /// ```
    /// # use leno_identity::{AgreementKey, SigningKey};
    /// # use leno_threads_core::store::{MemoryStore, Store};
    /// # use leno_threads_core::thread::{Changes, Seat, Thread};
    /// # use leno_threads_core::*;
    /// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut rng = ChaCha20Rng::seed_from_u64(1);
    /// # let mut new_seat = || -> Result<Seat, leno_identity::KeyError> {
    /// #     let signing = SigningKey::generate(&mut rng)?;
    /// #     let kem = AgreementKey::generate(&mut rng)?;
    /// #     Ok(Seat { signing, kem })
    /// # };
    /// # let (seat, other) = (new_seat()?, new_seat()?);
    /// # let (store, now_millis) = (MemoryStore::new(), 1_700_000_000_000);
    /// # let (mut changes, secret) = (Changes::new(), NonceSecret::new(&[7; 32]));
    /// # let (view, suite) = (store.view()?, Suite::Aes256Gcm);
    /// let about = [RosterOp::Name("band".to_owned())];
    /// let band =
    ///     Thread::create(&*view, 0, seat, secret, suite, &about, now_millis, &mut rng, &mut changes)?;
    /// assert_eq!(band.roster().name(), Some("band"));
    /// assert_eq!(band.governance().role(band.seat().id()), Some(Role::Owner));
    /// # Ok(())
    /// # }
    /// ```
    #[expect(
        clippy::too_many_arguments,
        reason = "everything that a thread begins with"
    )]
    pub fn create(
        view: &dyn View,
        number: u32,
        seat: Seat,
        nonce_secret: NonceSecret,
        suite: Suite,
        about: &[RosterOp],
        now: impl Into<Now>,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Result<Self, AppendError> {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let genesis = Genesis {
            owner: seat.id(),
            owner_kem: seat.kem.public_key().to_bytes(),
            suite,
            policy: Policy::Standard,
            nonce,
        };
        let service = ServiceKey::generate(rng);
        let mut thread = Self::begin(number, genesis, service, seat, nonce_secret);
        let mut frame = Vec::new();
        let mut roster_epoch = None;
        for (domain, key) in Self::first_keys(rng) {
            let epoch = key.id(thread.id, domain);
            frame.push(FrameOp::Epoch(EpochOp {
                domain,
                epoch,
                parents: Vec::new(),
            }));
            roster_epoch = roster_epoch.or(Some(epoch));
            thread.keys.insert(epoch, (domain, key));
        }
        let log = thread.seat.id().control_log();
        let ops = (frame.as_slice(), about);
        thread.govern_under(view, log, roster_epoch, ops, now.into(), rng, changes)?;
        thread.save(changes);
        Ok(thread)
    }

    /// Begins to follow a thread whose genesis a peer handed over.
    ///
    /// # Errors
    ///
    /// [`LoadError::WrongGenesis`] if it is not that of `id`.
    pub fn join(
        number: u32,
        id: ThreadId,
        genesis: &[u8],
        service: ServiceKey,
        seat: Seat,
        nonce_secret: NonceSecret,
        changes: &mut Changes,
    ) -> Result<Self, LoadError> {
        let decoded = Genesis::decode(genesis).map_err(|_| LoadError::WrongGenesis)?;
        if ThreadId::of(genesis) != id {
            return Err(LoadError::WrongGenesis);
        }
        let thread = Self::begin(number, decoded, service, seat, nonce_secret);
        thread.save(changes);
        thread.save_log(thread.genesis.owner.control_log(), changes);
        Ok(thread)
    }

    fn begin(
        number: u32,
        genesis: Genesis,
        service: ServiceKey,
        seat: Seat,
        nonce_secret: NonceSecret,
    ) -> Self {
        let governance = Governance::new(&genesis);
        let id = genesis.thread();
        let mut thread = Self {
            id,
            number,
            service,
            seat,
            nonce_secret,
            padding: Padding::default(),
            governance,
            roster: Roster::default(),
            control_rows: 0,
            keys: BTreeMap::new(),
            wrapped: BTreeMap::new(),
            wraps_kept: 0,
            links: BTreeMap::new(),
            links_checked: 0,
            wraps_due: true,
            wraps_cut: false,
            sealers: HashMap::new(),
            logs: BTreeMap::new(),
            numbers: BTreeMap::new(),
            ids: BTreeMap::new(),
            forked: BTreeMap::new(),
            writer: None,
            retired: None,
            admissions: 0,
            newest: Stamp::ZERO,
            is_releasing: false,
            stored_bytes: 0,
            quota: None,
            scratch: Zeroizing::new(Vec::new()),
            limits: super::Limits::default(),
            #[cfg(feature = "test-util")]
            derived: 0.into(),
            genesis,
        };
        let owner = thread.genesis.owner.control_log();
        let opened = Tip::opened_by(id.into(), Stamp::ZERO);
        let origin = Origin {
            is_control: true,
            tip: opened,
            past: Frontier::new(),
            expires: None,
        };
        thread.add_log(owner, origin);
        thread
    }

    /// Adds the row that keeps genesis, keys and seat to the changes.
    ///
    /// Shape: `[genesis, service key, seat secret, KEM secret, [[domain, epoch, key]..], writer]`,
    /// where the writer is null or `[log secret, incarnation]`, then the retired incarnation or null.
    pub(super) fn save(&self, changes: &mut Changes) {
        let mut encoder = Encoder::new();
        encoder
            .array(7)
            .bytes(&self.genesis.encode())
            .bytes(self.service.expose())
            .bytes(&*self.seat.signing.to_secret_bytes())
            .bytes(&*self.seat.kem.to_secret_bytes())
            .array(self.keys.len());
        for (epoch, (domain, key)) in &self.keys {
            encoder
                .array(3)
                .uint((*domain).into())
                .bytes(&epoch.0)
                .bytes(key.expose());
        }
        match &self.writer {
            Some(writer) => encoder
                .array(2)
                .bytes(&*writer.key.to_secret_bytes())
                .uint(writer.incarnation),
            None => encoder.null(),
        };
        match self.retired {
            Some(incarnation) => encoder.uint(incarnation),
            None => encoder.null(),
        };
        changes.batch.put(
            Table::Threads,
            keys::thread(self.number),
            encoder.into_vec(),
        );
    }

    /// Loads a thread. The cost follows the numbers of logs and control records, not of data.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load(
        view: &dyn View,
        number: u32,
        nonce_secret: NonceSecret,
    ) -> Result<Self, LoadError> {
        let row = view
            .get(Table::Threads, &keys::thread(number))?
            .ok_or(LoadError::NotHere)?;
        let row = Zeroizing::new(row);
        let kept = KeptThread::decode(&row).map_err(|error| damaged(&error))?;
        let mut thread = Self::begin(number, kept.genesis, kept.service, kept.seat, nonce_secret);
        thread.keys = kept.keys;
        thread.writer = kept
            .writer
            .map(|(key, incarnation)| DataWriter::new(key, incarnation));
        thread.retired = kept.retired;
        let logs = thread.load_logs(view)?;
        thread.load_control(view)?;
        thread.wrapped = wrapped(view, number)?;
        let forks = thread.forks(view)?;
        for proof in forks {
            thread.note_fork(proof.log(), proof.seq());
        }
        thread.build_roster(view, &Changes::new())?;
        for (id, mut log) in logs {
            if !bug!(ClockGoesBack) {
                thread.newest = thread.newest.max(log.admitted_stamp);
            }
            if log.tip.seq == 0 {
                // Where an empty log may begin is told by governance alone.
                continue;
            }
            if let Some(fresh) = thread.logs.get(&id) {
                log.adopt(fresh);
            }
            if !log.is_control {
                thread.governance.settle(id, &log.origin);
            }
            thread.stored_bytes = thread.stored_bytes.saturating_add(log.bytes);
            thread.logs.insert(id, log);
        }
        thread.fence_all(view)?;
        Ok(thread)
    }

    fn load_logs(&mut self, view: &dyn View) -> Result<BTreeMap<LogId, Log>, StoreError> {
        let mut rows = Vec::new();
        scan_prefix(
            view,
            Table::Logs,
            &keys::thread(self.number),
            &mut |key, row| {
                let number = key.last_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                rows.push((number.unwrap_or_default(), row.to_vec()));
                ControlFlow::Continue(())
            },
        )?;
        let mut ids = BTreeMap::new();
        for (number, row) in &rows {
            let id = id_of_row(row).map_err(|error| damaged(&error))?;
            ids.insert(*number, id);
            self.numbers.insert(id, *number);
        }
        self.ids.clone_from(&ids);
        let mut logs = BTreeMap::new();
        for (number, row) in &rows {
            let (id, log) =
                Log::decode(row, *number, self.id, &ids).map_err(|error| damaged(&error))?;
            logs.insert(id, log);
        }
        Ok(logs)
    }

    /// Lets the kept control records change governance again, in the order of their admission.
    fn load_control(&mut self, view: &dyn View) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        scan_prefix(
            view,
            Table::Governance,
            &keys::thread(self.number),
            &mut |_, row| {
                rows.push(row.to_vec());
                ControlFlow::Continue(())
            },
        )?;
        for row in rows {
            let kept = KeptControl::decode(&row).map_err(|error| damaged(&error))?;
            let ops = decode_frame(kept.frame).map_err(|error| damaged(&error))?;
            let record = ControlRecord {
                place: kept.place,
                stamp: kept.stamp,
                past: kept.past,
                ops,
            };
            self.apply_control(&record);
            self.control_rows += 1;
        }
        Ok(())
    }

    /// Lets all roster parts that were opened speak again, as far as their records stand now; tells
    /// whether the roster is another one by that.
    pub(super) fn build_roster(
        &mut self,
        view: &dyn View,
        changes: &Changes,
    ) -> Result<bool, StoreError> {
        let overlay = crate::store::Overlay::new(view, &changes.batch);
        let mut rows = Vec::new();
        let prefix = keys::thread(self.number);
        scan_prefix(&overlay, Table::Governance, &prefix, &mut |_, row| {
            rows.push(row.to_vec());
            ControlFlow::Continue(())
        })?;
        let before = std::mem::take(&mut self.roster);
        for row in rows {
            let kept = KeptControl::decode(&row).map_err(|error| damaged(&error))?;
            if let Some(roster) = kept.roster {
                self.apply_roster(kept.place, kept.stamp, roster);
            }
        }
        Ok(self.roster != before)
    }

    /// Adds the row that keeps an admitted control record.
    pub(super) fn save_control(
        &mut self,
        record: &ControlRecord,
        frame: &[u8],
        roster: Option<&[u8]>,
        changes: &mut Changes,
    ) {
        let kept = KeptControl {
            place: record.place,
            stamp: record.stamp,
            past: record.past.clone(),
            frame,
            roster,
        };
        let key = keys::suffixed(self.number, &[&self.control_rows.to_be_bytes()]);
        if !bug!(GovernanceNotKept) {
            changes.batch.put(Table::Governance, key, kept.encode());
        }
        self.control_rows += 1;
    }

    /// Lets a roster part that opened late speak, and adds it to the row of its record; tells
    /// whether it is news.
    pub(super) fn take_late_roster(
        &mut self,
        view: &dyn View,
        record: RecordId,
        roster: &[u8],
        changes: &mut Changes,
    ) -> Result<bool, StoreError> {
        let overlay = crate::store::Overlay::new(view, &changes.batch);
        let mut found = None;
        let prefix = keys::thread(self.number);
        scan_prefix(
            &overlay,
            Table::Governance,
            &prefix,
            &mut |key, row| match KeptControl::decode(row) {
                Ok(kept) if kept.place.id == record => {
                    found = Some((key.to_vec(), row.to_vec()));
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            },
        )?;
        let Some((key, row)) = found else {
            return Ok(false);
        };
        let kept = KeptControl::decode(&row).map_err(|error| damaged(&error))?;
        let kept = KeptControl {
            roster: Some(roster),
            ..kept
        };
        changes.batch.put(Table::Governance, key, kept.encode());
        Ok(self.apply_roster(kept.place, kept.stamp, roster))
    }
}

struct KeptThread {
    genesis: Genesis,
    service: ServiceKey,
    seat: Seat,
    keys: BTreeMap<EpochId, (u32, EpochKey)>,
    writer: Option<(SigningKey, u64)>,
    retired: Option<u64>,
}

impl KeptThread {
    fn decode(row: &[u8]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut decoder = Decoder::new(row);
        decoder.array_of(7)?;
        let genesis = Genesis::decode(decoder.bytes()?)?;
        let service = ServiceKey::from_bytes(*decoder.fixed()?);
        let signing = SigningKey::from_secret_bytes(decoder.fixed()?)?;
        let kem = AgreementKey::from_secret_bytes(decoder.fixed()?)?;
        let mut keys = BTreeMap::new();
        for _ in 0..decoder.array()? {
            decoder.array_of(3)?;
            let domain = decoder.u32()?;
            let epoch = EpochId(*decoder.fixed()?);
            keys.insert(epoch, (domain, EpochKey::from_bytes(*decoder.fixed()?)));
        }
        let writer = if decoder.null()? {
            None
        } else {
            decoder.array_of(2)?;
            Some((
                SigningKey::from_secret_bytes(decoder.fixed()?)?,
                decoder.uint()?,
            ))
        };
        let retired = if decoder.null()? {
            None
        } else {
            Some(decoder.uint()?)
        };
        decoder.finish()?;
        Ok(Self {
            genesis,
            service,
            seat: Seat { signing, kem },
            keys,
            writer,
            retired,
        })
    }
}

/// An admitted control record as it is kept:
/// `[place, stamp, [log, seq, log, seq, ..], frame, roster part or null]`.
pub(super) struct KeptControl<'a> {
    pub(super) place: RecordRef,
    pub(super) stamp: Stamp,
    past: Frontier,
    pub(super) frame: &'a [u8],
    roster: Option<&'a [u8]>,
}

impl<'a> KeptControl<'a> {
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(5);
        self.place.encode(&mut encoder);
        encoder.uint(self.stamp.0);
        encoder.array(self.past.iter().count() * 2);
        for (log, seq) in self.past.iter() {
            encoder.bytes(&log.0).uint(seq);
        }
        encoder.bytes(self.frame);
        match self.roster {
            Some(roster) => encoder.bytes(roster),
            None => encoder.null(),
        };
        encoder.into_vec()
    }

    pub(super) fn decode(row: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(row);
        decoder.array_of(5)?;
        let place = RecordRef::decode(&mut decoder)?;
        let stamp = Stamp(decoder.uint()?);
        let mut past = Frontier::new();
        for _ in 0..decoder.array()? / 2 {
            past.raise(LogId(*decoder.fixed()?), decoder.uint()?);
        }
        let frame = decoder.bytes()?;
        let roster = if decoder.null()? {
            None
        } else {
            Some(decoder.bytes()?)
        };
        decoder.finish()?;
        Ok(Self {
            place,
            stamp,
            past,
            frame,
            roster,
        })
    }
}
