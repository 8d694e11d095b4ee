//! The count of starts that a machine keeps outside of its store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leno::{Error, Generation};

/// A number that outlives the disk, as on a server. Clones are the same number.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    value: Option<u64>,
    fails: bool,
}

impl Counter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it refuse to keep a number, as a crash between the two counts would; or not.
    pub fn fail(&self, fails: bool) {
        self.lock().fails = fails;
    }
}

impl Generation for Counter {
    fn load(&mut self) -> Result<Option<u64>, Error> {
        Ok(self.lock().value)
    }

    fn store(&mut self, generation: u64) -> Result<(), Error> {
        let mut state = self.lock();
        if state.fails {
            return Err(std::io::Error::other("the count could not be kept").into());
        }
        state.value = Some(generation);
        Ok(())
    }
}
