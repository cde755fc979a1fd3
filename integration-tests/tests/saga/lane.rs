//! A shop in which cases of the saga are played one after the other.

use super::{Story, Strike};
use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use std::net::SocketAddr;
use waybill_harness::{Draft, LostCommit, Process, Rec, eventually, produce};

/// Pieces of a case's product, and how many of them its customer wants.
const PIECES: i64 = 5;
const WANTED: i64 = 3;
/// What a stage says to the database when it settles an answer, and not before.
const SETTLES: &str = "update parked p set record";
/// What the checkout reads.
const INPUT: [&str; 4] = ["checkout.requested", "orders.picked", "orders.short", "orders.cancelled"];

pub struct Lane {
    front: Front,
    checkout: Process,
    way: LostCommit,
    _others: Process,
}

/// A case that is being played.
struct Case {
    story: Story,
    strike: Strike,
    order: String,
    product: String,
}

impl Lane {
    pub async fn open(name: &str) -> Option<Self> {
        let mut front = Front::open(name, None).await?;
        // Those who died are missed soon.
        front.shop.set("WAYBILL_KAFKA_SESSION_TIMEOUT_MS", "2000");
        front.shop.set("WAYBILL_KAFKA_HEARTBEAT_INTERVAL_MS", "500");
        // A bank that is made to wait is waited for.
        front.shop.set("WAYBILL_PAYMENT_TIMEOUT", "120s");
        let others = front.shop.run(&["gateway", "inventory", "ship"]);
        let (way, database) = lossy(&front.shop.database).await;
        let checkout = front.shop.run_on(&["checkout"], &database);
        front.until_open().await;
        let strike = "create sequence strikes;
            create function strike() returns trigger language plpgsql as $$ begin
                if nextval('strikes') = 1 then raise exception 'struck' using errcode = '40001'; end if;
                return new;
            end $$";
        front.shop.execute(strike).await;
        Some(Lane { front, checkout, way, _others: others })
    }

    /// Plays a case to its end.
    pub async fn play(&mut self, number: usize, title: &str, story: Story, strike: Strike) {
        println!("{title}");
        self.arm(story, strike).await;
        let case = self.begin(number, story, strike).await;
        match story {
            Story::Lapsed | Story::Retaken => self.lapse(&case).await,
            Story::Cancelled => self.cancel(&case).await,
            Story::NoCart
            | Story::Stale
            | Story::SoldOut
            | Story::Bought
            | Story::Declined
            | Story::AnswerLost
            | Story::Short => {}
        }
        let _pick = if story == Story::Short { Some(self.run_short(&case).await) } else { None };
        self.mend(&case).await;
        self.until_ended(&case, title).await;
        if let Strike::Again(topic) = strike {
            self.deliver_again(topic, &case).await;
            self.until_ended(&case, title).await;
        }
        if let Strike::Conflict(table, _) = strike {
            let struck =
                self.front.shop.number("select case when is_called then last_value else 0 end from strikes").await;
            assert!(struck > 1, "{title}: the transaction was not broken and tried again");
            self.front.shop.execute(&format!("drop trigger strike on {table}; alter sequence strikes restart")).await;
        }
    }

    /// After a case: the checker finds nothing.
    pub async fn assert_clean_slate(&self, title: &str) {
        let books = self.front.books().check().await.unwrap();
        assert!(books.violations.is_empty(), "{title}\n{books}");
    }

    /// The strike is there before the customer is.
    async fn arm(&mut self, story: Story, strike: Strike) {
        match strike {
            Strike::Crash(point, nth) => self.start_again(Some(&format!("{point}:{nth}"))).await,
            // Between a charge and its refund there is no time to end the provider: the process dies there, too.
            Strike::Away if story == Story::Lapsed => self.start_again(Some("before_call:2")).await,
            Strike::Away if story == Story::Bought => self.front.simulator.kill().unwrap(),
            Strike::Conflict(table, condition) => {
                let sql = format!(
                    "create trigger strike before update on {table} for each row when ({condition}) execute function strike()"
                );
                self.front.shop.execute(&sql).await;
            }
            Strike::CommitLost => {
                self.start_again(None).await;
                self.way.arm();
            }
            Strike::Nothing | Strike::Away | Strike::Again(_) => {}
        }
        if matches!(story, Story::Lapsed | Story::Retaken) {
            self.front.simulator.stop().unwrap();
        }
    }

    /// The checkout ends, by a request or by its crash, and another one begins.
    async fn start_again(&mut self, failpoint: Option<&str>) {
        if self.checkout.ended().unwrap().is_none() {
            self.checkout.terminate().unwrap();
            self.checkout.wait(LIMIT).await.unwrap();
        }
        self.front.shop.set("WAYBILL_TEST_FAILPOINT", failpoint.unwrap_or("none"));
        let database = by(&self.front.shop.database, self.way.address());
        self.checkout = self.front.shop.run_on(&["checkout"], &database);
    }

    /// A customer asks.
    async fn begin(&mut self, number: usize, story: Story, strike: Strike) -> Case {
        let (product, cart, user) = (format!("p-{number}"), format!("k-{number}"), format!("u-{number}"));
        self.front.sell(&product, if story == Story::SoldOut { WANTED - 1 } else { PIECES }).await;
        if story != Story::NoCart {
            let price = if story == Story::Stale { PRICE - 1 } else { PRICE };
            self.front.cart(&cart, &user, &[(&product, WANTED)], price).await;
        }
        let method = match story {
            Story::Declined => "pm_card_chargeDeclined",
            Story::AnswerLost => "pm_reset",
            Story::NoCart
            | Story::Stale
            | Story::SoldOut
            | Story::Bought
            | Story::Lapsed
            | Story::Retaken
            | Story::Short
            | Story::Cancelled => "pm_card_visa",
        };
        let answer = self.front.checkout(&cart, &user, method, &[("prefer", "respond-async")]).await;
        let case = Case { story, strike, order: answer["orderId"].as_str().unwrap().to_owned(), product };
        if strike == Strike::Again("checkout.requested") {
            self.deliver_again("checkout.requested", &case).await;
        }
        case
    }

    /// The reservation runs out while the bank thinks.
    async fn lapse(&mut self, case: &Case) {
        let Case { order, product, .. } = case;
        let shop = &self.front.shop;
        self.until_one(&format!("select count(*) from reservations where order_id = '{order}' and state = 'held'"))
            .await;
        shop.execute(&format!("update reservations set expires_at = now() where order_id = '{order}'")).await;
        let back = format!("select count(*) from stock where product_id = '{product}' and available = {PIECES}");
        self.until_one(&back).await;
        if case.story == Story::Lapsed {
            let (delta, seed) = ((1 - PIECES).to_string(), product.trim_start_matches("p-"));
            shop.done(&["produce", "stock", "--product", product, "--delta", &delta, "--seed", seed]);
            self.until_one(&format!("select count(*) from stock where product_id = '{product}' and available = 1"))
                .await;
        }
        self.front.simulator.cont().unwrap();
    }

    /// What was bought is cancelled before it is picked.
    async fn cancel(&mut self, case: &Case) {
        self.until_bought(case).await;
        self.front.shop.ask_to_cancel(&[&case.order]).await;
        if let Strike::Again(topic) = case.strike {
            self.deliver_again(topic, case).await;
        }
    }

    /// A bin holds one piece less than was bought.
    async fn run_short(&mut self, case: &Case) -> Process {
        self.until_bought(case).await;
        let bin = format!("insert into bins values ('{}', 'A-1', 'A', {})", case.product, WANTED - 1);
        self.front.shop.execute(&bin).await;
        let pick = self.front.shop.run(&["pick"]);
        if let Strike::Again(topic) = case.strike {
            self.deliver_again(topic, case).await;
        }
        pick
    }

    async fn until_bought(&mut self, case: &Case) {
        let sql =
            format!("select count(*) from checkouts where key = '{}' and state->>'status' = 'confirmed'", case.order);
        self.until_one(&sql).await;
        self.until_one("select 1 - least(count(*), 1) from parked").await;
        if case.strike == Strike::Away {
            self.front.simulator.kill().unwrap();
        }
    }

    /// What was struck comes back.
    async fn mend(&mut self, case: &Case) {
        let away = case.strike == Strike::Away;
        if matches!(case.strike, Strike::Crash(..)) || (away && case.story == Story::Lapsed) {
            let status = self.checkout.wait(LIMIT).await.unwrap();
            let log = self.checkout.log().unwrap();
            assert!(!status.success() && log.contains("aborting, as a test asked for"), "{status}: {log}");
            if away {
                self.front.simulator.kill().unwrap();
            }
            self.lapse_leases().await;
            self.start_again(None).await;
        }
        if case.strike == Strike::CommitLost {
            eventually("the answer to a commit is lost", LIMIT, async || {
                if self.way.struck() { Ok(()) } else { Err("not yet".to_owned()) }
            })
            .await;
            self.lapse_leases().await;
        }
        if away {
            let sql = "select count(*) from checkouts where key = '{}' and (state->>'unknown')::int >= 1";
            self.until_one(&sql.replace("{}", &case.order)).await;
            self.front.simulator = self.front.shop.run(&["payment-simulator"]);
        }
    }

    /// As if the lease of who died had run out.
    async fn lapse_leases(&self) {
        let sql = "update parked set leased_until = now() where stage = 'checkout' and leased_until > now()";
        self.front.shop.execute(sql).await;
    }

    /// The case has come to the end of its story; whatever was delivered is done.
    async fn until_ended(&self, case: &Case, title: &str) {
        let (end, topic) = match case.story {
            Story::NoCart => ("rejected no_such_cart", "checkout.rejected"),
            Story::Stale => ("rejected stale_prices", "checkout.rejected"),
            Story::SoldOut => ("rejected insufficient_stock", "checkout.rejected"),
            Story::Declined => ("rejected declined", "checkout.rejected"),
            Story::Lapsed => ("rejected reservation_lapsed", "checkout.rejected"),
            Story::Bought | Story::AnswerLost | Story::Retaken => ("confirmed", "checkout.completed"),
            Story::Short => ("picked", "checkout.completed"),
            Story::Cancelled => ("cancelled", "checkout.completed"),
        };
        eventually(&format!("{title} has ended as {end}"), LIMIT, async || {
            let said = self.front.order(&case.order).await;
            let said =
                [&said["status"], &said["failure"]["reason"]].map(|text| text.as_str().unwrap_or_default().to_owned());
            let said = said.join(" ").trim().to_owned();
            let shop = &self.front.shop;
            let parked = shop.number("select count(*) from parked").await;
            if said != end || parked > 0 {
                return Err(format!("{said}, {parked} parked"));
            }
            if self.records(topic, &case.order).is_empty() {
                return Err(format!("nothing on {topic}"));
            }
            let inventory = ["orders.short", "orders.cancelled"].map(|topic| ("inventory", topic));
            for (stage, topic) in INPUT.map(|topic| ("checkout", topic)).into_iter().chain(inventory) {
                let (committed, records) = (shop.committed(stage, topic), shop.count(topic));
                if committed != records {
                    return Err(format!("{stage} has committed {committed} of {records} on {topic}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// The same record once more.
    async fn deliver_again(&self, topic: &str, case: &Case) {
        let record = eventually(&format!("{} is on {topic}", case.order), LIMIT, async || {
            self.records(topic, &case.order).pop().ok_or_else(|| "nothing".to_owned())
        })
        .await;
        produce(&self.front.shop.bootstrap, &self.front.shop.scope.topic(topic), vec![Draft::from(record)])
            .await
            .unwrap();
    }

    fn records(&self, topic: &str, order: &str) -> Vec<Rec> {
        let records = self.front.shop.read(topic).into_iter();
        records.filter(|record| record.key_str() == Some(order)).collect()
    }

    async fn until_one(&self, sql: &str) {
        eventually(sql, LIMIT, async || match self.front.shop.sum(sql).await {
            1 => Ok(()),
            other => Err(other.to_string()),
        })
        .await;
    }
}

/// A way to the database of `url` on which the answer to a commit can be lost, and the URL of it.
async fn lossy(url: &str) -> (LostCommit, String) {
    let server = authority(url).parse().unwrap();
    let way = LostCommit::on_the_way_to(server, SETTLES).await.unwrap();
    let url = by(url, way.address());
    (way, url)
}

fn by(url: &str, way: SocketAddr) -> String {
    url.replacen(authority(url), &way.to_string(), 1)
}

/// Host and port.
fn authority(url: &str) -> &str {
    url.split_once('@').and_then(|(_, rest)| rest.split_once('/')).unwrap().0
}
