//! The templates, all of them built in. Whatever is put into them is escaped.

use crate::journey::{Facts, Page};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, context};
use serde::Serialize;
use sha2::{Digest, Sha256};
use waybill_journeys::Journey;

const FILES: [(&str, &str); 11] = [
    ("layout.html", include_str!("../templates/layout.html")),
    ("orders.html", include_str!("../templates/orders.html")),
    ("journey.html", include_str!("../templates/journey.html")),
    ("waterfall.html", include_str!("../templates/waterfall.html")),
    ("report.html", include_str!("../templates/report.html")),
    ("demand.html", include_str!("../templates/demand.html")),
    ("campaigns.html", include_str!("../templates/campaigns.html")),
    ("stages.html", include_str!("../templates/stages.html")),
    ("dead.html", include_str!("../templates/dead.html")),
    ("login.html", include_str!("../templates/login.html")),
    ("fault.html", include_str!("../templates/fault.html")),
];
const STYLE: &str = include_str!("../templates/style.css");
const SCRIPT: &str = include_str!("../templates/script.js");

/// The templates, parsed.
#[derive(Debug)]
pub(crate) struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    pub(crate) fn new() -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Ours, and the same on every page: the policy knows them by their hashes.
        environment.add_global("style", STYLE);
        environment.add_global("script", SCRIPT);
        environment.add_global("policy", policy());
        for (name, source) in FILES {
            environment.add_template(name, source)?;
        }
        Ok(Templates { environment })
    }

    /// A page; `page` is what the template knows under that name.
    pub(crate) fn render(&self, template: &str, page: impl Serialize) -> Result<String, minijinja::Error> {
        let page = minijinja::Value::from(Serde(page));
        self.environment.get_template(template)?.render(context! { page })
    }
}

/// What a browser may load and run: our style and our script, both in the page.
pub(crate) fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// A journey as one HTML file that needs nothing else.
///
/// # Errors
/// A template fails on this journey.
pub fn report(journey: &Journey) -> Result<String, minijinja::Error> {
    Templates::new()?.render("report.html", Page::new(journey, Facts::default()))
}
