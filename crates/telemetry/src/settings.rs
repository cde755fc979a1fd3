//! What is set from outside: our own settings, and the standard `OTEL_*` variables, which win.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::Sampler;

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A standard variable has a value that means nothing here.
    #[error("{variable}={value} is not supported: use {supported}")]
    Setting {
        /// Name of the environment variable.
        variable: &'static str,
        /// What it is set to.
        value: String,
        /// What it may be set to.
        supported: &'static str,
    },
    /// The headers cannot be read; they are secrets and not repeated.
    #[error("{0} must be key=value, several with commas (a space in a value is %20)")]
    Headers(String),
    /// TLS is asked for and not used.
    #[error("{0} is set, but the endpoint is http:// (or none is set): give OTEL_EXPORTER_OTLP_ENDPOINT=https://…")]
    Plain(String),
    /// A file cannot be read.
    #[error("{0}: cannot read {1}")]
    File(String, String, #[source] std::io::Error),
    /// Not certificates.
    #[error("{0}: {1} holds no certificate (PEM), or one that is wrong")]
    Certificates(String, String),
    /// A client's certificate without its key, or the other way round.
    #[error("{0} is set alone: OTEL_EXPORTER_OTLP_CLIENT_KEY and _CLIENT_CERTIFICATE go together")]
    Alone(String),
    /// The exporter refused its configuration.
    #[error("cannot set up the OTLP exporter")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The exporting thread cannot be started.
    #[error("cannot start a thread for the export of spans")]
    Thread(#[source] std::io::Error),
}

/// What a program says about itself; the standard `OTEL_*` variables win.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// `service.name`.
    pub service: String,
    /// `deployment.environment.name`.
    pub environment: String,
    /// `service.instance.id`.
    pub instance: String,
    /// Baggage entries that records pass on.
    pub baggage: Vec<String>,
    /// Whether to export at all; `OTEL_SDK_DISABLED=true` switches it off too.
    pub export: bool,
}

impl TelemetryConfig {
    /// Nothing is exported: for tests, and for commands that have nothing to tell.
    #[must_use]
    pub fn silent(service: &str) -> Self {
        TelemetryConfig {
            service: service.to_owned(),
            environment: "none".to_owned(),
            instance: std::process::id().to_string(),
            baggage: Vec::new(),
            export: false,
        }
    }
}

pub(crate) fn resource(config: &TelemetryConfig) -> Resource {
    let ours = [
        ("service.name", config.service.clone()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", config.instance.clone()),
        ("deployment.environment.name", config.environment.clone()),
        ("deployment.environment", config.environment.clone()),
    ];
    // The builder's own detectors read OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES: those win.
    let mut named: Vec<String> = variable("OTEL_RESOURCE_ATTRIBUTES")
        .unwrap_or_default()
        .split(',')
        .filter_map(|pair| pair.split_once('=').map(|(key, _)| key.trim().to_owned()))
        .collect();
    if variable("OTEL_SERVICE_NAME").is_some() {
        named.push("service.name".to_owned());
    }
    let ours = ours.into_iter().filter(|(key, _)| !named.iter().any(|n| n == key));
    Resource::builder().with_attributes(ours.map(|(key, value)| KeyValue::new(key, value))).build()
}

pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

pub(crate) fn number(name: &'static str) -> Result<Option<usize>, TelemetryError> {
    variable(name)
        .map(|value| match value.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(TelemetryError::Setting { variable: name, value, supported: "a whole number above 0" }),
        })
        .transpose()
}

pub(crate) fn only_grpc() -> Result<(), TelemetryError> {
    for name in
        ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"]
    {
        match variable(name) {
            Some(value) if value != "grpc" => {
                return Err(TelemetryError::Setting { variable: name, value, supported: "grpc" });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Which spans are recorded, as `OTEL_TRACES_SAMPLER` says.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    /// Decides where nobody has before.
    pub root: Sampler,
    /// Whether a decision that was made holds. The specification's `parentbased_` asks the parent of the trace; a stage's trace has
    /// none, and asks where its journey began.
    pub follows: bool,
}

/// `parentbased_always_on` by default, as the specification has it.
pub(crate) fn sampling() -> Result<Sampling, TelemetryError> {
    let name = "OTEL_TRACES_SAMPLER";
    let value = variable(name).unwrap_or_else(|| "parentbased_always_on".to_owned());
    let root = match value.strip_prefix("parentbased_").unwrap_or(&value) {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => Sampler::TraceIdRatioBased(ratio()?),
        _ => {
            let supported = "always_on, always_off, traceidratio, or one of these with parentbased_";
            return Err(TelemetryError::Setting { variable: name, value, supported });
        }
    };
    Ok(Sampling { root, follows: value.starts_with("parentbased_") })
}

fn ratio() -> Result<f64, TelemetryError> {
    let name = "OTEL_TRACES_SAMPLER_ARG";
    let value = variable(name).unwrap_or_else(|| "1".to_owned());
    match value.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(TelemetryError::Setting { variable: name, value, supported: "a ratio from 0 to 1" }),
    }
}
