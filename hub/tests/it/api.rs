//! What the interface answers, also to those who ask what they may not.

use leno::Role;
use serde_json::json;

use crate::support::{ANN, BOB, OPERATOR, Process, configure, peer};

#[tokio::test(flavor = "multi_thread")]
async fn accounts_see_and_get_what_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let hub = Process::start(folder.path());
    let alice = peer().await;
    let mut bands = Vec::new();
    for name in ["one", "two", "three"] {
        bands.push(alice.create_thread(name).await.unwrap());
    }
    let [one, two, three] = &bands[..] else {
        unreachable!()
    };

    // Ann may have two threads and 10 MB.
    let ticket = one.grant(&hub.card(ANN), Role::Replicator).await.unwrap();
    let ticket = ticket.to_string();
    let wish = |bytes: u64| json!({ "ticket": ticket, "bytes": bytes });
    let (status, answer) = hub.ask(ANN, "POST /v1/threads", Some(&wish(10_000_001)));
    assert_eq!((status, &answer["error"]), (403, &"over_quota".into()));
    assert!(hub.thread(ANN, one.id()).is_none(), "nothing was promised");
    let (status, answer) = hub.ask(ANN, "POST /v1/threads", Some(&wish(4_000_000)));
    assert_eq!(
        (status, &answer["bytes_promised"]),
        (201, &4_000_000.into())
    );
    // Asked again, with another bound.
    let (status, answer) = hub.ask(ANN, "POST /v1/threads", Some(&wish(5_000_000)));
    assert_eq!(
        (status, &answer["bytes_promised"]),
        (201, &5_000_000.into())
    );
    let (status, answer) = hub.ask(BOB, "POST /v1/threads", Some(&wish(1)));
    assert_eq!(
        (status, &answer["error"]),
        (409, &"carried_for_another".into())
    );
    let (status, answer) = hub.carry(ANN, two, Role::Replicator).await;
    assert_eq!(
        (status, &answer["bytes_promised"]),
        (201, &5_000_000.into())
    );
    let (status, answer) = hub.carry(ANN, three, Role::Replicator).await;
    assert_eq!((status, &answer["error"]), (403, &"over_quota".into()));

    // Bob sees none of it, the operator all.
    let (_, bobs) = hub.ask(BOB, "GET /v1/threads", None);
    assert_eq!(bobs, json!({ "threads": [] }));
    let release = format!("DELETE /v1/threads/{}", one.id());
    assert_eq!(hub.ask(BOB, &release, None).0, 404);
    let (_, all) = hub.ask(OPERATOR, "GET /v1/threads", None);
    assert_eq!(all["threads"].as_array().unwrap().len(), 2);
    assert_eq!(all["threads"][0]["account"], "ann");
    assert_eq!(hub.ask(OPERATOR, &release, None).0, 204);

    // It survives.
    hub.stop();
    let hub = Process::start(folder.path());
    let (_, mine) = hub.ask(ANN, "GET /v1/threads", None);
    assert_eq!(mine["threads"].as_array().unwrap().len(), 1);
    assert_eq!(mine["threads"][0]["id"], two.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_nonsense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let hub = Process::start(folder.path());
    assert_eq!(hub.ask_raw("", "GET /health", ""), (200, "ok\n".to_owned()));
    for request in [
        "GET /v1/status",
        "GET /v1/threads",
        "POST /v1/cards",
        "POST /v1/threads",
    ] {
        for token in ["", "somebody's", " ann's token", "Bearer"] {
            let (status, answer) = hub.ask(token, request, None);
            assert_eq!(
                (status, &answer["error"]),
                (401, &"unknown_token".into()),
                "{request}"
            );
        }
    }
    // What is no web socket is not made one.
    assert_eq!(hub.ask_raw("", "GET /leno", "").0, 400);
    for (body, expected) in [
        ("{", 400),
        ("{}", 422),
        ("{\"ticket\": 1}", 422),
        ("{\"ticket\": \"leno-ticket:aaaa\"}", 400),
        ("{\"ticket\": \"\", \"more\": 1}", 422),
    ] {
        let (status, answer) = hub.ask_raw(ANN, "POST /v1/threads", body);
        assert_eq!(status, expected, "{body}: {answer}");
    }
    let long = format!("{{\"ticket\": \"{}\"}}", "a".repeat(20_000));
    assert_eq!(hub.ask_raw(ANN, "POST /v1/threads", &long).0, 413);

    // A ticket for somebody else's card.
    let (alice, carol) = (peer().await, peer().await);
    let band = alice.create_thread("band").await.unwrap();
    let card = carol.card("Carol").await.unwrap();
    let ticket = band.grant(&card, Role::Replicator).await.unwrap();
    let wish = json!({ "ticket": ticket.to_string() });
    let (status, answer) = hub.ask(ANN, "POST /v1/threads", Some(&wish));
    assert_eq!((status, &answer["error"]), (400, &"not_our_ticket".into()));
    assert!(hub.thread(ANN, band.id()).is_none());
}

#[test]
fn bad_configurations_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_leno-hub"))
            .args(["--check", "--config"])
            .arg(folder.path().join("hub.toml"))
            .output()
            .unwrap();
        let text = [run.stdout, run.stderr].concat();
        (run.status.success(), String::from_utf8(text).unwrap())
    };
    let (good, text) = run();
    assert!(!good && text.contains("cannot be read"), "{text}");
    std::fs::write(folder.path().join("hub.toml"), "folder = 1").unwrap();
    let (good, text) = run();
    assert!(!good && text.contains("folder"), "{text}");
    configure(folder.path());
    let (good, text) = run();
    assert!(good && text.contains("is good"), "{text}");
}
