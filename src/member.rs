//! Who a member of a thread is.

use leno_identity::{Label, VerifiedCertificate};
use leno_threads_core::thread::Thread;
use leno_threads_core::{Now, SeatId};

use crate::text::SeatProof;

/// The salted hash that a grant commits to an identity with.
pub(crate) fn commitment(salt: &[u8; 16], identity: &[u8]) -> [u8; 32] {
    Label::IDENTITY_COMMITMENT.hash(&[salt, identity])
}

/// The certificate that proves who holds a seat, if what the roster states of it holds now and is
/// what a grant of the seat committed to.
///
/// The founder's seat has no grant to commit in: it speaks for itself.
pub(crate) fn proven(thread: &Thread, seat: SeatId, now: Now) -> Option<VerifiedCertificate> {
    let fact = thread.roster().seat(&seat)?;
    let proof = SeatProof::decode(&fact.certificate).ok()?;
    let is_founder = seat == thread.genesis().owner;
    thread.governance().grants_of(seat).find_map(|(_, grant)| {
        let certificate = proof.verify(seat, &grant.op.kem, now)?;
        let shown = commitment(&fact.salt, &certificate.identity().to_bytes());
        let is_committed = match grant.op.identity {
            Some(committed) => committed == shown,
            None => is_founder,
        };
        is_committed.then_some(certificate)
    })
}

#[cfg(test)]
mod tests {
    use futures_executor::block_on;
    use leno_threads_core::{Role, RosterOp};

    use super::*;
    use crate::peer::salt;
    use crate::store::MemoryStore;
    use crate::work::{Work, thread_mut};
    use crate::{ManualClock, Peer, Thread};

    const NOW_MILLIS: u64 = 1_800_000_000_000;

    async fn peer(seed: u8) -> (Peer, crate::Driver) {
        let builder = Peer::builder()
            .store(MemoryStore::new())
            .clock(ManualClock::new(NOW_MILLIS))
            .seed([seed; 32]);
        builder.build().await.unwrap()
    }

    /// Runs a scenario beside the drivers of its peers.
    fn run<F: Future<Output = ()>>(test: impl FnOnce([Peer; 3]) -> F) {
        block_on(async {
            let [(alice, one), (bob, two), (mallory, three)] =
                [peer(1).await, peer(2).await, peer(3).await];
            let drivers = futures_util::future::join3(one.run(), two.run(), three.run());
            let test = test([alice, bob, mallory]);
            futures_util::pin_mut!(drivers, test);
            futures_util::future::select(test, drivers).await;
        });
    }

    /// States something else of a seat until that is what the roster says.
    async fn restate(thread: &Thread, seat: SeatId, certificate: Vec<u8>, fixed: Option<[u8; 16]>) {
        let id = thread.id();
        for _ in 0..64 {
            let certificate = certificate.clone();
            let done = thread.peer().call(move |work| {
                let salt = fixed.unwrap_or_else(|| salt(work));
                let (now, name) = (work.now(), String::new());
                let stated = certificate.clone();
                let about = RosterOp::Seat {
                    seat,
                    certificate,
                    salt,
                    name,
                };
                let Work {
                    core,
                    view,
                    changes,
                    ..
                } = work;
                let thread = thread_mut(&mut core.replica, id)?;
                thread.govern(*view, &[], &[about], now, &mut core.rng, changes)?;
                let fact = thread.roster().seat(&seat);
                Ok(fact.is_some_and(|fact| fact.certificate == stated && fact.salt == salt))
            });
            if done.await.unwrap() {
                return;
            }
        }
        panic!("the record with the lowest id counts, and none had it");
    }

    async fn identities(thread: &Thread) -> Vec<Option<crate::identity::Did>> {
        let mut members = thread.members().await.unwrap();
        members.sort_by_key(|member| !member.is_self);
        members.into_iter().map(|member| member.identity).collect()
    }

    #[test]
    fn certificate_that_the_grant_did_not_commit_to_proves_nothing() {
        run(async |[alice, bob, mallory]| {
            let thread = alice.create_thread("band").await.unwrap();
            let card = bob.card("bob").await.unwrap();
            thread.grant(&card, Role::Writer).await.unwrap();
            let (own, bobs) = (Some(alice.identity()), Some(bob.identity()));
            assert_eq!(identities(&thread).await, [own, bobs]);

            // Mallory's device vouches for Bob's seat, and an admin states it.
            let (seat, kem) = (card.seat, card.kem);
            let forged = mallory.call(move |work| {
                let (certificate, device) = (&work.core.certificate, &work.core.device);
                Ok(SeatProof::sign(certificate, device, seat, &kem).encode())
            });
            let forged = forged.await.unwrap();
            restate(&thread, seat, forged.clone(), None).await;
            assert_eq!(identities(&thread).await, [own, None]);

            // The right certificate under another salt than the grant's is not what it committed to.
            restate(&thread, seat, card.proof.encode(), None).await;
            assert_eq!(identities(&thread).await, [own, None]);
        });
    }
}
