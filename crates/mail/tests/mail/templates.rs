//! The built-in texts, a shop's own, and what is said of those that do not work.

use mail_parser::decoders::html::html_to_text;
use std::fs;
use tempfile::TempDir;
use waybill_mail::{BackInStock, Content, TemplateError, Templates};

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn refused(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    let error = Templates::load(Some(folder.path())).unwrap_err();
    error.to_string().replace(folder.path().to_str().unwrap(), "DIR")
}

#[test]
fn text_and_html_say_the_same() {
    let templates = Templates::load(None).unwrap();
    for content in Content::examples().iter().chain(&Content::sparse_examples()) {
        let texts = templates.render(content).unwrap();
        let fields = serde_json::to_value(content).unwrap();
        let html = html_to_text(&texts.html);
        for value in leaves(&fields) {
            // Dates are shown in words.
            let value = if value == "2026-11-21" { "21 November 2026".to_owned() } else { value };
            let value = if value == "2026-11-25" { "25 November 2026".to_owned() } else { value };
            assert!(texts.text.contains(&value), "the text has no {value}:\n{}", texts.text);
            let escaped = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('/', "&#x2f;");
            assert!(html.contains(&value) || texts.html.contains(&escaped), "the HTML has no {value}:\n{}", texts.html);
        }
        assert!(texts.html.contains(r#"<html lang="en">"#) && texts.html.contains("prefers-color-scheme: dark"));
        assert!(!texts.text.contains("\n\n\n") && !texts.text.starts_with('\n'), "a gap:\n{}", texts.text);
        assert!(!texts.html.contains("<img") && !texts.html.contains("<script"));
    }
}

fn leaves(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => map.values().flat_map(leaves).collect(),
        serde_json::Value::Array(list) => list.iter().flat_map(leaves).collect(),
        serde_json::Value::String(text) => vec![text.clone()],
        serde_json::Value::Number(number) => vec![number.to_string()],
        serde_json::Value::Null | serde_json::Value::Bool(_) => vec![],
    }
}

#[test]
fn money_and_dates_are_shown_as_everywhere() {
    let text = crate::texts().text;
    let lines = "\n1 x Reading lamp <Brass & Oak>: 89.50 EUR\n3 x Light bulb: 14.97 EUR\nTotal: 104.47 EUR\n";
    assert!(text.contains(lines) && text.contains("of 21 November 2026."), "{text}");
}

#[test]
fn html_is_escaped_and_a_subject_is_one_line() {
    let [Content::BackInStock(example), ..] = Content::examples() else { panic!() };
    let mut product = example.product.clone();
    product.name = "<script>alert('x')</script>\r\nBcc: eve@example.net".to_owned();
    product.url = "https://shop.example/\"onclick=\"x".to_owned();
    let texts =
        Templates::load(None).unwrap().render(&Content::BackInStock(BackInStock { product, ..example })).unwrap();
    assert_eq!(texts.subject, "<script>alert('x')</script> Bcc: eve@example.net is back in stock");
    assert!(!texts.html.contains("<script>") && !texts.html.contains("\"onclick"), "{}", texts.html);
    assert!(texts.text.contains("<script>"), "plain text is not escaped");
}

#[test]
fn a_shop_replaces_single_files() {
    let folder = folder(&[
        ("order_confirmed.subject.txt", "Danke für {{ order }} vom {{ placed_on | date('%d.%m.%Y') }}"),
        (
            "layout.html",
            "<html lang=\"de\">{% block title %}{% endblock %}{% block body %}{% endblock %}{% block footer %}{% endblock %}",
        ),
        ("notes.md", "not a template"),
    ]);
    let texts = Templates::load(Some(folder.path())).unwrap().render(&crate::confirmed()).unwrap();
    assert_eq!(texts.subject, "Danke für o-1-0000042 vom 21.11.2026");
    assert!(texts.html.starts_with("<html lang=\"de\">Your order"), "{}", texts.html);
    assert_eq!(texts.text, crate::texts().text);
}

#[test]
fn a_template_that_is_wrong_is_named_with_line_and_field() {
    for (name, text, said) in [
        (
            "order_shipped.txt",
            "Hello\n\n{{ order }} {{ trackingnumber }}",
            "template order_shipped.txt, line 3: undefined value in `trackingnumber`",
        ),
        (
            "order_shipped.txt",
            "{% for p in parcels %}\n{{ p.carier }}\n{% endfor %}",
            "template order_shipped.txt, line 2: undefined value in `p.carier`",
        ),
        (
            "back_in_stock.html",
            "{% extends 'layout.html' %}\n{% block body %}\n{{ product.nme }}{% endblock %}",
            "template back_in_stock.html, line 3: undefined value in `product.nme`",
        ),
        ("layout.html", "<p>\n{{ shopp }}", "template layout.html, line 2: undefined value in `shopp`"),
        ("order_confirmed.html", "{% if total %}\n<p>", "template order_confirmed.html, line 2: syntax error"),
        ("order_confirmed.txt", "{{ total | money }}", "template order_confirmed.txt, line 1: unknown filter"),
        ("order_confirmed.txt", "{{ order | date('%Y') }}", "template order_confirmed.txt, line 1: invalid operation"),
        ("order_confirmed.subject.txt", "  \n", "template order_confirmed.subject.txt gives an empty subject"),
        ("order_shipped.txt", "{{ expected_on | date('%Y') }}", "template order_shipped.txt, line 1: "),
        ("order_confirmd.txt", "x", "DIR/order_confirmd.txt is not the name of a template; there are: layout.html, "),
    ] {
        let error = refused(&[(name, text)]);
        assert!(error.starts_with(said), "{error}");
    }
    let missing = std::path::Path::new("/not/there");
    assert!(matches!(Templates::load(Some(missing)), Err(TemplateError::Read(path, _)) if path == missing));
}
