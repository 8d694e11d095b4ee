use super::*;
use tokio::time::Instant;

async fn measure(net: &str) {
    let (alice, bob) = (listen(1, net).await, listen(2, net).await);
    let t = Instant::now();
    alice.dial(&address(&bob)).await.unwrap();
    println!("{net} dial {:?}", t.elapsed());
    connected(&alice).await;
    connected(&bob).await;
    let (alice, bob) = (std::sync::Arc::new(alice), std::sync::Arc::new(bob));
    let base = Instant::now();
    for size in [16usize, 1024] {
        // round trip
        let b = bob.clone(); let a_id = alice.local(); let b_id = bob.local();
        let n = 3000u32;
        let echo = tokio::spawn(async move { let mut one = vec![]; for _ in 0..n { let m = message(&b).await; let t0 = u128::from_be_bytes(m[..16].try_into().unwrap()); one.push((base.elapsed().as_nanos() - t0) as u64); b.send(a_id, m).await.unwrap(); } one.sort(); one });
        let mut rt = vec![];
        for _ in 0..n {
            let t = Instant::now();
            let mut m = vec![0; size]; m[..16].copy_from_slice(&base.elapsed().as_nanos().to_be_bytes());
            alice.send(b_id, m).await.unwrap();
            message(&alice).await;
            rt.push(t.elapsed());
        }
        rt.sort();
        let one = echo.await.unwrap();
        println!("{net} {size}B rtt median {:?} p99 {:?}; one-way median {}us p99 {}us", rt[rt.len()/2], rt[rt.len()*99/100], one[one.len()/2]/1000, one[one.len()*99/100]/1000);
    }
    // throughput
    for (size, n) in [(256usize, 200_000u32), (1024*1024, 400)] {
        let b = bob.clone(); let b_id = bob.local();
        let sink = tokio::spawn(async move { for _ in 0..n { message(&b).await; } });
        let t = Instant::now();
        for _ in 0..n { alice.send(b_id, vec![0; size]).await.unwrap(); }
        sink.await.unwrap();
        let s = t.elapsed().as_secs_f64();
        println!("{net} {size}B x{n}: {:.0} msg/s {:.0} MB/s", n as f64/s, (n as f64*size as f64)/s/1e6);
    }
}
#[test]
fn measure_all() {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async { tokio::spawn(async { measure(TCP).await; measure(QUIC).await; }).await.unwrap(); });
    run(async { println!("single thread"); measure(TCP).await; measure(QUIC).await; });
}
