//! The default network of leno: libp2p over TCP, Noise, Yamux and QUIC.
