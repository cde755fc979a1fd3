//! What the commands say and how they end.

use crate::shop::{LIMIT, Shop};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use waybill_harness::eventually;

const GOOD: &str = r#"{"order_id":"o-1","customer_id":"c-1","country":"DE","service":"standard","lines":[{"line":1,"product_id":"p-0001","sku":"SKU-0001","quantity":1,"weight_g":350,"size_mm":[120,95,100]}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_orders_is_checked_line_by_line_and_the_good_ones_are_sent() {
    let Some(shop) = Shop::open("file", 10).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.ndjson");
    let other = GOOD.replace("o-1", "o-2");
    std::fs::write(&file, format!("{GOOD}\n{{\"order_id\": 7}}\n{other}\nrubbish\n")).unwrap();
    let output = shop.command(&["produce", "orders", "--from", file.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("orders.ndjson:2: ") && error.contains("orders.ndjson:4: "), "{error}");
    assert_eq!(shop.count("orders.new"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_gives_the_same_orders_and_ids() {
    let Some(shop) = Shop::open("seed", 1).await else { return };
    for _ in 0..2 {
        shop.done(&["produce", "orders", "--count", "50", "--seed", "5"]);
    }
    let records = shop.read("orders.new");
    let ids: std::collections::BTreeMap<_, _> = records.iter().map(|r| (r.header("ce_id"), r.key_str())).collect();
    assert_eq!((records.len(), ids.len()), (100, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_shows_one_journey_over_four_traces() {
    let Some(shop) = Shop::open("trace", 1_000).await else { return };
    let _process = shop.run(&["fulfilment"]);
    shop.done(&["produce", "orders", "--count", "20", "--seed", "6", "--lines", "3"]);
    shop.until("orders.shipped", 20).await;
    let shown = shop.done(&["trace", "o-6-0000004"]);
    for part in
        ["7 spans in 4 traces", "checkout.complete", "warehouse.pick_item", "shipping.dispatch", "← pack", "shipped: "]
    {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }
    let json: Value = serde_json::from_str(&shop.done(&["trace", "o-6-0000004", "--json"])).unwrap();
    assert_eq!(json["spans"].as_array().unwrap().len(), 4);
    assert_eq!(json["spans"][3]["links"].as_array().unwrap().len(), 3);

    let unknown = shop.command(&["trace", "o-none"]);
    assert_eq!(unknown.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no topic knows of order o-none"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_is_wrong_and_what_to_do() {
    let Some(shop) = Shop::open("errors", 1).await else { return };
    let said = |args: &[&str]| {
        let output = shop.command(args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = said(&["run", "nothing"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("possible values: gateway, checkout, pick, pack, ship"), "{text}");
    let (code, text) = said(&["produce", "checkouts", "--url", "nowhere"]);
    assert!(code == Some(1) && text.contains("--url"), "{text}");
    let output = shop.without_topics().command(&["run", "pick"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("run `waybill topics apply`"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_not_set_up_says_what_to_set() {
    let Some(mut shop) = Shop::open("not-set-up", 1).await else { return };
    let must_say = |shop: &Shop, roles: &[&str], part: &str| {
        for role in roles {
            let output = shop.command(&["run", role]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{role}: {error}");
            assert!(error.contains(part), "{role} does not say {part}: {error}");
        }
    };
    must_say(&shop, &["email", "push", "order-mail"], "shop.name is missing");
    shop.set("WAYBILL_SHOP_NAME", "Shop");
    must_say(&shop, &["email", "push", "order-mail"], "shop.url must be");
    shop.set("WAYBILL_SHOP_URL", "https://shop.example");
    must_say(&shop, &["email", "order-mail"], "mail: from must be `local@domain`");
    must_say(&shop, &["push"], "push: give vapidkey or vapidkeyfile for web push, fcmkeyfile for FCM, or both");
    shop.set("WAYBILL_MAIL_FROM", "Shop <shop@shop.example>");
    must_say(&shop, &["email"], "unsubscribe: ");
    must_say(&shop, &["checkout"], "payment: give payment.url and payment.key");
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A shop whose gateway and provider have ports of their own; nothing runs yet. And its gateway's URL.
async fn with_ports(name: &str) -> Option<(Shop, String)> {
    let mut shop = Shop::open(name, 1_000).await?;
    let (gateway, provider) = (free_port(), free_port());
    shop.set("WAYBILL_HTTP_LISTEN", &gateway.to_string());
    // Answered before a slow payment is.
    shop.set("WAYBILL_GATEWAY_WAIT", "1s");
    shop.set("WAYBILL_SIMULATOR_LISTEN", &provider.to_string());
    shop.set("WAYBILL_PAYMENT_URL", &format!("http://{provider}"));
    shop.set("WAYBILL_PAYMENT_KEY", "sk_test_1");
    Some((shop, format!("http://{gateway}")))
}

/// Rows of the table that `produce checkouts` prints: status, what it came to, and how many.
fn outcomes(printed: &str) -> Vec<(String, u64)> {
    let rows = printed.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|words| (3..=4).contains(&words.len()));
    rows.map(|words| (words[..words.len() - 1].join(" "), words[words.len() - 1].parse().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_of_every_scenario_are_played_to_their_end_and_a_seed_twice_comes_to_the_same() {
    let Some((shop, url)) = with_ports("customers").await else { return };
    let (_simulator, _all) = (shop.run(&["payment-simulator"]), shop.run(&["all"]));
    shop.done(&["produce", "stock", "--quantity", "100"]);
    shop.until_committed("inventory", "inventory.adjustments").await;
    let play = |scenario: &str, count: &str| {
        let printed = shop.done(&["produce", "checkouts", "--scenario", scenario, "--count", count, "--url", &url]);
        outcomes(&printed)
    };
    let count = |rows: &[(String, u64)], wanted: &str| {
        rows.iter().filter(|(row, _)| row.ends_with(wanted)).map(|(_, count)| count).sum::<u64>()
    };
    let first = play("normal", "60");
    assert_eq!(count(&first, "order"), 60, "{first:?}");
    let again = play("normal", "60");
    assert_eq!(again, [("201 order".to_owned(), 60)], "the same answers");
    assert_eq!(shop.number("select count(*) from checkouts").await, 60);
    assert_eq!(shop.number("select count(*) from carts").await, 60);

    let prices = "select sum(price_amount)::int8 from products";
    let before = shop.number(prices).await;
    let stale = play("stale-prices", "40");
    assert_eq!((count(&stale, "order"), count(&stale, "stale_prices")), (30, 10), "{stale:?}");
    assert_eq!(shop.number(prices).await, before, "prices are as they were");

    let declined = play("declines", "30");
    assert!(count(&declined, "declined") > 0, "{declined:?}");
    assert_eq!(count(&declined, "order") + count(&declined, "declined"), 30, "{declined:?}");

    let left = "select available from stock where product_id = 'p-0200'";
    let left = shop.number(left).await as u64;
    let sold_out = play("sold-out", &(left + 20).to_string());
    assert_eq!((count(&sold_out, "order"), count(&sold_out, "insufficient_stock")), (left, 20), "{sold_out:?}");

    let slow = play("slow-payment", "8");
    assert_eq!(slow, [("202 order".to_owned(), 8)], "answered before, followed to the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_on_call_see_a_checkout_that_hangs_and_end_it() {
    let Some((shop, url)) = with_ports("on-call").await else { return };
    let shop = Arc::new(shop);
    let _all = shop.run(&["all"]);
    shop.done(&["produce", "stock", "--quantity", "10"]);
    shop.until_committed("inventory", "inventory.adjustments").await;
    let customer = tokio::task::spawn_blocking({
        let shop = shop.clone();
        move || shop.done(&["produce", "checkouts", "--count", "1", "--url", &url])
    });
    let listed = |args: &[&str]| -> Value {
        let args: Vec<&str> = ["saga", "list", "--json"].iter().chain(args).copied().collect();
        serde_json::from_str(&shop.done(&args)).unwrap()
    };
    let order = eventually("the charge is asked for in vain", LIMIT, async || match &listed(&[])[0] {
        open if open["saga"]["unknown"].as_u64() > Some(0) => Ok(open["order_id"].as_str().unwrap().to_owned()),
        open => Err(open.to_string()),
    })
    .await;
    let table = shop.done(&["saga", "list"]);
    assert!(table.contains(&order) && table.contains("1 open: 1 charging"), "{table}");
    assert_eq!(listed(&["--older", "1h"]), serde_json::json!([]));
    assert_eq!(listed(&["--status", "dead"]), serde_json::json!([]));
    let story = shop.done(&["saga", "show", &order]);
    assert!(story.contains("asked") && story.contains("the provider is asked for the charge again"), "{story}");
    assert!(!story.contains("pm_"), "a payment method is nobody's business: {story}");
    shop.done(&["saga", "resume", &order]);
    assert!(shop.done(&["saga", "abort", &order]).contains("will be ended"));
    assert!(shop.done(&["saga", "abort", &order]).contains("being ended already"));
    let _simulator = shop.run(&["payment-simulator"]);
    let printed = customer.await.unwrap();
    // Answered at once, or looked up where the gateway has stopped waiting.
    let ended = outcomes(&printed);
    assert!(matches!(&*ended, [(outcome, 1)] if outcome.ends_with("refused aborted")), "{printed}");
    assert!(shop.done(&["saga", "list"]).contains("0 open"));
    for command in ["abort", "resume"] {
        let output = shop.command(&["saga", command, &order]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("is at its end: rejected"), "{error}");
        assert_eq!(shop.command(&["saga", command, "o-none"]).status.code(), Some(4));
    }
    assert_eq!(shop.number("select sum(available)::int8 from stock").await, 2_000, "the goods are back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_goes_from_customers_to_a_journey() {
    let mails = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_waybill"))
        .args(["demo", "--orders", "60", "--mails"])
        .arg(mails.path())
        .env("OTEL_SDK_DISABLED", "true")
        .output()
        .unwrap();
    let (printed, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}{error}");
    for part in ["refused  declined", "of 60 checkouts shipped", "Order ", "shipping.dispatch"] {
        assert!(printed.contains(part), "{part} is missing:\n{printed}{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_what_differs_and_changes_nothing() {
    let Some(shop) = Shop::open("plan", 1).await else { return };
    let plan = || {
        let output = shop.command(&["topics", "plan"]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = plan();
    assert!(code == Some(0) && text.contains("the cluster is as declared"), "{text}");

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &shop.bootstrap).create().unwrap();
    let (options, topic) = (AdminOptions::new(), |name: &str| shop.scope.topic(name));
    admin.delete_topics(&[&topic("orders.short"), &topic("orders.cancelled")], &options).await.unwrap();
    // Another retention, fewer partitions, and a topic that nobody declared.
    let name = topic("orders.packed");
    let mut short = AlterConfig::new(ResourceSpecifier::Topic(&name));
    short.entries.insert("retention.ms", "1000");
    admin.alter_configs([&short], &options).await.unwrap();
    eventually("a topic is gone", LIMIT, async || match waybill_harness::topics(&shop.bootstrap, &name) {
        Ok(_) => match waybill_harness::topics(&shop.bootstrap, &topic("orders.cancelled")) {
            Ok(left) if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        },
        Err(error) => Err(error.to_string()),
    })
    .await;
    shop.scope.create_topics(&[("orders.cancelled", 2), ("orders.forgotten", 1)]).await.unwrap();
    let differing = [
        format!("create      {} (6 partitions, replication broker)", topic("orders.short")),
        format!("configure   {name}: retention.ms 1000 → 31536000000"),
        format!("differs     {} has 2 partitions, 6 are declared", topic("orders.cancelled")),
        format!("unknown     {}", topic("orders.forgotten")),
    ];
    // A broker learns of what was changed a moment later.
    let text = eventually("all of it is told", LIMIT, async || match plan() {
        (Some(2), text) if differing.iter().all(|line| text.contains(line)) => Ok(text),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(!text.contains("orders.new"), "what is as declared is not told: {text}");
    assert_eq!(plan(), (Some(2), text), "it changes nothing");

    let applied = shop.command(&["topics", "apply"]);
    assert_eq!(applied.status.code(), Some(3), "partitions are left");
    let (code, text) = plan();
    assert_eq!((code, text.contains("create "), text.contains("configure ")), (Some(2), false, false), "{text}");
    assert!(text.contains("has 2 partitions") && text.contains("orders.forgotten"), "{text}");
}

/// The binary alone, in a folder of its own.
fn alone(folder: &std::path::Path, args: &[&str], envs: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waybill"));
    let output = command.args(args).envs(envs.iter().copied()).current_dir(folder).output().unwrap();
    (output.status.code(), [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat())
}

#[test]
fn settings_are_shown_with_their_source_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = "[payment]\nkey = \"canary-1\"\n[kafka]\nsecurity.protocol = \"sasl_ssl\"\nsasl.password = \"canary-2\"\nacks = \"all\"\n";
    std::fs::write(folder.path().join("waybill.toml"), file).unwrap();
    let envs = [("WAYBILL_DATABASE_URL", "postgres://shop:canary-3@db/shop"), ("WAYBILL_MAIL_PASSWORD", "canary-4")];
    let (code, text) = alone(folder.path(), &["config", "--print", "--brokers", "kafka:9"], &envs);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "bootstrap.servers = \"kafka:9\"  # --brokers",
        "url = \"postgres://shop:redacted@db/shop\"  # WAYBILL_DATABASE_URL",
        "# password = redacted  # WAYBILL_MAIL_PASSWORD",
        "retention = \"400d\"  # default",
    ] {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
    assert!(!text.contains("canary"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("acks = \"all\"") && line.contains("waybill.toml")), "{text}");

    let (code, text) = alone(folder.path(), &["config", "--print"], &[("WAYBILL_HTTP_LISTEN", "nowhere")]);
    assert!(code == Some(1) && text.to_lowercase().contains("http.listen"), "{text}");
}

#[test]
fn shells_and_readers_get_what_the_command_line_says() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, part) in
        [("bash", "complete -F _waybill"), ("zsh", "#compdef waybill"), ("fish", "complete -c waybill")]
    {
        let (code, script) = alone(folder.path(), &["completions", shell], &[]);
        assert!(code == Some(0) && script.contains(part) && script.contains("redrive"), "{shell}: {script}");
    }
    let (code, page) = alone(folder.path(), &["man"], &[]);
    assert!(code == Some(0) && page.contains(".TH waybill 1") && page.contains("Exit codes"), "{page}");
    let pages = folder.path().join("man");
    assert_eq!(alone(folder.path(), &["man", pages.to_str().unwrap()], &[]).0, Some(0));
    let page = std::fs::read_to_string(pages.join("waybill-dead-redrive.1")).unwrap();
    assert!(page.contains("dry\\-run"), "{page}");
}
