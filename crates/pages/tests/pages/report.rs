//! The report: one file, everything escaped, everything there.

use crate::made::{Maker, journey};
use waybill_journeys::Journey;
use waybill_pages::report;

#[test]
fn a_report_shows_four_traces_with_links_between_their_spans() {
    let html = report(&journey("o-1", Maker::of("o-1").all())).unwrap();
    assert_eq!(html.matches("class=\"row lane").count(), 4, "a lane a trace");
    assert_eq!(html.matches("class=\"row span").count(), 3 + 1 + 3 + 1 + 1, "every span and child has its row");
    // pick links to the checkout, pack to two, ship to three stages.
    assert_eq!(html.matches("class=\"line\"").count(), 6, "every link is drawn");
    let anchors = html.split("href=\"#s-").skip(1).map(|rest| rest.split('"').next().unwrap());
    for anchor in anchors {
        assert!(html.contains(&format!("id=\"s-{anchor}\"")), "{anchor} leads nowhere");
    }
    for text in ["3 h 0 min", "20 h 0 min", "30 h 0 min", "128 ms", "12 µs", "700000009105", "1 of 3 × SKU-1"] {
        assert!(html.contains(text), "{text} is missing");
    }
}

#[test]
fn a_report_is_one_file_that_loads_nothing() {
    let html = report(&journey("o-1", Maker::of("o-1").all())).unwrap();
    assert!(html.contains("default-src &#x27;none&#x27;") || html.contains("default-src 'none'"));
    for outside in ["http://", "https://", "src=", "@import", "url(http", " style=\"", "onclick"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn whatever_an_order_says_of_itself_is_text() {
    let id = "<script>alert(1)</script>\"'&";
    let html = report(&journey(id, Maker::of(id).all())).unwrap();
    assert_eq!(html.matches("<script").count(), 1, "ours alone");
    assert!(html.contains("&lt;script&gt;alert(1)") && html.contains("the scales &lt;b&gt;failed"));
}

#[test]
fn a_large_order_is_counted_and_not_drawn_line_by_line() {
    let mut maker = Maker::of("o-1");
    let made = vec![maker.checkout(), maker.pick()];
    let mut journey = journey("o-1", made);
    for span in &mut journey.spans {
        if let Some(child) = span.children.first().cloned() {
            span.children = vec![child; 200];
        }
    }
    let html = report(&journey).unwrap();
    assert!(html.contains("and 188 more"));
    assert_eq!(html.matches("warehouse.pick_item</span>").count(), 12);
}

#[test]
fn an_order_of_which_nothing_is_known_has_a_page_all_the_same() {
    let html = report(&Journey { order_id: "o-1".to_owned(), ..Journey::default() }).unwrap();
    assert!(html.contains("No span is known yet") && html.contains("o-1"));
}
