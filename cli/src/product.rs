//! A product's journey, read from the topics: sold out, asked for, restocked, told, bought again. What belongs together
//! is found by the links of the spans: a batch links to its restock, a notice to the subscription that it answers.

use crate::kafka;
use console::style;
use jiff::Timestamp;
use opentelemetry::trace::{SpanId, TraceId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use waybill_events::{EmailResults, OrderPlaced, PushResults, Restocked, Results, StockLevel, Tell};
use waybill_journeys::{human, spans};
use waybill_spine::{Event, KafkaConfig, Record, headers};
use waybill_telemetry::{Carrier, SpanRecord, Waybill};

/// The topics that tell of a product and of who waited for it.
const TOPICS: [&str; 5] =
    [StockLevel::TOPIC, Restocked::TOPIC, EmailResults::TOPIC, PushResults::TOPIC, OrderPlaced::TOPIC];
/// Batches shown one by one; the rest is only counted.
const BATCHES: usize = 6;

/// What the topics know of a product.
#[derive(Debug, Default, Serialize)]
pub struct Product {
    /// The product.
    pub product_id: String,
    /// When there was nothing left, as far as the topic still says so.
    pub sold_out: Vec<SoldOut>,
    /// When it came back, and what followed.
    pub restocks: Vec<Restock>,
}

/// The last piece went.
#[derive(Debug, Serialize)]
pub struct SoldOut {
    /// The level that says so.
    pub version: i64,
    /// When.
    pub at: Timestamp,
}

/// The product came back.
#[derive(Debug, Serialize)]
pub struct Restock {
    /// What was published.
    pub event: Restocked,
    /// Its span.
    pub span: Option<SpanRecord>,
    /// Who was told, batch by batch, by time.
    pub batches: Vec<Batch>,
    /// Orders with the product by people who had been told.
    pub bought: Vec<Bought>,
}

/// A batch of notices.
#[derive(Debug, Serialize)]
pub struct Batch {
    /// `email` or `push`.
    pub channel: &'static str,
    /// What became of it.
    pub results: Results,
    /// Its span, and those of its notices.
    pub spans: Vec<SpanRecord>,
}

/// An order by somebody who had been told.
#[derive(Debug, Serialize)]
pub struct Bought {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// When it was placed.
    pub at: Timestamp,
    /// Pieces of the product.
    pub quantity: u32,
    /// The trace of its checkout.
    pub trace_id: String,
}

impl Product {
    /// Reads the journey of `product_id`: all results and all new orders are looked through.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn read(kafka: &KafkaConfig, product_id: &str) -> anyhow::Result<Self> {
        let mut records = Vec::new();
        // The name in quotes stands in the payload of whatever is about it; most records are not.
        let named = format!("\"{product_id}\"");
        let mentions = |record: &Record| {
            record.content.payload().is_some_and(|json| json.windows(named.len()).any(|part| part == named.as_bytes()))
        };
        kafka::scan(
            kafka,
            &TOPICS,
            |_| true,
            |record| {
                if mentions(&record) {
                    records.push(record);
                }
            },
        )?;
        records.sort_by_key(|r| (TOPICS.iter().position(|t| **t == *r.topic), r.partition, r.offset));
        let mut product = Product { product_id: product_id.to_owned(), ..Product::default() };
        let mut seen = BTreeSet::new();
        // A record may stand twice; the first counts.
        for record in records.iter().filter(|r| seen.insert(r.content.header(headers::ID).map(str::to_owned))) {
            product.add(record);
        }
        product.sort();
        Ok(product)
    }

    fn add(&mut self, record: &Record) {
        match &*record.topic {
            StockLevel::TOPIC => {
                let level = read::<StockLevel>(record).filter(|l| l.product_id == self.product_id && l.available == 0);
                self.sold_out.extend(level.map(|l| SoldOut { version: l.version, at: l.changed_at }));
            }
            Restocked::TOPIC => {
                let event = read::<Restocked>(record).filter(|event| event.product_id == self.product_id);
                let Some(event) = event else { return };
                let span = spans(record, &event.waybill).next();
                self.restocks.push(Restock { event, span, batches: Vec::new(), bought: Vec::new() });
            }
            EmailResults::TOPIC => {
                if let Some(EmailResults(results)) = read(record) {
                    self.told("email", results, record);
                }
            }
            PushResults::TOPIC => {
                if let Some(PushResults(results)) = read(record) {
                    self.told("push", results, record);
                }
            }
            _ => self.ordered(record),
        }
    }

    /// The batch belongs to the restock that it links to.
    fn told(&mut self, channel: &'static str, results: Results, record: &Record) {
        if results.product_id != self.product_id {
            return;
        }
        let led: BTreeSet<_> = contexts(&results.waybill).collect();
        let restock =
            self.restocks.iter_mut().find(|restock| contexts(&restock.event.waybill).any(|c| led.contains(&c)));
        if let Some(restock) = restock {
            let spans = spans(record, &results.waybill).collect();
            restock.batches.push(Batch { channel, results, spans });
        }
    }

    /// An order counts for the last restock that its customer had been told of.
    fn ordered(&mut self, record: &Record) {
        let Some(order) = read::<OrderPlaced>(record) else { return };
        let of_product = order.lines.iter().filter(|line| line.product_id == self.product_id);
        let quantity: u32 = of_product.map(|line| line.quantity).sum();
        let Some(stamp) = order.waybill.stamps().first().filter(|_| quantity > 0) else { return };
        let at = stamp.ended_at;
        let told = |restock: &&mut Restock| restock.told_before(&order.customer_id, at);
        if let Some(restock) = self.restocks.iter_mut().rev().find(told) {
            let trace_id = stamp.trace_id.to_string();
            restock.bought.push(Bought {
                order_id: order.order_id,
                customer_id: order.customer_id,
                at,
                quantity,
                trace_id,
            });
        }
    }

    fn sort(&mut self) {
        self.sold_out.sort_by_key(|out| out.version);
        self.restocks.sort_by_key(|restock| restock.event.version);
        for restock in &mut self.restocks {
            restock.batches.sort_by_key(|batch| batch.ended());
            restock.bought.sort_by_key(|bought| bought.at);
        }
    }

    /// Whether any topic knows of it.
    pub fn is_known(&self) -> bool {
        !self.sold_out.is_empty() || !self.restocks.is_empty()
    }

    /// The journey in words.
    pub fn tell(&self) -> String {
        let mut out = format!("Product {}\n\n", style(&self.product_id).bold());
        let mut out_again = self.sold_out.iter().peekable();
        for restock in &self.restocks {
            while let Some(sold) = out_again.next_if(|sold| sold.version < restock.event.version) {
                tell_sold_out(&mut out, sold);
            }
            restock.tell(&mut out);
        }
        out_again.for_each(|sold| tell_sold_out(&mut out, sold));
        out
    }
}

impl Restock {
    fn told_before(&self, user_id: &str, at: Timestamp) -> bool {
        let of_user = |batch: &&Batch| {
            batch.results.people.iter().any(|told| told.user_id == user_id && told.result == Tell::Sent)
        };
        self.batches.iter().filter(of_user).any(|batch| batch.begun().is_some_and(|begun| begun <= at))
    }

    fn tell(&self, out: &mut String) {
        let Restock { event, .. } = self;
        let _ = writeln!(
            out,
            "{} {}  {}   {} pieces, version {}{}",
            style("●").cyan(),
            shown(event.restocked_at),
            style("back in stock").bold(),
            event.available,
            event.version,
            trace(event.waybill.stamps().last().map(|stamp| stamp.trace_id)),
        );
        self.tell_subscriptions(out);
        for batch in self.batches.iter().take(BATCHES) {
            batch.tell(out, event.restocked_at);
        }
        if self.batches.len() > BATCHES {
            let _ = writeln!(out, "  │  {}", style(format!("and {} more batches", self.batches.len() - BATCHES)).dim());
        }
        let told: usize = self.batches.iter().map(|batch| batch.count(Tell::Sent)).sum();
        if let Some(first) = self.bought.first() {
            let after = first.at.duration_since(event.restocked_at);
            let pieces: u32 = self.bought.iter().map(|bought| bought.quantity).sum();
            let _ = writeln!(
                out,
                "  └─ {}  {} orders of {told} who were told, {pieces} pieces; the first, {}, after {}{}",
                style("bought again").bold(),
                self.bought.len(),
                first.order_id,
                human(after),
                style(format!("  trace {}", short(&first.trace_id))).dim(),
            );
        } else if told > 0 {
            let _ = writeln!(out, "  └─ {told} people were told; none of them has bought it yet");
        } else {
            let _ = writeln!(out, "  └─ nobody was told");
        }
    }

    /// Who had asked, as the links of the notices say.
    fn tell_subscriptions(&self, out: &mut String) {
        let notices = self.batches.iter().flat_map(|batch| &batch.spans);
        let links = notices.flat_map(|span| span.links.iter().filter(|link| link.stage == "subscribe"));
        let traces: BTreeSet<String> = links.map(|link| link.trace_id.to_string()).collect();
        if let Some(first) = traces.first() {
            let dim = style(format!("  trace {}, …", short(first))).dim();
            let _ = writeln!(out, "  │  asked for in {} traces of subscriptions{dim}", traces.len());
        }
    }
}

impl Batch {
    fn begun(&self) -> Option<Timestamp> {
        self.spans.first().map(SpanRecord::begun)
    }

    fn ended(&self) -> Option<Timestamp> {
        self.spans.first().map(|span| span.end)
    }

    fn count(&self, result: Tell) -> usize {
        self.results.people.iter().filter(|told| told.result == result).count()
    }

    fn tell(&self, out: &mut String, restocked_at: Timestamp) {
        let mut counts: BTreeMap<Tell, usize> = BTreeMap::new();
        for told in &self.results.people {
            *counts.entry(told.result).or_default() += 1;
        }
        let counts: Vec<String> =
            counts.into_iter().map(|(tell, count)| format!("{count} {}", tell.as_str())).collect();
        let _ = writeln!(
            out,
            "  ├─ told by {:<5}  +{:<7} {}{}{}",
            self.channel,
            self.ended().map_or(String::new(), |ended| human(ended.duration_since(restocked_at))),
            if counts.is_empty() { "nobody".to_owned() } else { counts.join(", ") },
            if self.results.sold_out { "; sold out before the rest" } else { "" },
            trace(self.spans.first().map(|span| span.trace_id)),
        );
    }
}

fn tell_sold_out(out: &mut String, sold: &SoldOut) {
    let _ = writeln!(out, "○ {}  sold out, version {}", shown(sold.at), sold.version);
}

/// To the second, in UTC.
fn shown(time: Timestamp) -> String {
    time.strftime("%F %T").to_string()
}

fn trace(id: Option<TraceId>) -> String {
    id.map_or(String::new(), |id| style(format!("  trace {}", short(&id.to_string()))).dim().to_string())
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn read<E: Event + DeserializeOwned>(record: &Record) -> Option<E> {
    serde_json::from_slice(record.content.payload()?).ok()
}

fn contexts(waybill: &Waybill) -> impl Iterator<Item = ([u8; 16], [u8; 8])> {
    let bytes = |trace: TraceId, span: SpanId| (trace.to_bytes(), span.to_bytes());
    waybill.stamps().iter().map(move |stamp| bytes(stamp.trace_id, stamp.span_id))
}
