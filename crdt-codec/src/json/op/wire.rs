//! The bytes of an op.
//!
//! Every op of every version is a list that begins with its kind and its document, so that an op of
//! an unknown kind still says which document it stops. Maps, keys and numbers are strict dag-cbor.
//!
//! | kind | rest of the list | is |
//! |---|---|---|
//! | 0 | `{key: value, ..}` | an update of life 1 that only sets top-level registers and names no dots |
//! | 1 | nonce, `{key: value, ..}` | the same for a create |
//! | 2 | life | a delete |
//! | 3 | life, \[logs,\] edits | any other update |
//! | 4 | nonce, life, \[logs,\] edits | any other create |
//!
//! `nonce` is 16 bytes or null. `logs` is the ascending list of the logs that the edits name, 32
//! bytes each, and is left out if it would be empty. `edits` are lists in ascending order:
//!
//! | code | `[path, code, ..]` | code | `[path, code, ..]` |
//! |---|---|---|---|
//! | 0 | set: value, \[seen\] | 6 | remove: value, \[seen\] |
//! | 1 | unset: \[seen\] | 7 | insert: position, value |
//! | 2 | increment: integer | 8 | replace: position, dot, value, \[seen\] |
//! | 3 | max: number | 9 | take: position, dot, \[seen\] |
//! | 4 | min: number | 10 | touch: \[seen\] |
//! | 5 | add: value, \[seen\] | 11 | untouch: \[seen\] |
//!
//! `path` is a text, or a list of 2 to 8 texts; `position` is a byte string; `dot` is the list
//! `[index into logs, seq, index of the op]`; `seen` is a list of dots with ascending logs, left out
//! if it would be empty.

use super::{
    Action, Change, EDITS_MAX, Edit, ElementId, OP_BYTES_MAX, OP_DOTS_MAX, OP_SEGMENTS_MAX, Op,
    PATH_SEGMENTS_MAX, logs,
};
use crate::cbor::{DecodeError, Decoder, Encoder, KEY_BYTES_MAX, Kind};
use crate::json::DocumentId;
use crate::json::position::Position;
use crate::json::value::{Value, scan_value};
use crate::{Dot, LogId, OpError};

const UPDATE_SHORT: u64 = 0;
const CREATE_SHORT: u64 = 1;
const DELETE: u64 = 2;
const UPDATE: u64 = 3;
const CREATE: u64 = 4;

/// How deep a value may nest that is set at a path of one key.
const TOP_DEPTH: usize = crate::cbor::DEPTH_MAX - 1;

impl Op {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::with_capacity(self.encoded_len_max());
        self.encode_to(&mut encoder);
        encoder.into_vec()
    }

    /// Writes it.
    pub fn encode_to(&self, encoder: &mut Encoder) {
        match &self.action {
            Action::Update { edits } if is_short(self.life, edits) => {
                encoder.array(3).uint(UPDATE_SHORT);
                self.document.encode_to(encoder);
                encode_fields(encoder, edits);
            }
            Action::Create { nonce, edits } if is_short(self.life, edits) => {
                encoder.array(4).uint(CREATE_SHORT);
                self.document.encode_to(encoder);
                encode_nonce(encoder, nonce.as_ref());
                encode_fields(encoder, edits);
            }
            Action::Delete => {
                encoder.array(3).uint(DELETE);
                self.document.encode_to(encoder);
                encoder.uint(self.life);
            }
            Action::Update { edits } => {
                let logs = logs(edits);
                encoder
                    .array(4 + usize::from(!logs.is_empty()))
                    .uint(UPDATE);
                self.document.encode_to(encoder);
                encoder.uint(self.life);
                encode_edits(encoder, &logs, edits);
            }
            Action::Create { nonce, edits } => {
                let logs = logs(edits);
                encoder
                    .array(5 + usize::from(!logs.is_empty()))
                    .uint(CREATE);
                self.document.encode_to(encoder);
                encode_nonce(encoder, nonce.as_ref());
                encoder.uint(self.life);
                encode_edits(encoder, &logs, edits);
            }
        }
    }

    /// Decodes it, strictly.
    ///
    /// # Errors
    ///
    /// [`OpError::Unknown`] for a kind of op or change that a later version brought,
    /// [`OpError::Malformed`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, OpError> {
        let mut decoder = Decoder::new(bytes);
        let (items, kind) = head(&mut decoder, bytes)?;
        let document = DocumentId::decode(&mut decoder)?;
        let (life, action) = match kind {
            UPDATE_SHORT => {
                expect_items(items, 3)?;
                let edits = decode_fields(&mut decoder)?;
                (1, Action::Update { edits })
            }
            CREATE_SHORT => {
                expect_items(items, 4)?;
                let nonce = decode_nonce(&mut decoder)?;
                let edits = decode_fields(&mut decoder)?;
                (1, Action::Create { nonce, edits })
            }
            DELETE => {
                expect_items(items, 3)?;
                (decode_life(&mut decoder)?, Action::Delete)
            }
            UPDATE => {
                let life = decode_life(&mut decoder)?;
                let edits = decode_edits(&mut decoder, has_logs(items, 4)?, life)?;
                (life, Action::Update { edits })
            }
            CREATE => {
                let nonce = decode_nonce(&mut decoder)?;
                let life = decode_life(&mut decoder)?;
                let edits = decode_edits(&mut decoder, has_logs(items, 5)?, life)?;
                (life, Action::Create { nonce, edits })
            }
            kind => return Err(OpError::Unknown { kind }),
        };
        decoder.finish()?;
        Ok(Self {
            document,
            life,
            action,
        })
    }
}

/// Keys and the bytes of their values.
pub(in crate::json) type Short<'a> = Vec<(&'a str, &'a [u8])>;

/// Reads an update in its short form without allocating for each field. `None` for any
/// other op.
pub(in crate::json) fn decode_short(bytes: &[u8]) -> Result<Option<Short<'_>>, OpError> {
    let mut decoder = Decoder::new(bytes);
    let (items, kind) = head(&mut decoder, bytes)?;
    if kind != UPDATE_SHORT {
        return Ok(None);
    }
    if decoder.peek()? == Kind::Bytes {
        decoder.fixed::<16>()?;
    } else {
        DocumentId::decode(&mut decoder)?;
    }
    expect_items(items, 3)?;
    let count = fields_count(&mut decoder)?;
    let mut fields = Vec::with_capacity(count);
    let mut previous = None;
    for _ in 0..count {
        let key = decoder.key(previous)?;
        fields.push((key, scan_value(&mut decoder, TOP_DEPTH)?));
        previous = Some(key);
    }
    decoder.finish()?;
    Ok(Some(fields))
}

fn head(decoder: &mut Decoder<'_>, bytes: &[u8]) -> Result<(usize, u64), DecodeError> {
    if bytes.len() > OP_BYTES_MAX {
        return Err(out_of_bounds(0, "the length of an op"));
    }
    let items = decoder.array()?;
    Ok((items, decoder.uint()?))
}

fn expect_items(items: usize, expected: usize) -> Result<(), DecodeError> {
    if items == expected {
        return Ok(());
    }
    Err(out_of_bounds(0, "the length of an op's list"))
}

fn has_logs(items: usize, without: usize) -> Result<bool, DecodeError> {
    if items == without + 1 {
        return Ok(true);
    }
    expect_items(items, without).map(|()| false)
}

fn is_short(life: u64, edits: &[Edit]) -> bool {
    let is_plain = |edit: &Edit| {
        edit.path.len() == 1 && edit.seen.is_empty() && matches!(edit.change, Change::Set(_))
    };
    life == 1 && edits.iter().all(is_plain)
}

fn decode_life(decoder: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    let offset = decoder.offset();
    match decoder.uint()? {
        0 => Err(out_of_bounds(offset, "a life")),
        life => Ok(life),
    }
}

fn encode_nonce(encoder: &mut Encoder, nonce: Option<&[u8; 16]>) {
    match nonce {
        Some(nonce) => encoder.bytes(nonce),
        None => encoder.null(),
    };
}

fn decode_nonce(decoder: &mut Decoder<'_>) -> Result<Option<[u8; 16]>, DecodeError> {
    if decoder.null()? {
        return Ok(None);
    }
    decoder.fixed().map(|nonce| Some(*nonce))
}

fn encode_fields(encoder: &mut Encoder, edits: &[Edit]) {
    encoder.map(edits.len());
    for edit in edits {
        if let ([key], Change::Set(value)) = (edit.path.as_slice(), &edit.change) {
            encoder.text(key).raw(value.as_bytes());
        }
    }
}

fn fields_count(decoder: &mut Decoder<'_>) -> Result<usize, DecodeError> {
    let offset = decoder.offset();
    match decoder.map()? {
        count if count <= EDITS_MAX => Ok(count),
        _ => Err(out_of_bounds(offset, "the number of edits")),
    }
}

fn decode_fields(decoder: &mut Decoder<'_>) -> Result<Vec<Edit>, DecodeError> {
    let count = fields_count(decoder)?;
    let mut edits = Vec::with_capacity(count);
    let mut previous = None;
    for _ in 0..count {
        let key = decoder.key(previous)?;
        let value = Value::decode(decoder, TOP_DEPTH)?;
        edits.push(Edit::new(key, Change::Set(value)));
        previous = Some(key);
    }
    Ok(edits)
}

fn encode_edits(encoder: &mut Encoder, logs: &[LogId], edits: &[Edit]) {
    if !logs.is_empty() {
        encoder.array(logs.len());
        for log in logs {
            encoder.bytes(log.as_bytes());
        }
    }
    encoder.array(edits.len());
    for edit in edits {
        encode_edit(encoder, logs, edit);
    }
}

fn encode_edit(encoder: &mut Encoder, logs: &[LogId], edit: &Edit) {
    let (code, arguments) = shape(&edit.change);
    encoder.array(2 + arguments + usize::from(!edit.seen.is_empty()));
    match edit.path.as_slice() {
        [key] => {
            encoder.text(key);
        }
        path => {
            encoder.array(path.len());
            for key in path {
                encoder.text(key);
            }
        }
    }
    encoder.uint(code);
    match &edit.change {
        Change::Increment(by) => {
            encoder.int(*by);
        }
        Change::Insert { position, .. } => {
            encoder.bytes(position.as_bytes());
        }
        Change::Replace { element, .. } | Change::Take { element } => {
            encoder.bytes(element.position.as_bytes());
            encode_dot(encoder, logs, &element.dot);
        }
        Change::Set(_)
        | Change::Unset
        | Change::Max(_)
        | Change::Min(_)
        | Change::Add(_)
        | Change::Remove(_)
        | Change::Touch
        | Change::Untouch => {}
    }
    if let Some(value) = edit.change.value() {
        encoder.raw(value.as_bytes());
    }
    if !edit.seen.is_empty() {
        encoder.array(edit.seen.len());
        for dot in &edit.seen {
            encode_dot(encoder, logs, dot);
        }
    }
}

fn encode_dot(encoder: &mut Encoder, logs: &[LogId], dot: &Dot) {
    let log = logs.binary_search(&dot.log);
    let log = log.expect("the table holds every log that the edits name");
    encoder
        .array(3)
        .uint(log as u64)
        .uint(dot.seq)
        .uint(dot.index.into());
}

/// The code of a change, and how many items follow it besides `seen`.
fn shape(change: &Change) -> (u64, usize) {
    match change {
        Change::Set(_) => (0, 1),
        Change::Unset => (1, 0),
        Change::Increment(_) => (2, 1),
        Change::Max(_) => (3, 1),
        Change::Min(_) => (4, 1),
        Change::Add(_) => (5, 1),
        Change::Remove(_) => (6, 1),
        Change::Insert { .. } => (7, 2),
        Change::Replace { .. } => (8, 3),
        Change::Take { .. } => (9, 2),
        Change::Touch => (10, 0),
        Change::Untouch => (11, 0),
    }
}

fn decode_edits(
    decoder: &mut Decoder<'_>,
    has_logs: bool,
    life: u64,
) -> Result<Vec<Edit>, OpError> {
    let offset = decoder.offset();
    let mut table = Table::default();
    if has_logs {
        table = Table::decode(decoder)?;
    }
    let count = decoder.array_up_to(EDITS_MAX)?;
    let mut segments = 0;
    let mut edits: Vec<Edit> = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = decoder.offset();
        let edit = decode_edit(decoder, &mut table, &mut segments)?;
        if edits.last().is_some_and(|last| last.order(&edit).is_ge()) {
            return Err(out_of_bounds(offset, "the order of edits").into());
        }
        edits.push(edit);
    }
    if is_short(life, &edits) {
        return Err(out_of_bounds(offset, "a short op in its long form").into());
    }
    if !table.used.iter().all(|used| *used) {
        return Err(out_of_bounds(offset, "a log that no edit names").into());
    }
    Ok(edits)
}

/// The logs of an op, which of them an edit has named, and how many dots were read.
#[derive(Default)]
struct Table {
    logs: Vec<LogId>,
    used: Vec<bool>,
    dots: usize,
}

impl Table {
    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = decoder.offset();
        let count = decoder.array_up_to(OP_DOTS_MAX)?;
        let mut logs: Vec<LogId> = Vec::with_capacity(count);
        for _ in 0..count {
            logs.push(LogId(*decoder.fixed()?));
        }
        if logs.is_empty() || !logs.is_sorted_by(|a, b| a < b) {
            return Err(out_of_bounds(offset, "the order of logs"));
        }
        Ok(Self {
            used: vec![false; logs.len()],
            logs,
            dots: 0,
        })
    }

    fn dot(&mut self, decoder: &mut Decoder<'_>) -> Result<Dot, DecodeError> {
        let offset = decoder.offset();
        decoder.array_of(3)?;
        let at = usize::try_from(decoder.uint()?).unwrap_or(usize::MAX);
        let (Some(log), Some(used)) = (self.logs.get(at), self.used.get_mut(at)) else {
            return Err(out_of_bounds(offset, "the index of a log"));
        };
        *used = true;
        self.dots += 1;
        if self.dots > OP_DOTS_MAX {
            return Err(out_of_bounds(offset, "the number of dots in an op"));
        }
        Ok(Dot {
            log: *log,
            seq: decoder.uint()?,
            index: decoder.u32()?,
        })
    }
}

fn decode_edit(
    decoder: &mut Decoder<'_>,
    table: &mut Table,
    segments: &mut usize,
) -> Result<Edit, OpError> {
    let offset = decoder.offset();
    let items = decoder.array()?;
    let path = decode_path(decoder)?;
    *segments += path.len();
    if *segments > OP_SEGMENTS_MAX {
        return Err(out_of_bounds(offset, "the length of all paths").into());
    }
    let change = decode_change(decoder, table, path.len())?;
    let (_, arguments) = shape(&change);
    let seen = match items.checked_sub(2 + arguments) {
        Some(0) => Vec::new(),
        Some(1) if change.replaces() => decode_seen(decoder, table)?,
        _ => {
            return Err(out_of_bounds(offset, "the length of an edit").into());
        }
    };
    Ok(Edit { path, change, seen })
}

fn decode_path(decoder: &mut Decoder<'_>) -> Result<Vec<String>, DecodeError> {
    let offset = decoder.offset();
    let mut segments = 1;
    if decoder.peek()? == Kind::Array {
        segments = decoder.array_up_to(PATH_SEGMENTS_MAX)?;
        if segments < 2 {
            return Err(out_of_bounds(offset, "the length of a path"));
        }
    }
    let mut path = Vec::with_capacity(segments);
    for _ in 0..segments {
        let offset = decoder.offset();
        let key = decoder.text()?;
        if key.len() > KEY_BYTES_MAX {
            return Err(out_of_bounds(offset, "the length of a key"));
        }
        path.push(key.to_owned());
    }
    Ok(path)
}

fn decode_change(
    decoder: &mut Decoder<'_>,
    table: &mut Table,
    segments: usize,
) -> Result<Change, OpError> {
    // `Change::depth` says the same of whole changes.
    let depth = crate::cbor::DEPTH_MAX.saturating_sub(segments);
    Ok(match decoder.uint()? {
        0 => Change::Set(Value::decode(decoder, depth)?),
        1 => Change::Unset,
        2 => Change::Increment(decoder.int()?),
        3 => Change::Max(decode_number(decoder)?),
        4 => Change::Min(decode_number(decoder)?),
        5 => Change::Add(Value::decode(decoder, depth - 1)?),
        6 => Change::Remove(Value::decode(decoder, depth - 1)?),
        7 => Change::Insert {
            position: decode_position(decoder)?,
            value: Value::decode(decoder, depth - 1)?,
        },
        8 => Change::Replace {
            element: decode_element(decoder, table)?,
            value: Value::decode(decoder, depth - 1)?,
        },
        9 => Change::Take {
            element: decode_element(decoder, table)?,
        },
        10 => Change::Touch,
        11 => Change::Untouch,
        kind => return Err(OpError::Unknown { kind }),
    })
}

pub(in crate::json) fn decode_number(decoder: &mut Decoder<'_>) -> Result<Value, DecodeError> {
    let offset = decoder.offset();
    if matches!(
        decoder.peek()?,
        Kind::Unsigned | Kind::Negative | Kind::Float
    ) {
        return Value::decode(decoder, 0);
    }
    Err(DecodeError::Unexpected {
        offset,
        expected: "a number",
    })
}

pub(in crate::json) fn decode_position(decoder: &mut Decoder<'_>) -> Result<Position, DecodeError> {
    let offset = decoder.offset();
    Position::new(decoder.bytes()?).map_err(|_| out_of_bounds(offset, "a position"))
}

fn decode_element(decoder: &mut Decoder<'_>, table: &mut Table) -> Result<ElementId, DecodeError> {
    Ok(ElementId {
        position: decode_position(decoder)?,
        dot: table.dot(decoder)?,
    })
}

fn decode_seen(decoder: &mut Decoder<'_>, table: &mut Table) -> Result<Vec<Dot>, DecodeError> {
    let offset = decoder.offset();
    let count = decoder.array_up_to(OP_DOTS_MAX)?;
    let mut seen = Vec::with_capacity(count);
    for _ in 0..count {
        seen.push(table.dot(decoder)?);
    }
    if seen.is_empty() || !seen.is_sorted_by(|a, b| a.log < b.log) {
        return Err(out_of_bounds(offset, "the order of replaced dots"));
    }
    Ok(seen)
}

fn out_of_bounds(offset: usize, what: &'static str) -> DecodeError {
    DecodeError::OutOfBounds { offset, what }
}
