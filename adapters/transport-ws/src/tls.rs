//! TLS below `wss://`, where it is built in. It adds nothing to what the channel proves; proxies and
//! browsers want it.

#[cfg(feature = "tls")]
pub(crate) use with_tls::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use without_tls::Tls;

#[cfg(feature = "tls")]
mod with_tls {
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use crate::socket::Io;

    /// Whom to believe that a host is the one named.
    pub(crate) struct Tls(TlsConnector);

    impl Tls {
        /// Believes Mozilla's authorities, and these, in DER.
        pub(crate) fn new(trusted: &[Vec<u8>]) -> Result<Self, String> {
            let mut roots = RootCertStore::empty();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            for certificate in trusted {
                let certificate = CertificateDer::from_slice(certificate);
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(Self(TlsConnector::from(Arc::new(config))))
        }

        pub(crate) async fn connect(
            &self,
            host: &str,
            tcp: TcpStream,
        ) -> Result<Box<dyn Io>, String> {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let connected = self.0.connect(name, tcp).await;
            let connected = connected.map_err(|error| error.to_string())?;
            Ok(Box::new(connected))
        }
    }
}

#[cfg(not(feature = "tls"))]
mod without_tls {
    use tokio::net::TcpStream;

    use crate::socket::Io;

    /// Nothing: addresses with `wss://` are refused before.
    pub(crate) struct Tls;

    impl Tls {
        pub(crate) async fn connect(
            &self,
            host: &str,
            _: TcpStream,
        ) -> Result<Box<dyn Io>, String> {
            Err(format!("no TLS to {host} in this build"))
        }
    }
}
