use std::cell::Cell;

use super::*;
use leno_transport_trait::testing::{self, Factory};

struct Loopback {
    listen_on: &'static str,
    count: Cell<u8>,
}

impl Factory for Loopback {
    type Endpoint = Libp2p;

    async fn endpoint(&self) -> Libp2p {
        self.count.set(self.count.get() + 1);
        let builder = builder(self.count.get(), self.listen_on);
        let builder = builder.stall_timeout(Duration::from_millis(1_500));
        Libp2p::listen(builder).await.expect("listens")
    }
}

#[test]
fn tcp_conforms() {
    run(testing::check_all(&Loopback {
        listen_on: TCP,
        count: Cell::new(0),
    }));
}

#[test]
fn quic_conforms() {
    run(testing::check_all(&Loopback {
        listen_on: QUIC,
        count: Cell::new(100),
    }));
}
