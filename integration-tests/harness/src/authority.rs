//! Certificates, in files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// A certificate authority that nobody trusts yet.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Where its files are, and what their names begin with.
    stem: PathBuf,
    _folder: Option<TempDir>,
}

/// A certificate and its key, each in a file (PEM).
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// One of a test: what it signs goes with it.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let authority = Self::within(folder.path())?;
        Ok(Self { _folder: Some(folder), ..authority })
    }

    /// One whose files go with `folder`.
    pub fn within(folder: &Path) -> anyhow::Result<Self> {
        let name = format!("authority-{:08x}", rand::random::<u32>());
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { stem: folder.join(name), issuer, _folder: None };
        authority.keep(".pem", &authority.issuer.pem())?;
        Ok(authority)
    }

    /// Its own certificate, for whoever is to trust it.
    pub fn certificate(&self) -> PathBuf {
        self.file(".pem")
    }

    /// A certificate for the host or user `name` that is valid until the end of `year`.
    pub fn sign(&self, name: &str, year: i32) -> anyhow::Result<Credentials> {
        self.sign_at(name, name, year)
    }

    /// One for `name` at `host`.
    pub fn sign_at(&self, name: &str, host: &str, year: i32) -> anyhow::Result<Credentials> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.distinguished_name = named(name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credentials {
            certificate: self.keep(&format!("-{name}-{year}.crt"), &certificate.pem())?,
            key: self.keep(&format!("-{name}-{year}.key"), &key.serialize_pem())?,
        })
    }

    fn keep(&self, ending: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.file(ending);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn file(&self, ending: &str) -> PathBuf {
        PathBuf::from(format!("{}{ending}", self.stem.display()))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}
