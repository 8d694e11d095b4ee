use std::cell::Cell;

use leno_transport_trait::testing::{self, Factory};

use super::*;
use crate::World;

struct Simulated {
    network: SimNetwork,
    count: Cell<u8>,
}

impl Factory for Simulated {
    type Endpoint = SimTransport;

    async fn endpoint(&self) -> SimTransport {
        self.count.set(self.count.get() + 1);
        self.network.endpoint(PeerId([self.count.get(); 32]))
    }
}

fn conform(seed: u64, conditions: Conditions) {
    let mut world = World::new(seed);
    world.network().set_conditions(conditions);
    let factory = Simulated {
        network: world.network().clone(),
        count: Cell::new(0),
    };
    let checks = async move { testing::check_all(&factory).await };
    assert!(world.run(checks, u64::MAX).is_some(), "all checks end");
}

#[test]
fn network_conforms_in_its_plain_profile() {
    conform(1, Conditions::default());
    let slow = Conditions {
        latency_micros: 5_000..=80_000,
        bytes_per_second: Some(10_000_000),
        ..Conditions::default()
    };
    conform(2, slow);
}
