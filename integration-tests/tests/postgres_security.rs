//! Postgres over TLS, with every credential that is wrong: nothing goes in the open, whoever is refused is told why, and
//! nobody knocks several times a second.

use crate::shop::{LIMIT, Shop};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use waybill_harness::{Authority, Database, Entrance, PostgresServer, Refusing, eventually, postgres};

const PASSWORD: &str = "p%41 canary/@:";
/// Nobody comes without TLS; `certified` comes by certificate, `shop` by password.
const RULES: &str = "\
hostssl all shop 127.0.0.1/32 scram-sha-256
hostssl all late 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
hostssl all twice 127.0.0.1/32 scram-sha-256 clientcert=verify-full
";

struct World {
    server: PostgresServer,
    database: Database,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl World {
    async fn open(name: &str) -> Option<Self> {
        postgres()?;
        let server = PostgresServer::start().unwrap();
        let database = server.create_database(name).await.unwrap();
        let authority = Authority::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        let mut world = World { server, database, authority, folder };
        world
            .execute(&format!(
                "create role shop login superuser password '{PASSWORD}';
                 create role late login password '{PASSWORD}' valid until '2020-01-01';
                 create role twice login password '{PASSWORD}';
                 create role certified login superuser"
            ))
            .await;
        world.meet("127.0.0.1", 2090);
        Some(world)
    }

    /// The server shows a certificate for `host`, valid until the end of `year`.
    fn meet(&mut self, host: &str, year: i32) {
        let certificate = self.authority.sign(host, year).unwrap();
        let clients = self.authority.certificate();
        let entrance = Entrance { certificate: Some(&certificate), clients: Some(&clients), rules: RULES };
        self.server.admit(&entrance).unwrap();
    }

    async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }

    fn url(&self, user: &str, parameters: &str) -> String {
        let name = self.database.url().rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
        self.server.url(user, &name, parameters)
    }

    /// verify-full, with the authority's certificate.
    fn verified(&self, user: &str, more: &str) -> String {
        self.url(user, &format!("sslmode=verify-full&sslrootcert={}{more}", self.authority.certificate().display()))
    }

    fn password_file(&self) -> String {
        self.folder.path().join("password").to_str().unwrap().to_owned()
    }
}

/// `waybill run pick`, which asks the database first. Kafka is not reached.
fn run(url: &str, settings: &[(&str, &str)]) -> Output {
    let nowhere = Refusing::start().unwrap();
    Command::new(env!("CARGO_BIN_EXE_waybill"))
        .args(["run", "pick", "--database", url, "--brokers", &nowhere.address().to_string()])
        .envs(settings.iter().copied())
        .env("OTEL_SDK_DISABLED", "true")
        .env("RUST_LOG", "debug")
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_runs_over_verified_tls_by_password_and_by_certificate() {
    let Some(world) = World::open("verified").await else { return };
    let Some(mut shop) = Shop::on("verified", world.database.url()).await else { return };
    shop.done(&["bins", "load", "--test-goods", "1000"]);
    shop.set("WAYBILL_DATABASE_PASSWORDFILE", &world.password_file());
    let client = world.authority.sign("certified", 2090).unwrap();
    let show = format!("&sslcert={}&sslkey={}", client.certificate.display(), client.key.display());
    let mut orders = 0;
    for (seed, user, more) in [("1", "shop", ""), ("2", "certified", show.as_str())] {
        let mut process = shop.run_on(&["pick"], &world.verified(user, more));
        produce(&world, &shop, seed).await;
        orders += 50;
        shop.until("orders.picked", orders).await;
        let sql = format!(
            "select count(*) filter (where ssl) * 1000 + count(*) filter (where not ssl)
             from pg_stat_ssl join pg_stat_activity using (pid) where usename = '{user}'"
        );
        let counts = shop.sum(&sql).await;
        assert!(counts >= 1_000 && counts % 1_000 == 0, "connections with TLS and without, of {user}: {counts}");
        let arguments = std::fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&arguments).contains("canary"));
        process.terminate().unwrap();
        assert!(process.wait(LIMIT).await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_refused_or_finds_another_server_ends_at_once_with_the_reason_and_says_no_password() {
    let Some(mut world) = World::open("refused").await else { return };
    let other = Authority::new().unwrap();
    let stranger = other.sign("twice", 2090).unwrap();
    let namesake = world.authority.sign("somebody", 2090).unwrap();
    let old = world.authority.sign("twice", 2020).unwrap();
    let show = |client: &waybill_harness::Credentials| {
        format!("&sslcert={}&sslkey={}", client.certificate.display(), client.key.display())
    };
    let file = world.password_file();
    let right = ("WAYBILL_DATABASE_PASSWORDFILE", file.as_str());
    let wrong = ("WAYBILL_DATABASE_PASSWORD", "canary-wrong");
    let of_other = world.url("shop", &format!("sslmode=verify-full&sslrootcert={}", other.certificate().display()));
    let failed = "password authentication failed";
    let cases = [
        ("another authority", of_other, right, "UnknownIssuer"),
        ("a wrong password", world.verified("shop", ""), wrong, failed),
        ("a role whose time is up", world.verified("late", ""), right, failed),
        ("no client certificate", world.verified("twice", ""), right, "requires a valid client certificate"),
        (
            "a client certificate of another name",
            world.verified("twice", &show(&namesake)),
            right,
            "authentication failed",
        ),
        ("one of another authority", world.verified("twice", &show(&stranger)), right, "alert"),
        ("one that is expired", world.verified("twice", &show(&old)), right, "alert"),
        ("no TLS where it is asked for", world.url("shop", "sslmode=disable"), right, "no encryption"),
        ("a file that is not there", world.url("shop", "sslrootcert=/not/there"), right, "cannot read /not/there"),
        ("a misspelt sslmode", world.url("shop", "sslmod=verify-full"), right, "parameter sslmod"),
        ("no password at all", world.verified("shop", ""), ("RUST_LOG", "debug"), "password"),
    ];
    for (what, url, setting, word) in cases {
        refused(&world, what, &url, setting, word);
    }
    world.meet("db.example.org", 2090);
    refused(&world, "another host", &world.verified("shop", ""), right, "not valid for name");
    world.meet("127.0.0.1", 2020);
    refused(&world, "an expired server", &world.verified("shop", ""), right, "expired");
    let open = "host all all 127.0.0.1/32 trust";
    world.server.admit(&Entrance { certificate: None, clients: None, rules: open }).unwrap();
    refused(&world, "a server without TLS", &world.verified("shop", ""), right, "does not support TLS");
}

fn refused(world: &World, what: &str, url: &str, setting: (&str, &str), word: &str) {
    let (before, begun) = (world.server.connections().unwrap(), Instant::now());
    let output = run(url, &[setting]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{what}: {text}");
    assert!(text.contains(word), "{what}: {text}");
    assert!(text.contains("error: the database cannot be used as the settings say") || text.contains("database.url"));
    assert!(!text.contains("canary"), "{what}: {text}");
    let tried = world.server.connections().unwrap() - before;
    println!("{what}: {tried} connections, {:?}: {}", begun.elapsed(), text.lines().last().unwrap_or_default());
    assert!(tried <= 1, "{what}: {tried} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_changed_under_way_pauses_the_stages_which_ask_ever_more_seldom_and_lose_nothing() {
    let Some(world) = World::open("changed").await else { return };
    let Some(mut shop) = Shop::on("changed", world.database.url()).await else { return };
    shop.done(&["bins", "load", "--test-goods", "1000"]);
    shop.set("WAYBILL_DATABASE_PASSWORD", PASSWORD);
    let process = shop.run_on(&["fulfilment"], &world.verified("shop", ""));
    let orders = |seed: &'static str| produce(&world, &shop, seed);
    orders("1").await;
    shop.until("orders.shipped", 50).await;

    world.execute("alter role shop password 'another'").await;
    world.server.terminate_connections().await.unwrap();
    let refused = |world: &World| {
        world.server.log().map(|log| log.matches("password authentication failed for user \"shop\"").count()).unwrap()
    };
    eventually("the stages are refused", LIMIT, async || if refused(&world) > 0 { Ok(()) } else { Err(String::new()) })
        .await;
    let begun = Instant::now();
    // A record waits, too: what asks for it must not knock any faster.
    orders("2").await;
    // Three stages; each waits 0.1 s first, then twice as long each time, to 5 s, each wait shortened by up to a half.
    eventually("each has been refused eight times", LIMIT, async || match refused(&world) {
        times if times >= 24 => Ok(()),
        times => Err(times.to_string()),
    })
    .await;
    let took = begun.elapsed();
    println!("24 refusals in {took:?}");
    assert!(took > Duration::from_secs(4), "24 refusals in {took:?}");
    let log = process.log().unwrap();
    for word in ["paused", "password authentication failed", "VALID UNTIL"] {
        assert!(log.contains(word), "{word}: {log}");
    }
    assert!(log.matches("paused").count() <= 3 * 4, "a line for each change, not for each try: {log}");
    assert_eq!(crate::shop::distinct(&shop.read("orders.shipped")).len(), 50);

    world.execute(&format!("alter role shop password '{PASSWORD}'")).await;
    shop.until("orders.shipped", 100).await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(100, 400 * 1_000).await;
    assert!(!process.log().unwrap().contains("canary"));
}

/// Fifty orders. The command uses no database, and none of the settings that are on trial.
async fn produce(world: &World, shop: &Shop, seed: &str) {
    let output = Command::new(Path::new(env!("CARGO_BIN_EXE_waybill")))
        .args(["produce", "orders", "--count", "50", "--seed", seed, "--brokers", &shop.bootstrap])
        .args(["--prefix", shop.scope.prefix(), "--database", world.database.url()])
        .env("OTEL_SDK_DISABLED", "true")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
