//! TLS to a mail server, in both of its ways.

use crate::settings::{Server, Settings, SettingsError};
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Those of `cafile`, beside the public ones.
fn authorities(settings: &Settings) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let Some(path) = &settings.ca_file else { return Ok(Vec::new()) };
    let text = crate::settings::read("cafile", path)?;
    let certificates: Option<Vec<_>> = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().ok();
    let good = |certificate: &CertificateDer<'static>| RootCertStore::empty().add(certificate.clone()).is_ok();
    let certificates = certificates.filter(|all| !all.is_empty() && all.iter().all(good));
    certificates.ok_or_else(|| SettingsError::Certificates(path.clone()))
}

/// TLS from the start.
#[derive(Clone)]
pub(super) struct Implicit {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Implicit {
    pub fn new(settings: &Settings, server: &Server) -> Result<Self, SettingsError> {
        let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        for certificate in authorities(settings)? {
            roots.add(certificate).map_err(|error| SettingsError::Tls(error.into()))?;
        }
        // The provider is named so that no feature of another crate decides which one it is.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingsError::Tls(error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(server.host.clone()).map_err(|_| SettingsError::Url)?;
        Ok(Implicit { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

/// TLS after STARTTLS, which is the SMTP library's own.
pub(super) fn start_tls(settings: &Settings, server: &Server) -> Result<TlsParameters, SettingsError> {
    let wrong = |error: lettre::transport::smtp::Error| SettingsError::Tls(error.into());
    let mut builder = TlsParameters::builder(server.host.clone()).certificate_store(CertificateStore::WebpkiRoots);
    for certificate in authorities(settings)? {
        builder = builder.add_root_certificate(Certificate::from_der(certificate.to_vec()).map_err(wrong)?);
    }
    builder.build_rustls().map_err(wrong)
}
