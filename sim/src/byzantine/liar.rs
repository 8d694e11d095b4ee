//! A transport that changes what is sent.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use leno::PeerId;
use leno::transport::{Address, Event, LinkId, Transport, TransportError};

use super::lie::lie;
use crate::dice::Dice;
use crate::network::SimTransport;

/// How many messages of a million are lied about.
const LIES_PER_MILLION: u32 = 80_000;

/// How many messages of earlier sessions are kept to be sent again.
const KEPT_MAX: usize = 32;

/// The endpoint of a machine that lies.
#[derive(Debug)]
pub(crate) struct Liar {
    inner: SimTransport,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    /// What was sent before, to whomever.
    kept: VecDeque<Vec<u8>>,
}

impl Liar {
    pub(crate) fn new(inner: SimTransport, dice: Dice) -> Self {
        let kept = VecDeque::new();
        let state = Mutex::new(State { dice, kept });
        Self { inner, state }
    }

    /// What is sent in the place of a message.
    fn instead_of(&self, message: Vec<u8>) -> Vec<Vec<u8>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { dice, kept } = &mut *state;
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(message.clone());
        if !dice.chance(LIES_PER_MILLION) {
            return vec![message];
        }
        lie(message, kept.make_contiguous(), dice)
    }
}

#[async_trait]
impl Transport for Liar {
    fn local(&self) -> PeerId {
        self.inner.local()
    }

    fn addresses(&self) -> Vec<Address> {
        self.inner.addresses()
    }

    async fn dial(&self, address: &Address) -> Result<PeerId, TransportError> {
        self.inner.dial(address).await
    }

    async fn send(&self, link: LinkId, message: Vec<u8>) -> Result<(), TransportError> {
        for message in self.instead_of(message) {
            self.inner.send(link, message).await?;
        }
        Ok(())
    }

    async fn next(&self) -> Option<Event> {
        self.inner.next().await
    }

    async fn hang_up(&self, peer: PeerId) {
        self.inner.hang_up(peer).await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
