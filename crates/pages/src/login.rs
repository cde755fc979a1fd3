//! The form that takes the token.

use crate::guard::{COOKIE, is_token, pass};
use crate::serve::Pages;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;

#[derive(Serialize)]
struct Form {
    refused: bool,
}

/// The form; where no token is asked for there is nothing to fill in.
pub(crate) async fn page(State(pages): State<Pages>) -> Response {
    match pages.settings().token {
        Some(_) => pages.answer("login.html", Ok(Form { refused: false })),
        None => Redirect::to("/orders").into_response(),
    }
}

/// Takes the token and gives a cookie for it, until the browser is closed.
pub(crate) async fn enter(State(pages): State<Pages>, body: Bytes) -> Response {
    let presented = form_urlencoded::parse(&body).find_map(|(name, value)| (name == "token").then_some(value));
    match &pages.settings().token {
        None => Redirect::to("/orders").into_response(),
        Some(token) if presented.is_some_and(|presented| is_token(presented.trim(), token)) => {
            let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", pass(token));
            ([(header::SET_COOKIE, cookie)], Redirect::to("/orders")).into_response()
        }
        Some(_) => (StatusCode::UNAUTHORIZED, pages.answer("login.html", Ok(Form { refused: true }))).into_response(),
    }
}
