//! TLS to the collector, as the standard variables say: the exporter's crate reads endpoint and headers, and not these.

use crate::settings::{TelemetryError, variable};
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// What an exporter sends; it stands in the names of the variables that are for it alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// The variables of a setting, the one that wins first.
    fn names(self, setting: &str) -> [String; 2] {
        let own = match self {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
        };
        [format!("OTEL_EXPORTER_OTLP_{own}_{setting}"), format!("OTEL_EXPORTER_OTLP_{setting}")]
    }

    /// The variable that is set, and to what.
    fn get(self, setting: &str) -> Option<(String, String)> {
        self.names(setting).into_iter().find_map(|name| variable(&name).map(|value| (name, value)))
    }
}

/// An exporter that trusts whom it is told to, and nobody else. `endpoint`: where no variable decides.
pub(crate) fn secured<B: WithTonicConfig>(
    builder: B,
    signal: Signal,
    endpoint: Option<&str>,
) -> Result<B, TelemetryError> {
    headers(signal)?;
    Ok(match tls(signal, endpoint)? {
        Some(tls) => builder.with_tls_config(tls),
        None => builder,
    })
}

/// The crate passes over a header that it cannot read; without it the collector would refuse everything. The value is
/// a secret, so it is not repeated.
fn headers(signal: Signal) -> Result<(), TelemetryError> {
    match signal.get("HEADERS") {
        Some((name, value)) if value.split(',').any(|pair| !pair.trim().is_empty() && !pair.contains('=')) => {
            Err(TelemetryError::Headers(name))
        }
        _ => Ok(()),
    }
}

/// None where the endpoint is without TLS.
fn tls(signal: Signal, endpoint: Option<&str>) -> Result<Option<ClientTlsConfig>, TelemetryError> {
    let endpoint = endpoint.map(str::to_owned).or_else(|| signal.get("ENDPOINT").map(|(_, value)| value));
    let plain = endpoint.is_none_or(|endpoint| endpoint.trim().to_ascii_lowercase().starts_with("http://"));
    let [authority, key, certificate] = ["CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"].map(|s| signal.get(s));
    if plain {
        // Whoever names a certificate does not expect that all goes in the open.
        return match authority.or(key).or(certificate) {
            Some((name, _)) => Err(TelemetryError::Plain(name)),
            None => Ok(None),
        };
    }
    let mut tls = ClientTlsConfig::new();
    tls = match authority {
        Some((name, path)) => {
            let pem = read(&name, &path)?;
            let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().unwrap_or_default();
            let good = |found: &CertificateDer<'static>| RootCertStore::empty().add(found.clone()).is_ok();
            if certificates.is_empty() || !certificates.iter().all(good) {
                return Err(TelemetryError::Certificates(name, path));
            }
            tls.ca_certificate(Certificate::from_pem(pem))
        }
        None => tls.with_enabled_roots(),
    };
    match (key, certificate) {
        (Some((key, key_path)), Some((certificate, path))) => {
            Ok(Some(tls.identity(Identity::from_pem(read(&certificate, &path)?, read(&key, &key_path)?))))
        }
        (None, None) => Ok(Some(tls)),
        (Some((name, _)), None) | (None, Some((name, _))) => Err(TelemetryError::Alone(name)),
    }
}

fn read(name: &str, path: &str) -> Result<Vec<u8>, TelemetryError> {
    std::fs::read(path).map_err(|error| TelemetryError::File(name.to_owned(), path.to_owned(), error))
}
