//! Tickets and cards: what people hand each other as text.

use std::fmt;
use std::str::FromStr;

use leno_crdt_codec::cbor::{DecodeError, Decoder, Encoder, Kind};
use leno_identity::{
    CertificateError, DeviceCertificate, Label, VerifiedCertificate, VerifyingKey,
};
use leno_threads_core::{Now, SeatId, ServiceKey, ThreadId};
use leno_transport_trait::{Address, PeerId};
use multibase::Base;

/// Longest text form that is read, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Longest name of a member or thread, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Most addresses in a ticket or card: two interfaces, each over TCP and over QUIC.
pub(crate) const ADDRESSES_MAX: usize = 4;

/// Why a text is no ticket or card.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// It does not begin as one, or is longer than [`TEXT_BYTES_MAX`].
    #[error("the text is no {expected}")]
    NotOne {
        /// "ticket" or "card".
        expected: &'static str,
    },
    /// It is damaged: copy it again, whole.
    #[error("the {expected} is damaged")]
    Damaged {
        /// "ticket" or "card".
        expected: &'static str,
    },
    /// It comes from a newer version.
    #[error("the {expected} is of a newer version")]
    Newer {
        /// "ticket" or "card".
        expected: &'static str,
    },
    /// A name is longer than [`NAME_BYTES_MAX`].
    #[error("a name of {bytes} bytes is too long")]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The seat on a card is not vouched for by its device.
    #[error("the card's seat is not vouched for by its device")]
    NotVouched,
}

pub(crate) fn check_name(name: &str) -> Result<(), TextError> {
    match name.len() {
        0..=NAME_BYTES_MAX => Ok(()),
        bytes => Err(TextError::NameTooLong { bytes }),
    }
}

const TICKET_PREFIX: &str = "leno-ticket:";
const CARD_PREFIX: &str = "leno-card:";
const VERSION: u64 = 1;

/// What opens a thread to whom it was granted: which thread, its service key, and where to ask.
///
/// Whoever holds a ticket can name the thread to its peers, but they serve only a seat with a grant.
///
/// # Shape
///
/// The text has up to 280 characters with one IPv4 address of libp2p, and up to 460 with four; other
/// addresses may be longer. It fits a QR code in any case.
///
/// # Security
///
/// The ticket holds the service key: send it as you would send an invitation, not publicly.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use leno::{ManualClock, Peer, Role, Ticket};
///
/// let clock = ManualClock::new(0);
/// let (alice, alices_driver) = Peer::builder().clock(clock.clone()).build().await?;
/// let (bob, bobs_driver) = Peer::builder().clock(clock).build().await?;
/// let app = async {
///     // Bob sends his card to Alice,
///     let card = bob.card("Bob").await?.to_string();
///
///     // she sends him a ticket back,
///     let band = alice.create_thread("band").await?;
///     let ticket = band.grant(&card.parse()?, Role::Writer).await?.to_string();
///     assert!(ticket.starts_with("leno-ticket:"));
///
///     // and he joins. The thread comes with the next sync.
///     let ticket: Ticket = ticket.parse()?;
///     assert_eq!((ticket.thread(), ticket.peer()), (band.id(), alice.id()));
///     assert_eq!(bob.join(&ticket).await?.id(), band.id());
///     bob.close().await?;
///     alice.close().await
/// };
/// futures_util::try_join!(alices_driver.run(), bobs_driver.run(), app)?;
/// # Ok(()) }) }
/// ```
#[derive(Clone)]
pub struct Ticket {
    pub(crate) thread: ThreadId,
    pub(crate) service: ServiceKey,
    /// The beginning of the id of the record with the grant.
    pub(crate) granted_by: [u8; 16],
    /// The beginning of the id of the seat that was granted the role.
    pub(crate) seat: [u8; 8],
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Address>,
}

impl Ticket {
    /// The thread.
    #[must_use]
    pub fn thread(&self) -> ThreadId {
        self.thread
    }

    /// The peer that made the ticket.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where that peer was reachable.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Ticket")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// `leno-ticket:` and base32 of
/// `[1, thread: 32 bytes, service key: 32 bytes, record: 16 bytes, seat: 8 bytes, peer: 32 bytes,
/// addresses]`; an address is its text, or `[text]` for `text | /p2p/ | the peer's libp2p name`.
impl fmt::Display for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut encoder = Encoder::new();
        encoder
            .array(7)
            .uint(VERSION)
            .bytes(&self.thread.0)
            .bytes(self.service.expose())
            .bytes(&self.granted_by)
            .bytes(&self.seat)
            .bytes(&self.peer.0);
        encode_addresses(&mut encoder, &self.addresses, Some(self.peer));
        write_text(formatter, TICKET_PREFIX, encoder.as_slice())
    }
}

impl FromStr for Ticket {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let bytes = read_text(text, TICKET_PREFIX, "ticket")?;
        let damaged = |_| TextError::Damaged { expected: "ticket" };
        decode_ticket(&bytes).map_err(damaged)
    }
}

fn decode_ticket(bytes: &[u8]) -> Result<Ticket, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    decoder.array_of(7)?;
    decoder.uint()?;
    let mut ticket = Ticket {
        thread: ThreadId(*decoder.fixed()?),
        service: ServiceKey::from_bytes(*decoder.fixed()?),
        granted_by: *decoder.fixed()?,
        seat: *decoder.fixed()?,
        peer: PeerId(*decoder.fixed()?),
        addresses: Vec::new(),
    };
    ticket.addresses = decode_addresses(&mut decoder, Some(ticket.peer))?;
    decoder.finish()?;
    Ok(ticket)
}

/// What a peer hands to an owner or admin to be granted a role: a new seat, and who stands behind it.
///
/// Holds no secrets. The seat's keys wait in the store of the peer that made the card.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
/// use leno::{Card, ManualClock, Peer};
///
/// let (peer, driver) = Peer::builder().clock(ManualClock::new(0)).build().await?;
/// let app = async {
///     let card = peer.card("Bob").await?;
///     let text = card.to_string();
///     assert!(text.starts_with("leno-card:"));
///
///     let read: Card = text.parse()?;
///     assert_eq!((read.name(), read.seat()), ("Bob", card.seat()));
///     peer.close().await
/// };
/// futures_util::try_join!(driver.run(), app)?;
/// # Ok(()) }) }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Card {
    pub(crate) seat: SeatId,
    pub(crate) kem: [u8; 32],
    pub(crate) name: String,
    /// The certificate and the device's signature of the seat.
    pub(crate) proof: SeatProof,
    pub(crate) addresses: Vec<Address>,
}

impl Card {
    /// What the member wants to be called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The seat that asks for a grant.
    #[must_use]
    pub fn seat(&self) -> SeatId {
        self.seat
    }

    /// Where the peer was reachable.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

/// `leno-card:` and base32 of `[1, seat, KEM key, name, proof, addresses]`; an address is its text.
impl fmt::Display for Card {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut encoder = Encoder::new();
        encoder
            .array(6)
            .uint(VERSION)
            .bytes(&self.seat.0)
            .bytes(&self.kem)
            .text(&self.name)
            .bytes(&self.proof.encode());
        encode_addresses(&mut encoder, &self.addresses, None);
        write_text(formatter, CARD_PREFIX, encoder.as_slice())
    }
}

impl FromStr for Card {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let bytes = read_text(text, CARD_PREFIX, "card")?;
        decode_card(&bytes).map_err(|_| TextError::Damaged { expected: "card" })
    }
}

fn decode_card(bytes: &[u8]) -> Result<Card, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    decoder.array_of(6)?;
    decoder.uint()?;
    let card = Card {
        seat: SeatId(*decoder.fixed()?),
        kem: *decoder.fixed()?,
        name: decoder.text()?.to_owned(),
        proof: SeatProof::decode(decoder.bytes()?)?,
        addresses: decode_addresses(&mut decoder, None)?,
    };
    decoder.finish()?;
    Ok(card)
}

/// Who stands behind a seat: a device certificate, and the device's signature of the seat.
///
/// Stands in the roster part beside the grant, so only members learn it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SeatProof {
    certificate: Vec<u8>,
    signature: [u8; 64],
}

impl SeatProof {
    pub(crate) fn sign(
        certificate: &DeviceCertificate,
        device: &leno_identity::Device,
        seat: SeatId,
        kem: &[u8; 32],
    ) -> Self {
        let signature = device
            .signing_key()
            .sign(Label::SEAT_OFFER, &[&seat.0, kem]);
        Self {
            certificate: certificate.to_bytes(),
            signature,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder
            .array(2)
            .bytes(&self.certificate)
            .bytes(&self.signature);
        encoder.into_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        decoder.array_of(2)?;
        let proof = Self {
            certificate: decoder.bytes()?.to_vec(),
            signature: *decoder.fixed()?,
        };
        decoder.finish()?;
        Ok(proof)
    }

    /// The certificate, if it holds now and its device vouches for the seat. Whether it holds now is
    /// not judged by a clock that is not set.
    pub(crate) fn verify(
        &self,
        seat: SeatId,
        kem: &[u8; 32],
        now: Now,
    ) -> Option<VerifiedCertificate> {
        let certificate = DeviceCertificate::decode(&self.certificate).ok()?;
        let mut verified = certificate.clone().verify(now.utc_millis().unwrap_or(0));
        if let Err(CertificateError::NotYetIssued { issued_millis, .. }) = verified
            && now.utc_millis().is_none()
        {
            verified = certificate.verify(issued_millis);
        }
        let verified = verified.ok()?;
        let device: &VerifyingKey = verified.device();
        device
            .verify(Label::SEAT_OFFER, &[&seat.0, kem], &self.signature)
            .ok()?;
        Some(verified)
    }
}

/// What libp2p puts before an Ed25519 key to make a peer id of it ("Peer Ids and Keys").
const LIBP2P_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The end of a multiaddr that names the peer. It says once more, in 57 characters, whom the ticket is
/// from, so it is left out there.
fn named(peer: PeerId) -> String {
    let id = [&LIBP2P_PREFIX[..], &peer.0].concat();
    format!("/p2p/{}", Base::Base58Btc.encode(id))
}

fn encode_addresses(encoder: &mut Encoder, addresses: &[Address], peer: Option<PeerId>) {
    let end = peer.map(named);
    let addresses = addresses.iter().take(ADDRESSES_MAX);
    encoder.array(addresses.len());
    for address in addresses {
        let text = address.as_str();
        match end.as_deref().and_then(|end| text.strip_suffix(end)) {
            Some(place) => encoder.array(1).text(place),
            None => encoder.text(text),
        };
    }
}

fn decode_addresses(
    decoder: &mut Decoder<'_>,
    peer: Option<PeerId>,
) -> Result<Vec<Address>, DecodeError> {
    let end = peer.map(named);
    let mut addresses = Vec::new();
    for _ in 0..decoder.array_up_to(ADDRESSES_MAX)? {
        let offset = decoder.offset();
        let refused = DecodeError::OutOfBounds {
            offset,
            what: "an address",
        };
        let is_short = decoder.peek()? == Kind::Array;
        if is_short {
            decoder.array_of(1)?;
        }
        let text = decoder.text()?;
        let text = match &end {
            Some(end) if is_short => format!("{text}{end}"),
            // One text for one list of addresses: what could be shortened must be.
            Some(end) if text.ends_with(end.as_str()) => return Err(refused),
            None if is_short => return Err(refused),
            Some(_) | None => text.to_owned(),
        };
        addresses.push(Address::try_from(text).map_err(|_| refused)?);
    }
    Ok(addresses)
}

fn write_text(formatter: &mut fmt::Formatter<'_>, prefix: &str, bytes: &[u8]) -> fmt::Result {
    write!(formatter, "{prefix}{}", Base::Base32Lower.encode(bytes))
}

fn read_text(text: &str, prefix: &str, expected: &'static str) -> Result<Vec<u8>, TextError> {
    let text = text.trim();
    let body = text
        .strip_prefix(prefix)
        .filter(|_| text.len() <= TEXT_BYTES_MAX);
    let body = body.ok_or(TextError::NotOne { expected })?;
    let bytes = Base::Base32Lower
        .decode(body)
        .ok()
        // Each value has one text: no stray bits behind the last byte.
        .filter(|bytes| Base::Base32Lower.encode(bytes) == body)
        .ok_or(TextError::Damaged { expected })?;
    let mut decoder = Decoder::new(&bytes);
    let version = decoder.array().and_then(|_| decoder.uint());
    match version {
        Ok(VERSION) => Ok(bytes),
        Ok(_) => Err(TextError::Newer { expected }),
        Err(_) => Err(TextError::Damaged { expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What peer 4 is called by libp2p.
    const NAME: &str = "/p2p/12D3KooWA63MKLSkZ6TPyFWTNo41wJAtTxtSiwpmCE2ecWLHtH1m";

    fn ticket_at(addresses: &[&str]) -> Ticket {
        Ticket {
            thread: ThreadId([1; 32]),
            service: ServiceKey::from_bytes([2; 32]),
            granted_by: [3; 16],
            seat: [5; 8],
            peer: PeerId([4; 32]),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    fn ticket() -> Ticket {
        ticket_at(&[&format!("/ip4/192.168.100.100/tcp/65535{NAME}")])
    }

    #[test]
    fn ticket_fits_a_qr_code_and_reads_back() {
        let text = ticket().to_string();
        assert!(text.len() <= 280, "{}", text.len());
        let read: Ticket = text.parse().unwrap();
        assert_eq!(read.to_string(), text);
        assert_eq!(read.thread(), ThreadId([1; 32]));
        assert_eq!(read.addresses(), ticket().addresses());
    }

    #[test]
    fn ticket_with_all_addresses_keeps_them_in_their_order() {
        let tcp = format!("/ip4/192.168.100.100/tcp/65535{NAME}");
        let quic = format!("/ip4/192.168.100.100/udp/65535/quic-v1{NAME}");
        let four = ticket_at(&[&tcp, &quic, &tcp, &quic]);
        let text = four.to_string();
        assert!(text.len() <= 460, "{}", text.len());
        let read: Ticket = text.parse().unwrap();
        assert_eq!(read.addresses(), four.addresses());

        let odd = ticket_at(&[
            "memory:4",
            "/ip4/10.0.0.1/tcp/1/p2p",
            NAME.trim_matches('/'),
        ]);
        let read: Ticket = odd.to_string().parse().unwrap();
        assert_eq!(read.addresses(), odd.addresses());
    }

    #[test]
    fn address_has_one_form() {
        let check = |write: &dyn Fn(&mut Encoder), expected: Option<&str>| {
            let mut encoder = Encoder::new();
            encoder.array(1);
            write(&mut encoder);
            let bytes = encoder.into_vec();
            for (peer, expected) in [(Some(PeerId([4; 32])), expected), (None, None)] {
                let read = decode_addresses(&mut Decoder::new(&bytes), peer);
                let read = read.ok().map(|addresses| addresses[0].to_string());
                assert_eq!(read.as_deref(), expected, "{peer:?}");
            }
        };
        let long = format!("/ip4/10.0.0.1/tcp/1{NAME}");
        let short = |encoder: &mut Encoder| {
            encoder.array(1).text("/ip4/10.0.0.1/tcp/1");
        };
        check(&short, Some(&long));
        let mut whole = Encoder::new();
        whole.array(1).text(&long);
        let refused = decode_addresses(&mut Decoder::new(whole.as_slice()), Some(PeerId([4; 32])));
        assert!(refused.is_err(), "what can be short must be");
        let read = decode_addresses(&mut Decoder::new(whole.as_slice()), None).unwrap();
        assert_eq!(
            read[0].as_str(),
            long,
            "nothing is left out of an unknown name"
        );
    }

    #[test]
    fn damaged_texts_say_so() {
        let text = ticket().to_string();
        let not_one = TextError::NotOne { expected: "ticket" };
        assert_eq!("hello".parse::<Ticket>().err(), Some(not_one));
        let damaged = Some(TextError::Damaged { expected: "ticket" });
        assert_eq!(text[..text.len() - 9].parse::<Ticket>().err(), damaged);
        assert_eq!(format!("{text}0").parse::<Ticket>().err(), damaged);
        assert!(!format!("{:?}", ticket()).contains("2, 2"));
    }
}
