//! The stages: what waits for each, how long already, and how fast it goes.

use crate::serve::{Pages, ago};
use crate::watch::{Seen, Watch};
use axum::extract::State;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use waybill_journeys::human;
use waybill_ops::{PartitionLag, StageLag, lag};
use waybill_spine::KafkaConfig;
use waybill_topics::Catalogue;

/// How often the cluster is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Two looks further apart say nothing of how fast a stage goes now.
const APART: SignedDuration = SignedDuration::from_mins(2);

#[derive(Serialize)]
struct Page {
    section: &'static str,
    rows: Option<Vec<Row>>,
    fault: Option<String>,
    seen: Option<String>,
}

#[derive(Serialize)]
struct Row {
    stage: String,
    members: Option<usize>,
    begun: bool,
    missing: Vec<String>,
    leaderless: Vec<String>,
    records: i64,
    /// Of the most that waits for any stage, percent.
    share: f64,
    oldest: Option<String>,
    /// Records a second, between the last two looks.
    speed: Option<f64>,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    name: String,
    records: i64,
    oldest: Option<String>,
}

/// Looks at what all stages have committed.
pub(crate) fn watch(kafka: &KafkaConfig, catalogue: &Arc<Catalogue>, clock: fn() -> Timestamp) -> Watch<Vec<StageLag>> {
    let (kafka, catalogue) = (kafka.clone(), catalogue.clone());
    Watch::start(EVERY, clock, move || lag(&kafka, &catalogue, &[]))
}

/// Shows them.
pub(crate) async fn page(State(pages): State<Pages>) -> Response {
    let (last, before) = pages.stages().looks().await;
    let page = Page {
        section: "stages",
        seen: last.as_ref().map(|seen| ago(pages.now(), seen.at)),
        fault: last.as_ref().and_then(|seen| seen.what.as_ref().err().cloned()),
        rows: last.as_ref().and_then(|seen| Some(rows(seen, seen.what.as_ref().ok()?, before.as_deref()))),
    };
    pages.answer("stages.html", Ok(page))
}

fn rows(seen: &Seen<Vec<StageLag>>, stages: &[StageLag], before: Option<&Seen<Vec<StageLag>>>) -> Vec<Row> {
    let most = stages.iter().map(|stage| stage.records).max().unwrap_or(0).max(1) as f64;
    let row = |stage: &StageLag| Row {
        stage: stage.stage.clone(),
        members: stage.members,
        begun: stage.committed,
        missing: stage.missing.clone(),
        leaderless: stage.leaderless.clone(),
        records: stage.records,
        share: stage.records as f64 * 100.0 / most,
        oldest: stage.age_s.map(seconds),
        speed: before.and_then(|before| speed(stage, seen.at, before)),
        partitions: stage.partitions.iter().filter(|p| p.records > 0).map(partition).collect(),
    };
    stages.iter().map(row).collect()
}

fn partition(of: &PartitionLag) -> Partition {
    let name = format!("{} / {}", of.topic, of.partition);
    Partition { name, records: of.records, oldest: of.age_s.map(seconds) }
}

/// How fast the group's offsets moved.
fn speed(stage: &StageLag, at: Timestamp, before: &Seen<Vec<StageLag>>) -> Option<f64> {
    let apart = at.duration_since(before.at);
    let then = before.what.as_ref().ok()?.iter().find(|then| then.stage == stage.stage)?;
    if apart > APART || apart <= SignedDuration::ZERO {
        return None;
    }
    let moved: i64 = stage.partitions.iter().filter_map(|now| moved(now, then)).sum();
    Some(moved as f64 / apart.as_secs_f64())
}

/// Of a partition whose offset was put back nothing is known.
fn moved(now: &PartitionLag, then: &StageLag) -> Option<i64> {
    let then = then.partitions.iter().find(|p| (&p.topic, p.partition) == (&now.topic, now.partition))?;
    Some((now.committed? - then.committed.unwrap_or(0)).max(0))
}

fn seconds(seconds: f64) -> String {
    human(SignedDuration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: i64, committed: &[Option<i64>]) -> Seen<Vec<StageLag>> {
        let partition = |(number, committed): (usize, &Option<i64>)| PartitionLag {
            topic: "orders.new".to_owned(),
            partition: i32::try_from(number).unwrap(),
            committed: *committed,
            end: 1_000,
            records: 1_000 - committed.unwrap_or(0),
            oldest_at: None,
            age_s: Some(7.5),
        };
        let partitions: Vec<PartitionLag> = committed.iter().enumerate().map(partition).collect();
        let pick = StageLag {
            stage: "pick".to_owned(),
            group: "waybill.pick".to_owned(),
            members: Some(2),
            committed: true,
            missing: Vec::new(),
            leaderless: Vec::new(),
            records: partitions.iter().map(|p| p.records).sum(),
            age_s: Some(7.5),
            partitions,
        };
        Seen { what: Ok(vec![pick]), at: Timestamp::from_second(at).unwrap() }
    }

    fn speed_of(last: &Seen<Vec<StageLag>>, before: Option<&Seen<Vec<StageLag>>>) -> Option<f64> {
        rows(last, last.what.as_ref().unwrap(), before)[0].speed
    }

    #[test]
    fn two_looks_tell_how_fast_a_stage_goes() {
        let (first, second) = (look(100, &[Some(10), Some(20)]), look(105, &[Some(40), Some(30)]));
        assert_eq!(speed_of(&second, Some(&first)), Some(8.0));
        assert_eq!(speed_of(&first, None), None);
        let put_back = look(105, &[Some(0), Some(30)]);
        assert_eq!(speed_of(&put_back, Some(&first)), Some(2.0), "what was put back does not count");
        assert_eq!(speed_of(&look(105, &[None, None]), Some(&first)), Some(0.0));
        let long_ago = look(100 - 3_600, &[Some(0), Some(0)]);
        assert_eq!(speed_of(&second, Some(&long_ago)), None);
        let failed = Seen { what: Err("no broker".to_owned()), at: Timestamp::from_second(100).unwrap() };
        assert_eq!(speed_of(&second, Some(&failed)), None);
    }

    #[test]
    fn only_partitions_where_something_waits_are_named() {
        let look = look(100, &[Some(1_000), Some(990)]);
        let rows = rows(&look, look.what.as_ref().unwrap(), None);
        let named: Vec<(&str, i64)> = rows[0].partitions.iter().map(|p| (p.name.as_str(), p.records)).collect();
        assert_eq!((named, rows[0].oldest.as_deref()), (vec![("orders.new / 1", 10)], Some("7.5 s")));
    }
}
