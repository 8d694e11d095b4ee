//! A child process that is killed while it writes.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use futures_executor::block_on;
use leno_store_redb::Redb;
use leno_threads_core::store::{Store, StoreError};

use crate::workload::{Dice, Folder, SMALL_JOURNAL, batch, check, is_long, last, read_all};

const PATH: &str = "LENO_STORE_REDB_CHILD";

/// The child: not a test by itself, it does nothing unless the parent names a file.
#[test]
fn child_writes_until_killed() {
    let Some(path) = env::var_os(PATH) else {
        return;
    };
    println!("opening");
    // Short, so that some are killed while rows are moved to redb.
    let options = Redb::options().journal_bytes(SMALL_JOURNAL);
    let store = options.open(path).unwrap();
    let mut number = last(&read_all(&*store.view().unwrap()).unwrap());
    loop {
        // Some batches are alone, some under way together.
        let under_way: Vec<_> = (number + 1..=number + 1 + number % 3)
            .map(|number| (number, store.commit(batch(number))))
            .collect();
        let (numbers, commits): (Vec<_>, Vec<_>) = under_way.into_iter().unzip();
        for (at, result) in numbers.into_iter().zip(block_on(all(commits))) {
            result.unwrap();
            number = at;
            // Not `println!`, which a test harness may hold back.
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {number}")
                .and_then(|()| out.flush())
                .unwrap();
        }
    }
}

/// Polls all futures until each is done.
async fn all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(done) = std::pin::Pin::new(future).poll(context)
            {
                *result = Some(done);
            }
        }
        if results.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    results
        .into_iter()
        .map(|result| result.expect("all are done"))
        .collect()
}

#[test]
fn killed_process_leaves_every_acknowledged_batch_whole() {
    let folder = Folder::new();
    let path = folder.file("store.redb");
    let rounds = if is_long() { 50 } else { 20 };
    let mut dice = Dice::new(7);
    let mut newest = 0;
    for round in 0..rounds {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kill::child_writes_until_killed", "--nocapture"])
            .env(PATH, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Every fifth child dies while it opens, the others after some acknowledgements.
        let patience = if round % 5 == 4 {
            0
        } else {
            1 + dice.below(25)
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        let read = |line: &str, newest: &mut u64| {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                *newest = number.parse().unwrap();
                return true;
            }
            false
        };
        for line in lines.by_ref() {
            let line = line.unwrap();
            seen += usize::from(read(&line, &mut newest));
            if seen == 1 && patience > 1 {
                let error = Redb::open(&path).expect_err("the child holds the store");
                assert!(matches!(error, StoreError::Locked), "{error:?}");
            }
            if seen >= patience && (patience > 0 || line.ends_with("opening")) {
                break;
            }
        }
        for _ in 0..dice.below(3_000_000) {
            // Not a sleep: a moment of no particular length, well under one sync of a disk.
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died, and was not read yet, was acknowledged too.
        for line in lines.map_while(Result::ok) {
            read(&line, &mut newest);
        }
        assert!(seen >= patience, "round {round}: the child ended by itself");
        let store = Redb::open(&path).unwrap();
        // At most three batches are under way at a time.
        newest = check(&store, newest, newest + 3, &format!("kill {round}"));
    }
    assert!(newest > 50, "only {newest} batches were written");
}
