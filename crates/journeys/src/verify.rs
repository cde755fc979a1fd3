//! What was published beside what was exported.
//!
//! The published span is brought into OTLP's form by the way that the exporter takes, and both are compared field by field.
//! Apart are listed, since nothing is wrong with them: spans that publish nothing (requests, pauses, other flows, a refund after
//! the checkout), and spans that were published and, by a crash, never exported.

use crate::JourneysError;
use crate::row::SpanRow;
use crate::target::Target;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::io::BufRead;

/// Scopes of the spans that are published with an order's events.
const SCOPES: [&str; 2] = ["waybill.checkout", "waybill.fulfilment"];
/// Money paid back after the checkout: a trace of that scope which ends in no event.
const SILENT: &str = "checkout.compensate";
/// Spans that are listed; all are counted.
const LISTED: usize = 100;
/// Spans looked up at a time.
const CHUNK: usize = 1_000;

/// A span by its ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// Its name.
    pub name: String,
}

/// A span that was exported otherwise than it was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// Which.
    pub span: Named,
    /// Field by field: exported, published.
    pub fields: Vec<String>,
}

/// What a comparison came to. Lists hold the first hundred.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verified {
    /// Spans in the export.
    pub exported: u64,
    /// Those equal to their published copy.
    pub equal: u64,
    /// Those that differ.
    pub differing: u64,
    /// The first of them.
    pub differing_listed: Vec<Differing>,
    /// Exported and not published, though they should be.
    pub unpublished: u64,
    /// The first of them.
    pub unpublished_listed: Vec<Named>,
    /// Exported; of those that publish nothing, by name.
    pub apart: BTreeMap<String, u64>,
    /// Published and never exported.
    pub unexported: u64,
    /// The first of them.
    pub unexported_listed: Vec<Named>,
    /// Published as of accepting a request, which was not over: not compared.
    pub provisional: u64,
}

impl Verified {
    /// How many spans were not published as they were exported.
    #[must_use]
    pub fn differences(&self) -> u64 {
        self.differing + self.unpublished
    }

    /// Compares an export, one `ExportTraceServiceRequest` in OTLP's JSON a line, with the spans of `target`.
    ///
    /// # Errors
    /// The export cannot be read, or the target does not answer.
    pub async fn compare(target: &mut Target, export: impl BufRead) -> Result<Self, JourneysError> {
        let mut verified = Verified::default();
        target.run("drop table if exists exported").await?;
        target
            .run(
                "create temporary table exported (trace_id text not null, span_id text not null, name text not null,
                      published boolean not null, primary key (trace_id, span_id))",
            )
            .await?;
        for (line, request) in (1..).zip(export.lines()) {
            let request = request?;
            if request.trim().is_empty() {
                continue;
            }
            let request: ExportTraceServiceRequest =
                serde_json::from_str(&request).map_err(|source| JourneysError::Export { line, source })?;
            let mut spans = spans(request);
            while !spans.is_empty() {
                let rest = spans.split_off(spans.len().min(CHUNK));
                verified.take(target, spans).await?;
                spans = rest;
            }
        }
        verified.finish(target).await?;
        Ok(verified)
    }

    async fn take(&mut self, target: &mut Target, exported: Vec<(String, Span)>) -> Result<(), JourneysError> {
        let mut traces: Vec<String> = exported.iter().map(|(_, span)| hex(&span.trace_id)).collect();
        traces.sort_unstable();
        traces.dedup();
        let published = published(&target.spans(&traces).await?)?;
        let mut seen = Vec::with_capacity(exported.len());
        for (scope, span) in exported {
            self.exported += 1;
            let (id, name) = ((hex(&span.trace_id), hex(&span.span_id)), span.name.clone());
            // The copy of a request is of a moment before it ended.
            let request = span.kind == SpanKind::Server as i32;
            let copy = published.get(&id);
            let apart = request || (copy.is_none() && !SCOPES.contains(&&*scope));
            if apart {
                *self.apart.entry(name.clone()).or_default() += 1;
            } else if let Some(copy) = copy {
                self.one(&id, (scope, span), copy);
            }
            seen.push((id.0, id.1, name, apart || copy.is_some()));
        }
        target.insert_exported(&seen).await
    }

    fn one(&mut self, id: &Id, exported: (String, Span), published: &(String, Span)) {
        let (name, published) = (published.1.name.clone(), published.clone());
        let mut fields = differences(exported.1, published.1);
        differ(&mut fields, "scope", exported.0, published.0);
        if fields.is_empty() {
            self.equal += 1;
            return;
        }
        self.differing += 1;
        if self.differing_listed.len() < LISTED {
            let span = Named { trace_id: id.0.clone(), span_id: id.1.clone(), name };
            self.differing_listed.push(Differing { span, fields });
        }
    }

    async fn finish(&mut self, target: &mut Target) -> Result<(), JourneysError> {
        let silent = "e.trace_id in (select r.trace_id from exported r join exported q on q.trace_id = r.trace_id
                                     where r.name = $1 group by r.trace_id having max(case when q.name = $2 then 1 else 0 end) = 0)";
        let process = "checkout.process";
        let sql = format!("select e.name, count(*) from exported e where not e.published and {silent} group by e.name");
        let apart: Vec<(String, i64)> = target.ask(&sql, &[SILENT, process], &[]).await?;
        for (name, count) in apart {
            *self.apart.entry(name).or_default() += u64::try_from(count).unwrap_or(0);
        }
        let sql = format!(
            "select e.trace_id, e.span_id, e.name from exported e where not e.published and not ({silent})
             order by e.trace_id, e.span_id"
        );
        let rows: Vec<(String, String, String)> = target.ask(&sql, &[SILENT, process], &[]).await?;
        (self.unpublished, self.unpublished_listed) = listed(rows);
        let sql = "select s.trace_id, s.span_id, s.name from spans s
                   where s.kind <> 'server' and s.trace_flags % 2 = 1 and not exists (
                       select 1 from exported e where e.trace_id = s.trace_id and e.span_id = s.span_id)
                   order by s.trace_id, s.span_id";
        let rows: Vec<(String, String, String)> = target.ask(sql, &[], &[]).await?;
        (self.unexported, self.unexported_listed) = listed(rows);
        let provisional: Vec<(i64,)> =
            target.ask("select count(*) from stage_spans where kind = 'server'", &[], &[]).await?;
        self.provisional = provisional.first().map_or(0, |(count,)| u64::try_from(*count).unwrap_or(0));
        Ok(())
    }
}

/// Trace and span.
type Id = (String, String);

/// Stage spans and their children as OTLP says them, each with its scope.
fn published(rows: &[SpanRow]) -> Result<HashMap<Id, (String, Span)>, JourneysError> {
    let mut published = HashMap::new();
    for row in rows {
        let spans = row.to_otlp().map_err(|source| JourneysError::Row {
            trace_id: row.trace_id.clone(),
            span_id: row.span_id.clone(),
            source,
        })?;
        let spans =
            spans.into_iter().map(|span| ((hex(&span.trace_id), hex(&span.span_id)), (row.scope.clone(), span)));
        published.extend(spans);
    }
    Ok(published)
}

fn listed(rows: Vec<(String, String, String)>) -> (u64, Vec<Named>) {
    let count = rows.len() as u64;
    let named = |(trace_id, span_id, name)| Named { trace_id, span_id, name };
    (count, rows.into_iter().take(LISTED).map(named).collect())
}

/// Each with the name of its scope.
fn spans(request: ExportTraceServiceRequest) -> Vec<(String, Span)> {
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let spans = scopes.flat_map(|scope| {
        let name = scope.scope.map(|scope| scope.name).unwrap_or_default();
        scope.spans.into_iter().map(move |span| (name.clone(), span))
    });
    spans.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In one order, since the order of attributes says nothing.
fn sorted(mut span: Span) -> Span {
    let by_key = |list: &mut Vec<KeyValue>| list.sort_by(|a, b| a.key.cmp(&b.key));
    by_key(&mut span.attributes);
    span.events.iter_mut().for_each(|event| by_key(&mut event.attributes));
    span.links.iter_mut().for_each(|link| by_key(&mut link.attributes));
    span
}

fn differ<T: PartialEq + Debug>(fields: &mut Vec<String>, name: &str, exported: T, published: T) {
    if exported != published {
        fields.push(format!("{name}: exported {exported:?}, published {published:?}"));
    }
}

/// Field by field; every field of a span is named here.
fn differences(exported: Span, published: Span) -> Vec<String> {
    let (e, p) = (sorted(exported), sorted(published));
    let mut fields = Vec::new();
    differ(&mut fields, "name", e.name, p.name);
    differ(&mut fields, "kind", e.kind, p.kind);
    differ(&mut fields, "start", e.start_time_unix_nano, p.start_time_unix_nano);
    differ(&mut fields, "end", e.end_time_unix_nano, p.end_time_unix_nano);
    differ(&mut fields, "parent", hex(&e.parent_span_id), hex(&p.parent_span_id));
    differ(&mut fields, "flags", e.flags, p.flags);
    differ(&mut fields, "trace state", e.trace_state, p.trace_state);
    differ(&mut fields, "attributes", e.attributes, p.attributes);
    differ(&mut fields, "events", e.events, p.events);
    differ(&mut fields, "links", e.links, p.links);
    differ(&mut fields, "status", e.status.unwrap_or_default(), p.status.unwrap_or_default());
    let lost = e.dropped_attributes_count + e.dropped_events_count + e.dropped_links_count;
    differ(&mut fields, "dropped", lost, 0);
    fields
}

impl Target {
    async fn insert_exported(&mut self, seen: &[(String, String, String, bool)]) -> Result<(), JourneysError> {
        match self {
            Target::Sqlite(db) => {
                let rows = serde_json::Value::from_iter(seen.iter().map(|s| serde_json::json!([s.0, s.1, s.2, s.3])));
                let sql =
                    "insert into exported select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each(?1)
                           where true on conflict do nothing";
                sqlx::query(sql).bind(rows.to_string()).execute(db).await?;
            }
            Target::Postgres(db) => {
                let sql = "insert into exported select * from unnest($1::text[], $2::text[], $3::text[], $4::bool[])
                           on conflict do nothing";
                sqlx::query(sql)
                    .bind(seen.iter().map(|s| &*s.0).collect::<Vec<_>>())
                    .bind(seen.iter().map(|s| &*s.1).collect::<Vec<_>>())
                    .bind(seen.iter().map(|s| &*s.2).collect::<Vec<_>>())
                    .bind(seen.iter().map(|s| s.3).collect::<Vec<_>>())
                    .execute(db)
                    .await?;
            }
        }
        Ok(())
    }
}
