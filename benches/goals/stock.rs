//! A round trip as libp2p itself offers one: its `request_response` behaviour, as it comes.

use std::io;
use std::time::Duration;

use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use leno_benches::Outcome;
use leno_benches::measure::now;
use libp2p::request_response::{self, Codec, Event, Message, ProtocolSupport};
use libp2p::swarm::{StreamProtocol, Swarm, SwarmEvent};
use libp2p::{PeerId, SwarmBuilder, noise, tcp, yamux};

/// Longest message, so that a stream is not read for ever.
const BYTES_MAX: u64 = 1 << 20;

/// Bytes as they are, until the end of the stream.
#[derive(Clone, Default)]
struct Bytes;

impl Codec for Bytes {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.take(BYTES_MAX).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T>(&mut self, it: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read_request(it, io).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(
        &mut self,
        it: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write_request(it, io, bytes).await
    }
}

type Behaviour = request_response::Behaviour<Bytes>;

fn swarm() -> Outcome<Swarm<Behaviour>> {
    let protocols = [(StreamProtocol::new("/echo/1"), ProtocolSupport::Full)];
    let behaviour = Behaviour::new(protocols, request_response::Config::default());
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_quic()
        .with_behaviour(|_| behaviour)?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    Ok(swarm)
}

/// Two swarms, of which the second sends back what it gets; the first is polled by who asks.
pub(crate) struct Stock {
    alice: Swarm<Behaviour>,
    bob: PeerId,
    echo: tokio::task::JoinHandle<()>,
}

impl Stock {
    pub(crate) async fn new(address: &str) -> Outcome<Self> {
        let (mut alice, mut bob) = (swarm()?, swarm()?);
        bob.listen_on(address.parse()?)?;
        let there = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = bob.select_next_some().await {
                break address;
            }
        };
        let peer = *bob.local_peer_id();
        alice.add_peer_address(peer, there);
        let echo = tokio::spawn(async move {
            loop {
                if let SwarmEvent::Behaviour(Event::Message {
                    message:
                        Message::Request {
                            request, channel, ..
                        },
                    ..
                }) = bob.select_next_some().await
                {
                    // Whoever asked may have gone meanwhile.
                    let _ = bob.behaviour_mut().send_response(channel, request);
                }
            }
        });
        Ok(Self {
            alice,
            bob: peer,
            echo,
        })
    }

    /// Times of requests, one after another, each on a stream of its own.
    pub(crate) async fn round_trips(
        &mut self,
        bytes: usize,
        count: usize,
    ) -> Outcome<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = now();
            let asked = vec![7; bytes];
            self.alice.behaviour_mut().send_request(&self.bob, asked);
            loop {
                let event = self.alice.select_next_some().await;
                if let SwarmEvent::Behaviour(Event::OutboundFailure { error, .. }) = event {
                    return Err(error.into());
                }
                if let SwarmEvent::Behaviour(Event::Message {
                    message: Message::Response { response, .. },
                    ..
                }) = event
                {
                    if response.len() != bytes {
                        return Err("the answer has another length".into());
                    }
                    break;
                }
            }
            times.push(begun.elapsed());
        }
        Ok(times)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.echo.abort();
    }
}
