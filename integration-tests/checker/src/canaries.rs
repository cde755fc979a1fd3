//! Words that must stand nowhere.

use crate::books::Shop;
use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use waybill_harness::{read_topic, topics};

impl Shop {
    /// Every topic and table that holds one of these words, as text or as bytes.
    ///
    /// # Errors
    /// Kafka or Postgres cannot be read.
    pub async fn holders(&self, words: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut holders = Vec::new();
        for topic in topics(&self.bootstrap, &self.prefix)? {
            for record in read_topic(&self.bootstrap, &topic)? {
                let parts = [record.key.as_deref(), record.payload.as_deref()].into_iter().flatten();
                let all = parts.chain(record.headers.iter().map(|(_, value)| value.as_slice()));
                let text: Vec<u8> = all.flat_map(|part| [part, b"\n"].concat()).collect();
                let text = String::from_utf8_lossy(&text);
                if words.iter().any(|word| text.contains(word)) {
                    holders.push(format!("{topic}[{}]@{}", record.partition, record.offset));
                }
            }
        }
        let mut database = PgConnection::connect(&self.database).await.context("cannot reach the database")?;
        let tables: Vec<String> =
            sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public'")
                .fetch_all(&mut database)
                .await?;
        for table in tables {
            for word in words {
                // Bytes are written in hexadecimal.
                let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
                let sql = format!(
                    "select count(*) from \"{table}\" as t where strpos(t::text, $1) + strpos(t::text, $2) > 0"
                );
                let rows: i64 =
                    sqlx::query_scalar(AssertSqlSafe(sql)).bind(word).bind(hex).fetch_one(&mut database).await?;
                if rows > 0 {
                    holders.push(format!("{rows} rows of {table}"));
                }
            }
        }
        Ok(holders)
    }
}
