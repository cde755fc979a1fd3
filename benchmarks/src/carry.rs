//! The client's own limit: three hops that carry records on and do nothing else.
//!
//! The stages' own source and sink, their settings, their batches, acknowledged before the offsets move. No event is read, nothing is
//! decided, kept or traced, and what goes out is what came in: 1 KB a record, where a stage's answer is 2.5 KB.

use clap::Args as ClapArgs;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use waybill_spine::{KafkaConfig, KafkaSink, KafkaSource, Message, Policy, Shutdown, Sink, Source};

const HOPS: [(&str, &str, &str); 3] = [
    ("pick", "orders.new", "orders.picked"),
    ("pack", "orders.picked", "orders.packed"),
    ("ship", "orders.packed", "orders.shipped"),
];

/// Where to carry.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    prefix: String,
}

/// Carries until SIGTERM.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let properties = [("bootstrap.servers".to_owned(), args.brokers.clone())].into();
    let kafka = KafkaConfig::new(properties, args.prefix.clone());
    let shutdown = Shutdown::default();
    let hops: Vec<JoinHandle<anyhow::Result<()>>> = HOPS
        .into_iter()
        .map(|hop| {
            let (kafka, shutdown) = (kafka.clone(), shutdown.clone());
            std::thread::spawn(move || carry(&kafka, hop, &shutdown))
        })
        .collect();
    signal(SignalKind::terminate())?.recv().await;
    shutdown.request();
    hops.into_iter().try_for_each(|hop| hop.join().map_err(|_| anyhow::anyhow!("a hop panicked"))?)
}

fn carry(kafka: &KafkaConfig, (name, from, to): (&str, &str, &'static str), shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut source = KafkaSource::join(kafka, name, &[from])?;
    let mut sink = KafkaSink::connect(kafka, name)?;
    let mut batch = Vec::new();
    while !shutdown.requested() {
        source.poll(Policy::default().batch, Duration::from_millis(100), &mut batch)?;
        let next: Vec<(Arc<str>, i32, i64)> =
            batch.iter().map(|record| (record.topic.clone(), record.partition, record.offset + 1)).collect();
        let messages: Vec<Message> =
            batch.drain(..).map(|record| Message { topic: to.into(), content: record.content }).collect();
        sink.send(&messages);
        while sink.wait(Duration::from_secs(1))?.is_none() {}
        source.done(&next)?;
    }
    source.close();
    Ok(())
}
