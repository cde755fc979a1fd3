//! Rebuilt spans to a tracing store.

use crate::JourneysError;
use crate::row::SpanRow;
use crate::target::{Target, columns};
use serde::Serialize;
use std::time::{Duration, Instant};
use waybill_telemetry::{Resend, ResendError, SpanRecord};

/// Spans a request; a stage span and its children stay together, so it may be a few more.
const BATCH: usize = 512;
/// Stage spans that are read at a time.
const PAGE: i64 = 512;
/// How often a request is made, and the wait after the first time; it doubles.
const TRIES: u32 = 6;
const WAIT: Duration = Duration::from_millis(250);

/// Where spans go, and how fast.
#[derive(Clone, Debug)]
pub struct Sending {
    /// `http://host:port` or `https://host:port`, OTLP over gRPC.
    pub endpoint: String,
    /// Most spans a second; as fast as they are taken where it is none.
    pub rate: Option<f64>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Spans that the endpoint took.
    pub spans: u64,
    /// Requests that were made once more.
    pub retries: u64,
}

/// Those that were to be exported: sampled, and whole. A request's copy is of a moment before it ended.
const WANTED: &str = "s.kind <> 'server' and s.trace_flags % 2 = 1";

impl Sending {
    /// Sends the spans of `target`; `progress` is told how many were sent, of how many.
    ///
    /// # Errors
    /// The endpoint did not take them, in several tries.
    pub async fn send(&self, target: &mut Target, mut progress: impl FnMut(u64, u64)) -> Result<Sent, JourneysError> {
        let stages = format!(
            "select s.stage, cast(count(*) + sum(json_array_length(s.children)) as bigint) from stage_spans s
             where {WANTED} group by s.stage order by s.stage"
        );
        let stages: Vec<(String, i64)> = target.ask(&stages, &[], &[]).await?;
        let all = stages.iter().map(|(_, count)| u64::try_from(*count).unwrap_or(0)).sum();
        let mut store = Resend::to(&self.endpoint);
        let (begun, mut sent) = (Instant::now(), Sent::default());
        for (stage, _) in stages {
            let mut after = (String::new(), String::new());
            loop {
                let spans = page(target, &stage, &after).await?;
                let Some(last) = spans.last() else { break };
                after = (last.trace_id.clone(), last.span_id.clone());
                let mut spans = spans.iter().map(record).collect::<Result<Vec<_>, _>>()?;
                while !spans.is_empty() {
                    let rest = spans.split_off(request(&spans));
                    let count: usize = spans.iter().map(size).sum();
                    if let Some(rate) = self.rate {
                        let due = begun + Duration::from_secs_f64(sent.spans as f64 / rate);
                        tokio::time::sleep_until(due.into()).await;
                    }
                    sent.retries += self.batch(&mut store, &stage, &spans).await.map_err(|source| {
                        let endpoint = self.endpoint.clone();
                        JourneysError::Send { sent: sent.spans, all, endpoint, tries: TRIES, source }
                    })?;
                    sent.spans += count as u64;
                    progress(sent.spans, all);
                    spans = rest;
                }
            }
        }
        Ok(sent)
    }

    /// Yields how often it was tried again.
    async fn batch(&self, store: &mut Resend, stage: &str, spans: &[SpanRecord]) -> Result<u64, ResendError> {
        let (mut wait, mut retries) = (WAIT, 0);
        loop {
            match store.send(stage, spans).await {
                Ok(()) => return Ok(retries),
                Err(error @ (ResendError::Endpoint(_) | ResendError::Settings(_))) => return Err(error),
                Err(error) if retries + 1 == u64::from(TRIES) => return Err(error),
                Err(ResendError::Export(_)) => tokio::time::sleep(wait).await,
            }
            retries += 1;
            wait *= 2;
        }
    }
}

fn size(span: &SpanRecord) -> usize {
    1 + span.children.len()
}

/// How many of them, with their children, fill a request.
fn request(spans: &[SpanRecord]) -> usize {
    let mut filled = 0;
    let full = spans.iter().position(|span| {
        filled += size(span);
        filled >= BATCH
    });
    full.map_or(spans.len(), |last| last + 1)
}

/// The next spans of a stage, by their ids.
async fn page(
    target: &mut Target,
    stage: &str,
    (trace_id, span_id): &(String, String),
) -> Result<Vec<SpanRow>, JourneysError> {
    let sql = format!(
        "select {} from stage_spans s where {WANTED} and s.stage = $1 and (s.trace_id, s.span_id) > ($2, $3)
         order by s.trace_id, s.span_id limit $4",
        columns()
    );
    target.ask(&sql, &[stage, trace_id, span_id], &[PAGE]).await
}

fn record(row: &SpanRow) -> Result<SpanRecord, JourneysError> {
    row.to_record().map_err(|source| JourneysError::Row {
        trace_id: row.trace_id.clone(),
        span_id: row.span_id.clone(),
        source,
    })
}
