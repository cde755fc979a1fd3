//! The harness's own servers: they start, they hold what they are given, they come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use sqlx::{Connection, PgConnection};
use waybill_harness::{
    Draft, KafkaServer, PostgresServer, Scope, committed, count_topic, eventually, kafka, postgres, produce, read_topic,
};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_record_comes_back_as_it_was_written() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let scope = Scope::new(kafka.bootstrap(), "round_trip");
    scope.create_topics(&[("orders.new", 3), ("quiet", 1)]).await?;
    let topic = scope.topic("orders.new");

    let order = serde_json::json!({"order_id": "7"});
    let drafts = vec![
        Draft::json("7", &order).header("ce_id", "a").at(1_600_000_000_000),
        Draft { key: Some(b"7".to_vec()), ..Draft::default() },
    ];
    let places = produce(kafka.bootstrap(), &topic, drafts).await?;
    assert_eq!(places[0].0, places[1].0, "one key, one partition: {places:?}");

    let records = read_topic(kafka.bootstrap(), &topic)?;
    let [first, tombstone] = &records[..] else {
        anyhow::bail!("{records:?}");
    };
    assert_eq!((first.topic.as_str(), first.partition, first.offset), (topic.as_str(), places[0].0, 0));
    assert_eq!(first.timestamp_ms, Some(1_600_000_000_000));
    assert_eq!(first.key_str(), Some("7"));
    assert_eq!(first.header("ce_id"), Some("a"));
    assert_eq!(first.header("ce_type"), None);
    assert_eq!(first.json()?, order);
    assert_eq!(tombstone.payload, None);

    assert_eq!(count_topic(kafka.bootstrap(), &topic)?, 2);
    assert_eq!(read_topic(kafka.bootstrap(), &scope.topic("quiet"))?, vec![]);
    assert!(read_topic(kafka.bootstrap(), &scope.topic("none")).is_err());
    scope.cleanup().await
}

#[tokio::test]
async fn a_scope_takes_its_topics_and_groups_with_it() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let scope = Scope::new(kafka.bootstrap(), "scope");
    scope.create_topics(&[("t", 2)]).await?;
    let (topic, group) = (scope.topic("t"), scope.group("g"));
    assert_eq!(committed(kafka.bootstrap(), &group, &topic)?, vec![]);

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).set("group.id", &group).create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 1, Offset::Offset(5))?;
    consumer.commit(&offsets, CommitMode::Sync)?;
    assert_eq!(committed(kafka.bootstrap(), &group, &topic)?, vec![(1, 5)]);

    let prefix = scope.prefix().to_owned();
    drop(scope);
    eventually("the topic and the group are gone", LONG, async || {
        let metadata = consumer.fetch_metadata(None, LONG).map_err(|error| error.to_string())?;
        let groups = consumer.fetch_group_list(None, LONG).map_err(|error| error.to_string())?;
        let topics = metadata.topics().iter().map(|topic| topic.name());
        let groups = groups.groups().iter().map(|group| group.name());
        match topics.chain(groups).find(|name| name.starts_with(prefix.as_str())) {
            Some(left) => Err(left.to_owned()),
            None => Ok(()),
        }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_database_is_created_and_dropped() -> Result<()> {
    let Some(postgres) = postgres() else {
        return Ok(());
    };
    let kept = postgres.create_database("kept").await?;
    let database = postgres.create_database("Dropped, soon").await?;
    let mut connection = PgConnection::connect(database.url()).await?;
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&mut connection).await?;
    assert!(name.ends_with("_dropped__soon"), "{name}");

    // With a connection open, as a test that failed leaves it.
    drop(database);
    let mut other = PgConnection::connect(kept.url()).await?;
    let left: i64 = sqlx::query_scalar("select count(*) from pg_database where datname = $1")
        .bind(&name)
        .fetch_one(&mut other)
        .await?;
    assert_eq!(left, 0);
    Ok(())
}

#[tokio::test]
async fn a_postgres_that_stopped_comes_back_with_its_data() -> Result<()> {
    if postgres().is_none() {
        return Ok(());
    }
    let mut server = PostgresServer::start()?;
    let database = server.create_database("crash").await?;
    let mut connection = PgConnection::connect(database.url()).await?;
    sqlx::raw_sql("create table t (n int); insert into t values (7)").execute(&mut connection).await?;
    assert_eq!(server.terminate_connections().await?, 1);
    assert!(connection.ping().await.is_err());

    server.stop_immediate()?;
    assert!(PgConnection::connect(database.url()).await.is_err());
    server.start_again()?;
    let mut connection = PgConnection::connect(database.url()).await?;
    let n: i32 = sqlx::query_scalar("select n from t").fetch_one(&mut connection).await?;
    assert_eq!(n, 7);
    Ok(())
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_data() -> Result<()> {
    if kafka().is_none() {
        return Ok(());
    }
    let mut server = KafkaServer::start()?;
    let scope = Scope::new(server.bootstrap(), "crash");
    scope.create_topics(&[("t", 1)]).await?;
    let topic = scope.topic("t");
    produce(server.bootstrap(), &topic, vec![Draft::new("k", "v")]).await?;
    server.kill()?;
    let began = Instant::now();
    server.start_again()?;
    let records = read_topic(server.bootstrap(), &topic).with_context(|| format!("{:?}", began.elapsed()))?;
    assert_eq!(records.len(), 1);
    Ok(())
}
