//! An OTLP/gRPC receiver that keeps what it is sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::authority::Credentials;
use crate::metrics::{self, Measured};
use crate::spans::{self, Caught};

/// Receives spans and metrics on a loopback port until it is dropped; its connections are cut then.
///
/// Messages over 4 MiB are refused, as a real collector does by default.
pub struct Collector {
    address: SocketAddr,
    shelf: Arc<Shelf>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// On a free port. It runs on a thread of its own, so a test's runtime may block or end.
    pub fn start() -> anyhow::Result<Self> {
        Self::begin(&Guard::default(), None)
    }

    /// One that asks who comes.
    pub fn guarded(guard: &Guard<'_>) -> anyhow::Result<Self> {
        Self::begin(guard, None)
    }

    /// The same before another one, at `endpoint`: what comes is passed on, and kept once that one has taken it.
    pub fn in_front_of(endpoint: &str) -> anyhow::Result<Self> {
        let next = Endpoint::from_shared(endpoint.to_owned()).context("not an endpoint")?;
        Self::begin(&Guard::default(), Some(next))
    }

    fn begin(guard: &Guard<'_>, next: Option<Endpoint>) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .context("cannot bind a port")?;
        let address = listener.local_addr().context("a socket without address")?;
        // A channel belongs to a runtime, also one that connects later.
        let next = {
            let _within = runtime.enter();
            next.map(|next| next.connect_lazy())
        };
        let authorization = guard.authorization.map(str::to_owned);
        let shelf = Arc::new(Shelf { authorization, next, ..Shelf::default() });
        let (stop, stopped) = oneshot::channel();
        let mut server = Server::builder();
        if let Some(tls) = guard.tls()? {
            server = server.tls_config(tls).context("cannot set up TLS")?;
        }
        let services = server
            .add_service(TraceServiceServer::from_arc(shelf.clone()))
            .add_service(MetricsServiceServer::from_arc(shelf.clone()));
        let counted = shelf.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                let incoming = TcpIncoming::from(listener).map(move |connection| {
                    counted.connections.fetch_add(1, Ordering::SeqCst);
                    connection
                });
                // Not tonic's graceful shutdown: that waits for clients, and they stay connected.
                tokio::select! {
                    _ = services.serve_with_incoming(incoming) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, shelf, stop: Some(stop), thread: Some(thread) })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`: `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `https://127.0.0.1:port`, whether it speaks TLS or not.
    pub fn secure_endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// How many connections there were, whatever became of them.
    pub fn connections(&self) -> usize {
        self.shelf.connections.load(Ordering::SeqCst)
    }

    /// Every span so far, in the order of arrival.
    pub fn spans(&self) -> Vec<Caught> {
        lock(&self.shelf.spans).clone()
    }

    /// Every export of every metric so far, in the order of arrival.
    pub fn metrics(&self) -> Vec<Measured> {
        lock(&self.shelf.metrics).clone()
    }

    /// The last export of the metric of that name.
    pub fn metric(&self, name: &str) -> Option<Measured> {
        let metrics = lock(&self.shelf.metrics);
        metrics.iter().rfind(|metric| metric.name == name).cloned()
    }

    /// How many spans and links were taken so far, kept or forgotten.
    pub fn received(&self) -> (u64, u64) {
        (self.shelf.received_spans.load(Ordering::SeqCst), self.shelf.received_links.load(Ordering::SeqCst))
    }

    /// From now on exports are met so; none but [`Manner::Keep`] keeps them.
    pub fn meet(&self, manner: Manner) {
        *lock(&self.shelf.manner) = manner;
    }

    /// How many exports were refused.
    pub fn refused(&self) -> usize {
        self.shelf.refused.load(Ordering::SeqCst)
    }
}

/// What a collector asks of who comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guard<'a> {
    /// Its own certificate; none: it speaks no TLS.
    pub certificate: Option<&'a Credentials>,
    /// Whose certificates clients must have.
    pub clients: Option<&'a Path>,
    /// What the header `authorization` must be.
    pub authorization: Option<&'a str>,
}

impl Guard<'_> {
    fn tls(&self) -> anyhow::Result<Option<ServerTlsConfig>> {
        let Some(Credentials { certificate, key }) = self.certificate else { return Ok(None) };
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(read(certificate)?, read(key)?));
        Ok(Some(match self.clients {
            Some(clients) => tls.client_ca_root(Certificate::from_pem(read(clients)?)),
            None => tls,
        }))
    }
}

/// How a collector meets an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Keeps it for the test to look at.
    #[default]
    Keep,
    /// Takes it and forgets it: for more than memory holds.
    Forget,
    /// Answers `UNAVAILABLE`.
    Refuse,
    /// Takes it and never answers.
    BlackHole,
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails where the thread has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Shelf {
    /// Whom exports are passed on to.
    next: Option<Channel>,
    spans: Mutex<Vec<Caught>>,
    metrics: Mutex<Vec<Measured>>,
    manner: Mutex<Manner>,
    received_spans: AtomicU64,
    received_links: AtomicU64,
    refused: AtomicUsize,
    connections: AtomicUsize,
    authorization: Option<String>,
}

impl Shelf {
    /// Whether the export is to be kept.
    async fn admit(&self, metadata: &MetadataMap) -> Result<bool, Status> {
        let given = metadata.get("authorization").and_then(|given| given.to_str().ok());
        if self.authorization.is_some() && given != self.authorization.as_deref() {
            self.refused.fetch_add(1, Ordering::SeqCst);
            // As careless servers do.
            return Err(Status::unauthenticated(format!("not let in: {given:?}")));
        }
        let manner = *lock(&self.manner);
        match manner {
            Manner::Keep => Ok(true),
            Manner::Forget => Ok(false),
            Manner::Refuse => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                Err(Status::unavailable("this collector was told to refuse"))
            }
            Manner::BlackHole => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl TraceService for Shelf {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let keep = self.admit(request.metadata()).await?;
        let request = request.into_inner();
        if let Some(next) = &self.next {
            TraceServiceClient::new(next.clone()).export(request.clone()).await?;
        }
        let resources = request.resource_spans;
        let spans = resources.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        let (count, links) = spans.fold((0, 0), |(count, links), span| (count + 1, links + span.links.len() as u64));
        self.received_spans.fetch_add(count, Ordering::SeqCst);
        self.received_links.fetch_add(links, Ordering::SeqCst);
        if keep {
            lock(&self.spans).extend(spans::flatten(resources));
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Shelf {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let keep = self.admit(request.metadata()).await?;
        let request = request.into_inner();
        if let Some(next) = &self.next {
            MetricsServiceClient::new(next.clone()).export(request.clone()).await?;
        }
        if keep {
            lock(&self.metrics).extend(metrics::flatten(request.resource_metrics));
        }
        Ok(Response::new(Default::default()))
    }
}

/// A panic while the lock was held leaves a list that is whole: `extend` is all that happens under it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
