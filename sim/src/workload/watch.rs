//! Watches: what a watcher was told adds up to what shows.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use futures_util::FutureExt as _;
use leno::{Change, DocumentId};

use super::{Call, Model};
use crate::ledger::{Broken, LEDGER, Note};

/// What a watcher of the ledger of a thread knows: what it read when it began, and what it was told.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) machine: usize,
    pub(crate) thread: usize,
    pub(crate) known: BTreeSet<DocumentId>,
    /// It watches, and has read what was there before.
    pub(crate) is_ready: bool,
}

/// Forgets the watcher when its machine or its watch is gone.
struct Watching {
    model: Rc<RefCell<Model>>,
    number: u64,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.model.borrow_mut().watchers.remove(&self.number);
    }
}

impl Watching {
    fn with(&self, change: impl FnOnce(&mut Watcher)) {
        let mut model = self.model.borrow_mut();
        if let Some(watcher) = model.watchers.get_mut(&self.number) {
            change(watcher);
        }
    }
}

impl Watching {
    /// What a write's author had seen is known before the write itself.
    fn check_causes(&self) {
        let mut model = self.model.borrow_mut();
        let Some(watcher) = model.watchers.get(&self.number) else {
            return;
        };
        let machine = watcher.machine;
        let known = &watcher.known;
        let ledger = model.threads.get(watcher.thread).map(|it| it.ledger());
        let missing = ledger.and_then(|it| it.missing_cause(known));
        if let Some((entry, cause)) = missing {
            let what = format!("{machine} was told of {entry:?} before {cause:?}, which it saw");
            let invariant = 4;
            model.breaks(machine, Broken { invariant, what });
        }
    }
}

impl Call {
    /// Watches the ledger of a thread until the peer ends.
    pub(crate) async fn watch(self, at: usize) {
        let Some(thread) = self.thread(at).await else {
            return;
        };
        let notes = thread.collection::<Note>(LEDGER);
        let Some(mut watch) = self.end("watch", notes.watch().await) else {
            return;
        };
        let number = {
            let mut model = self.model.borrow_mut();
            model.watchers_made += 1;
            let number = model.watchers_made;
            let watcher = Watcher {
                machine: self.machine,
                thread: at,
                known: BTreeSet::new(),
                is_ready: false,
            };
            model.watchers.insert(number, watcher);
            number
        };
        let watching = Watching {
            model: self.model.clone(),
            number,
        };
        // Whatever comes from now on is told.
        let list = notes.list(None, 1 << 20).await;
        let Some(list) = self.end("list", list) else {
            return;
        };
        watching.with(|it| {
            it.known.extend(list.into_iter().map(|(id, _)| id));
            it.is_ready = true;
        });
        // Whoever watches must not keep the peer running.
        drop((notes, thread, self));
        loop {
            // What changed in one step is told in the order of ids, and only then looked at as a whole.
            let change = match watch.next().now_or_never() {
                Some(change) => change,
                None => {
                    watching.check_causes();
                    watch.next().await
                }
            };
            let Some(change) = change else {
                return;
            };
            match change {
                Ok(Change::Put { id, .. }) => watching.with(|it| it.known.extend([id])),
                Ok(Change::Deleted { id, .. }) => {
                    watching.with(|it| it.known.retain(|it| *it != id))
                }
                // What was dropped here would have to be read again.
                Ok(_) | Err(_) => return,
            }
        }
    }
}
