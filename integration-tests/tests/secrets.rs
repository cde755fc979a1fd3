//! Canaries: every secret of the settings, by variable and by file, in a run where everything is refused that can be, with
//! every word logged that any part has to say. No canary is in a log, an answer, a span, a metric, a topic, a table or a
//! command line.

use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use waybill_harness::{Authority, Collector, Guard, MailServer, eventually, free_port};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// How secrets are given.
#[derive(Clone, Copy, Debug)]
enum Given {
    Variables,
    Files,
}

/// A provider that lets nobody in, and says whom.
async fn gossip() -> MockServer {
    let server = MockServer::start().await;
    let answer = |request: &Request| {
        let said = request.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let error =
            serde_json::json!({"error": {"type": "invalid_request_error", "message": format!("wrong: {said}")}});
        ResponseTemplate::new(401).insert_header("x-said", said).set_body_json(error)
    };
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

/// A whole answer, as it comes.
async fn get(server: SocketAddr, path: &str, header: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(server).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A secret as it may be written by whoever leaks it.
fn forms(secret: &str) -> Vec<String> {
    let percent = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let login = STANDARD.encode(format!("\0shop\0{secret}"));
    vec![secret.to_owned(), percent, login, STANDARD.encode(secret).trim_end_matches('=').to_owned()]
}

async fn run(given: Given) {
    let collector =
        Collector::guarded(&Guard { authorization: Some("Bearer canary-otlp"), ..Guard::default() }).unwrap();
    let authority = Authority::new().unwrap();
    let certificate = authority.sign("127.0.0.1", 2090).unwrap();
    let (crt, key) = (certificate.certificate.to_str().unwrap(), certificate.key.to_str().unwrap());
    let tls = ["--tls", "starttls", "--certificate", crt, "--key", key, "--user", "shop", "--password", "another"];
    let Some(mail) = MailServer::start(&tls).await else { return };
    let provider = gossip().await;
    let pages = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let name = format!("secrets-{given:?}").to_lowercase();
    let Some(mut front) = Front::open_with(&name, Some(&collector), &[]).await else { return };

    // People, goods and a cart, while the database's password still stands in its URL.
    front.sell("p-1", 100).await;
    front.cart("k-1", "u-1", &[("p-1", 1)], PRICE).await;
    front.shop.set("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary-otlp");
    front.shop.done(&["produce", "orders", "--count", "1", "--seed", "1"]);
    let order = front.shop.read("orders.new")[0].json().unwrap();
    let customer = order["customer_id"].as_str().unwrap();
    let contact =
        format!("insert into contacts (user_id, email, name) values ('{customer}', 'ada@customer.example', 'Ada')");
    front.shop.execute(&contact).await;
    let whole = front.shop.database.clone();
    let mut url = url::Url::parse(&whole).unwrap();
    let password = url.password().unwrap().to_owned();
    url.set_password(None).unwrap();
    front.shop.database = url.to_string();

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    front.shop.done(&["vapid", &file("vapid")]);
    let vapid = std::fs::read_to_string(file("vapid")).unwrap();
    let long = "canary-of-32-characters-or-more-x";
    let secrets: [(&str, &str); 6] = [
        ("DATABASE_PASSWORD", password.as_str()),
        ("PAYMENT_KEY", "sk_test_canary-payment"),
        ("MAIL_PASSWORD", "canary-mail"),
        ("PAGES_TOKEN", "canary-pages-token"),
        ("UNSUBSCRIBE_KEYS", &format!("k1:{long}")),
        ("PUSH_VAPIDKEY", &vapid),
    ];
    front.shop.unset("WAYBILL_PAYMENT_KEY");
    for (key, secret) in secrets {
        match given {
            Given::Variables => front.shop.set(&format!("WAYBILL_{key}"), secret),
            Given::Files => {
                std::fs::write(file(key), secret).unwrap();
                front.shop.set(&format!("WAYBILL_{key}FILE"), &file(key));
            }
        }
    }
    // Brokers in the open take none of these: commands alone are given them, and refused.
    let mut kafka = vec![
        ("WAYBILL_KAFKA_SECURITY_PROTOCOL", "sasl_ssl".to_owned()),
        ("WAYBILL_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512".to_owned()),
        ("WAYBILL_KAFKA_SASL_USERNAME", "shop".to_owned()),
        ("WAYBILL_KAFKA_DEBUG", "conf,security".to_owned()),
    ];
    let of_kafka = [
        ("WAYBILL_KAFKA_SASL_PASSWORD", "WAYBILL_KAFKA_SASL_PASSWORDFILE"),
        ("WAYBILL_KAFKA_SSL_KEY_PASSWORD", "WAYBILL_KAFKA_SSL_KEY_PASSWORDFILE"),
    ];
    std::fs::write(file("kafka"), "canary-kafka\n").unwrap();
    kafka.extend(of_kafka.map(|(by_variable, by_file)| match given {
        Given::Variables => (by_variable, "canary-kafka".to_owned()),
        Given::Files => (by_file, file("kafka")),
    }));
    let ca = authority.certificate();
    for (key, value) in [
        ("WAYBILL_PAYMENT_URL", provider.uri().as_str()),
        ("WAYBILL_MAIL_URL", format!("smtp+starttls://{}", mail.address()).as_str()),
        ("WAYBILL_MAIL_FROM", "Shop <shop@shop.example>"),
        ("WAYBILL_MAIL_USER", "shop"),
        ("WAYBILL_MAIL_CAFILE", ca.to_str().unwrap()),
        ("WAYBILL_PUSH_SUBJECT", "mailto:shop@shop.example"),
        ("WAYBILL_UNSUBSCRIBE_URL", "https://shop.example/unsubscribe"),
        ("WAYBILL_SHOP_NAME", "The Shop"),
        ("WAYBILL_SHOP_URL", "https://shop.example"),
        ("WAYBILL_PAGES_LISTEN", pages.to_string().as_str()),
        ("RUST_LOG", "debug"),
    ] {
        front.shop.set(key, value);
    }
    let mut process = front.shop.run(&["all"]);
    front.until_open().await;
    let taken = front.checkout("k-1", "u-1", "pm_canary_card", &[]).await;
    let mut texts = vec![taken.to_string()];
    eventually("everybody refuses us", LIMIT, async || {
        let log = process.log().map_err(|error| error.to_string())?;
        let paid = provider.received_requests().await.unwrap_or_default();
        let shown = paid.iter().any(|request| request.headers.contains_key("authorization"));
        if shown && log.contains("AUTH: 535") { Ok(()) } else { Err(format!("paid: {shown}, {} bytes", log.len())) }
    })
    .await;
    // A lane that is closed asks nobody: one connection, or one for each order's mail that was on its way.
    let closed = "nothing is sent for a while";
    assert!(process.log().unwrap().matches(closed).count() <= 2, "a mail server is not asked again and again");

    collector.meet(waybill_harness::Manner::Refuse);
    for header in ["", "authorization: Bearer nonsense", "authorization: Bearer canary-pages-token"] {
        for path in ["/orders", "/stages", "/dead", "/demand", "/campaigns", "/login", "/none"] {
            let answer = eventually("the pages answer", LIMIT, async || {
                get(pages, path, header).await.map_err(|error| error.to_string())
            });
            texts.push(answer.await);
        }
    }
    let log = process.log().unwrap();
    let health = log.split("health=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().parse().unwrap();
    for (server, path) in [
        (health, "/livez"),
        (health, "/readyz"),
        (front.gateway, "/api/orders/none"),
        (front.gateway, "/unsubscribe/k1.x"),
    ] {
        texts.push(get(server, path, "").await.unwrap());
    }
    let commands = [
        "config --print",
        "--help",
        "run --help",
        "topics plan",
        "lag",
        "dead list",
        "saga list",
        "demand",
        "bins list",
        "stuck --older 1h",
        "late --sla 1h",
        "times",
        "notify preview order_confirmed",
        "vapid",
        "replay --dry-run",
    ];
    for command in commands {
        let args: Vec<&str> = command.split(' ').collect();
        let output = front.shop.command(&args);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!text.contains("Usage: waybill") || command.contains("--help"), "{command}: {text:.2000}");
        texts.push(text);
    }
    for args in [&["config", "--print"][..], &["lag"], &["run", "pick"]] {
        let output = front.shop.command_as(args, &front.shop.bootstrap, &kafka);
        assert_eq!(output.status.success(), args[0] == "config", "{args:?}: {output:?}");
        texts.push(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned());
    }
    let endpoint = collector.endpoint();
    let output = front.shop.command(&["replay", "--otlp", &endpoint]);
    assert!(!output.status.success(), "the collector refuses");
    texts.push(String::from_utf8_lossy(&output.stderr).into_owned());
    let arguments = std::fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap();
    texts.push(String::from_utf8_lossy(&arguments).into_owned());
    process.terminate().unwrap();
    process.wait(LIMIT).await.unwrap();
    texts.push(process.log().unwrap());
    texts.push(format!("{:?} {:?}", collector.spans(), collector.metrics()));
    assert!(!collector.spans().is_empty() && !collector.metrics().is_empty(), "spans and metrics were caught");

    let lines: Vec<&str> = vapid.lines().filter(|line| !line.starts_with("-----")).collect();
    // A server that somebody else runs may have a password that is a word.
    let of_database = (password.len() >= 16).then_some(password.as_str());
    let known = ["sk_test_canary-payment", "canary-mail", "canary-pages-token", long, "canary-kafka", "canary-otlp"];
    let secrets = known.into_iter().chain(of_database).chain(lines).chain(["pm_canary_card"]);
    let words: Vec<String> = secrets.flat_map(forms).collect();
    for text in &texts {
        for word in &words {
            if let Some(at) = text.find(word.as_str()) {
                let from = text.floor_char_boundary(at.saturating_sub(300));
                let to = text.ceil_char_boundary((at + 200).min(text.len()));
                panic!("{given:?}: {word} stands in: {}", &text[from..to]);
            }
        }
    }
    let words: Vec<&str> = words.iter().filter(|word| !word.contains("pm_canary")).map(String::as_str).collect();
    let books = waybill_checker::Shop { database: whole, ..front.books() };
    assert_eq!(books.holders(&words).await.unwrap(), Vec::<String>::new());
    println!("{given:?}: {} texts, {} bytes of log", texts.len(), process.log().unwrap().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_that_stand_in_variables_show_nowhere() {
    run(Given::Variables).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_that_stand_in_files_show_nowhere() {
    run(Given::Files).await;
}
