//! A journey as a waterfall in the terminal.
//!
//! Work takes milliseconds and waiting may take days, so bars share one time axis and the waits between the stages
//! are told in words as well. A trace is a tree: what a span is a part of stands above it.

use console::{Style, style};
use jiff::{SignedDuration, Timestamp};
use opentelemetry::Value;
use std::fmt::Write;
use waybill_journeys::{Journey, Tree, human};
use waybill_telemetry::{SpanRecord, Status};

/// Columns of a bar.
const BAR: usize = 28;
/// Columns of a name, its indentation included.
const NAME: usize = 34;
/// Children shown before the rest is only counted.
const CHILDREN: usize = 8;

/// Draws the journey; `width` is the terminal's.
pub fn draw(journey: &Journey, width: usize) -> String {
    let mut out = String::new();
    let spans = &journey.spans;
    let (Some(first), Some(last)) = (spans.iter().map(SpanRecord::begun).min(), spans.iter().map(|s| s.end).max())
    else {
        return out;
    };
    let axis = Axis { first, total: last.duration_since(first) };
    let traces: std::collections::BTreeSet<_> = spans.iter().map(|s| s.trace_id.to_bytes()).collect();
    let _ = writeln!(
        out,
        "Order {}   {} spans in {} traces over {}",
        style(&journey.order_id).bold(),
        spans.iter().map(|s| 1 + s.children.len()).sum::<usize>(),
        traces.len(),
        human(axis.total),
    );
    let mut before: Option<Timestamp> = None;
    for trace in journey.trees() {
        if let Some(before) = before {
            let wait = trace.span.begun().duration_since(before).max(SignedDuration::ZERO);
            let _ = writeln!(out, "  {}", style(format!("│ waited {} for {}", human(wait), trace.span.stage)).dim());
        } else {
            out.push('\n');
        }
        stage(&mut out, trace.span, &axis, width);
        for (index, part) in trace.parts.iter().enumerate() {
            nested(&mut out, part, ("  ", index + 1 == trace.parts.len()), &axis, width);
        }
        before = Some(trace.end());
    }
    story(&mut out, journey);
    out
}

struct Axis {
    first: Timestamp,
    total: SignedDuration,
}

impl Axis {
    fn bar(&self, start: Timestamp, end: Timestamp) -> String {
        let total = self.total.as_secs_f64().max(f64::MIN_POSITIVE);
        let column = |time: Timestamp| {
            let part = time.duration_since(self.first).as_secs_f64() / total;
            // Within the bar: from 0 to its last column.
            (part * (BAR - 1) as f64).round().clamp(0.0, (BAR - 1) as f64) as usize
        };
        let (from, to) = (column(start), column(end));
        format!("{}{}{}", "·".repeat(from), "█".repeat(to - from + 1), "·".repeat(BAR - 1 - to))
    }
}

fn stage(out: &mut String, span: &SpanRecord, axis: &Axis, width: usize) {
    let (colour, mark) = match span.status {
        Status::Unset => (Style::new().cyan(), "●"),
        Status::Error(_) => (Style::new().red(), "✗"),
    };
    let trace = span.trace_id.to_string();
    let _ = writeln!(
        out,
        "{} {:<NAME$}{}  +{:<9} {:>9}  trace {}",
        colour.apply_to(mark),
        style(span.name.to_string()).bold(),
        colour.apply_to(axis.bar(span.begun(), span.end)),
        human(span.begun().duration_since(axis.first)),
        human(span.end.duration_since(span.begun())),
        &trace[..8],
    );
    line(out, "  │   ", &told(&span.attributes), width);
    if !span.links.is_empty() {
        let links: Vec<_> =
            span.links.iter().map(|l| format!("{} {}", l.stage, &l.trace_id.to_string()[..8])).collect();
        line(out, "  │   ", &format!("← {}", links.join("  ← ")), width);
    }
    for child in span.children.iter().take(CHILDREN) {
        let last = CHILDREN.min(span.children.len());
        let branch =
            if std::ptr::eq(child, &span.children[last - 1]) && last == span.children.len() { "└" } else { "├" };
        line(out, &format!("  {branch}─ "), &format!("{}  {}", child.name, told(&child.attributes)), width);
    }
    if span.children.len() > CHILDREN {
        line(out, "  └─ ", &format!("and {} more", span.children.len() - CHILDREN), width);
    }
    for event in &span.events {
        line(out, "  ◦   ", &format!("{}  {}", event.name, told(&event.attributes)), width);
    }
    if let Status::Error(why) = &span.status {
        let _ = writeln!(out, "      {}", style(why).red());
    }
}

/// A part of a trace, and its own parts; `last` is whether it is the last one of what it is a part of.
fn nested(out: &mut String, tree: &Tree<'_>, (indent, last): (&str, bool), axis: &Axis, width: usize) {
    let Tree { span, parts } = tree;
    let (branch, below) = if last { ("└─", "   ") } else { ("├─", "│  ") };
    let colour = if span.status == Status::Unset { Style::new().cyan() } else { Style::new().red() };
    let start = format!("{indent}{branch} ");
    let name = NAME.saturating_sub(console::measure_text_width(&start) - 2);
    let room = width.saturating_sub(NAME + BAR + 28).max(20);
    let _ = writeln!(
        out,
        "{}{:<name$}{}  +{:<9} {:>9}  {}",
        style(&start).dim(),
        span.name,
        colour.apply_to(axis.bar(span.begun(), span.end)),
        human(span.begun().duration_since(axis.first)),
        human(span.end.duration_since(span.begun())),
        style(console::truncate_str(&told(&span.attributes), room, "…")).dim(),
    );
    let indent = format!("{indent}{below}");
    let margin = if parts.is_empty() { "  " } else { "│ " };
    for event in &span.events {
        line(out, &format!("{indent}{margin}◦ "), &format!("{}  {}", event.name, told(&event.attributes)), width);
    }
    for (index, part) in parts.iter().enumerate() {
        nested(out, part, (&indent, index + 1 == parts.len()), axis, width);
    }
}

/// What the journey has come to.
fn story(out: &mut String, journey: &Journey) {
    out.push('\n');
    if let Some(short) = journey.event("orders.short") {
        for line in short["lines"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "short: {} of {} × {}", line["picked"], line["requested"], text(&line["sku"]));
        }
    }
    if let Some(shipped) = journey.event("orders.shipped") {
        let (carrier, day) = (text(&shipped["carrier"]), text(&shipped["estimated_delivery"]));
        for parcel in shipped["parcels"].as_array().into_iter().flatten() {
            let number = text(&parcel["tracking_number"]);
            let _ = writeln!(out, "shipped: {carrier} {number}, box {}, delivery expected {day}", text(&parcel["box"]));
        }
    }
    if journey.event("orders.cancelled").is_some() {
        let _ = writeln!(out, "cancelled before it was shipped");
    }
    for dead in &journey.dead {
        let _ = writeln!(out, "{}: {} would not accept it: {}", style(&dead.reason).red(), dead.stage, dead.message);
    }
    if let Some(rejected) = journey.event("checkout.rejected") {
        let _ = writeln!(out, "rejected at {}: {}", text(&rejected["step"]), text(&rejected["reason"]));
    }
    let ended =
        ["checkout.rejected", "orders.shipped", "orders.cancelled"].iter().any(|topic| journey.event(topic).is_some());
    if !ended && journey.dead.is_empty() {
        let reached = journey.events.last().map_or("nowhere", |told| told.topic.as_str());
        let _ = writeln!(out, "{}", style(format!("not shipped yet; it has reached {reached}")).yellow());
    }
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// Attributes that tell something to a person.
fn told(attributes: &[opentelemetry::KeyValue]) -> String {
    let told = attributes.iter().filter(|a| !["order.id", "http.method", "http.url"].contains(&a.key.as_str()));
    let one = |a: &opentelemetry::KeyValue| {
        let key = a.key.as_str().rsplit('.').next().unwrap_or_default();
        match &a.value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        }
    };
    told.map(one).collect::<Vec<_>>().join("  ")
}

fn line(out: &mut String, indent: &str, text: &str, width: usize) {
    if !text.trim().is_empty() {
        let room = width.saturating_sub(console::measure_text_width(indent)).max(20);
        let _ = writeln!(out, "{}{}", style(indent).dim(), style(console::truncate_str(text, room, "…")).dim());
    }
}
