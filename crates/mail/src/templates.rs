//! The texts of the mails: built in, each file replaceable by a shop's own.
//!
//! A mail is three files: `NAME.subject.txt`, `NAME.txt`, `NAME.html`; the HTML ones share
//! `layout.html` and `button.html`. They are
//! written in Jinja (minijinja). HTML is escaped; a field that does not exist is an error, not an empty text.
//! All are parsed once, at start, and rendered once with example data, so that a broken file ends the start.

use crate::address::one_line;
use crate::content::Content;
use jiff::civil::Date;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Every file there is, and what it says unless a shop has its own.
const BUILT_IN: [(&str, &str); 11] = [
    ("layout.html", include_str!("../templates/layout.html")),
    ("button.html", include_str!("../templates/button.html")),
    ("back_in_stock.subject.txt", include_str!("../templates/back_in_stock.subject.txt")),
    ("back_in_stock.txt", include_str!("../templates/back_in_stock.txt")),
    ("back_in_stock.html", include_str!("../templates/back_in_stock.html")),
    ("order_confirmed.subject.txt", include_str!("../templates/order_confirmed.subject.txt")),
    ("order_confirmed.txt", include_str!("../templates/order_confirmed.txt")),
    ("order_confirmed.html", include_str!("../templates/order_confirmed.html")),
    ("order_shipped.subject.txt", include_str!("../templates/order_shipped.subject.txt")),
    ("order_shipped.txt", include_str!("../templates/order_shipped.txt")),
    ("order_shipped.html", include_str!("../templates/order_shipped.html")),
];

/// Why there is no mail.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file that no mail uses: its name is misspelt.
    #[error("{} is not the name of a template; there are: {}", .0.display(), BUILT_IN.map(|(name, _)| name).join(", "))]
    Name(PathBuf),
    /// The template is wrong: where, and what.
    #[error("template {file}, line {line}: {what}")]
    Template {
        /// The file's name.
        file: String,
        /// Counts from 1.
        line: usize,
        /// The fault, with the field or expression that it is about.
        what: String,
    },
    /// A subject without a word in it.
    #[error("template {0}.subject.txt gives an empty subject")]
    Subject(&'static str),
}

/// A mail's texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub subject: String,
    /// For readers without HTML.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// All templates, parsed.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// The built-in ones, and in their place those that `folder` has.
    ///
    /// # Errors
    /// A file that cannot be read, has an unknown name, or does not render the examples.
    pub fn load(folder: Option<&Path>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        // A line that holds only a tag leaves no line behind: the text mails need it.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| explain(&error))?);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Errors then know the expression, and rendering keeps its speed.
        environment.set_debug(true);
        environment.add_filter("date", date);
        if let Some(folder) = folder {
            check_names(folder)?;
        }
        for (name, built_in) in BUILT_IN {
            let own = folder.map_or(Ok(None), |folder| read(&folder.join(name)))?;
            let source = own.unwrap_or_else(|| built_in.to_owned());
            environment.add_template_owned(name, source).map_err(|error| explain(&error))?;
        }
        let templates = Templates { environment };
        for example in Content::examples().iter().chain(&Content::sparse_examples()) {
            templates.render(example)?;
        }
        Ok(templates)
    }

    /// The texts of a mail.
    ///
    /// # Errors
    /// A template fails on this content, which [`Templates::load`] makes unlikely.
    pub fn render(&self, content: &Content) -> Result<Rendered, TemplateError> {
        let name = content.template();
        let fields = minijinja::Value::from(Serde(content));
        let file = |ending: &str| {
            let template = self.environment.get_template(&format!("{name}.{ending}"));
            template.and_then(|template| template.render(fields.clone())).map_err(|error| explain(&error))
        };
        let subject = one_line(&file("subject.txt")?);
        if subject.is_empty() {
            return Err(TemplateError::Subject(name));
        }
        Ok(Rendered { subject, text: file("txt")?, html: file("html")? })
    }
}

/// A file with a template's ending and another name is a slip, and would be without effect.
fn check_names(folder: &Path) -> Result<(), TemplateError> {
    let failed = |error| TemplateError::Read(folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let text = name.to_string_lossy();
        let template = text.ends_with(".txt") || text.ends_with(".html");
        if template && !BUILT_IN.iter().any(|(known, _)| *known == text) {
            return Err(TemplateError::Name(folder.join(&name)));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<String>, TemplateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TemplateError::Read(path.to_owned(), error)),
    }
}

/// `{{ expected_on | date("%d.%m.%Y") }}`, in the words of strftime.
fn date(value: &str, format: &str) -> Result<String, minijinja::Error> {
    let wrong = |error: jiff::Error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string());
    let date: Date = value.parse().map_err(wrong)?;
    jiff::fmt::strtime::format(format, date).map_err(wrong)
}

/// The innermost place: a fault in the layout is told as the layout's.
fn explain(error: &minijinja::Error) -> TemplateError {
    let mut inner = error;
    while let Some(cause) = std::error::Error::source(inner).and_then(|cause| cause.downcast_ref()) {
        inner = cause;
    }
    let mut what = inner.kind().to_string();
    let expression = inner.range().and_then(|range| inner.template_source()?.get(range));
    for more in
        [expression.map(|text| format!(" in `{}`", text.trim())), inner.detail().map(|text| format!(": {text}"))]
    {
        what.push_str(&more.unwrap_or_default());
    }
    let file = inner.name().unwrap_or("?").to_owned();
    TemplateError::Template { file, line: inner.line().unwrap_or(0), what }
}
