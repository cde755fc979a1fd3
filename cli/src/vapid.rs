//! `waybill vapid`: the key pair that web push is signed with.

use crate::config::Config;
use crate::exit::Ended;
use anyhow::Context;
use clap::Args as ClapArgs;
use secrecy::ExposeSecret;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use waybill_push::VapidKey;

/// Where the private key is.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The private key's file; made if it is not there, never overwritten [default: push.vapidkeyfile]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Prints the public key, for `pushManager.subscribe` in the browser.
pub fn vapid(config: &Config, args: &Args) -> anyhow::Result<Ended> {
    let file = args.file.as_ref().or(config.push.vapid_key_file.as_ref());
    println!("{}", public_key(file.context("name a file, or set push.vapidkeyfile")?)?);
    Ok(Ended::Done)
}

fn public_key(path: &Path) -> anyhow::Result<String> {
    // Nobody else may read it, from its first byte on.
    let key = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            let key = VapidKey::generate();
            write(file, &key).with_context(|| format!("cannot write {}", path.display()))?;
            key
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            VapidKey::parse(&text).with_context(|| format!("{} is there already", path.display()))?
        }
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
    };
    Ok(key.public_key())
}

fn write(mut file: File, key: &VapidKey) -> anyhow::Result<()> {
    file.write_all(key.to_pem()?.expose_secret().as_bytes())?;
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vapid.pem");
        let public = public_key(&path).unwrap();
        assert_eq!(public.len(), 87);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(public_key(&path).unwrap(), public);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, "buy milk").unwrap();
        assert!(format!("{:#}", public_key(&path).unwrap_err()).contains("is there already: not a P-256 private key"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "buy milk");
        assert!(public_key(&dir.path().join("no/such/folder")).is_err());
    }
}
