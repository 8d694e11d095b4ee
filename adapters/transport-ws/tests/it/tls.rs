//! `wss://`: TLS that somebody else ends, as a proxy before a hub does.

use std::sync::Arc;

use leno_transport_trait::TransportError;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

#[test]
fn link_goes_through_tls_to_a_host_that_is_trusted() {
    run(async {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
        let certificate = made.cert.der().clone();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let hub = Ws::listen(Builder::new([1; 32])).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let there: Address = format!("wss://localhost:{port}/leno/{}", hub.local())
            .parse()
            .unwrap();
        let serving = async {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                if let Ok(tls) = acceptor.accept(tcp).await {
                    hub.accept(tls, None).unwrap();
                }
            }
        };
        let dialling = async {
            let stranger = listen(2).await;
            let refused = stranger.dial(&there).await;
            assert!(
                matches!(refused, Err(TransportError::Unreachable { .. })),
                "nobody vouches for this host: {refused:?}"
            );
            let alice = builder(3).trust([certificate.to_vec()]);
            let alice = Ws::listen(alice).await.unwrap();
            assert_eq!(alice.dial(&there).await, Ok(hub.local()));
            let (_, link) = connected(&alice).await;
            alice.send(link, vec![7; 100_000]).await.unwrap();
            connected(&hub).await;
            assert_eq!(message(&hub).await, vec![7; 100_000]);
        };
        tokio::select! {
            () = serving => panic!("it serves on"),
            () = dialling => {}
        }
    });
}
