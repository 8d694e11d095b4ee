//! Mistakes that can be switched on, to see whether tests would find them.
//!
//! A build with `--cfg leno_bug` holds all of them; at most one is on at a time. In any other build
//! there is nothing of this: [`bug!`](crate::bug!) is `false`.

use std::sync::atomic::{AtomicUsize, Ordering};

macro_rules! bugs {
    ($($name:ident = $text:literal: $what:literal,)*) => {
        /// A mistake that somebody could make.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Bug {
            $(#[doc = $what] $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name on a command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What is wrong, in a few words.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)*
                }
            }
        }
    };
}

bugs! {
    // Documents.
    LwwByArrival = "lww-by-arrival": "a register shows what arrived last, not what is latest",
    SetByArrival = "set-by-arrival": "a remove takes also what is added at the same time",
    MaxByArrival = "max-by-arrival": "a maximum shows what arrived last",
    TieByArrival = "tie-by-arrival": "of two values with equal clocks the one shows that arrived last",
    TombstoneDropped = "tombstone-dropped": "a delete is not remembered",
    CounterTwice = "counter-twice": "a record that comes again counts again",
    TransactionTorn = "transaction-torn": "only the first collection of a transaction shows at once",
    CursorAhead = "cursor-ahead": "a flush forgets a document and moves the cursor past it",
    WatchLost = "watch-lost": "a watcher is not told of the last change of a step",
    ReplayForgotten = "replay-forgotten": "documents that load do not replay what was not flushed",
    // Admission and governance.
    UnsignedAccepted = "unsigned-accepted": "the signature of a head is not checked",
    DepNotAwaited = "dep-not-awaited": "a record is admitted before what its author had seen",
    ControlNotAwaited = "control-not-awaited": "a record is admitted before the control records that it names",
    DepsNotNamed = "deps-not-named": "a record does not name what its author had seen",
    FutureNotHeld = "future-not-held": "a stamp far ahead of the clock is taken at once",
    TimerForgotten = "timer-forgotten": "what waits for its time is not looked at when it has come",
    ParkedLost = "parked-lost": "what waits for a record is not released when it comes",
    FirstParkedBlocks = "first-parked-blocks": "a log that waits blocks those behind it",
    QuarantineBlocks = "quarantine-blocks": "a record that is put aside blocks the rest of its log",
    BranchNotCompared = "branch-not-compared": "a range that disagrees with what is here is gone on with",
    RoleNotChecked = "role-not-checked": "a grant stands whoever gives it",
    RevokeNotChecked = "revoke-not-checked": "a member is removed by whoever says so",
    GovernanceNotKept = "governance-not-kept": "a control record is not kept for the next start",
    // Keys.
    NonceReused = "nonce-reused": "all bodies of a log are sealed with one nonce",
    WrapForAll = "wrap-for-all": "keys are wrapped for seats that may not read",
    WrapForWrongSeat = "wrap-for-wrong-seat": "a key is wrapped to the key of another seat",
    WrapsNotHandedOn = "wraps-not-handed-on": "wraps are not sent on to who lacks them",
    SubkeyShared = "subkey-shared": "all logs of a thread are sealed under one key",
    LateKeyIgnored = "late-key-ignored": "what waits for a key is not opened when it comes",
    // Writing and durability.
    ClockGoesBack = "clock-goes-back": "the newest stamp is forgotten at a restart",
    LogRowForgotten = "log-row-forgotten": "the row of a log is not in the batch with its records",
    RunRowForgotten = "run-row-forgotten": "the records are not in the batch with the row of their log",
    TellBeforeCommit = "tell-before-commit": "callers are answered before the commit",
    SendBeforeCommit = "send-before-commit": "peers are sent what is not durable yet",
    CommitErrorIgnored = "commit-error-ignored": "a commit that failed counts as done",
    CopyNotNoticed = "copy-not-noticed": "a store that was put back goes on with its logs",
    OwnLogKept = "own-log-kept": "the own log is gone on with although peers show more of it",
    JournalNotSynced = "journal-not-synced": "a commit is answered before the journal is synced",
    ReplayStopsEarly = "replay-stops-early": "only the first frame of the journal is read at an open",
    // Sync.
    SessionKept = "session-kept": "the state of a session is kept over a reconnect",
    VectorNotRefreshed = "vector-not-refreshed": "a log that is opened later is not asked for again",
    NewsNotSent = "news-not-sent": "what was written is not sent to peers that were level before",
    AckOfUnsent = "ack-of-unsent": "a vector is taken to say that all is there",
    ProofNotBound = "proof-not-bound": "a proof of a seat does not say for which session it is",
    QuotaNotKept = "quota-not-kept": "more is taken in than the quota has room for",
    RangeOffByOne = "range-off-by-one": "the last record of a log is not sent",
    ThreadStarves = "thread-starves": "a thread that sent a message is not asked again",
    RootNotCompared = "root-not-compared": "what two peers remember to share counts as the same without a look",
    RedialForgotten = "redial-forgotten": "a peer whose link was lost is not dialled again",
    ProgressLeaks = "progress-leaks": "what was announced counts as missing although it came",
}

/// One more than the place of the bug that is on, 0 if none is.
static ON: AtomicUsize = AtomicUsize::new(0);

impl Bug {
    /// Switches one bug on and all others off, or all off, for the whole process.
    pub fn switch(to: Option<Self>) {
        ON.store(to.map_or(0, |bug| bug as usize + 1), Ordering::SeqCst);
    }

    /// Whether it is switched on.
    #[must_use]
    pub fn is_on(self) -> bool {
        ON.load(Ordering::Relaxed) == self as usize + 1
    }
}
