//! Governing a thread: roles, removal, leaving, keys, and what became of each op.

use leno_threads_core::acl::VoidReason;
use leno_threads_core::store::Overlay;
use leno_threads_core::thread::{AuditedOp, Explained};
use leno_threads_core::{
    ACCEPTANCES_MAX, FrameOp, GrantOp, RecordRef, RemoveOp, Role, Scope, SeatId, ThreadId,
};

use crate::error::Error;
use crate::thread::Thread;
use crate::work::{Work, thread_mut};

/// Whether keys change with an op of governance.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Keys {
    Kept,
    Changed,
}

impl Thread {
    /// Gives a member another role, in place of the one that it has.
    ///
    /// What a member wrote before and this peer has stands. Whoever may not read any more gets no key of what
    /// is written after this.
    ///
    /// # Errors
    ///
    /// [`Error::MayNotGrant`] if this peer's role does not reach, [`Error::NoSuchMember`],
    /// [`Error::Outranked`] if the member was given its role by somebody more senior than this peer.
    pub async fn set_role(&self, member: SeatId, role: Role) -> Result<(), Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                let (accepts, rest) = work.acceptances(id, member)?;
                work.check_role(id, |own| own.may_grant(role))?;
                let thread = thread_mut(&mut work.core.replica, id)?;
                let governance = thread.governance();
                let found = {
                    let mut grants = governance.lasting_grants(member);
                    grants.find(|(_, grant)| grant.op.seat == member)
                };
                let (_, grant) = found.ok_or(Error::NoSuchMember(member))?;
                let op = FrameOp::Grant(GrantOp {
                    seat: member,
                    kem: grant.op.kem,
                    role,
                    scope: Scope::Thread,
                    expires_millis: None,
                    identity: grant.op.identity,
                    recovery: grant.op.recovery,
                    accepts,
                });
                let keys = match grant.op.role.reads() && !role.reads() {
                    true => Keys::Changed,
                    false => Keys::Kept,
                };
                work.govern_member(id, member, op, Some(role), keys)?;
                work.accept_rest(id, &rest)
            })
            .await
    }

    /// Removes a member: all its rights end, those of its devices too, and keys change.
    ///
    /// What it wrote before and this peer has stands, on every peer. What it wrote and this peer does not
    /// have is put aside by everybody, whenever it comes, until somebody [accepts](Thread::readmit) it.
    ///
    /// # Errors
    ///
    /// [`Error::MayNotGrant`] if this peer's role does not reach, [`Error::NoSuchMember`],
    /// [`Error::Outranked`] if the member does not rank below this peer: admins are removed by owners, and
    /// owners by those more senior.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
    /// use leno::{ManualClock, Peer, Role};
    ///
    /// let (alice, one) = Peer::builder().clock(ManualClock::new(0)).build().await?;
    /// let (bob, two) = Peer::builder().clock(ManualClock::new(0)).build().await?;
    /// let app = async {
    ///     let band = alice.create_thread("band").await?;
    ///     let card = bob.card("Bob").await?;
    ///     band.grant(&card, Role::Writer).await?;
    ///     band.set_role(card.seat(), Role::Reader).await?;
    ///     assert_eq!(band.member(card.seat()).await?.map(|it| it.role), Some(Role::Reader));
    ///
    ///     band.remove(card.seat()).await?;
    ///     assert_eq!(band.member(card.seat()).await?, None);
    ///     bob.close().await?;
    ///     alice.close().await
    /// };
    /// futures_util::try_join!(one.run(), two.run(), app)?;
    /// # Ok(()) }) }
    /// ```
    pub async fn remove(&self, member: SeatId) -> Result<(), Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                let (accepts, rest) = work.acceptances(id, member)?;
                work.check_role(id, Role::governs)?;
                let thread = thread_mut(&mut work.core.replica, id)?;
                if thread.governance().role(member).is_none() {
                    return Err(Error::NoSuchMember(member));
                }
                let op = FrameOp::Remove(RemoveOp { member, accepts });
                work.govern_member(id, member, op, None, Keys::Changed)?;
                work.accept_rest(id, &rest)
            })
            .await
    }

    /// Gives up this peer's own rights in the thread. What it wrote stands. The next writer changes the keys.
    ///
    /// # Errors
    ///
    /// [`Error::LastOwner`] if nobody else is an owner: make somebody one first. [`Error::NoSuchMember`] if this
    /// peer has no rights.
    pub async fn leave(&self) -> Result<(), Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                work.writable(id)?;
                let thread = thread_mut(&mut work.core.replica, id)?;
                let own = thread.seat().id();
                if thread.governance().role(own).is_none() {
                    return Err(Error::NoSuchMember(own));
                }
                let explained = work.explain(id, &[FrameOp::Leave])?;
                let leaves =
                    |(seat, _, role): &(SeatId, _, Option<Role>)| *seat == own && role.is_none();
                if !explained.roles.iter().any(leaves) {
                    return Err(Error::LastOwner);
                }
                work.write_governance(id, &[FrameOp::Leave], Keys::Kept)
            })
            .await
    }

    /// Begins new keys of the documents, for all who may read now: what is written after this opens with no key
    /// that was handed out before.
    ///
    /// # Errors
    ///
    /// [`Error::MayNotGrant`] if this peer may not write.
    pub async fn rotate(&self) -> Result<(), Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                work.writable(id)?;
                work.check_role(id, Role::writes)?;
                work.write_governance(id, &[], Keys::Changed)
            })
            .await
    }

    /// Accepts a log up to a record: what was put aside because its author was removed, or because the log has
    /// two branches, counts again up to there, on every peer.
    ///
    /// # Errors
    ///
    /// [`Error::MayNotGrant`] if this peer's role does not reach. Whoever is outranked by those who removed the
    /// author changes nothing by it.
    pub async fn readmit(&self, up_to: RecordRef) -> Result<(), Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                work.writable(id)?;
                work.check_role(id, Role::governs)?;
                work.write_governance(id, &[FrameOp::Accept(vec![up_to])], Keys::Kept)
            })
            .await
    }

    /// What ops of governance would do if this peer wrote them now: which roles they would change.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn explain(&self, ops: Vec<FrameOp>) -> Result<Explained, Error> {
        let id = self.id();
        self.peer().call(move |work| work.explain(id, &ops)).await
    }

    /// All ops of governance that are here, and whether each stands.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn audit(&self) -> Result<Vec<AuditedOp>, Error> {
        let id = self.id();
        self.peer()
            .call(move |work| {
                let thread = thread_mut(&mut work.core.replica, id)?;
                Ok(thread.audit(work.view)?)
            })
            .await
    }
}

impl Work<'_> {
    /// What is here of the logs of a member, for a thread that may be written: as much as one op accepts, and
    /// the rest.
    pub(crate) fn acceptances(
        &mut self,
        id: ThreadId,
        member: SeatId,
    ) -> Result<(Vec<RecordRef>, Vec<RecordRef>), Error> {
        self.writable(id)?;
        // What was written in this step is there, too.
        self.publish();
        let thread = thread_mut(&mut self.core.replica, id)?;
        let view = Overlay::new(self.view, &self.changes.batch);
        let mut accepts = thread.acceptances(&view, member)?;
        let rest = accepts.split_off(accepts.len().min(ACCEPTANCES_MAX));
        Ok((accepts, rest))
    }

    /// Refuses what is above this peer's role before anything is written.
    pub(crate) fn check_role(
        &mut self,
        id: ThreadId,
        may: impl FnOnce(Role) -> bool,
    ) -> Result<(), Error> {
        let thread = thread_mut(&mut self.core.replica, id)?;
        let own = thread.governance().role(thread.seat().id());
        own.is_some_and(may).then_some(()).ok_or(Error::MayNotGrant)
    }

    /// Accepts what did not fit into one op: nobody is safe from removal by having many logs.
    pub(crate) fn accept_rest(&mut self, id: ThreadId, rest: &[RecordRef]) -> Result<(), Error> {
        for accepts in rest.chunks(ACCEPTANCES_MAX) {
            let op = FrameOp::Accept(accepts.to_vec());
            self.write_governance(id, &[op], Keys::Kept)?;
        }
        Ok(())
    }

    fn explain(&mut self, id: ThreadId, ops: &[FrameOp]) -> Result<Explained, Error> {
        let now = self.now();
        let thread = thread_mut(&mut self.core.replica, id)?;
        Ok(thread.explain(ops, now)?)
    }

    /// Writes an op if it gives a member a role.
    fn govern_member(
        &mut self,
        id: ThreadId,
        member: SeatId,
        op: FrameOp,
        role: Option<Role>,
        keys: Keys,
    ) -> Result<(), Error> {
        let ops = [op];
        self.check_outcome(id, member, &ops, role)?;
        self.write_governance(id, &ops, keys)
    }

    /// Refuses ops that would not give a member a role.
    pub(crate) fn check_outcome(
        &mut self,
        id: ThreadId,
        member: SeatId,
        ops: &[FrameOp],
        role: Option<Role>,
    ) -> Result<(), Error> {
        let explained = self.explain(id, ops)?;
        // A device is no member: its first seat is.
        if explained.void == Some(VoidReason::NoSuchMember) {
            return Err(Error::NoSuchMember(member));
        }
        let thread = thread_mut(&mut self.core.replica, id)?;
        let is = thread.governance().role(member);
        let changed = explained.roles.iter().find(|it| it.0 == member);
        if changed.map_or(is, |it| it.2) != role {
            return Err(Error::Outranked(member));
        }
        Ok(())
    }

    fn write_governance(&mut self, id: ThreadId, ops: &[FrameOp], keys: Keys) -> Result<(), Error> {
        let now = self.now();
        // Drafts are of before.
        self.publish();
        let thread = thread_mut(&mut self.core.replica, id)?;
        let (rng, view) = (&mut self.core.rng, self.view);
        let record = match keys {
            Keys::Kept => thread.govern(view, ops, &[], now, rng, self.changes),
            Keys::Changed => thread.govern_and_rotate(view, ops, now, rng, self.changes),
        };
        self.wrote(record)?;
        self.core.replica.touched(id);
        Ok(())
    }
}
