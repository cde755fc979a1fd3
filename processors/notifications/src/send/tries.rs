//! Calls as they are made, on both databases, to a real mail server.

use super::email::Mailer;
use super::lane::{Lane, Leased};
use super::outlet::Outlet;
use super::part::{Became, Came, Part, Whom};
use super::settings::{Rates, Shop};
use jiff::Timestamp;
use std::time::Duration;
use waybill_events::Tell;
use waybill_harness::{Database, MailServer, Refusing, postgres};
use waybill_spine::Call as _;
use waybill_store::{Connection, Store};

enum Home {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

impl Home {
    async fn each(name: &str) -> Vec<Self> {
        let mut homes = vec![Home::Sqlite(tempfile::tempdir().unwrap())];
        if let Some(server) = postgres() {
            homes.push(Home::Postgres(server.create_database(name).await.unwrap()));
        }
        homes
    }

    async fn open(&self) -> Store {
        let url = match self {
            Home::Sqlite(folder) => format!("sqlite://{}", folder.path().join("test.db").display()),
            Home::Postgres(database) => database.url().to_owned(),
        };
        let mut store = Store::open(&url).await.unwrap();
        store.migrate().await.unwrap();
        execute(&mut store, "insert into products values ('p', 's', 'Lamp', 'c', 100, 'EUR', 1, 1, 1, 1)").await;
        execute(&mut store, "insert into stock (product_id, received, available) values ('p', 5, 5)").await;
        store
    }
}

async fn execute(store: &mut Store, sql: &'static str) {
    let mut tx = store.begin().await.unwrap();
    match tx.connection() {
        Connection::Postgres(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.unwrap()),
        Connection::Sqlite(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.unwrap()),
    }
    tx.commit().await.unwrap();
}

/// Somebody who waits for one piece.
async fn wait(store: &mut Store, user: &str) {
    let mut tx = store.begin().await.unwrap();
    let email = format!("{user}@customer.example");
    let contact = "insert into contacts (user_id, email) values ($1, $2)";
    match tx.connection() {
        Connection::Postgres(connection) => {
            sqlx::query(contact).bind(user).bind(email).execute(&mut *connection).await.unwrap();
            let sql = "insert into subscriptions (product_id, user_id, channel, expires_at)
                       values ('p', $1, 'email', now() + interval '1 day')";
            sqlx::query(sql).bind(user).execute(connection).await.unwrap();
        }
        Connection::Sqlite(connection) => {
            sqlx::query(contact).bind(user).bind(email).execute(&mut *connection).await.unwrap();
            let sql = "insert into subscriptions (product_id, user_id, channel, expires_at)
                       values ('p', $1, 'email', unixepoch() + 86400)";
            sqlx::query(sql).bind(user).execute(connection).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
}

fn outlet(address: &str, store: &Store) -> Outlet {
    let settings = waybill_mail::Settings {
        url: format!("smtp://{address}"),
        from: "Shop <shop@shop.example>".to_owned(),
        ..waybill_mail::Settings::default()
    };
    let links = waybill_mail::unsubscribe::Settings {
        url: "https://shop.example/unsubscribe".to_owned(),
        keys: Some("k1:0123456789abcdef0123456789abcdef".into()),
        keys_file: None,
    };
    let mailer = Mailer::new(&settings).unwrap().with_links(&links).unwrap();
    let shop = Shop { name: "Shop".to_owned(), url: "https://shop.example".to_owned() };
    Outlet::email(mailer, 4, shop, Rates { email: 1_000.0, ..Rates::default() }, store.another())
}

fn part(number: u32, whom: Whom) -> Part {
    Part {
        batch_id: "b".into(),
        number,
        campaign_id: "c".into(),
        product_id: "p".into(),
        date: Timestamp::from_second(1_800_000_000).unwrap(),
        away: 0,
        whom,
    }
}

fn all() -> Whom {
    Whom::Next { after: 0, to: 100, most: 20 }
}

async fn made(outlet: &Outlet, part: &Part) -> Came {
    part.clone().make(outlet.clone(), false).await.came
}

/// User and what became of them.
fn people(came: &Came) -> Vec<(&str, Option<Tell>)> {
    let Came::Tried(tried, _) = came else { panic!("nobody was tried") };
    let told = |became: &Became| match became {
        Became::Told(tell, _) => Some(*tell),
        Became::Later(_) | Became::Untried => None,
    };
    tried.iter().map(|one| (&*one.waiting.user_id, told(&one.became))).collect()
}

#[tokio::test]
async fn who_has_begun_and_died_leaves_everybody_unknown_and_nothing_is_sent_again() {
    let Some(server) = MailServer::start(&[]).await else { return };
    for home in Home::each("begun").await {
        let mut store = home.open().await;
        wait(&mut store, "ada").await;
        wait(&mut store, "bob").await;
        let before = server.arrived().unwrap().len();
        let outlet = outlet(&server.address(), &store);
        let sent = [("ada", Some(Tell::Sent)), ("bob", Some(Tell::Sent))];
        assert_eq!(people(&made(&outlet, &part(0, all())).await), sent);
        // As after a crash before the answer was settled. Whoever has unsubscribed meanwhile may have been told, too.
        execute(&mut store, "delete from subscriptions where user_id = 'bob'").await;
        let unknown = [("ada", Some(Tell::Unknown)), ("bob", Some(Tell::Unknown))];
        assert_eq!(people(&made(&outlet, &part(0, all())).await), unknown);
        assert_eq!(server.arrived().unwrap().len() - before, 2);
        // A number of its own is a try of its own.
        let again = made(&outlet, &part(1, Whom::Those(vec![1, 2]))).await;
        assert_eq!(people(&again), [("ada", Some(Tell::Sent))], "bob does not wait any more");
    }
}

#[tokio::test]
async fn of_two_processes_that_make_the_same_call_one_sends() {
    let Some(server) = MailServer::start(&[]).await else { return };
    for home in Home::each("both").await {
        let mut store = home.open().await;
        wait(&mut store, "ada").await;
        let before = server.arrived().unwrap().len();
        let (one, other) = (outlet(&server.address(), &store), outlet(&server.address(), &store));
        let part = part(0, all());
        let (a, b) = tokio::join!(made(&one, &part), made(&other, &part));
        let told = |came: &Came| matches!(came, Came::Tried(..)) && people(came) == [("ada", Some(Tell::Sent))];
        assert_eq!([told(&a), told(&b)].iter().filter(|told| **told).count(), 1);
        assert_eq!(server.arrived().unwrap().len() - before, 1);
    }
}

#[tokio::test]
async fn a_product_that_is_gone_or_unknown_is_sold_out_and_nobody_is_begun() {
    let Some(server) = MailServer::start(&[]).await else { return };
    for home in Home::each("gone").await {
        let mut store = home.open().await;
        wait(&mut store, "ada").await;
        let (outlet, before) = (outlet(&server.address(), &store), server.arrived().unwrap().len());
        execute(&mut store, "update stock set available = 0, sold = 5").await;
        assert!(matches!(made(&outlet, &part(0, all())).await, Came::SoldOut));
        execute(&mut store, "delete from products").await;
        assert!(matches!(made(&outlet, &part(0, all())).await, Came::SoldOut));
        assert_eq!(server.arrived().unwrap().len(), before);
        execute(&mut store, "insert into products values ('p', 's', 'Lamp', 'c', 100, 'EUR', 1, 1, 1, 1)").await;
        execute(&mut store, "update stock set available = 5, sold = 0").await;
        assert_eq!(people(&made(&outlet, &part(0, all())).await), [("ada", Some(Tell::Sent))], "nothing had begun");
    }
}

#[tokio::test]
async fn a_mail_server_that_is_away_closes_the_lane_and_counts_against_nobody() {
    let refusing = Refusing::start().unwrap();
    for home in Home::each("away").await {
        let mut store = home.open().await;
        wait(&mut store, "ada").await;
        let outlet = outlet(&refusing.address().to_string(), &store);
        let came = made(&outlet, &part(0, all())).await;
        assert_eq!(people(&came), [("ada", None)]);
        let Came::Tried(tried, Some(wait)) = came else { panic!("the lane stays open") };
        assert_eq!((&tried[0].became, wait), (&Became::Untried, Duration::from_secs(10)));
        let Came::NotYet(wait) = made(&outlet, &part(1, Whom::Those(vec![1]))).await else { panic!("it is open") };
        assert!(wait > Duration::from_secs(7), "{wait:?}");
    }
}

#[tokio::test]
async fn slots_follow_each_other_whoever_takes_them_and_unused_time_is_gone() {
    for home in Home::each("slots").await {
        let mut store = home.open().await;
        let lane = Lane { name: "email", per_second: 20.0 };
        let mut starts = Vec::new();
        for _ in 0..6 {
            match lane.lease(&mut store, 4).await.unwrap() {
                Leased::From(wait) => starts.push(wait.as_secs_f64()),
                Leased::NotBefore(wait) => {
                    assert!(wait > Duration::ZERO && wait < Duration::from_millis(300), "{wait:?}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
        assert!(starts.len() >= 5 && starts[0] < 0.02, "{starts:?}");
        // Each begins a fifth of a second after the one before; meanwhile some time passes.
        assert!(starts.windows(2).all(|two| two[1] < two[0] + 0.21), "{starts:?}");
        lane.close(&mut store, Duration::from_secs(60)).await.unwrap();
        let Leased::NotBefore(wait) = lane.lease(&mut store, 1).await.unwrap() else { panic!("it is open") };
        assert!(wait > Duration::from_secs(55), "{wait:?}");
        execute(&mut store, "delete from send_rates").await;
        assert!(
            matches!(lane.lease(&mut store, 1).await.unwrap(), Leased::From(wait) if wait < Duration::from_millis(50))
        );
    }
}

#[tokio::test]
async fn a_grant_is_never_shorter_than_its_messages_take() {
    for home in Home::each("whole").await {
        let mut store = home.open().await;
        // Twenty of these take 28,571.43 microseconds.
        let lane = Lane { name: "push", per_second: 700.0 };
        for _ in 0..20 {
            assert!(matches!(lane.lease(&mut store, 20).await.unwrap(), Leased::From(_)));
        }
        let mut tx = store.begin().await.unwrap();
        let starts: Vec<f64> = match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "select (extract(epoch from starts_at) - 1700000000)::float8 from send_grants order by id";
                sqlx::query_scalar(sql).fetch_all(connection).await.unwrap()
            }
            Connection::Sqlite(connection) => {
                let sql = "select starts_at - 1700000000.0 from send_grants order by id";
                sqlx::query_scalar(sql).fetch_all(connection).await.unwrap()
            }
        };
        let took = starts.last().unwrap() - starts.first().unwrap();
        assert!(took > 19.0 * 20.0 / 700.0 - 1e-6, "{took}");
    }
}
