//! One suite for both databases: what the spine relies on.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use std::time::Duration;
use waybill_harness::{Database, eventually, postgres};
use waybill_store::{Connection, Decided, Park, Repark, Store, StoreError, Table};

const TABLE: Table = Table("picks");
const HOUR: Duration = Duration::from_secs(3_600);

/// A database of its own, and what keeps it alive.
enum Home {
    Postgres(Database),
    Sqlite(tempfile::TempDir),
}

impl Home {
    fn url(&self) -> String {
        match self {
            Home::Postgres(database) => database.url().to_owned(),
            Home::Sqlite(folder) => format!("sqlite://{}", folder.path().join("test.db").display()),
        }
    }
}

async fn open(home: &Home) -> Store {
    let mut store = Store::open(&home.url()).await.unwrap();
    store.migrate().await.unwrap();
    store
}

async fn homes(name: &str) -> Vec<Home> {
    let mut homes = vec![Home::Sqlite(tempfile::tempdir().unwrap())];
    if let Some(server) = postgres() {
        homes.push(Home::Postgres(server.create_database(name).await.unwrap()));
    }
    homes
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($name:ident => $test:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            for home in homes(stringify!($test)).await {
                $test(open(&home).await).await;
            }
        }
    )*};
}

on_both! {
    what_is_saved_is_known => save_and_know;
    of_two_writers_of_one_key_the_first_wins => first_writer_wins;
    what_is_not_committed_is_not_there => no_commit_no_effect;
    a_transaction_that_is_dropped_leaves_nothing_open => dropped;
    a_commit_that_does_not_wait_for_the_disk_is_seen_at_once_and_the_next_one_waits => unsynced;
    a_begin_that_is_cancelled_leaves_nothing_open => cancelled;
    parked_records_come_back_in_order_when_they_are_due => parking;
    a_record_delivered_again_is_parked_once => parked_once;
    a_lease_keeps_others_away_until_it_runs_out => leases;
    a_record_parked_with_a_lease_is_found_when_that_lapses => lapsed;
    a_parked_record_is_written_anew => reparked;
    an_outbox_is_locked_by_its_holder_alone_until_it_lets_go => outbox_lock;
    old_decisions_are_deleted_and_young_ones_stay => pruning;
    a_batch_of_thousands_is_saved_and_known => large;
    refused_data_is_told_from_a_database_that_is_away => refused;
}

fn decided(key: &str, version: i32, answer: &[u8]) -> Decided {
    Decided { key: key.into(), version, state: format!("{{\"v\": {version}}}"), answer: answer.into() }
}

async fn save(store: &mut Store, rows: &[Decided]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.save(TABLE, rows).await?;
    tx.commit().await
}

async fn known(store: &mut Store, keys: &[&str]) -> (Vec<Decided>, Vec<String>) {
    let mut tx = store.begin().await.unwrap();
    let mut known = tx.known(TABLE, "pick", keys).await.unwrap();
    tx.commit().await.unwrap();
    known.decided.sort_by(|a, b| a.key.cmp(&b.key));
    (known.decided, known.parked)
}

async fn unsynced(mut store: Store) {
    let mut other = store.another();
    for (synced, key) in [(false, "a"), (true, "b")] {
        let mut tx = if synced { store.begin().await.unwrap() } else { store.begin_unsynced().await.unwrap() };
        tx.save(TABLE, &[decided(key, 1, b"")]).await.unwrap();
        if let Connection::Postgres(connection) = tx.connection() {
            let waits: String = sqlx::query_scalar("show synchronous_commit").fetch_one(connection).await.unwrap();
            assert_eq!(waits == "on", synced);
        }
        tx.commit().await.unwrap();
        assert_eq!(known(&mut other, &[key]).await.0, [decided(key, 1, b"")]);
    }
}

async fn save_and_know(mut store: Store) {
    save(&mut store, &[decided("a", 1, b"one\0\xff"), decided("b", 1, b"")]).await.unwrap();
    let (rows, parked) = known(&mut store, &["a", "b", "c"]).await;
    assert_eq!(rows, [decided("a", 1, b"one\0\xff"), decided("b", 1, b"")]);
    assert!(parked.is_empty());
    save(&mut store, &[decided("a", 2, b"two")]).await.unwrap();
    assert_eq!(known(&mut store, &["a"]).await.0, [decided("a", 2, b"two")]);
}

async fn first_writer_wins(mut store: Store) {
    save(&mut store, &[decided("a", 1, b"first")]).await.unwrap();
    let late = save(&mut store, &[decided("a", 1, b"second"), decided("b", 1, b"other")]).await;
    assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
    assert_eq!(known(&mut store, &["a", "b"]).await.0, [decided("a", 1, b"first")], "all or nothing");
    let skipped = save(&mut store, &[decided("a", 3, b"third")]).await;
    assert!(matches!(skipped, Err(StoreError::Conflict)), "{skipped:?}");
}

async fn no_commit_no_effect(mut store: Store) {
    let mut tx = store.begin().await.unwrap();
    tx.save(TABLE, &[decided("a", 1, b"")]).await.unwrap();
    drop(tx);
    assert!(known(&mut store, &["a"]).await.0.is_empty());
}

async fn dropped(mut store: Store) {
    for _ in 0..5 {
        let mut tx = store.begin().await.unwrap();
        tx.save(TABLE, &[decided("a", 1, b"")]).await.unwrap();
    }
    save(&mut store, &[decided("a", 1, b"last")]).await.unwrap();
    let mut other = store.another();
    assert_eq!(known(&mut other, &["a"]).await.0, [decided("a", 1, b"last")]);
}

/// sqlx's `pool.begin()` hands the next user a connection inside an open transaction (launchbadge/sqlx #4385).
async fn cancelled(mut store: Store) {
    for micros in 0..200 {
        let _ = tokio::time::timeout(Duration::from_micros(micros * 5), store.begin()).await;
        let mut tx = store.begin().await.unwrap();
        let key = format!("k{micros}");
        tx.save(TABLE, &[decided(&key, 1, b"")]).await.unwrap();
        tx.commit().await.unwrap();
        let mut other = store.another();
        assert_eq!(known(&mut other, &[&key]).await.0.len(), 1, "committed for all to see");
    }
}

fn park(key: &str, record: &str, wait: Duration) -> Park {
    let (why, lease) = ("because".into(), Duration::ZERO);
    Park { key: key.into(), origin: format!("t/0/{record}"), record: record.into(), why, wait, lease }
}

async fn lapsed(mut store: Store) {
    let held = Park { lease: HOUR, ..park("a", "a1", Duration::ZERO) };
    let brief = Park { lease: Duration::from_millis(1), ..park("b", "b1", Duration::ZERO) };
    let mut tx = store.begin().await.unwrap();
    let new = tx.park("pick", &[held.clone(), brief]).await.unwrap();
    assert_eq!(tx.park("pick", &[held]).await.unwrap(), [], "it is parked already");
    tx.commit().await.unwrap();
    assert_eq!(new.iter().map(|(_, origin)| origin.as_str()).collect::<Vec<_>>(), ["t/0/a1", "t/0/b1"]);
    let found = eventually("the lease has run out", Duration::from_secs(30), async || {
        let due = store.due("pick", 10, HOUR).await.unwrap();
        if due.is_empty() { Err("nothing is due".to_owned()) } else { Ok(due) }
    })
    .await;
    let mut tx = store.begin().await.unwrap();
    let leases = [(new[0].0, 1), (new[1].0, 1)];
    assert_eq!(tx.held("pick", &leases).await.unwrap(), [new[0].0], "the other one is somebody else's by now");
    assert_eq!(tx.held("pick", &[(new[1].0, found[0].lease)]).await.unwrap(), [new[1].0]);
    tx.commit().await.unwrap();
    assert_eq!(found.iter().map(|p| (p.id, p.key.as_str(), p.lapsed)).collect::<Vec<_>>(), [(new[1].0, "b", true)]);
}

async fn reparked(mut store: Store) {
    let mut tx = store.begin().await.unwrap();
    let new = tx.park("pick", &[park("a", "a1", HOUR)]).await.unwrap();
    let again =
        Repark { id: new[0].0, record: b"a2".into(), why: "else".into(), wait: Duration::ZERO, lease: Duration::ZERO };
    tx.repark("pick", std::slice::from_ref(&again)).await.unwrap();
    let gone = Repark { id: 99, ..again };
    assert!(matches!(tx.repark("pick", &[gone]).await, Err(StoreError::Conflict)));
    tx.commit().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let parked = new[0].0;
    assert!(tx.held("pick", &[(parked, 0)]).await.unwrap().is_empty(), "the lease is used up");
    assert_eq!(tx.held("pick", &[(parked, 1)]).await.unwrap(), [parked]);
    tx.commit().await.unwrap();
    let due = store.due("pick", 10, HOUR).await.unwrap();
    assert_eq!((due[0].record.as_slice(), due[0].why.as_str(), due[0].lapsed), (&b"a2"[..], "else", false));
}

async fn parked_once(mut store: Store) {
    for _ in 0..2 {
        let mut tx = store.begin().await.unwrap();
        tx.park("pick", &[park("a", "a1", Duration::ZERO)]).await.unwrap();
        tx.park("pack", &[park("a", "a1", Duration::ZERO)]).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(store.due("pick", 10, HOUR).await.unwrap().len(), 1);
    assert_eq!(store.due("pack", 10, HOUR).await.unwrap().len(), 1, "each stage parks for itself");
}

async fn parking(mut store: Store) {
    let mut tx = store.begin().await.unwrap();
    let rows = [
        park("a", "a1", Duration::ZERO),
        park("a", "a2", HOUR),
        park("b", "b1", HOUR),
        park("b", "b2", Duration::ZERO),
    ];
    tx.park("pick", &rows).await.unwrap();
    tx.park("pack", &[park("a", "other stage", Duration::ZERO)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(known(&mut store, &["a", "c"]).await.1, ["a"]);

    let due = store.due("pick", 10, HOUR).await.unwrap();
    let records: Vec<&[u8]> = due.iter().map(|d| d.record.as_slice()).collect();
    assert_eq!(records, [b"a1", b"a2"], "the first of a key decides, and the others follow it");
    assert_eq!((due[0].attempts, due[0].why.as_str()), (1, "because"));

    let mut tx = store.begin().await.unwrap();
    tx.park_again("pick", due[0].id, "still", Duration::ZERO).await.unwrap();
    tx.commit().await.unwrap();
    let again = store.due("pick", 10, HOUR).await.unwrap();
    assert_eq!((again[0].attempts, again[0].why.as_str()), (2, "still"));
    assert_eq!(again[0].parked_at, due[0].parked_at);
    store.unpark("pick", &again.iter().map(|d| d.id).collect::<Vec<_>>()).await.unwrap();
    assert!(known(&mut store, &["a"]).await.1.is_empty());
}

async fn leases(mut store: Store) {
    let mut tx = store.begin().await.unwrap();
    tx.park("pick", &[park("a", "a1", Duration::ZERO)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.due("pick", 10, Duration::ZERO).await.unwrap().len(), 1, "a lease that is over at once");
    assert_eq!(store.due("pick", 10, HOUR).await.unwrap().len(), 1);
    assert!(store.due("pick", 10, HOUR).await.unwrap().is_empty(), "leased");
}

async fn lock_outbox(store: &mut Store, stage: &str) -> bool {
    let mut tx = store.begin().await.unwrap();
    let locked = tx.lock_outbox(stage).await.unwrap();
    tx.commit().await.unwrap();
    locked
}

async fn outbox_lock(mut store: Store) {
    let mut other = store.another();
    // Within the one process of SQLite one stage runs once.
    let alone = matches!(store, Store::Postgres(_));
    assert!(lock_outbox(&mut store, "a").await);
    assert_eq!(lock_outbox(&mut other, "a").await, !alone);
    assert!(lock_outbox(&mut other, "b").await, "each stage has its own");
    store.unlock_outbox("a").await.unwrap();
    assert!(lock_outbox(&mut other, "a").await);
    drop(other);
    eventually("the lock ends with its connection", Duration::from_secs(30), async || {
        if lock_outbox(&mut store, "a").await { Ok(()) } else { Err("still locked".to_owned()) }
    })
    .await;
}

async fn pruning(mut store: Store) {
    save(&mut store, &[decided("old", 1, b""), decided("young", 1, b"")]).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    match tx.connection() {
        Connection::Postgres(c) => {
            let sql = "update picks set decided_at = now() - interval '400 days 1 hour' where key = 'old'";
            sqlx::query(sql).execute(c).await.unwrap();
        }
        Connection::Sqlite(c) => {
            let sql = "update picks set decided_at = unixepoch() - 400 * 86400 - 3600 where key = 'old'";
            sqlx::query(sql).execute(c).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    assert_eq!(store.prune(TABLE, 24 * 400 * HOUR, 10).await.unwrap(), 1);
    assert_eq!(known(&mut store, &["old", "young"]).await.0, [decided("young", 1, b"")]);
}

async fn large(mut store: Store) {
    let rows: Vec<Decided> = (0..3_000).map(|n| decided(&format!("k{n:05}"), 1, &[7; 1_000])).collect();
    save(&mut store, &rows).await.unwrap();
    let keys: Vec<&str> = rows.iter().map(|r| r.key.as_str()).collect();
    assert_eq!(known(&mut store, &keys).await.0, rows);
}

async fn refused(mut store: Store) {
    let mut tx = store.begin().await.unwrap();
    let negative = "insert into bins (product_id, bin, zone, quantity) values ('p', 'b', 'z', -1)";
    let result = match tx.connection() {
        Connection::Postgres(c) => sqlx::query(negative).execute(c).await.map(drop),
        Connection::Sqlite(c) => sqlx::query(negative).execute(c).await.map(drop),
    };
    let error = StoreError::from(result.unwrap_err());
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_second_process_is_refused_by_sqlite() {
    let home = Home::Sqlite(tempfile::tempdir().unwrap());
    let _first = open(&home).await;
    // Another connection that does not share the first one's: what another process would have.
    let second = Store::open(&home.url()).await;
    assert!(matches!(second, Err(StoreError::InUse)), "{second:?}");
}

#[tokio::test]
async fn a_url_of_another_kind_is_refused() {
    assert!(matches!(Store::open("mysql://x").await, Err(StoreError::Url)));
}

#[tokio::test]
async fn a_database_that_is_away_is_said_to_be_away() {
    let mut store = Store::open("postgres://x@127.0.0.1:1/x").await.unwrap();
    let error = store.begin().await.unwrap_err();
    assert!(matches!(error, StoreError::Away(_)), "{error:?}");
}

#[tokio::test]
async fn a_url_that_says_what_nobody_understands_is_refused_and_no_password_is_said() {
    let misspelt = Store::open("postgres://x:canary@127.0.0.1/x?sslmod=verify-full&sslpassword=canary").await;
    assert!(matches!(&misspelt, Err(StoreError::Parameter(name)) if name == "sslmod"), "{misspelt:?}");
    let wrong = Store::open("postgres://x:canary@127.0.0.1/x?sslmode=sometimes").await;
    assert!(matches!(wrong, Err(StoreError::Denied(_))), "{wrong:?}");
    let gone = Store::open("postgres://x:canary@127.0.0.1/x?sslmode=verify-full&sslrootcert=/not/there").await;
    assert!(matches!(&gone, Err(StoreError::File(name, ..)) if name == "sslrootcert"), "{gone:?}");
    let good = Store::open("postgres://x:canary@127.0.0.1/x?sslmode=verify-full").await;
    assert!(good.is_ok());
    assert!(!format!("{misspelt:?} {wrong:?} {gone:?} {good:?}").contains("canary"));
}
