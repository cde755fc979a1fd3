//! The listener of the pages, and how an answer is made.

use crate::fault::Fault;
use crate::settings::Opened;
use crate::templates::Templates;
use crate::watch::Watch;
use crate::{campaigns, dead, demand, guard, journey, login, orders, stages};
use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::timeout;
use waybill_ops::{Listing, StageLag};
use waybill_spine::KafkaConfig;
use waybill_store::{Connection, Store, StoreError, Tx};
use waybill_topics::{Catalogue, CatalogueError};

/// Longest wait for the database.
const LIMIT: Duration = Duration::from_secs(5);

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// A template is wrong.
    #[error("a template of the pages is wrong")]
    Template(#[from] minijinja::Error),
    /// The topics that are built in are wrong.
    #[error("the topics cannot be read")]
    Topics(#[from] CatalogueError),
    /// The listener failed.
    #[error("the pages' listener failed")]
    Listener(#[source] std::io::Error),
}

/// The pages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Opened,
    templates: Templates,
    /// One connection: people who look wait for one another, and the shop for none of them.
    store: Mutex<Store>,
    stages: Watch<Vec<StageLag>>,
    dead: Watch<Listing>,
    clock: fn() -> Timestamp,
}

impl Pages {
    /// The pages of the shop whose database and cluster these are; `clock` tells how old an order is. Within a runtime,
    /// which looks at the cluster.
    ///
    /// # Errors
    /// A template is wrong, or the list of topics.
    pub fn new(
        settings: Opened,
        store: Store,
        kafka: &KafkaConfig,
        clock: fn() -> Timestamp,
    ) -> Result<Self, PagesError> {
        let (templates, catalogue) = (Templates::new()?, Arc::new(Catalogue::built_in()?));
        let (stages, dead) = (stages::watch(kafka, &catalogue, clock), dead::watch(kafka, &catalogue, clock));
        Ok(Pages(Arc::new(Inner { settings, templates, store: Mutex::new(store), stages, dead, clock })))
    }

    /// Serves until `stop`, then finishes the answers in hand.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), PagesError> {
        axum::serve(listener, self.router()).with_graceful_shutdown(stop).await.map_err(PagesError::Listener)
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", get(async || Redirect::to("/orders")))
            .route("/orders", get(orders::page))
            .route("/orders/{id}", get(journey::page))
            .route("/demand", get(demand::page))
            .route("/campaigns", get(campaigns::page))
            .route("/stages", get(stages::page))
            .route("/dead", get(dead::page))
            .route("/login", get(login::page).post(login::enter))
            .fallback(nowhere)
            .layer(from_fn_with_state(self.clone(), guard::guard))
            .with_state(self)
    }

    pub(crate) fn settings(&self) -> &Opened {
        &self.0.settings
    }

    pub(crate) fn stages(&self) -> &Watch<Vec<StageLag>> {
        &self.0.stages
    }

    pub(crate) fn dead(&self) -> &Watch<Listing> {
        &self.0.dead
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// An order asked for before then and still on its way is late.
    pub(crate) fn late_before(&self) -> Timestamp {
        self.now().checked_sub(self.0.settings.sla).unwrap_or(Timestamp::MIN)
    }

    /// Asks the database, in a transaction that cannot write there.
    pub(crate) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, Fault> {
        let asked = async {
            let mut store = self.0.store.lock().await;
            let mut tx = store.begin().await?;
            match tx.connection() {
                Connection::Postgres(connection) => {
                    let sql = "set transaction read only; set local statement_timeout = '4s'";
                    sqlx::raw_sql(sql).execute(connection).await.map_err(StoreError::from)?;
                }
                Connection::Sqlite(_) => {}
            }
            let answer = question(&mut tx).await?;
            tx.commit().await?;
            Ok(answer)
        };
        timeout(LIMIT, asked).await.unwrap_or(Err(Fault::Away))
    }

    /// A page, or the one that says why there is none.
    pub(crate) fn answer(&self, template: &str, page: Result<impl Serialize, Fault>) -> Response {
        match page.and_then(|page| Ok(self.0.templates.render(template, page)?)) {
            Ok(html) => Html(html).into_response(),
            Err(fault) => self.fault(&fault),
        }
    }

    fn fault(&self, fault: &Fault) -> Response {
        let status = fault.status();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = ?fault, "a page cannot be shown");
        }
        // What says that the templates are broken needs none.
        let html = self.0.templates.render("fault.html", fault.told()).unwrap_or_else(|_| fault.to_string());
        (status, Html(html)).into_response()
    }
}

async fn nowhere(axum::extract::State(pages): axum::extract::State<Pages>, uri: Uri) -> Response {
    pages.fault(&Fault::NotFound(format!("There is no page {}.", uri.path())))
}

/// How long ago.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    waybill_journeys::human(now.duration_since(then).max(SignedDuration::ZERO))
}

/// A moment as the pages write it.
pub(crate) fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
