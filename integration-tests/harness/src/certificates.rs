//! Certificates for tests: an authority, and what it signs, as files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority of its own name.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

/// A certificate and its key, each a file.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The key, PKCS #8 in PEM.
    pub key: PathBuf,
}

impl Authority {
    /// Its certificate is `<name>.pem` in `folder`.
    pub fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).context("cannot write a certificate")?;
        Ok(Self { issuer, file })
    }

    /// Its certificate.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A certificate for the common name `name` and the host `host`, valid until the end of `year`.
    pub fn sign(&self, name: &str, host: &str, year: i32) -> anyhow::Result<Certificate> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let pair = KeyPair::generate()?;
        let signed = params.signed_by(&pair, &self.issuer)?;
        let stem = self.file.with_extension("");
        let named = |ending: &str| PathBuf::from(format!("{}-{name}-{year}.{ending}", stem.display()));
        let (certificate, key) = (named("crt"), named("key"));
        fs::write(&certificate, signed.pem()).context("cannot write a certificate")?;
        fs::write(&key, pair.serialize_pem()).context("cannot write a key")?;
        Ok(Certificate { certificate, key })
    }
}
