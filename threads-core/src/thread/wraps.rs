//! Keys: handing epochs' keys to readers, and taking one's own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, RangeInclusive};

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder};
use leno_crdt_codec::{LogId, Seq, bug};
use leno_identity::Label;
use rand_core::CryptoRng;

use super::{
    Changes, Opened, Quarantine, Sink, Thread, ThreadEvent, WRAPS_PER_SEAT_MAX, WRAPS_PER_STEP_MAX,
};
use crate::epoch::{KeyLink, ROSTER_DOMAIN, Wrap, WrapError};
use crate::seal::EpochKey;
use crate::store::{Overlay, StoreError, Table, View, scan_prefix};
use crate::{EpochId, KeyRef, RecordRef, Role, SeatId, keys};

/// Why a wrap is not taken in.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeWrapError {
    /// The epoch is not known, or not of this key domain.
    #[error("the wrap is for an epoch that is not known")]
    UnknownEpoch,
    /// The recipient may not read: a ghost. The wrap is void.
    #[error("the wrap is for seat {seat}, which may not read")]
    Ghost {
        /// The recipient.
        seat: SeatId,
    },
    /// The peer's seat handed over [`WRAPS_PER_SEAT_MAX`] wraps of this epoch for this recipient
    /// already.
    #[error("seat {from} handed over too many wraps for seat {seat} already")]
    TooMany {
        /// The recipient.
        seat: SeatId,
        /// Who handed them over.
        from: SeatId,
    },
    /// The wrap is for this seat and does not give the epoch's key.
    #[error("the wrap for this seat is bad")]
    Bad(#[from] WrapError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Whether fences are kept where records are opened again.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Fences {
    Kept,
    Ignored,
}

/// Tells wraps of one epoch for one seat apart: the first bytes of the encapsulated key.
pub(crate) type WrapTag = [u8; 8];

/// Wraps of an epoch for a recipient, and the seat that handed each over.
pub(super) type Wrapped = BTreeMap<(EpochId, SeatId), BTreeMap<WrapTag, SeatId>>;

/// The tag of a wrap.
pub(crate) fn tag_of(wrap: &Wrap) -> WrapTag {
    let [a, b, c, d, e, f, g, h, ..] = wrap.encapsulated;
    [a, b, c, d, e, f, g, h]
}

impl Thread {
    /// Wraps the keys that are held for every reader for whom there is none yet that was made here or
    /// handed over by a reader: others may be junk. A key that another one links to needs no wrap: whoever
    /// has that one opens it. Whose grant ended by the newest stamp here gets none. If this seat itself may not
    /// read any more, it serves only those for whom there is none at all: it may be the last to hold a key.
    /// Returns how many were made: at most [`WRAPS_PER_STEP_MAX`]; the rest is left for a later call.
    pub fn wrap_missing(&mut self, rng: &mut dyn CryptoRng, changes: &mut Changes) -> usize {
        let own = self.seat.id();
        let mut made = 0;
        let readers: Vec<_> = self.governance.readers_at(self.newest).collect();
        let held: Vec<_> = self.keys.keys().copied().collect();
        let epochs = self.unlinked(&held);
        let reads = self.may_read(own);
        for epoch in epochs {
            for (seat, _) in &readers {
                let tags = self.wrapped.get(&(epoch, *seat));
                if *seat == own || tags.is_some_and(|tags| !reads || self.is_served(tags)) {
                    continue;
                }
                if made == WRAPS_PER_STEP_MAX {
                    self.wraps_due = true;
                    self.wraps_cut = true;
                    return made;
                }
                made += usize::from(self.wrap_again(epoch, *seat, rng, changes).is_some());
            }
        }
        self.wraps_due = false;
        self.wraps_cut = false;
        made
    }

    /// Of epochs whose keys are held, as few as lead to all of them by links.
    pub(crate) fn unlinked(&mut self, epochs: &[EpochId]) -> Vec<EpochId> {
        self.check_links();
        let held = epochs.iter().filter(|it| self.keys.contains_key(it));
        let mut linked = BTreeSet::new();
        for epoch in held.clone().flat_map(|it| self.links_of(it)) {
            self.reach(epoch, &mut linked);
        }
        let mut reached = BTreeSet::new();
        let mut unlinked = Vec::new();
        // Those who make keys together could link them in a circle: then one of them serves for all.
        for epoch in held.clone().filter(|it| !linked.contains(it)).chain(held) {
            if !reached.contains(epoch) {
                unlinked.push(*epoch);
                self.reach(*epoch, &mut reached);
            }
        }
        unlinked
    }

    fn links_of(&self, epoch: &EpochId) -> impl Iterator<Item = EpochId> + '_ {
        let links = self.links.get(epoch).into_iter().flatten();
        links
            .filter(|(_, opens)| **opens)
            .map(|(parent, _)| *parent)
    }

    /// Adds an epoch, and all that its key leads to.
    fn reach(&self, epoch: EpochId, reached: &mut BTreeSet<EpochId>) {
        let mut to_follow = vec![epoch];
        while let Some(epoch) = to_follow.pop() {
            if reached.insert(epoch) {
                to_follow.extend(self.links_of(&epoch));
            }
        }
    }

    /// Finds out which keys that are held link to which others, after some came.
    fn check_links(&mut self) {
        if self.links_checked == self.keys.len() {
            return;
        }
        self.links_checked = self.keys.len();
        for (epoch, (domain, key)) in &self.keys {
            let op = self.governance.epoch_in(*domain, epoch);
            for parent in op.into_iter().flat_map(|it| &it.parents) {
                let of_epoch = self.links.entry(*epoch).or_default();
                if self.keys.contains_key(&parent.epoch) && !of_epoch.contains_key(&parent.epoch) {
                    let opens = |link: KeyLink| link.open(key, parent.epoch, self.id, *domain);
                    of_epoch.insert(parent.epoch, parent.link.and_then(opens).is_some());
                }
            }
        }
    }

    /// Opens what the key of an epoch links to, and what that links to; returns all epochs whose keys came, the
    /// first one too, each with its key domain.
    fn follow_links(&mut self, from: EpochId) -> BTreeMap<EpochId, u32> {
        let mut came = BTreeMap::new();
        let mut to_follow = vec![from];
        while let Some(epoch) = to_follow.pop() {
            let Some((domain, key)) = self.keys.get(&epoch) else {
                continue;
            };
            let domain = *domain;
            came.insert(epoch, domain);
            let op = self.governance.epoch_in(domain, &epoch);
            let parents = op.into_iter().flat_map(|it| &it.parents);
            let opened = parents.filter_map(|parent| {
                let is_held = self.keys.contains_key(&parent.epoch);
                let link = parent.link.filter(|_| !is_held)?;
                let old = link.open(key, parent.epoch, self.id, domain)?;
                Some((parent.epoch, (domain, old)))
            });
            let opened: Vec<_> = opened.collect();
            to_follow.extend(opened.iter().map(|it| it.0));
            self.keys.extend(opened);
        }
        came
    }

    /// Tells whether wraps are left for the next step.
    pub(crate) fn is_wrapping(&self) -> bool {
        self.wraps_cut
    }

    /// Does [`Thread::wrap_missing`] if a key came or wraps were left since it was done.
    pub(crate) fn wrap_due(&mut self, rng: &mut dyn CryptoRng, changes: &mut Changes) -> usize {
        if self.wraps_due {
            return self.wrap_missing(rng, changes);
        }
        0
    }

    fn is_served(&self, tags: &BTreeMap<WrapTag, SeatId>) -> bool {
        tags.values().any(|by| self.may_read(*by))
    }

    /// Wraps a key that is held for a reader, whatever wraps there are: one of them may be junk.
    pub(crate) fn wrap_again(
        &mut self,
        epoch: EpochId,
        seat: SeatId,
        rng: &mut dyn CryptoRng,
        changes: &mut Changes,
    ) -> Option<Wrap> {
        let (domain, key) = self.keys.get(&epoch)?;
        let mut kems: Vec<_> = self.governance.kems_at(seat, self.newest).collect();
        if bug!(WrapForWrongSeat) {
            kems = self
                .governance
                .readers_at(self.newest)
                .map(|it| it.1)
                .collect();
        }
        // A KEM key that nothing can be wrapped to is its owner's fault alone.
        let wrap = kems
            .into_iter()
            .find_map(|kem| Wrap::seal(key, self.id, *domain, seat, &kem, rng).ok())?;
        let own = self.seat.id();
        self.keep_wrap(&wrap, own, changes);
        // Whoever asks again and again is served by the newest one.
        if let Some(tags) = self.wrapped.get_mut(&(epoch, seat)) {
            let made = tags.iter().filter(|(_, by)| **by == own);
            let older: Vec<WrapTag> = made
                .map(|(tag, _)| *tag)
                .filter(|tag| *tag != tag_of(&wrap))
                .collect();
            for tag in older {
                tags.remove(&tag);
                let key = wrap_key(self.number, &epoch, &seat, &tag);
                changes.batch.delete(Table::Wraps, key);
            }
        }
        Some(wrap)
    }

    fn may_read(&self, seat: SeatId) -> bool {
        self.governance.role(seat).is_some_and(Role::reads)
    }

    fn keep_wrap(&mut self, wrap: &Wrap, from: SeatId, changes: &mut Changes) {
        let tags = self.wrapped.entry((wrap.epoch, wrap.seat)).or_default();
        tags.insert(tag_of(wrap), from);
        self.wraps_kept += 1;
        let key = wrap_key(self.number, &wrap.epoch, &wrap.seat, &tag_of(wrap));
        changes
            .batch
            .put(Table::Wraps, key, encode_wrap(wrap, &from));
    }

    /// The epochs under which this seat may read and whose keys it does not hold, sorted by id.
    #[must_use]
    pub fn missing_keys(&self) -> Vec<EpochId> {
        let reads = self
            .governance
            .role(self.seat.id())
            .is_some_and(Role::reads);
        let epochs = self.governance.epochs().map(|it| it.epoch);
        let missing: BTreeSet<EpochId> = epochs
            .filter(|it| reads && !self.keys.contains_key(it))
            .collect();
        missing.into_iter().collect()
    }

    /// Of the missing keys as many as may be asked for at once, sorted: first those that no other missing one
    /// claims to link to.
    pub(crate) fn keys_to_ask(&self, max: usize) -> Vec<EpochId> {
        let missing = self.missing_keys();
        let ops = missing.iter().filter_map(|it| self.governance.epoch(it));
        let parents = ops.flat_map(|it| &it.parents);
        let linked: BTreeSet<_> = parents
            .filter(|it| it.link.is_some())
            .map(|it| it.epoch)
            .collect();
        let (last, first): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|it| linked.contains(it));
        let mut asked: Vec<_> = first.into_iter().chain(last).take(max).collect();
        asked.sort_unstable();
        asked
    }

    /// Names who is served with which keys here, to tell quickly whether a peer has wraps for the same.
    ///
    /// A recipient who has a wrap that was made here or handed over by a reader stands in it without
    /// saying which: several members may have made one, and nobody needs all of them. For others it
    /// names all, since they may be junk.
    #[must_use]
    pub fn wraps_digest(&self) -> [u8; 8] {
        let mut bytes = Vec::with_capacity(self.wrapped.len() * 72);
        for ((epoch, seat), tags) in &self.wrapped {
            bytes.extend_from_slice(&epoch.0);
            bytes.extend_from_slice(&seat.0);
            if !self.is_served(tags) {
                for tag in tags.keys() {
                    bytes.extend_from_slice(tag);
                }
            }
        }
        *Label::WRAPS_DIGEST
            .hash(&[&bytes])
            .first_chunk()
            .expect("a hash is longer than 8 bytes")
    }

    /// How many wraps were kept since the thread was loaded: while it stays, there are no new ones.
    pub(crate) fn wraps_kept(&self) -> u64 {
        self.wraps_kept
    }

    /// Takes in a wrap that a peer with the seat `from` handed over; tells whether it was news.
    ///
    /// A wrap for this seat is opened, checked against the epoch's commitment, and what waited for
    /// the key is opened too. Others are kept to be handed on.
    ///
    /// # Errors
    ///
    /// [`TakeWrapError`]; no key changed. A wrap that is bad for this seat is kept as evidence.
    pub fn take_wrap(
        &mut self,
        view: &dyn View,
        from: SeatId,
        wrap: &Wrap,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<bool, TakeWrapError> {
        let known = self.governance.epoch_in(wrap.domain, &wrap.epoch);
        if known.is_none() {
            return Err(TakeWrapError::UnknownEpoch);
        }
        let seat = wrap.seat;
        if self
            .governance
            .kems_at(seat, crate::Stamp::ZERO)
            .next()
            .is_none()
        {
            return Err(TakeWrapError::Ghost { seat });
        }
        let tags = self.wrapped.get(&(wrap.epoch, seat));
        if tags.is_some_and(|tags| tags.contains_key(&tag_of(wrap))) {
            return Ok(false);
        }
        let handed = tags.map_or(0, |tags| tags.values().filter(|by| **by == from).count());
        let is_full = handed >= WRAPS_PER_SEAT_MAX;
        if seat != self.seat.id() || self.keys.contains_key(&wrap.epoch) {
            if is_full {
                return Err(TakeWrapError::TooMany { seat, from });
            }
            self.keep_wrap(wrap, from, changes);
            return Ok(true);
        }
        let key = match wrap.open(self.id, &self.seat.kem) {
            Ok(key) => key,
            Err(error) => {
                // Kept as others keep it, so that it is not handed over again and again.
                if !is_full {
                    self.keep_wrap(wrap, from, changes);
                }
                return Err(error.into());
            }
        };
        self.keep_wrap(wrap, from, changes);
        self.take_key(view, wrap.domain, wrap.epoch, key, changes, sink)?;
        Ok(true)
    }

    /// All wraps that are kept here: first those that were made here or handed over by a reader, so
    /// that they come before junk wherever they are handed on.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn wraps(&self, view: &dyn View) -> Result<Vec<Wrap>, StoreError> {
        let mut wraps = Vec::new();
        let mut damaged = false;
        scan_prefix(
            view,
            Table::Wraps,
            &keys::thread(self.number),
            &mut |key, row| {
                match decode_wrap(key, row) {
                    Ok((wrap, from)) => wraps.push((!self.may_read(from), wrap)),
                    Err(_) => damaged = true,
                }
                ControlFlow::Continue(())
            },
        )?;
        if damaged {
            return Err(StoreError::Corrupt {
                what: "a key wrap".to_owned(),
            });
        }
        wraps.sort_by_key(|(is_doubtful, _)| *is_doubtful);
        Ok(wraps.into_iter().map(|(_, wrap)| wrap).collect())
    }

    pub(super) fn take_key(
        &mut self,
        view: &dyn View,
        domain: u32,
        epoch: EpochId,
        key: EpochKey,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<(), StoreError> {
        self.keys.insert(epoch, (domain, key));
        let came = self.follow_links(epoch);
        self.save(changes);
        for (epoch, domain) in &came {
            let (domain, epoch) = (*domain, *epoch);
            changes.tell(self.id, ThreadEvent::KeyCame { domain, epoch });
        }
        self.wraps_due = true;
        let overlay = Overlay::new(view, &changes.batch);
        let quarantined: BTreeSet<_> = self
            .quarantined(&overlay)?
            .into_iter()
            .map(|(record, _)| (record.log, record.seq))
            .collect();
        let gaps: Vec<LogId> = self
            .logs
            .iter()
            .filter(|(_, log)| log.gap.is_some() && !bug!(LateKeyIgnored))
            .map(|(id, _)| *id)
            .collect();
        for id in gaps {
            self.fill_gap(view, id, &came, &quarantined, changes, &mut *sink)?;
        }
        Ok(())
    }

    /// Opens the records of a log that waited for keys of epochs, but none that was put aside.
    fn fill_gap(
        &mut self,
        view: &dyn View,
        id: LogId,
        came: &BTreeMap<EpochId, u32>,
        quarantined: &BTreeSet<(LogId, Seq)>,
        changes: &mut Changes,
        sink: Sink<'_>,
    ) -> Result<(), StoreError> {
        let Some((gap, admitted)) = self
            .logs
            .get(&id)
            .and_then(|log| log.gap.map(|gap| (gap, log.admitted)))
        else {
            return Ok(());
        };
        let mut still = None;
        let mut next = gap;
        while next <= admitted {
            let mut row = None;
            let overlay = Overlay::new(view, &changes.batch);
            self.scan_rows(&overlay, &id, next, &mut |_, bytes| {
                row = Some(bytes.to_vec());
                ControlFlow::Break(())
            })?;
            let Some(row) = row else { break };
            let run = self.derive_row(id, &row)?;
            // The row that holds `next` is not here: what was found lies before it.
            if run.tip().seq < next {
                break;
            }
            for record in run.records() {
                let is_wanted = (next..=admitted).contains(&record.seq);
                if !is_wanted || quarantined.contains(&(id, record.seq)) {
                    continue;
                }
                if self.is_fenced(&id, record.seq) {
                    // It is opened if it stands again.
                    continue;
                }
                let context = run.context(record);
                let place = RecordRef {
                    log: id,
                    seq: record.seq,
                    id: record.id,
                };
                match record.key {
                    KeyRef::Control { roster: Some(of) } if came.contains_key(&of) => {
                        let sealed = record.roster.unwrap_or_default();
                        if let Some(roster) = self.open_roster(id, of, sealed, context)
                            && self.take_late_roster(view, record.id, &roster, changes)?
                        {
                            changes.tell(self.id, ThreadEvent::RosterChanged);
                        }
                    }
                    KeyRef::Data { domain, epoch: of } if came.contains_key(&of) => {
                        self.open_late(place, record, context, (domain, of), changes, &mut *sink);
                    }
                    KeyRef::Data { epoch: of, .. } | KeyRef::Control { roster: Some(of) } => {
                        if !self.keys.contains_key(&of) {
                            still = still.or(Some(record.seq));
                        }
                    }
                    KeyRef::Control { roster: None } => {}
                }
            }
            next = run.tip().seq + 1;
        }
        if let Some(log) = self.logs.get_mut(&id) {
            log.gap = still;
        }
        self.save_log(id, changes);
        Ok(())
    }

    fn open_late(
        &mut self,
        place: RecordRef,
        record: &crate::Record<'_>,
        context: &[u8],
        (domain, epoch): (u32, EpochId),
        changes: &mut Changes,
        sink: Sink<'_>,
    ) {
        let Some(sealer) = self.sealer(place.log, Some(epoch)).cloned() else {
            return;
        };
        let seat = self
            .governance
            .opening(&place.log)
            .map(|opening| opening.seat);
        if !self.is_key_of(domain, &epoch)
            || sealer
                .open(context, record.body, &mut self.scratch)
                .is_err()
        {
            if let Some(number) = self.logs.get(&place.log).map(|log| log.number) {
                self.quarantine(place, number, Quarantine::DoesNotOpen, changes);
            }
            return;
        }
        sink(&Opened {
            record: place,
            stamp: record.stamp,
            seat: seat.unwrap_or(SeatId(place.log.0)),
            domain,
            plaintext: &self.scratch,
        });
    }

    /// Opens again, for the layer above, what was admitted after `from` in a log and stands.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn replay(
        &mut self,
        view: &dyn View,
        id: LogId,
        from: Seq,
        sink: Sink<'_>,
    ) -> Result<(), StoreError> {
        let from = from.saturating_add(1);
        self.open_again(view, id, from..=Seq::MAX, Fences::Kept, sink)
    }

    /// Opens again what a part of a log says, also what lies beyond fences or is leaky: to undo it, or to show
    /// it to a person.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    pub fn open_fenced(
        &mut self,
        view: &dyn View,
        id: LogId,
        seqs: RangeInclusive<Seq>,
        sink: Sink<'_>,
    ) -> Result<(), StoreError> {
        self.open_again(view, id, seqs, Fences::Ignored, sink)
    }

    fn open_again(
        &mut self,
        view: &dyn View,
        id: LogId,
        seqs: RangeInclusive<Seq>,
        fences: Fences,
        sink: Sink<'_>,
    ) -> Result<(), StoreError> {
        // What governance alone puts aside was read before, or may be again.
        let by_governance = |reason| fences == Fences::Ignored && reason == Quarantine::Leaky;
        let quarantined: BTreeSet<_> = self
            .quarantined(view)?
            .into_iter()
            .filter(|(record, reason)| record.log == id && !by_governance(*reason))
            .map(|(record, _)| record.seq)
            .collect();
        let Some(admitted) = self
            .logs
            .get(&id)
            .filter(|log| !log.is_control)
            .map(|it| it.admitted)
        else {
            return Ok(());
        };
        let (mut next, admitted) = (*seqs.start(), admitted.min(*seqs.end()));
        let mut discarded = Changes::new();
        while next <= admitted {
            let mut row = None;
            self.scan_rows(view, &id, next, &mut |_, bytes| {
                row = Some(bytes.to_vec());
                ControlFlow::Break(())
            })?;
            let Some(row) = row else { break };
            let run = self.derive_row(id, &row)?;
            // The row that holds `next` is not here: what was found lies before it.
            if run.tip().seq < next {
                break;
            }
            for record in run.records() {
                let wanted = (next..=admitted).contains(&record.seq);
                let KeyRef::Data { domain, epoch } = record.key else {
                    continue;
                };
                let is_fenced = fences == Fences::Kept && self.is_fenced(&id, record.seq);
                if wanted && !is_fenced && !quarantined.contains(&record.seq) {
                    let place = RecordRef {
                        log: id,
                        seq: record.seq,
                        id: record.id,
                    };
                    let key = (domain, epoch);
                    let context = run.context(record);
                    self.open_late(place, record, context, key, &mut discarded, &mut *sink);
                }
            }
            next = run.tip().seq + 1;
        }
        Ok(())
    }

    /// Draws the first keys of a new thread.
    pub(super) fn first_keys(rng: &mut dyn CryptoRng) -> [(u32, EpochKey); 2] {
        [
            (ROSTER_DOMAIN, EpochKey::generate(rng)),
            (crate::THREAD_DOMAIN, EpochKey::generate(rng)),
        ]
    }
}

fn wrap_key(thread: u32, epoch: &EpochId, seat: &SeatId, tag: &WrapTag) -> Vec<u8> {
    keys::suffixed(thread, &[&epoch.0, &seat.0, tag])
}

/// The row of a wrap, of which the key names epoch and recipient: `[key domain, encapsulated key, sealed key,
/// seat that handed it over]`.
fn encode_wrap(wrap: &Wrap, from: &SeatId) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder
        .array(4)
        .uint(wrap.domain.into())
        .bytes(&wrap.encapsulated)
        .bytes(&wrap.sealed)
        .bytes(&from.0);
    encoder.into_vec()
}

fn decode_wrap(key: &[u8], row: &[u8]) -> Result<(Wrap, SeatId), DecodeError> {
    let named = key.get(4..).and_then(|named| {
        let (epoch, rest) = named.split_first_chunk()?;
        Some((EpochId(*epoch), SeatId(*rest.first_chunk()?)))
    });
    let (epoch, seat) = named.ok_or(DecodeError::OutOfBounds {
        offset: 0,
        what: "the key of a wrap",
    })?;
    let mut decoder = Decoder::new(row);
    decoder.array_of(4)?;
    let wrap = Wrap {
        domain: decoder.u32()?,
        epoch,
        seat,
        encapsulated: *decoder.fixed()?,
        sealed: *decoder.fixed()?,
    };
    let from = SeatId(*decoder.fixed()?);
    decoder.finish()?;
    Ok((wrap, from))
}

/// The wraps that are kept of a thread, and who handed each over.
pub(super) fn wrapped(view: &dyn View, thread: u32) -> Result<Wrapped, StoreError> {
    let mut wrapped = Wrapped::new();
    let mut damaged = false;
    scan_prefix(
        view,
        Table::Wraps,
        &keys::thread(thread),
        &mut |key, row| {
            match decode_wrap(key, row) {
                Ok((wrap, from)) => {
                    let of_seat: &mut BTreeMap<_, _> =
                        wrapped.entry((wrap.epoch, wrap.seat)).or_default();
                    of_seat.insert(tag_of(&wrap), from);
                }
                Err(_) => damaged = true,
            }
            ControlFlow::Continue(())
        },
    )?;
    if damaged {
        return Err(StoreError::Corrupt {
            what: "a key wrap".to_owned(),
        });
    }
    Ok(wrapped)
}
