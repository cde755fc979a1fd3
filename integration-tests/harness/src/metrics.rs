//! Metrics as a test asks about them.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics};

use crate::spans::{Attributes, attributes, first_of};

/// One export of one metric, with the resource and the scope it came under.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The resource's attributes.
    pub resource: Attributes,
    /// The instrumentation scope's name,
    pub scope_name: String,
    /// its version,
    pub scope_version: String,
    /// the schema URL: the scope's, else the resource's.
    pub schema_url: String,
    /// The instrument's name,
    pub name: String,
    /// its unit,
    pub unit: String,
    /// its description.
    pub description: String,
    /// What it is over the wire.
    pub kind: Kind,
    /// One for each set of attributes.
    pub points: Vec<Point>,
    /// All of it, as it came over the wire.
    pub wire: Metric,
}

/// What a metric is over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The last value.
    Gauge,
    /// A sum that only grows.
    Counter,
    /// A sum that may fall.
    UpDownCounter,
    /// A histogram, exponential or not.
    Histogram,
    /// Quantiles from the client; the SDK sends none.
    Summary,
}

/// A metric's value under one set of attributes.
#[derive(Debug, Clone)]
pub struct Point {
    /// The set.
    pub attributes: Attributes,
    /// A gauge's or a sum's value; a histogram's sum.
    pub value: f64,
    /// How many values a histogram holds; 1 elsewhere.
    pub count: u64,
    /// A histogram's upper bounds, and how many values each bucket holds (one more than bounds).
    pub buckets: (Vec<f64>, Vec<u64>),
}

pub(crate) fn flatten(batches: Vec<ResourceMetrics>) -> Vec<Measured> {
    let mut measured = Vec::new();
    for batch in batches {
        let resource = attributes(&batch.resource.unwrap_or_default().attributes);
        for of_scope in batch.scope_metrics {
            let scope = of_scope.scope.unwrap_or_default();
            let schema_url = first_of(of_scope.schema_url, &batch.schema_url);
            measured.extend(
                of_scope.metrics.into_iter().filter_map(|metric| flatten_one(&resource, &scope, &schema_url, metric)),
            );
        }
    }
    measured
}

/// Nothing where the metric holds no data.
fn flatten_one(
    resource: &Attributes,
    scope: &InstrumentationScope,
    schema_url: &str,
    metric: Metric,
) -> Option<Measured> {
    let (kind, points) = points(metric.data.clone()?);
    Some(Measured {
        resource: resource.clone(),
        scope_name: scope.name.clone(),
        scope_version: scope.version.clone(),
        schema_url: schema_url.to_owned(),
        name: metric.name.clone(),
        unit: metric.unit.clone(),
        description: metric.description.clone(),
        kind,
        points,
        wire: metric,
    })
}

fn points(data: Data) -> (Kind, Vec<Point>) {
    match data {
        Data::Gauge(gauge) => (Kind::Gauge, numbers(&gauge.data_points)),
        Data::Sum(sum) if sum.is_monotonic => (Kind::Counter, numbers(&sum.data_points)),
        Data::Sum(sum) => (Kind::UpDownCounter, numbers(&sum.data_points)),
        Data::Histogram(histogram) => {
            let points = histogram.data_points.into_iter().map(|point| Point {
                attributes: attributes(&point.attributes),
                value: point.sum.unwrap_or_default(),
                count: point.count,
                buckets: (point.explicit_bounds, point.bucket_counts),
            });
            (Kind::Histogram, points.collect())
        }
        Data::ExponentialHistogram(histogram) => {
            let points = histogram.data_points.iter().map(|point| Point {
                attributes: attributes(&point.attributes),
                value: point.sum.unwrap_or_default(),
                count: point.count,
                buckets: Default::default(),
            });
            (Kind::Histogram, points.collect())
        }
        Data::Summary(summary) => {
            let points = summary.data_points.iter().map(|point| Point {
                attributes: attributes(&point.attributes),
                value: point.sum,
                count: point.count,
                buckets: Default::default(),
            });
            (Kind::Summary, points.collect())
        }
    }
}

fn numbers(points: &[NumberDataPoint]) -> Vec<Point> {
    points
        .iter()
        .map(|point| Point {
            attributes: attributes(&point.attributes),
            value: match point.value {
                Some(Number::AsDouble(value)) => value,
                // Counts in tests stay far below 2^53.
                Some(Number::AsInt(value)) => value as f64,
                None => 0.0,
            },
            count: 1,
            buckets: Default::default(),
        })
        .collect()
}
