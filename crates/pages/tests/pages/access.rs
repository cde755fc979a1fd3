//! Who may look, and what a browser may do with a page.

use crate::world::World;
use waybill_pages::Settings;

const TOKEN: &str = "a-token-that-nobody-guesses";

#[tokio::test]
async fn every_answer_tells_the_browser_to_load_and_run_nothing_else() {
    let world = World::sqlite(Settings::default()).await;
    for (path, status) in [("/orders", 200), ("/orders/o-none", 404), ("/nowhere", 404), ("/orders?state=lost", 400)] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let policy = &answer.headers["content-security-policy"];
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        for (name, value) in
            [("cache-control", "no-store"), ("referrer-policy", "no-referrer"), ("x-content-type-options", "nosniff")]
        {
            assert_eq!(answer.headers[name], value, "{path}");
        }
    }
}

#[tokio::test]
async fn nothing_can_be_changed_by_a_request() {
    let world = World::sqlite(Settings::default()).await;
    for path in ["/orders", "/orders/o-1", "/demand", "/campaigns", "/stages", "/dead"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = world.ask(method, path, &[("host", "localhost")], "").await;
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
    let head = world.ask("HEAD", "/orders", &[("host", "localhost")], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn a_name_from_elsewhere_does_not_lead_to_this_machine() {
    let world = World::sqlite(Settings::default()).await;
    for host in ["evil.example", "localhost.evil.example", "10.0.0.7:8081"] {
        assert_eq!(world.ask("GET", "/orders", &[("host", host)], "").await.status, 421, "{host}");
    }
    for host in ["127.0.0.1:8081", "localhost:8081", "[::1]"] {
        assert_eq!(world.ask("GET", "/orders", &[("host", host)], "").await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn where_a_token_is_set_nothing_is_shown_without_it() {
    let settings = Settings { listen: "0.0.0.0:0".to_owned(), token: Some(TOKEN.into()), ..Settings::default() };
    let world = World::sqlite(settings).await;
    let host = ("host", "ops.example");
    for path in ["/", "/orders", "/orders/o-1", "/demand", "/campaigns", "/stages", "/dead", "/nowhere"] {
        let answer = world.ask("GET", path, &[host], "").await;
        assert_eq!((answer.status, answer.body.contains("Orders")), (401, false), "{path}");
    }
    let browser = world.ask("GET", "/orders", &[host, ("accept", "text/html")], "").await;
    assert_eq!((browser.status, browser.headers["location"].as_str()), (303, "/login"));
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(world.ask("GET", "/orders", &[host, ("authorization", &bearer)], "").await.status, 200);

    let wrong = world.ask("POST", "/login", &[host], "token=a-token-that-somebody-guesses").await;
    assert!(wrong.status == 401 && !wrong.headers.contains_key("set-cookie"), "{wrong:?}");
    let right = world.ask("POST", "/login", &[host], &format!("token={TOKEN}")).await;
    let cookie = &right.headers["set-cookie"];
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(TOKEN), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(world.ask("GET", "/orders", &[host, ("cookie", cookie)], "").await.status, 200);
    assert_eq!(world.ask("GET", "/orders", &[host, ("cookie", &format!("{cookie}0"))], "").await.status, 401);
}

#[tokio::test]
async fn a_cluster_that_is_away_is_a_sentence_on_the_page() {
    let world = World::sqlite(Settings::default()).await;
    for path in ["/stages", "/dead"] {
        let page = world.page(path).await;
        assert!(page.contains("Kafka is being asked") || page.contains("Kafka cannot be asked"), "{page}");
    }
}
