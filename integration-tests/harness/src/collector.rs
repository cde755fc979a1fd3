//! An OTLP/gRPC receiver that keeps what it is sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

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
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .context("cannot bind a port")?;
        let address = listener.local_addr().context("a socket without address")?;
        let shelf = Arc::new(Shelf::default());
        let (stop, stopped) = oneshot::channel();
        let services = Server::builder()
            .add_service(TraceServiceServer::from_arc(shelf.clone()))
            .add_service(MetricsServiceServer::from_arc(shelf.clone()));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                // Not tonic's graceful shutdown: that waits for clients, and they stay connected.
                tokio::select! {
                    _ = services.serve_with_incoming(TcpIncoming::from(listener)) => {}
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

    /// From now on every export is answered `UNAVAILABLE` and not kept; `false` ends that.
    pub fn refuse(&self, refuse: bool) {
        self.shelf.refusing.store(refuse, Ordering::SeqCst);
    }

    /// How many exports were refused.
    pub fn refused(&self) -> usize {
        self.shelf.refused.load(Ordering::SeqCst)
    }
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
    spans: Mutex<Vec<Caught>>,
    metrics: Mutex<Vec<Measured>>,
    refusing: AtomicBool,
    refused: AtomicUsize,
}

impl Shelf {
    fn admit(&self) -> Result<(), Status> {
        if self.refusing.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Status::unavailable("this collector was told to refuse"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl TraceService for Shelf {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.admit()?;
        lock(&self.spans).extend(spans::flatten(request.into_inner().resource_spans));
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Shelf {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.admit()?;
        lock(&self.metrics).extend(metrics::flatten(request.into_inner().resource_metrics));
        Ok(Response::new(Default::default()))
    }
}

/// A panic while the lock was held leaves a list that is whole: `extend` is all that happens under it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
