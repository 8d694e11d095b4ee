use std::cell::Cell;

use leno_transport_trait::testing::{self, Factory};

use super::*;

struct Loopback(Cell<u8>);

impl Factory for Loopback {
    type Endpoint = Ws;

    async fn endpoint(&self) -> Ws {
        self.0.set(self.0.get() + 1);
        let builder = builder(self.0.get()).stall_timeout(Duration::from_millis(1_500));
        Ws::listen(builder).await.expect("listens")
    }
}

#[test]
fn web_sockets_conform() {
    run(testing::check_all(&Loopback(Cell::new(0))));
}
