//! The bytes of a state.
//!
//! Strict dag-cbor; each list has its items in the order given, without gaps:
//!
//! | part | is |
//! |---|---|
//! | state | `[1, logs, deleted, [life, ..]]`; `logs` ascending, 32 bytes each; lives ascending |
//! | life | `[number, [create, ..], fields]`; creates ascending by log |
//! | create | `[place, nonce or null]` |
//! | place | `[log, seq, index, stamp]`; `log` is an index into `logs` everywhere |
//! | fields | `{name: field, ..}` |
//! | field | `[facet, content, ..]`, facets ascending and none empty |
//! | facet 0, register | writes: `[write, .., claims]`, writes ascending by log |
//! | facet 1, counter | an integer, or 16 bytes of i128 big-endian if it is outside i64 |
//! | facets 2, 3: max, min | `[number, place]` |
//! | facet 4, set | `[[value, added, marks], ..]` ascending by the bytes of the values |
//! | facet 5, map | fields |
//! | facet 6, list | `[[position, log, seq, index, writes], ..]` ascending by position, log, seq, index |
//! | facet 7, presence | marks: `[mark, .., claims]`, marks ascending by log |
//! | write | `[log, seq, index, stamp, value]`, without `value` for "absent", without both if replaced |
//! | mark | `[log, seq, index, stamp]`, without `stamp` if replaced |
//! | claims | `[[log, seq, index, stamp of the op that claims], ..]` ascending by log, seq, index; left out if empty |
//!
//! A claim reaches beyond the write or mark of its log, and has a lower stamp than the claim before it
//! in the same log. A write that shows has no lower a stamp than the claims of its log.

use std::collections::BTreeMap;

use super::{Creation, Extreme, Facets, Field, Fields, Life, Member, State, each_log};
use crate::cbor::{DEPTH_MAX, DecodeError, Decoder, Encoder, Kind, key_order};
use crate::json::dots::{Claim, Claims, Content, Dots, Entry, Write};
use crate::json::name::Name;
use crate::json::op::{ElementId, PATH_SEGMENTS_MAX, decode_number, decode_position};
use crate::json::value::Value;
use crate::{Dot, LogId, Place, Stamp};

/// The version of this layout.
const VERSION: u64 = 1;

const REGISTER: u64 = 0;
const COUNTER: u64 = 1;
const MAX: u64 = 2;
const MIN: u64 = 3;
const SET: u64 = 4;
const MAP: u64 = 5;
const LIST: u64 = 6;
const PRESENCE: u64 = 7;

impl State {
    /// Encodes it; equal states give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let logs = self.logs();
        let mut writer = Writer {
            out: Encoder::new(),
            logs: &logs,
        };
        writer.out.array(4).uint(VERSION).array(logs.len());
        for log in &logs {
            writer.out.bytes(log.as_bytes());
        }
        writer.out.uint(self.deleted).array(self.lives.len());
        for life in &self.lives {
            writer.life(life);
        }
        writer.out.into_vec()
    }

    /// Decodes it, strictly.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes)?;
        let offset = reader.input.offset();
        let deleted = reader.input.uint()?;
        let mut lives: Vec<Life> = Vec::new();
        for _ in 0..reader.input.array()? {
            let offset = reader.input.offset();
            let life = reader.life()?;
            let least = lives.last().map_or(deleted, |life| life.number);
            // A create drops the lives below it.
            let dropped = !lives.is_empty() && !life.creates.is_empty();
            if life.number <= least || dropped {
                return Err(out_of_bounds(offset, "the order of lives"));
            }
            lives.push(life);
        }
        let state = Self { deleted, lives };
        if !reader.used.iter().all(|used| *used) {
            return Err(out_of_bounds(offset, "a log that nothing names"));
        }
        reader.input.finish()?;
        Ok(state)
    }

    fn logs(&self) -> Vec<LogId> {
        let mut logs: Vec<LogId> = Vec::new();
        let mut visit = |log| {
            // Most neighbours are of one log.
            if logs.last() != Some(&log) {
                logs.push(log);
            }
        };
        for life in &self.lives {
            life.creates.iter().for_each(|it| visit(it.place.dot.log));
            each_log(&life.fields, &mut visit);
        }
        logs.sort_unstable();
        logs.dedup();
        logs
    }
}

struct Writer<'a> {
    out: Encoder,
    logs: &'a [LogId],
}

impl Writer<'_> {
    fn life(&mut self, life: &Life) {
        self.out.array(3).uint(life.number);
        self.out.array(life.creates.len());
        for creation in &life.creates {
            self.out.array(2);
            self.place(&creation.place);
            match &creation.nonce {
                Some(nonce) => self.out.bytes(nonce),
                None => self.out.null(),
            };
        }
        self.fields(&life.fields);
    }

    fn fields(&mut self, fields: &Fields) {
        self.out.map(fields.len());
        let mut fields: Vec<_> = fields
            .iter()
            .map(|(name, it)| (name.as_str(), it))
            .collect();
        fields.sort_by(|(a, _), (b, _)| key_order(a, b));
        for (name, field) in fields {
            self.out.text(name);
            self.field(field);
        }
    }

    fn field(&mut self, field: &Field) {
        let empty = Facets::default();
        let facets = field.facets.as_deref().unwrap_or(&empty);
        let present = [
            !field.register.is_empty(),
            facets.counter.is_some(),
            facets.max.is_some(),
            facets.min.is_some(),
            !facets.set.is_empty(),
            !facets.map.is_empty(),
            !facets.list.is_empty(),
            !facets.presence.is_empty(),
        ];
        self.out
            .array(2 * present.into_iter().filter(|it| *it).count());
        if !field.register.is_empty() {
            self.out.uint(REGISTER);
            self.writes(&field.register);
        }
        if let Some(counter) = facets.counter {
            self.out.uint(COUNTER);
            match i64::try_from(counter) {
                Ok(counter) => self.out.int(counter),
                Err(_) => self.out.bytes(&counter.to_be_bytes()),
            };
        }
        for (facet, extreme) in [(MAX, &facets.max), (MIN, &facets.min)] {
            if let Some(extreme) = extreme {
                self.out.uint(facet).array(2).raw(extreme.value.as_bytes());
                self.place(&extreme.place);
            }
        }
        if !facets.set.is_empty() {
            self.out.uint(SET).array(facets.set.len());
            for (value, member) in &facets.set {
                self.out.array(3).raw(value.as_bytes()).bool(member.added);
                self.marks(&member.dots);
            }
        }
        if !facets.map.is_empty() {
            self.out.uint(MAP);
            self.fields(&facets.map);
        }
        if !facets.list.is_empty() {
            self.out.uint(LIST).array(facets.list.len());
            for (element, writes) in &facets.list {
                self.out.array(5).bytes(element.position.as_bytes());
                self.dot(&element.dot);
                self.writes(writes);
            }
        }
        if !facets.presence.is_empty() {
            self.out.uint(PRESENCE);
            self.marks(&facets.presence);
        }
    }

    fn writes(&mut self, dots: &Dots<Write<Value>>) {
        self.dots(dots, |write| write.value.as_ref());
    }

    fn marks(&mut self, dots: &Dots<Stamp>) {
        self.dots(dots, |_| None);
    }

    fn dots<T: Content>(&mut self, dots: &Dots<T>, value: impl Fn(&T) -> Option<&Value>) {
        let claims = dots.claims();
        self.out
            .array(dots.entries().len() + usize::from(!claims.is_empty()));
        for entry in dots.entries() {
            let content = entry.content.as_ref();
            let value = content.and_then(&value);
            let behind = usize::from(content.is_some()) + usize::from(value.is_some());
            self.out.array(3 + behind);
            self.dot(&entry.dot());
            if let Some(content) = content {
                self.out.uint(content.stamp().0);
            }
            if let Some(value) = value {
                self.out.raw(value.as_bytes());
            }
        }
        if !claims.is_empty() {
            self.out.array(claims.len());
            for Claim { dot, stamp } in claims {
                let (dot, stamp) = (*dot, *stamp);
                self.place(&Place { stamp, dot });
            }
        }
    }

    fn place(&mut self, place: &Place) {
        self.out.array(4);
        self.dot(&place.dot);
        self.out.uint(place.stamp.0);
    }

    /// Three items of the list around it.
    fn dot(&mut self, dot: &Dot) {
        let log = self.logs.binary_search(&dot.log);
        let log = log.expect("the table holds every log of the state");
        self.out
            .uint(log as u64)
            .uint(dot.seq)
            .uint(dot.index.into());
    }
}

struct Reader<'a> {
    input: Decoder<'a>,
    logs: Vec<LogId>,
    used: Vec<bool>,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        input.array_of(4)?;
        let offset = input.offset();
        if input.uint()? != VERSION {
            return Err(out_of_bounds(offset, "the version of a state"));
        }
        let offset = input.offset();
        let mut logs = Vec::new();
        for _ in 0..input.array()? {
            logs.push(LogId(*input.fixed()?));
        }
        if !logs.is_sorted_by(|a, b| a < b) {
            return Err(out_of_bounds(offset, "the order of logs"));
        }
        Ok(Self {
            input,
            used: vec![false; logs.len()],
            logs,
        })
    }

    fn life(&mut self) -> Result<Life, DecodeError> {
        let offset = self.input.offset();
        self.input.array_of(3)?;
        let number = self.input.uint()?;
        let creates = self.list(Self::creation, |a, b| a.place.dot.log < b.place.dot.log)?;
        let fields = self.fields(0)?;
        if creates.is_empty() && fields.is_empty() {
            return Err(out_of_bounds(offset, "an empty life"));
        }
        Ok(Life {
            number,
            creates,
            fields,
        })
    }

    fn creation(&mut self) -> Result<Creation, DecodeError> {
        self.input.array_of(2)?;
        let place = self.place()?;
        let nonce = match self.input.null()? {
            true => None,
            false => Some(*self.input.fixed()?),
        };
        Ok(Creation { place, nonce })
    }

    /// Reads a list whose items are in strictly ascending order.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
        ascends: impl Fn(&T, &T) -> bool,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.input.array()?;
        // Exact for what is usual, and no more than that is believed.
        let mut items: Vec<T> = Vec::with_capacity(count.min(4));
        for _ in 0..count {
            let offset = self.input.offset();
            let item = item(self)?;
            if items.last().is_some_and(|last| !ascends(last, &item)) {
                return Err(out_of_bounds(offset, "the order of a list"));
            }
            items.push(item);
        }
        Ok(items)
    }

    fn fields(&mut self, above: usize) -> Result<Fields, DecodeError> {
        let offset = self.input.offset();
        if above >= PATH_SEGMENTS_MAX {
            return Err(DecodeError::TooDeep { offset });
        }
        let mut fields = BTreeMap::new();
        let mut previous = None;
        for _ in 0..self.input.map()? {
            let name = self.input.key(previous)?;
            fields.insert(Name::new(name), self.field(above + 1)?);
            previous = Some(name);
        }
        Ok(fields)
    }

    /// Reads a field at a path of `segments` keys.
    fn field(&mut self, segments: usize) -> Result<Field, DecodeError> {
        let offset = self.input.offset();
        let depth = DEPTH_MAX - segments;
        let items = self.input.array()?;
        if items == 0 || items % 2 != 0 {
            return Err(out_of_bounds(offset, "the length of a field"));
        }
        let mut field = Field::default();
        let mut least = 0;
        for _ in 0..items / 2 {
            let offset = self.input.offset();
            let facet = self.input.uint()?;
            if facet < least || facet > PRESENCE {
                return Err(out_of_bounds(offset, "the order of facets"));
            }
            least = facet + 1;
            let is_empty = match facet {
                REGISTER => {
                    field.register = self.writes(depth)?;
                    field.register.is_empty()
                }
                facet => self.facet(field.facets.get_or_insert_default(), facet, segments)?,
            };
            if is_empty {
                return Err(out_of_bounds(offset, "an empty facet"));
            }
        }
        Ok(field)
    }

    /// Reads one facet and tells whether it is empty.
    fn facet(
        &mut self,
        facets: &mut Facets,
        facet: u64,
        segments: usize,
    ) -> Result<bool, DecodeError> {
        let depth = DEPTH_MAX - segments - 1;
        Ok(match facet {
            COUNTER => {
                facets.counter = Some(self.counter()?);
                false
            }
            MAX => {
                facets.max = Some(self.extreme()?);
                false
            }
            MIN => {
                facets.min = Some(self.extreme()?);
                false
            }
            SET => {
                let members = self.list(|it| it.member(depth), |a, b| a.0 < b.0)?;
                facets.set = members.into_iter().collect();
                facets.set.is_empty()
            }
            MAP => {
                facets.map = self.fields(segments)?;
                facets.map.is_empty()
            }
            LIST => {
                let elements = self.list(|it| it.element(depth), |a, b| a.0 < b.0)?;
                facets.list = elements.into_iter().collect();
                facets.list.is_empty()
            }
            _ => {
                facets.presence = self.marks()?;
                facets.presence.is_empty()
            }
        })
    }

    fn counter(&mut self) -> Result<i128, DecodeError> {
        let offset = self.input.offset();
        if self.input.peek()? != Kind::Bytes {
            return self.input.int().map(i128::from);
        }
        let counter = i128::from_be_bytes(*self.input.fixed()?);
        if i64::try_from(counter).is_ok() {
            return Err(DecodeError::NotMinimal { offset });
        }
        Ok(counter)
    }

    fn extreme(&mut self) -> Result<Extreme, DecodeError> {
        self.input.array_of(2)?;
        Ok(Extreme {
            value: decode_number(&mut self.input)?,
            place: self.place()?,
        })
    }

    fn member(&mut self, depth: usize) -> Result<(Value, Member), DecodeError> {
        let offset = self.input.offset();
        self.input.array_of(3)?;
        let value = Value::decode(&mut self.input, depth)?;
        let added = self.input.bool()?;
        let dots = self.marks()?;
        if dots.is_empty() || (dots.is_visible() && !added) {
            return Err(out_of_bounds(offset, "an element of a set"));
        }
        Ok((value, Member { added, dots }))
    }

    fn element(&mut self, depth: usize) -> Result<(ElementId, Dots<Write<Value>>), DecodeError> {
        let offset = self.input.offset();
        self.input.array_of(5)?;
        let position = decode_position(&mut self.input)?;
        let dot = self.dot()?;
        let writes = self.writes(depth)?;
        if writes.is_empty() {
            return Err(out_of_bounds(offset, "an element of a list"));
        }
        Ok((ElementId { position, dot }, writes))
    }

    fn writes(&mut self, depth: usize) -> Result<Dots<Write<Value>>, DecodeError> {
        self.dots(|reader, behind| {
            let stamp = Stamp(reader.input.uint()?);
            let value = match behind {
                1 => None,
                2 => Some(Value::decode(&mut reader.input, depth)?),
                _ => return Ok(None),
            };
            Ok(Some(Write { stamp, value }))
        })
    }

    fn marks(&mut self) -> Result<Dots<Stamp>, DecodeError> {
        self.dots(|reader, behind| {
            let stamp = Stamp(reader.input.uint()?);
            Ok((behind == 1).then_some(stamp))
        })
    }

    /// Reads entries and the claims behind them. `content` is told how many items follow the dot,
    /// and has nothing for a number that no entry has.
    fn dots<T: Content>(
        &mut self,
        content: impl Fn(&mut Self, usize) -> Result<Option<T>, DecodeError>,
    ) -> Result<Dots<T>, DecodeError> {
        let count = self.input.array()?;
        // Exact for what is usual, and no more than that is believed.
        let mut entries: Vec<Entry<T>> = Vec::with_capacity(count.min(4));
        let mut claims = None;
        for _ in 0..count {
            let offset = self.input.offset();
            let items = self.input.array()?;
            let ended = claims.is_some();
            if self.input.peek()? == Kind::Array && !ended {
                claims = self.claims(items, &entries)?;
                continue;
            }
            let Dot { log, seq, index } = self.dot()?;
            let content = match items {
                3 => None,
                items => match content(self, items.saturating_sub(3))? {
                    Some(content) => Some(content),
                    None => return Err(out_of_bounds(offset, "the length of a write")),
                },
            };
            if ended || entries.last().is_some_and(|last| last.log >= log) {
                return Err(out_of_bounds(offset, "the order of a list"));
            }
            entries.push(Entry {
                log,
                seq,
                index,
                content,
            });
        }
        Ok(Dots::from_sorted(entries, claims))
    }

    fn claims<T: Content>(
        &mut self,
        count: usize,
        entries: &[Entry<T>],
    ) -> Result<Option<Box<Claims>>, DecodeError> {
        let offset = self.input.offset();
        let mut claims: Vec<Claim> = Vec::new();
        for _ in 0..count {
            let Place { stamp, dot } = self.place()?;
            let follows = claims.last().is_none_or(|last| {
                let is_next = last.dot.place() < dot.place() && last.stamp > stamp;
                last.dot.log < dot.log || (last.dot.log == dot.log && is_next)
            });
            let entry = entries.binary_search_by_key(&dot.log, |entry| entry.log);
            let entry = entry.ok().and_then(|at| entries.get(at));
            let reaches_beyond = entry.is_none_or(|entry| {
                let shows = entry.content.as_ref();
                let hides = shows.is_some_and(|content| content.stamp() < stamp);
                entry.dot().place() < dot.place() && !hides
            });
            if !follows || !reaches_beyond {
                return Err(out_of_bounds(offset, "a claim"));
            }
            claims.push(Claim { dot, stamp });
        }
        match Claims::from_sorted(claims) {
            None => Err(out_of_bounds(offset, "an empty list of claims")),
            claims => Ok(claims),
        }
    }

    fn place(&mut self) -> Result<Place, DecodeError> {
        self.input.array_of(4)?;
        let dot = self.dot()?;
        Ok(Place {
            stamp: Stamp(self.input.uint()?),
            dot,
        })
    }

    /// Three items of the list around it.
    fn dot(&mut self) -> Result<Dot, DecodeError> {
        let offset = self.input.offset();
        let at = usize::try_from(self.input.uint()?).unwrap_or(usize::MAX);
        let (Some(log), Some(used)) = (self.logs.get(at), self.used.get_mut(at)) else {
            return Err(out_of_bounds(offset, "the index of a log"));
        };
        *used = true;
        Ok(Dot {
            log: *log,
            seq: self.input.uint()?,
            index: self.input.u32()?,
        })
    }
}

fn out_of_bounds(offset: usize, what: &'static str) -> DecodeError {
    DecodeError::OutOfBounds { offset, what }
}
