//! The topics and groups of one test on a broker it shares with others.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tokio::time::{Instant, sleep};

use crate::drops::finish;

const LIMIT: Duration = Duration::from_secs(10);

/// A prefix no other test has; its topics and groups are deleted when this is dropped.
pub struct Scope {
    bootstrap: String,
    prefix: String,
    clean: bool,
}

impl Scope {
    /// On the broker at `bootstrap`; the name is for whoever looks at the broker.
    pub fn new(bootstrap: &str, test_name: &str) -> Self {
        let name: String =
            test_name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(100).collect();
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: format!("t{:08x}-{name}.", rand::random::<u32>()),
            clean: false,
        }
    }

    /// The broker.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Ends with a dot.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The full name of this test's topic `name`.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The full name of this test's consumer group `name`.
    pub fn group(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Creates topics, each a name (without the prefix) and its partitions; returns when they have leaders.
    pub async fn create_topics(&self, topics: &[(&str, i32)]) -> anyhow::Result<()> {
        let wanted: HashMap<String, i32> =
            topics.iter().map(|(name, partitions)| (self.topic(name), *partitions)).collect();
        let new: Vec<NewTopic> = wanted
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
            .collect();
        let admin = admin(&self.bootstrap)?;
        for result in admin.create_topics(&new, &options()).await.context("cannot create the test's topics")? {
            result.map_err(|(topic, code)| anyhow!("cannot create {topic}: {code}"))?;
        }
        // The controller has answered; the broker learns of its new topics a moment later.
        let deadline = Instant::now() + LIMIT;
        while led_partitions(&admin, &self.prefix)?.iter().filter(|(name, led)| wanted.get(*name) == Some(led)).count()
            < wanted.len()
        {
            ensure!(Instant::now() < deadline, "new topics without leaders: {wanted:?}");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// What dropping does, for a test that wants to know of its failure.
    pub async fn cleanup(mut self) -> anyhow::Result<()> {
        self.clean = true;
        delete_all(&self.bootstrap, &self.prefix).await
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.clean {
            return;
        }
        let (bootstrap, prefix) = (self.bootstrap.clone(), self.prefix.clone());
        finish(async move { delete_all(&bootstrap, &prefix).await });
    }
}

async fn delete_all(bootstrap: &str, prefix: &str) -> anyhow::Result<()> {
    let admin = admin(bootstrap)?;
    let topics = led_partitions(&admin, prefix)?;
    let topics: Vec<&str> = topics.keys().map(String::as_str).collect();
    if !topics.is_empty() {
        admin.delete_topics(&topics, &options()).await.context("cannot delete the test's topics")?;
    }
    let groups = groups(&admin, prefix)?;
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    if !groups.is_empty() {
        // A group whose members were just killed is refused; it expires by itself.
        admin.delete_groups(&groups, &options()).await.context("cannot delete the test's groups")?;
    }
    Ok(())
}

/// The topics with the prefix, and how many partitions of each have a leader.
fn led_partitions(admin: &AdminClient<DefaultClientContext>, prefix: &str) -> anyhow::Result<HashMap<String, i32>> {
    let metadata = admin.inner().fetch_metadata(None, LIMIT).context("cannot list the topics")?;
    Ok(metadata
        .topics()
        .iter()
        .filter(|topic| topic.name().starts_with(prefix))
        .map(|topic| {
            let led = topic.partitions().iter().filter(|p| p.leader() >= 0);
            (topic.name().to_owned(), led.map(|_| 1).sum())
        })
        .collect())
}

/// The consumer groups with the prefix.
fn groups(admin: &AdminClient<DefaultClientContext>, prefix: &str) -> anyhow::Result<Vec<String>> {
    let list = admin.inner().fetch_group_list(None, LIMIT).context("cannot list the groups")?;
    let names = list.groups().iter().map(|group| group.name().to_owned());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

fn admin(bootstrap: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().context("cannot make an admin client")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT))
}
