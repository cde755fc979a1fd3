//! A database of one test.

use std::str::FromStr;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::drops::finish;

/// A database of one test, dropped with everything in it when this is.
pub struct Database {
    admin: String,
    name: String,
    url: String,
}

impl Database {
    /// `postgres://user:password@host:port/name`
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let admin = self.admin.clone();
        let statement = format!("drop database if exists {} with (force)", self.name);
        finish(async move { execute(&admin, statement).await });
    }
}

pub(crate) async fn create_database(admin: &str, name_hint: &str) -> anyhow::Result<Database> {
    let hint: String = name_hint.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(40).collect();
    let name = format!("t{:08x}_{hint}", rand::random::<u32>()).to_lowercase();
    let url = PgConnectOptions::from_str(admin)
        .context("not the URL of a Postgres")?
        .database(&name)
        .to_url_lossy()
        .to_string();
    execute(admin, format!("create database {name}")).await?;
    Ok(Database { admin: admin.to_owned(), name, url })
}

pub(crate) async fn connect(admin: &str) -> anyhow::Result<PgConnection> {
    PgConnection::connect(admin).await.context("cannot connect to the test Postgres")
}

async fn execute(admin: &str, statement: String) -> anyhow::Result<()> {
    let mut connection = connect(admin).await?;
    sqlx::raw_sql(AssertSqlSafe(statement.as_str()))
        .execute(&mut connection)
        .await
        .with_context(|| format!("failed: {statement}"))?;
    Ok(())
}
