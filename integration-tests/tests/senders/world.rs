//! A shop whose customers wait for a product, and a mail server that wants TLS and a password.

use crate::shop::{LIMIT, Shop};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use waybill_harness::{Arrived, Collector, Draft, MailServer, eventually, produce};

pub const PRODUCT: &str = "p-lamp";
pub const CAMPAIGN: &str = "5f0a52e2-68c3-5a5e-9a5c-2d2a6d6a1f11";
/// Of the restock that everybody is told of.
pub const RESTOCK: [&str; 2] = ["4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"];
/// Of whoever subscribed.
pub const SUBSCRIBE: [&str; 2] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
/// What must stand in no topic, span, log or label.
pub const CANARIES: [&str; 3] = ["customer.example", "Canary Name", "canarytoken"];

pub struct World {
    pub shop: Shop,
    pub mail: MailServer,
    pub collector: Collector,
    _folder: tempfile::TempDir,
}

impl World {
    /// Nobody waits yet. `rate`: mails a second.
    pub async fn open(name: &str, rate: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (crt, pem) = (path("crt"), path("key"));
        std::fs::write(&crt, certificate.pem()).unwrap();
        std::fs::write(&pem, key.serialize_pem()).unwrap();
        let args =
            ["--tls", "starttls", "--certificate", &crt, "--key", &pem, "--user", "shop", "--password", "secret"];
        let mail = MailServer::start(&args).await?;
        let collector = Collector::start().unwrap();
        let mut shop = Shop::open(name, 1).await?;
        shop.export_to(&collector.endpoint());
        for (key, value) in [
            ("WAYBILL_MAIL_URL", format!("smtp+starttls://{}", mail.address()).as_str()),
            ("WAYBILL_MAIL_FROM", "Shop <shop@shop.example>"),
            ("WAYBILL_MAIL_USER", "shop"),
            ("WAYBILL_MAIL_PASSWORD", "secret"),
            ("WAYBILL_MAIL_CAFILE", &crt),
            ("WAYBILL_UNSUBSCRIBE_URL", "https://shop.example/unsubscribe"),
            ("WAYBILL_UNSUBSCRIBE_KEYS", "k1:0123456789abcdef0123456789abcdef"),
            ("WAYBILL_SHOP_NAME", "The Lamp Shop"),
            ("WAYBILL_SHOP_URL", "https://shop.example"),
            ("WAYBILL_RATES_EMAIL", rate),
        ] {
            shop.set(key, value);
        }
        shop.execute(&format!(
            "insert into products values ('{PRODUCT}', 'sku-1', 'Reading lamp', 'lamps', 8950, 'EUR', 1, 1, 1, 1);
             insert into stock (product_id, received, available) values ('{PRODUCT}', 500, 500)"
        ))
        .await;
        Some(World { shop, mail, collector, _folder: folder })
    }

    /// So many more people wait, with these local parts of their addresses; yields the last subscription.
    pub async fn wait(&self, locals: &[String]) -> i64 {
        let locals = json!(locals).to_string();
        let traceparent = format!("00-{}-{}-01", SUBSCRIBE[0], SUBSCRIBE[1]);
        self.shop
            .execute(&format!(
                "insert into contacts (user_id, email, name)
                 select 'u-' || l, l || '@customer.example', 'Canary Name ' || l from jsonb_array_elements_text('{locals}') l;
                 insert into subscriptions (product_id, user_id, channel, traceparent, created_at, expires_at)
                 select '{PRODUCT}', 'u-' || l, 'email', '{traceparent}', now() - interval '90 minutes', now() + interval '1 day'
                 from jsonb_array_elements_text('{locals}') l"
            ))
            .await;
        self.shop.number("select max(id) from subscriptions").await
    }

    /// Batches of a hundred, of subscriptions after `after` up to `to`.
    pub async fn send(&self, channel: &str, after: i64, to: i64) -> usize {
        let (ends, count): (Vec<i64>, i64) = ((after..to).step_by(100).collect(), (to - after + 99) / 100);
        let drafts = ends.iter().zip(0..).map(|(after, index)| {
            let to = (after + 100).min(to);
            let id = format!("{CAMPAIGN}.{after}");
            let stamp = json!({"stage": "restock", "trace_id": RESTOCK[0], "span_id": RESTOCK[1], "trace_flags": "01",
                "started_at": "2026-11-21T10:00:00Z", "ended_at": "2026-11-21T10:00:00Z"});
            let batch = json!({"batch_id": id, "campaign_id": CAMPAIGN, "product_id": PRODUCT, "index": index,
                "restocked_at": "2026-11-21T10:00:00Z", "size": to - after, "after": after, "to": to, "waybill": [stamp]});
            draft(&id, &format!("notifications.{channel}"), &id, &batch)
        });
        let topic = self.shop.scope.topic(&format!("notifications.{channel}"));
        produce(&self.shop.bootstrap, &topic, drafts.collect()).await.unwrap();
        usize::try_from(count).unwrap()
    }

    /// Waits for the results of so many batches: what became of each subscription.
    pub async fn results(&self, channel: &str, batches: usize) -> BTreeMap<i64, String> {
        let records = self.shop.until(&format!("notifications.{channel}.results"), batches).await;
        let mut told = BTreeMap::new();
        for event in crate::shop::once_by_id(&records).values() {
            for one in event["people"].as_array().unwrap() {
                let id = one["subscription_id"].as_i64().unwrap();
                let result = one["result"].as_str().unwrap().to_owned();
                assert_eq!(told.insert(id, result), None, "{id} stands in two results");
            }
        }
        told
    }

    /// Recipients, each as often as a mail came.
    pub fn recipients(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for arrived in self.mail.arrived().unwrap() {
            for to in arrived.to {
                *count.entry(to).or_default() += 1;
            }
        }
        count
    }

    /// Waits for a sum of a counter.
    pub async fn until_counted(&self, name: &str, sum: f64) {
        eventually(&format!("{name} is {sum}"), LIMIT, async || {
            let points = self.collector.metric(name).map(|metric| metric.points).unwrap_or_default();
            let seen: f64 = points.iter().map(|point| point.value).sum();
            if (seen - sum).abs() < 0.5 { Ok(()) } else { Err(format!("{seen}")) }
        })
        .await;
    }

    /// No canary stands where it must not.
    pub fn check_canaries(&self, logs: &str) {
        let mut texts = vec![logs.to_owned(), format!("{:?} {:?}", self.collector.spans(), self.collector.metrics())];
        for topic in waybill_harness::topics(&self.shop.bootstrap, self.shop.scope.prefix()).unwrap() {
            for record in waybill_harness::read_topic(&self.shop.bootstrap, &topic).unwrap() {
                let headers = record.headers.iter().map(|(_, value)| value.as_slice());
                let all = headers.chain(record.payload.as_deref()).map(String::from_utf8_lossy);
                texts.extend(all.map(|text| text.into_owned()));
            }
        }
        for text in texts {
            for canary in CANARIES {
                assert!(!text.contains(canary), "{canary} stands in {text:.2000}");
            }
        }
    }
}

/// An event as its stage publishes it.
pub fn draft(key: &str, topic: &str, id: &str, event: &Value) -> Draft {
    Draft::json(key, event)
        .header("ce_id", id)
        .header("ce_type", format!("{topic}.v1"))
        .header("ce_source", "/waybill/test")
        .header("ce_time", "2026-11-21T10:00:00Z")
}

/// A mail's headers and its text.
pub fn text(arrived: &Arrived) -> String {
    let mail = mail_parser::MessageParser::default().parse(&arrived.bytes).unwrap();
    format!("{}\n{}", mail.subject().unwrap(), mail.body_text(0).unwrap())
}
