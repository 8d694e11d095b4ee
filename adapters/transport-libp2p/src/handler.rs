//! One connection: opens the stream, exchanges greetings, carries the link.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::iter::{Once, once};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use leno_transport_trait::DisconnectReason;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, FullyNegotiatedInbound,
    FullyNegotiatedOutbound,
};
use libp2p::swarm::{Stream, StreamProtocol, SubstreamProtocol};
use tokio::time::timeout;

use crate::behaviour::Shared;
use crate::link::{Link, run};
use crate::wire::{Bounds, Counters, Greeting, count};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/leno/1");

/// Agrees on the name of our protocol and hands over the bare stream.
#[derive(Debug)]
pub(crate) struct Upgrade;

impl UpgradeInfo for Upgrade {
    type Info = StreamProtocol;
    type InfoIter = Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        once(PROTOCOL)
    }
}

impl InboundUpgrade<Stream> for Upgrade {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Upgrade {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

/// The behaviour's word that this connection is the link.
#[derive(Debug)]
pub(crate) struct Accept {
    pub(crate) link: Arc<Link>,
    pub(crate) shared: Arc<Shared>,
}

/// What the connection tells the behaviour.
#[derive(Debug)]
pub(crate) enum Told {
    /// The other side greeted; shall this connection be the link?
    Greeted(Greeting),
    /// There is no use in this connection any more.
    Ended(DisconnectReason),
}

/// Where a connection stands. Each state leads to the next, and any of them to `Over`.
enum Stage {
    /// The dialling side shall open the stream.
    Fresh {
        dialler: bool,
    },
    /// The stream is asked for, or awaited.
    Opening,
    Greeting(BoxFuture<'static, io::Result<(Stream, Greeting)>>),
    /// The behaviour decides.
    Waiting(Stream),
    Running(BoxFuture<'static, DisconnectReason>),
    Over,
}

/// The handler of one connection.
pub(crate) struct Handler {
    stage: Stage,
    greeting: Greeting,
    /// The arbiter speaks second: its greeting is the word that this connection is the link.
    arbiter: bool,
    bounds: Bounds,
    counters: Arc<Counters>,
    /// Set when the stage changed from outside of `poll`.
    waker: Option<Waker>,
}

impl Handler {
    pub(crate) fn new(
        dialler: bool,
        arbiter: bool,
        greeting: Greeting,
        bounds: Bounds,
        counters: Arc<Counters>,
    ) -> Self {
        let stage = Stage::Fresh { dialler };
        Self {
            stage,
            greeting,
            arbiter,
            bounds,
            counters,
            waker: None,
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn greet(&mut self, mut stream: Stream) {
        let (greeting, arbiter) = (self.greeting, self.arbiter);
        let counters = self.counters.clone();
        let greeting = async move {
            if !arbiter {
                greeting.write(&mut stream).await?;
                count(&counters.sent, 16);
            }
            let theirs = Greeting::read(&mut stream).await?;
            count(&counters.received, 16);
            Ok((stream, theirs))
        };
        let bounded = timeout(self.bounds.greeting, greeting)
            .map(|it| it.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())));
        self.enter(Stage::Greeting(bounded.boxed()));
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("arbiter", &self.arbiter)
            .finish_non_exhaustive()
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Accept;
    type ToBehaviour = Told;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(Upgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        !matches!(self.stage, Stage::Fresh { dialler: false } | Stage::Over)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Upgrade, (), Told>> {
        let told = match &mut self.stage {
            Stage::Fresh { dialler: true } => {
                self.stage = Stage::Opening;
                let protocol = SubstreamProtocol::new(Upgrade, ());
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
            Stage::Greeting(future) => match future.poll_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok((stream, greeting))) => {
                    self.stage = Stage::Waiting(stream);
                    Told::Greeted(greeting)
                }
                Poll::Ready(Err(error)) => {
                    self.stage = Stage::Over;
                    let detail = format!("no greeting: {error}");
                    Told::Ended(DisconnectReason::Lost { detail })
                }
            },
            Stage::Running(future) => match future.poll_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(reason) => {
                    self.stage = Stage::Over;
                    Told::Ended(reason)
                }
            },
            Stage::Fresh { dialler: false } | Stage::Opening | Stage::Waiting(_) | Stage::Over => {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told))
    }

    fn on_behaviour_event(&mut self, accept: Accept) {
        let Stage::Waiting(mut stream) = std::mem::replace(&mut self.stage, Stage::Over) else {
            // The behaviour answers each `Greeted` once, so there is nothing to accept.
            return;
        };
        let (arbiter, greeting, bounds) = (self.arbiter, self.greeting, self.bounds);
        let counters = self.counters.clone();
        let running = async move {
            if arbiter {
                if let Err(error) = greeting.write(&mut stream).await {
                    return DisconnectReason::Lost {
                        detail: error.to_string(),
                    };
                }
                count(&counters.sent, 16);
            }
            run(stream, accept.link, accept.shared, bounds).await
        };
        self.enter(Stage::Running(running.boxed()));
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Upgrade, Upgrade>) {
        // The dialling side opens the only stream; any other is dropped, which resets it.
        match (&self.stage, event) {
            (
                Stage::Opening,
                ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                    protocol, ..
                }),
            )
            | (
                Stage::Fresh { dialler: false },
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                    protocol, ..
                }),
            ) => self.greet(protocol),
            (Stage::Opening, ConnectionEvent::DialUpgradeError(error)) => {
                let detail = format!("no stream for {PROTOCOL}: {}", error.error);
                let over = async move { Err(io::Error::other(detail)) };
                self.enter(Stage::Greeting(over.boxed()));
            }
            _ => {}
        }
    }
}
