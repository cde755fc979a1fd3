//! Processes of two versions run on the same tables for as long as a deploy takes, so migrations only add.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use waybill_harness::{Database, postgres};
use waybill_store::{Connection, Store, StoreError};

/// From before there was a rule; both databases have it.
const BEFORE_THE_RULE: &str = "0007_gateway_outbox.sql";

/// The migrations of a database: their statements by the file's name.
fn migrations(database: &str) -> BTreeMap<String, Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| (file.file_name().unwrap().to_str().unwrap().to_owned(), statements(&file))).collect()
}

fn statements(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap().to_lowercase();
    let bare: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let statements = bare.join(" ");
    let statements = statements.split(';').map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "));
    statements.filter(|statement| !statement.is_empty()).collect()
}

/// Why a statement would be felt by a version that does not know it; `made` are the tables of the same migration.
fn felt(statement: &str, made: &[String]) -> Option<&'static str> {
    let words: Vec<&str> = statement.split(' ').collect();
    let of_new_table = |name: Option<&&str>| name.is_some_and(|name| made.iter().any(|table| table == name));
    match words[..] {
        ["create", "table" | "index" | "sequence", ..] => None,
        // A statement about a table that nobody else knows.
        ["alter", "table", name, ..] | ["insert", "into", name, ..] if of_new_table(Some(&name)) => None,
        ["create", "unique", "index", _, "on", name, ..] if of_new_table(Some(&name)) => None,
        ["create", "unique", ..] => Some("old writers do not know that a value may stand only once"),
        ["alter", "table", _, "add", "column", ..] if statement.contains(", ") && !statement.contains("default") => {
            Some("one column a statement")
        }
        ["alter", "table", _, "add", "column", ..] if statement.contains("unique") || statement.contains("check") => {
            Some("old writers do not keep to it")
        }
        ["alter", "table", _, "add", "column", ..]
            if statement.contains("not null") && !statement.contains("default") =>
        {
            Some("old writers leave it out")
        }
        ["alter", "table", _, "add", "column", ..] => None,
        _ => Some("it takes away or changes what old processes use"),
    }
}

fn all_felt(statements: &[String]) -> Vec<(&str, &'static str)> {
    let tables = statements.iter().filter_map(|statement| statement.strip_prefix("create table "));
    let made: Vec<String> = tables.map(|rest| rest.split([' ', '(']).next().unwrap().to_owned()).collect();
    statements.iter().filter_map(|statement| Some((statement.as_str(), felt(statement, &made)?))).collect()
}

#[test]
fn migrations_only_add() {
    for database in ["postgres", "sqlite"] {
        let migrations = migrations(database);
        assert!(migrations.len() >= 8, "{database}: {} migrations", migrations.len());
        for (file, statements) in &migrations {
            let felt = all_felt(statements);
            let expected = file == BEFORE_THE_RULE;
            assert_eq!(!felt.is_empty(), expected, "{database}/{file} is felt by the version before it: {felt:?}");
        }
    }
    assert!(migrations("postgres").keys().eq(migrations("sqlite").keys()), "both databases have the same migrations");
}

#[test]
fn what_an_old_version_would_feel_is_seen() {
    for (statement, seen) in [
        ("alter table stock add column note text", false),
        ("alter table stock add column note text not null default ''", false),
        ("create index stock_note on stock (note)", false),
        ("alter table stock add column note text not null", true),
        ("alter table stock add column note text unique", true),
        ("alter table stock drop column sold", true),
        ("alter table stock rename column sold to gone", true),
        ("alter table stock rename to goods", true),
        ("alter table stock alter column sold type integer", true),
        ("create unique index one on stock (version)", true),
        ("drop table stock", true),
        ("drop index stock_version", true),
        ("update stock set sold = 0", true),
        ("delete from stock", true),
    ] {
        assert_eq!(felt(statement, &[]).is_some(), seen, "{statement}");
    }
    let new = [
        "create table notes (id text)",
        "alter table notes add constraint one unique (id)",
        "insert into notes values ('')",
    ];
    assert_eq!(all_felt(&new.map(str::to_owned)), [], "what belongs to a new table is nobody else's");
}

/// What a version after this one leaves behind.
const NEWER: [&str; 3] = [
    "alter table stock add column note text",
    "create table notes (id text primary key)",
    "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
     values (9000, 'newer', true, '\\x00', 1)",
];

async fn execute(store: &mut Store, sql: &str) {
    let mut tx = store.begin().await.unwrap();
    match tx.connection() {
        Connection::Postgres(c) => drop(sqlx::raw_sql(AssertSqlSafe(sql)).execute(c).await.unwrap()),
        Connection::Sqlite(c) => drop(sqlx::raw_sql(AssertSqlSafe(sql)).execute(c).await.unwrap()),
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_version_starts_on_what_a_newer_one_has_migrated_but_not_on_another_history() {
    let folder = tempfile::tempdir().unwrap();
    let mut homes: Vec<(String, Option<Database>)> =
        vec![(format!("sqlite://{}", folder.path().join("test.db").display()), None)];
    if let Some(server) = postgres() {
        let database = server.create_database("newer").await.unwrap();
        homes.push((database.url().to_owned(), Some(database)));
    }
    for (url, _home) in &homes {
        let mut store = Store::open(url).await.unwrap();
        store.migrate().await.unwrap();
        for statement in NEWER {
            execute(&mut store, statement).await;
        }
        store.migrate().await.unwrap_or_else(|error| panic!("{url}: a newer migration is refused: {error:?}"));

        // What is under a number that we know must be what we know.
        execute(&mut store, "update _sqlx_migrations set checksum = '\\x01' where version = 1").await;
        let error = store.migrate().await.unwrap_err();
        assert!(matches!(error, StoreError::Migrate(_)), "{url}: {error:?}");
    }
}
