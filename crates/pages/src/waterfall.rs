//! A journey as a waterfall: a lane a trace, its spans below it, and the links between them as curves.
//!
//! Every row is equally high, so that a curve knows where it begins and ends without a browser having laid out anything.

use crate::axis::Axis;
use jiff::{SignedDuration, Timestamp};
use opentelemetry::{KeyValue, Value};
use serde::Serialize;
use std::collections::HashMap;
use waybill_journeys::{Journey, Tree, human};
use waybill_telemetry::{SpanRecord, Status};

/// Parts of a span that are shown before the rest is only counted: an order may have hundreds of lines.
const PARTS: usize = 12;
/// The least room of a bar, percent.
const THIN: f64 = 0.7;
/// The height of a row, and the width of the axis, in the coordinates of the curves.
const ROW: f64 = 10.0;
const AXIS: f64 = 1_000.0;

/// What the template draws.
#[derive(Debug, Serialize)]
pub(crate) struct Waterfall {
    pub pieces: Vec<Tick>,
    pub cuts: Vec<Room>,
    pub rows: Vec<Row>,
    /// The height of all rows, in the coordinates of the curves.
    pub height: f64,
    pub spans: usize,
    pub traces: usize,
    pub took: String,
}

/// Room on the axis, percent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Room {
    pub left: f64,
    pub width: f64,
}

/// A piece of the axis with its length.
#[derive(Debug, Serialize)]
pub(crate) struct Tick {
    pub room: Room,
    pub middle: f64,
    pub took: String,
}

/// A row.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Row {
    /// A trace.
    Lane(Lane),
    /// A span.
    Span(Box<Bar>),
    /// Spans that are not shown.
    More { depth: usize, count: usize },
}

#[derive(Debug, Serialize)]
pub(crate) struct Lane {
    pub stage: String,
    pub hue: &'static str,
    pub trace: String,
    pub room: Room,
    /// Since the trace before ended.
    pub waited: Option<String>,
    pub took: String,
}

/// A span with all that its panel says.
#[derive(Debug, Serialize)]
pub(crate) struct Bar {
    pub id: String,
    pub name: String,
    pub stage: String,
    pub hue: &'static str,
    pub depth: usize,
    pub room: Room,
    pub took: String,
    pub offset: String,
    pub start: String,
    pub trace_id: String,
    pub kind_name: &'static str,
    pub parked: Option<String>,
    pub error: Option<String>,
    pub input: Option<String>,
    pub attributes: Vec<(String, String)>,
    pub events: Vec<Mark>,
    pub links: Vec<Link>,
    /// Spans that link here.
    pub followed: Vec<Near>,
}

/// An event on its bar.
#[derive(Debug, Serialize)]
pub(crate) struct Mark {
    pub at: f64,
    pub name: String,
    pub offset: String,
    pub attributes: Vec<(String, String)>,
}

/// A link, with the curve to it where the linked span is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Link {
    pub link_type: String,
    pub near: Near,
    pub curve: Option<String>,
}

/// Another span.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Near {
    pub id: String,
    pub stage: String,
    pub trace: String,
    pub hue: &'static str,
    pub shown: bool,
}

impl Waterfall {
    /// None where no span is known.
    pub(crate) fn of(journey: &Journey) -> Option<Self> {
        let spans = &journey.spans;
        let first = spans.iter().map(SpanRecord::begun).min()?;
        let last = spans.iter().map(|span| span.end).max()?;
        let axis = Axis::new(spans.iter().map(|span| (span.begun(), span.end)));
        let mut rows = Rows { axis: &axis, first, rows: Vec::new() };
        let mut before: Option<Timestamp> = None;
        let trees = journey.trees();
        for tree in &trees {
            rows.lane(tree, before);
            rows.tree(tree, 0);
            before = before.max(Some(tree.end()));
        }
        let mut rows = rows.rows;
        let curves = Curves::of(&rows);
        curves.draw(&mut rows);
        let room = |left, width| Room { left, width };
        let pieces = axis.pieces();
        Some(Waterfall {
            cuts: pieces.windows(2).map(|p| (p[0].left + p[0].width, p[1].left)).map(|(a, b)| room(a, b - a)).collect(),
            pieces: pieces
                .iter()
                .map(|piece| Tick {
                    room: room(piece.left, piece.width),
                    middle: piece.left + piece.width / 2.0,
                    took: human(piece.took()),
                })
                .collect(),
            height: ROW * rows.len() as f64,
            rows,
            spans: spans.iter().map(|span| 1 + span.children.len()).sum(),
            traces: trees.len(),
            took: human(last.duration_since(first)),
        })
    }
}

struct Rows<'a> {
    axis: &'a Axis,
    first: Timestamp,
    rows: Vec<Row>,
}

impl Rows<'_> {
    fn lane(&mut self, tree: &Tree<'_>, before: Option<Timestamp>) {
        let (begun, end) = (begun(tree), tree.end());
        let waited = before.map(|before| begun.duration_since(before)).filter(SignedDuration::is_positive);
        self.rows.push(Row::Lane(Lane {
            stage: title(lane(tree)),
            hue: hue(lane(tree)),
            trace: short(&tree.span.trace_id.to_string()),
            room: self.room(begun, end),
            waited: waited.map(human),
            took: human(end.duration_since(begun)),
        }));
    }

    fn tree(&mut self, tree: &Tree<'_>, depth: usize) {
        let span = tree.span;
        self.rows.push(Row::Span(Box::new(self.bar(span, depth))));
        for child in span.children.iter().take(PARTS) {
            let bar = Bar {
                id: child.span_id.to_string(),
                name: child.name.to_string(),
                attributes: attributes(&child.attributes),
                depth: depth + 1,
                room: self.room(span.start, span.end),
                took: human(span.end.duration_since(span.start)),
                kind_name: "internal",
                parked: None,
                error: None,
                input: None,
                events: Vec::new(),
                links: Vec::new(),
                ..self.bar(span, depth)
            };
            self.rows.push(Row::Span(Box::new(bar)));
        }
        // Parts of the checkout that stand for lines of the order are many, and alike.
        for part in tree.parts.iter().take(PARTS) {
            self.tree(part, depth + 1);
        }
        let count = span.children.len().saturating_sub(PARTS) + tree.parts.len().saturating_sub(PARTS);
        if count > 0 {
            self.rows.push(Row::More { depth: depth + 1, count });
        }
    }

    fn room(&self, from: Timestamp, to: Timestamp) -> Room {
        let (left, right) = (self.axis.at(from), self.axis.at(to));
        let width = (right - left).max(THIN);
        Room { left: left.min(100.0 - width), width }
    }

    fn since(&self, time: Timestamp) -> String {
        format!("+{}", human(time.duration_since(self.first)))
    }

    fn bar(&self, span: &SpanRecord, depth: usize) -> Bar {
        let mark = |event: &waybill_telemetry::SpanEvent| Mark {
            at: self.axis.at(event.time),
            name: event.name.to_string(),
            offset: self.since(event.time),
            attributes: attributes(&event.attributes),
        };
        let link = |link: &waybill_telemetry::SpanLink| Link {
            link_type: link.link_type.to_string(),
            near: Near {
                id: link.span_id.to_string(),
                stage: link.stage.to_string(),
                trace: short(&link.trace_id.to_string()),
                hue: hue(&link.stage),
                shown: false,
            },
            curve: None,
        };
        let input = span.input.as_ref();
        Bar {
            id: span.span_id.to_string(),
            name: span.name.to_string(),
            stage: span.stage.to_string(),
            hue: hue(&span.stage),
            depth,
            room: self.room(span.begun(), span.end),
            took: human(span.end.duration_since(span.begun())),
            offset: self.since(span.begun()),
            start: format!("{:.6}", span.begun()),
            trace_id: span.trace_id.to_string(),
            kind_name: span.kind.name(),
            parked: span.parked_since.map(|since| human(span.start.duration_since(since))),
            error: match &span.status {
                Status::Unset => None,
                Status::Error(why) => Some(why.clone()),
            },
            input: input.map(|i| format!("{}, partition {}, offset {}", i.topic, i.partition, i.offset)),
            attributes: attributes(&span.attributes),
            events: span.events.iter().map(mark).collect(),
            links: span.links.iter().map(link).collect(),
            followed: Vec::new(),
        }
    }
}

/// Where the spans are, so that links find them.
struct Curves {
    /// Row, where the bar begins and ends, the span itself.
    places: HashMap<String, (usize, Room, Near)>,
    followed: HashMap<String, Vec<Near>>,
}

impl Curves {
    fn of(rows: &[Row]) -> Self {
        let mut curves = Curves { places: HashMap::new(), followed: HashMap::new() };
        for (row, bar) in bars(rows) {
            let (id, stage, trace) = (bar.id.clone(), bar.stage.clone(), short(&bar.trace_id));
            let near = Near { id, stage, trace, hue: bar.hue, shown: true };
            for link in &bar.links {
                curves.followed.entry(link.near.id.clone()).or_default().push(near.clone());
            }
            curves.places.insert(bar.id.clone(), (row, bar.room, near));
        }
        curves
    }

    /// From the end of the linked span to the beginning of the one that links.
    fn draw(mut self, rows: &mut [Row]) {
        let at = |percent: f64| percent * AXIS / 100.0;
        for (row, entry) in rows.iter_mut().enumerate() {
            let Row::Span(bar) = entry else { continue };
            bar.followed = self.followed.remove(&bar.id).unwrap_or_default();
            let (x, y) = (at(bar.room.left), ROW * (row as f64 + 0.5));
            for link in &mut bar.links {
                let Some((from, room, _)) = self.places.get(&link.near.id) else { continue };
                let (from_x, from_y) = (at(room.left + room.width), ROW * (*from as f64 + 0.5));
                let bend = ((x - from_x).abs() / 2.0).max(18.0);
                let (out, back) = (from_x + bend, x - bend);
                link.near.shown = true;
                link.curve =
                    Some(format!("M{from_x:.1} {from_y:.1}C{out:.1} {from_y:.1} {back:.1} {y:.1} {x:.1} {y:.1}"));
            }
        }
    }
}

fn bars(rows: &[Row]) -> impl Iterator<Item = (usize, &Bar)> {
    rows.iter().enumerate().filter_map(|(index, row)| match row {
        Row::Span(bar) => Some((index, &**bar)),
        Row::Lane(_) | Row::More { .. } => None,
    })
}

/// When the first of it began: clocks and parts differ.
pub(crate) fn begun(tree: &Tree<'_>) -> Timestamp {
    tree.parts.iter().map(begun).fold(tree.span.begun(), Timestamp::min)
}

/// What a trace is about: a checkout begins in the gateway.
fn lane<'a>(tree: &'a Tree<'_>) -> &'a str {
    if tree.parts.iter().any(|part| part.span.stage == "checkout") { "checkout" } else { &tree.span.stage }
}

pub(crate) fn title(stage: &str) -> String {
    let mut letters = stage.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The colour of a stage, by a name of the style sheet.
pub(crate) fn hue(stage: &str) -> &'static str {
    match stage {
        "gateway" | "checkout" => "violet",
        "pick" => "blue",
        "pack" => "amber",
        "ship" => "green",
        _ => "grey",
    }
}

fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

fn attributes(list: &[KeyValue]) -> Vec<(String, String)> {
    let one = |attribute: &KeyValue| {
        let value = match &attribute.value {
            Value::String(text) => text.to_string(),
            other => other.to_string(),
        };
        (attribute.key.to_string(), value)
    };
    list.iter().map(one).collect()
}
