//! Several peers have what a newcomer lacks: it comes once.

use leno::Role;

use crate::support::{Song, World, connect, id, join, level, run, song};

const SONGS: usize = 60;
const SONG_BYTES: usize = 100_000;

/// Bytes that come to a newcomer from so many peers, which all have a band's songs.
async fn received(world: &World, having: usize) -> u64 {
    let alice = world.fresh().await;
    let band = alice.create_thread("band").await.unwrap();
    let songs = band.collection::<Song>("songs");
    for number in 0..SONGS {
        let title = format!("{number:010}").repeat(SONG_BYTES / 10);
        let key = id(&number.to_string());
        songs.put(&key, &song(&title)).await.unwrap();
    }
    let mut peers = vec![alice];
    for _ in 1..having {
        let other = world.fresh().await;
        join(&band, &other, Role::Writer).await;
        level(&other).await;
        peers.push(other);
    }
    let carol = world.fresh().await;
    let ticket = band
        .grant(&carol.card("").await.unwrap(), Role::Reader)
        .await
        .unwrap();
    for other in peers.iter().skip(1) {
        level(other).await;
    }
    // All are there when she wishes to join.
    for peer in &peers {
        connect(&carol, peer).await;
    }
    let bands = carol.join(&ticket).await.unwrap();
    level(&carol).await;
    let songs = bands.collection::<Song>("songs");
    for number in 0..SONGS {
        let song = songs.get(&id(&number.to_string())).await.unwrap();
        assert!(song.is_some(), "song {number}");
    }
    carol.traffic().await.unwrap().received
}

#[test]
fn what_several_peers_have_comes_once() {
    run(async |world| {
        let once = received(&world, 1).await;
        let of_four = received(&world, 4).await;
        println!("{once} B from one peer, {of_four} B from four");
        assert!(once > (SONGS * SONG_BYTES) as u64);
        assert!(10 * of_four < 13 * once, "{of_four} B, {once} B from one");
    });
}
