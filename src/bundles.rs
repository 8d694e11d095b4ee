//! Bundles: threads as files, for peers that are not connected.

use leno_threads_core::ThreadId;
use leno_threads_core::sync::bundle::{
    BundleError, Export, ExportOptions, Imported, Vector, parts,
};

use crate::error::Error;
use crate::peer::Peer;
use crate::thread::Thread;
use crate::work::{Work, thread_mut};
use leno_crdt_codec::cbor::DecodeError;

/// Bytes of parts that are made or taken in by one step, about: others have their turn in between.
const STEP_BYTES: usize = 1 << 20;

impl Thread {
    /// Makes a file of the thread, for a USB stick or a mail: everything, or what is not in `since`.
    ///
    /// Whoever imports it is as level with this peer as if they had met; nobody without a ticket learns
    /// anything from it but its length. The whole file is held in memory; [`Thread::export_parts`]
    /// makes parts of any length, and parts that one seat alone can open.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    ///
    /// # Examples
    ///
    /// Alice and Bob never meet.
    ///
    /// ```
    /// # fn main() -> Result<(), leno::Error> { futures_executor::block_on(async {
    /// use std::collections::BTreeMap;
    /// use leno::{ManualClock, Peer, Role};
    ///
    /// let clock = ManualClock::new(1_800_000_000_000);
    /// let (alice, alices_driver) = Peer::builder().clock(clock.clone()).build().await?;
    /// let (bob, bobs_driver) = Peer::builder().clock(clock).build().await?;
    /// let app = async {
    ///     let band = alice.create_thread("band").await?;
    ///     let ticket = band.grant(&bob.card("Bob").await?, Role::Writer).await?;
    ///     let song = BTreeMap::from([("title".to_owned(), "Psalm 1".to_owned())]);
    ///     let id = band.collection("songs").insert(&song).await?;
    ///     let file = band.export(None).await?; // to a USB stick
    ///
    ///     let bobs_band = bob.join(&ticket).await?;
    ///     let imported = bob.import(file).await?;
    ///     assert!(imported.is_complete && imported.refused.is_empty());
    ///     let songs = bobs_band.collection::<BTreeMap<String, String>>("songs");
    ///     assert_eq!(songs.get(&id).await?, Some(song));
    ///
    ///     // And back: what Alice had by then is left out.
    ///     songs.delete(&id).await?;
    ///     let back = bobs_band.export(imported.has.as_ref()).await?;
    ///     alice.import(back).await?;
    ///     assert_eq!(band.state_hash().await?, bobs_band.state_hash().await?);
    ///     bob.close().await?;
    ///     alice.close().await
    /// };
    /// futures_util::try_join!(alices_driver.run(), bobs_driver.run(), app)?;
    /// # Ok(()) }) }
    /// ```
    pub async fn export(&self, since: Option<&Vector>) -> Result<Vec<u8>, Error> {
        let options = ExportOptions {
            since: since.cloned().unwrap_or_default(),
            ..ExportOptions::default()
        };
        Ok(self.export_parts(options).await?.concat())
    }

    /// As [`Thread::export`], in parts of at most so many bytes, for QR codes or short mails, and if
    /// wanted for one seat alone. They may come in any order and more than once.
    ///
    /// # Errors
    ///
    /// As [`Thread::export`]; [`Error::Bundle`] if the options are not possible.
    pub async fn export_parts(&self, options: ExportOptions) -> Result<Vec<Vec<u8>>, Error> {
        let id = self.id();
        let mut export = self
            .peer()
            .call(move |work| begin(work, id, options))
            .await?;
        let mut all = Vec::new();
        loop {
            let go_on = self.peer().call(move |work| {
                let parts = work.export(id, &mut export, STEP_BYTES)?;
                Ok((export, parts))
            });
            let (rest, parts) = go_on.await?;
            export = rest;
            if parts.is_empty() {
                return Ok(all);
            }
            all.extend(parts);
        }
    }

    /// What is here of the thread: for [`Thread::export`] at another peer, to leave it out.
    ///
    /// Each bundle carries that of its maker, as [`Imported::has`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchThread`], or [`Error::NotSyncedYet`].
    pub async fn vector(&self) -> Result<Vector, Error> {
        let id = self.id();
        let vector = self.peer().call(move |work| {
            work.publish();
            Ok(Vector::of(thread_mut(&mut work.core.replica, id)?))
        });
        vector.await
    }
}

fn begin(work: &mut Work<'_>, id: ThreadId, options: ExportOptions) -> Result<Box<Export>, Error> {
    work.publish();
    let thread = thread_mut(&mut work.core.replica, id)?;
    Ok(Box::new(Export::new(thread, options, &mut work.core.rng)?))
}

impl Peer {
    /// Takes in a bundle, or parts of one: of a thread that is here, or that was joined by a ticket.
    ///
    /// What is here already is passed over, so a bundle may be imported again at any time, for example
    /// from a file that was cut. What waits for an earlier part is kept in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Bundle`]. What came before the part in question is taken in. That records are refused
    /// is no error: [`Imported::refused`] lists them, and the rest is taken in.
    pub async fn import(&self, bytes: impl Into<Vec<u8>>) -> Result<Imported, Error> {
        let mut rest = bytes.into();
        let mut imported: Option<Imported> = None;
        loop {
            let mut length = 0;
            let lengths = parts(&rest).map(<[u8]>::len);
            for part in lengths {
                if length > 0 && length + part > STEP_BYTES {
                    break;
                }
                length += part;
            }
            let behind = rest.split_off(length);
            let now = std::mem::replace(&mut rest, behind);
            let is_first = imported.is_none();
            let result = self.call(move |work| match work.import(&now) {
                Ok(it) => Ok(Ok(it)),
                Err(error) => Ok(Err(error)),
            });
            let it = match (result.await?, imported.take()) {
                (Ok(it), None) => it,
                (Ok(it), Some(before)) if it.bundle == before.bundle => before.and_then(it),
                (Ok(_), Some(_)) => return Err(BundleError::Mixed.into()),
                // The last step has the end of a file that was cut, and no whole part.
                (Err(BundleError::Malformed(DecodeError::Truncated { .. })), Some(before))
                    if !is_first =>
                {
                    Imported {
                        is_cut: true,
                        ..before
                    }
                }
                (Err(error), _) => return Err(error.into()),
            };
            if rest.is_empty() {
                return Ok(it);
            }
            imported = Some(it);
        }
    }
}
