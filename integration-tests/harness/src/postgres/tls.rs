//! Who is let in, and how.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::Context;

use super::{NOBODY, PostgresServer};
use crate::authority::Credentials;

/// What clients have to show, as Postgres has it.
pub struct Entrance<'a> {
    /// The server's certificate; none: it offers no TLS.
    pub certificate: Option<&'a Credentials>,
    /// Whose certificates of clients it accepts.
    pub clients: Option<&'a Path>,
    /// Lines of `pg_hba.conf`; the harness's own superuser is let in besides.
    pub rules: &'a str,
}

impl PostgresServer {
    /// From now on clients are met so, and each connection stands in the log. The server starts anew.
    pub fn admit(&mut self, entrance: &Entrance<'_>) -> anyhow::Result<()> {
        self.stop_immediate()?;
        let mut settings = "log_connections = on\n".to_owned();
        if let Some(Credentials { certificate, key }) = entrance.certificate {
            settings += "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
            self.put("server.crt", &std::fs::read(certificate).context("no certificate")?)?;
            self.put("server.key", &std::fs::read(key).context("no key")?)?;
        }
        if let Some(clients) = entrance.clients {
            settings += "ssl_ca_file = 'root.crt'\n";
            self.put("root.crt", &std::fs::read(clients).context("no authority")?)?;
        }
        // Nobody sets anything by `alter system`, whose file this is: it is written anew each time.
        self.put("postgresql.auto.conf", settings.as_bytes())?;
        let own = "host all postgres 127.0.0.1/32 scram-sha-256\n";
        self.put("pg_hba.conf", format!("{own}{}", entrance.rules).as_bytes())?;
        self.start_again()
    }

    /// All that it has printed.
    pub fn log(&self) -> anyhow::Result<String> {
        let log = std::fs::read(self.supervisor.dir().join("log")).context("no log")?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// How many connections there were since the first [`PostgresServer::admit`], let in or not.
    pub fn connections(&self) -> anyhow::Result<usize> {
        Ok(self.log()?.matches("connection received: host=").count())
    }

    /// The URL of a database for `user`, without a password.
    pub fn url(&self, user: &str, database: &str, parameters: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}?{parameters}", self.port)
    }

    /// Into the server's folder, for the server alone.
    fn put(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.supervisor.dir().join("data").join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {name}"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).context("cannot hide it")?;
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).context("cannot give it up")?;
        }
        Ok(())
    }
}
