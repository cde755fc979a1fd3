//! Why there is no page, in words for whoever looks.

use axum::http::StatusCode;
use serde::Serialize;
use waybill_store::StoreError;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// There is nothing under this address, or no such thing.
    #[error("{0}")]
    NotFound(String),
    /// A parameter means nothing.
    #[error("{0}")]
    Wrong(&'static str),
    /// The database is away, or takes too long.
    #[error("the database does not answer")]
    Away,
    /// The database refuses the question.
    #[error("the database refuses the question")]
    Database(#[from] StoreError),
    /// What is kept cannot be read.
    #[error("what is kept of this order cannot be read")]
    Kept(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A template is wrong.
    #[error("the page cannot be drawn")]
    Template(#[from] minijinja::Error),
}

/// What the template says of it.
#[derive(Serialize)]
pub(crate) struct Told {
    pub title: &'static str,
    pub detail: String,
}

impl Fault {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Fault::NotFound(_) => StatusCode::NOT_FOUND,
            Fault::Wrong(_) => StatusCode::BAD_REQUEST,
            Fault::Away | Fault::Database(StoreError::Away(_) | StoreError::Denied(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Fault::Database(_) | Fault::Kept(_) | Fault::Template(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn told(&self) -> Told {
        let (title, detail) = match self {
            Fault::NotFound(what) => ("Not found", what.clone()),
            Fault::Wrong(why) => ("That is no question", (*why).to_owned()),
            Fault::Away | Fault::Database(StoreError::Away(_) | StoreError::Denied(_)) => {
                ("The database does not answer", "Nothing is lost: the stages wait for it. Try again.".to_owned())
            }
            Fault::Database(_) | Fault::Kept(_) | Fault::Template(_) => {
                ("This page cannot be shown", "The log of the process says why.".to_owned())
            }
        };
        Told { title, detail }
    }
}
