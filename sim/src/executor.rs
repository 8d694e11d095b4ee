//! The executor: one thread, and the order of what is woken drawn from the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::dice::Dice;

/// Names a task. Counts up.
pub(crate) type TaskId = u64;

/// On whose machine a task runs: its place in the world, or nothing for what is nobody's.
pub(crate) type Owner = Option<usize>;

/// What a poll came to.
pub(crate) enum Polled {
    /// The task waits.
    Waits,
    /// The task has ended.
    Done,
    /// The task panicked, with these words.
    Panicked(String),
}

/// Tasks, and those of them that are woken.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: BTreeMap<TaskId, Task>,
    woken: Arc<Woken>,
    /// Owners whose tasks do not run now.
    stopped: BTreeSet<usize>,
    /// What was woken meanwhile.
    set_aside: Vec<TaskId>,
    next: TaskId,
}

struct Task {
    owner: Owner,
    future: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
    waker: Waker,
}

#[derive(Default)]
struct Woken(Mutex<Vec<TaskId>>);

impl Woken {
    fn with<R>(&self, change: impl FnOnce(&mut Vec<TaskId>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Marks its task as woken, once.
struct Flag {
    task: TaskId,
    is_woken: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            self.woken.with(|woken| woken.push(self.task));
        }
    }
}

impl Executor {
    /// Begins a task, which is woken.
    pub(crate) fn spawn(&mut self, owner: Owner, future: impl Future<Output = ()> + 'static) {
        self.next += 1;
        let flag = Arc::new(Flag {
            task: self.next,
            is_woken: AtomicBool::new(false),
            woken: self.woken.clone(),
        });
        let waker = Waker::from(flag.clone());
        flag.wake_by_ref();
        let future = Box::pin(future);
        self.tasks.insert(
            self.next,
            Task {
                owner,
                future,
                flag,
                waker,
            },
        );
    }

    /// Polls one of the tasks that are woken, whichever is drawn. Nothing if there is none.
    pub(crate) fn poll_one(&mut self, dice: &mut Dice) -> Option<(Owner, TaskId, Polled)> {
        loop {
            let id = self.woken.with(|woken| {
                let at = dice.index(woken.len());
                (!woken.is_empty()).then(|| woken.swap_remove(at))
            })?;
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            if task
                .owner
                .is_some_and(|owner| self.stopped.contains(&owner))
            {
                self.set_aside.push(id);
                continue;
            }
            task.flag.is_woken.store(false, Ordering::SeqCst);
            let owner = task.owner;
            let mut context = Context::from_waker(&task.waker);
            let future = &mut task.future;
            let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
            let polled = match polled {
                Ok(Poll::Pending) => return Some((owner, id, Polled::Waits)),
                Ok(Poll::Ready(())) => Polled::Done,
                Err(panic) => Polled::Panicked(words(&*panic)),
            };
            // Dropping may wake others.
            drop(self.tasks.remove(&id));
            return Some((owner, id, polled));
        }
    }

    /// Drops all tasks of an owner, in the order in which they began.
    pub(crate) fn end_all(&mut self, owner: usize) {
        let tasks = self.tasks.iter();
        let ended = tasks.filter(|(_, task)| task.owner == Some(owner));
        for id in ended.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.tasks.remove(&id);
        }
        self.stopped.remove(&owner);
    }

    /// Lets the tasks of an owner stand still.
    pub(crate) fn stop(&mut self, owner: usize) {
        self.stopped.insert(owner);
    }

    /// Lets the tasks of an owner go on.
    pub(crate) fn go_on(&mut self, owner: usize) {
        if self.stopped.remove(&owner) {
            // Those of others who are still stopped are set aside again.
            let waiting = std::mem::take(&mut self.set_aside);
            self.woken.with(|woken| woken.extend(waiting));
        }
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    fn order(seed: u64) -> Vec<u8> {
        let (mut executor, mut dice) = (Executor::default(), Dice::new(seed, "test"));
        let seen = Rc::new(RefCell::new(Vec::new()));
        for name in 0..8 {
            let seen = seen.clone();
            executor.spawn(None, async move { seen.borrow_mut().push(name) });
        }
        while executor.poll_one(&mut dice).is_some() {}
        assert_eq!(executor.len(), 0);
        seen.take()
    }

    #[test]
    fn order_follows_from_the_seed() {
        assert_eq!(order(1), order(1));
        assert!((2..9).any(|seed| order(seed) != order(1)));
    }

    #[test]
    fn stopped_owners_wait_and_ended_ones_are_gone() {
        let (mut executor, mut dice) = (Executor::default(), Dice::new(1, "test"));
        executor.spawn(Some(0), async {});
        executor.spawn(Some(1), async {});
        executor.stop(0);
        executor.end_all(1);
        assert!(executor.poll_one(&mut dice).is_none());
        executor.go_on(0);
        assert!(matches!(
            executor.poll_one(&mut dice),
            Some((Some(0), _, Polled::Done))
        ));
    }

    #[test]
    fn panic_of_a_task_is_told() {
        let (mut executor, mut dice) = (Executor::default(), Dice::new(1, "test"));
        executor.spawn(None, async { panic!("words") });
        let polled = executor.poll_one(&mut dice);
        assert!(matches!(polled, Some((None, _, Polled::Panicked(words))) if words == "words"));
    }
}
