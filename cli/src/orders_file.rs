//! A file of real orders, checked line by line: the good ones are sent, every bad line is told with its number.

use anyhow::Context;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use waybill_events::{Line, OrderPlaced, Service};
use waybill_spine::Event;
use waybill_telemetry::Waybill;

/// `LINE: what is wrong`.
pub type Bad = String;

/// Reads NDJSON or CSV, by the file's ending.
///
/// # Errors
/// The file cannot be read, or has another ending.
pub fn read(file: &Path) -> anyhow::Result<(Vec<OrderPlaced>, Vec<Bad>)> {
    let open = || std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()));
    match file.extension().and_then(|e| e.to_str()) {
        Some("ndjson" | "jsonl") => ndjson(BufReader::new(open()?)),
        Some("csv") => lines_csv(open()?),
        _ => anyhow::bail!("{}: orders come as .ndjson or .csv", file.display()),
    }
}

fn ndjson(file: impl BufRead) -> anyhow::Result<(Vec<OrderPlaced>, Vec<Bad>)> {
    let (mut orders, mut bad) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(file.split(b'\n')) {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let order = serde_json::from_slice::<OrderPlaced>(&line)
            .map_err(|e| e.to_string().replace(" at line 1", " at"))
            .and_then(|order| order.check().map(|()| order));
        match order {
            // Whoever wrote the file was not the checkout: the journey begins here.
            Ok(order) => orders.push(OrderPlaced { waybill: Waybill::default(), ..order }),
            Err(why) => bad.push(format!("{number}: {why}")),
        }
    }
    Ok((orders, bad))
}

/// One order line a line; the lines of an order share its id.
#[derive(Deserialize)]
struct Row {
    order_id: String,
    customer_id: String,
    country: String,
    service: Service,
    line: u32,
    product_id: String,
    sku: String,
    quantity: u32,
    weight_g: u32,
    length_mm: u32,
    width_mm: u32,
    height_mm: u32,
}

fn lines_csv(file: impl std::io::Read) -> anyhow::Result<(Vec<OrderPlaced>, Vec<Bad>)> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let headers = reader.headers().context("the CSV file has no header line")?.clone();
    let (mut bad, mut spoiled) = (Vec::new(), Vec::new());
    let mut orders: Vec<(u64, OrderPlaced)> = Vec::new();
    let mut place: BTreeMap<String, usize> = BTreeMap::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(e) => {
                bad.push(format!("{}: {e}", e.position().map_or(0, csv::Position::line)));
                continue;
            }
        };
        let number = record.position().map_or(0, csv::Position::line);
        match record.deserialize::<Row>(Some(&headers)) {
            Ok(row) => {
                let at = *place.entry(row.order_id.clone()).or_insert(orders.len());
                if at == orders.len() {
                    orders.push((number, empty(&row)));
                }
                orders[at].1.lines.push(line(row));
            }
            Err(e) => {
                bad.push(format!("{number}: {}", reason(&e)));
                // An order with one unreadable line must not be sent without it.
                spoiled.extend(record.get(0).map(str::to_owned));
            }
        }
    }
    let mut good = Vec::new();
    for (number, order) in orders {
        match order.check() {
            _ if spoiled.contains(&order.order_id) => {
                bad.push(format!("{number}: order {} has a bad line and is left out", order.order_id));
            }
            Ok(()) => good.push(order),
            Err(why) => bad.push(format!("{number}: order {}: {why}", order.order_id)),
        }
    }
    Ok((good, bad))
}

fn reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    }
}

fn empty(row: &Row) -> OrderPlaced {
    OrderPlaced {
        order_id: row.order_id.clone(),
        customer_id: row.customer_id.clone(),
        country: row.country.clone(),
        service: row.service,
        lines: Vec::new(),
        waybill: Waybill::default(),
    }
}

fn line(row: Row) -> Line {
    Line {
        line: row.line,
        product_id: row.product_id,
        sku: row.sku,
        quantity: row.quantity,
        weight_g: row.weight_g,
        size_mm: [row.length_mm, row.width_mm, row.height_mm],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"order_id":"o-1","customer_id":"c","country":"DE","service":"standard","lines":[{"line":1,"product_id":"p","sku":"s","quantity":1,"weight_g":1,"size_mm":[1,1,1]}]}"#;

    #[test]
    fn each_bad_line_of_ndjson_is_told_with_its_number_and_the_good_ones_stay() {
        let file = format!("{GOOD}\nrubbish\n\n{}\n{}", GOOD.replace("\"quantity\":1", "\"quantity\":0"), GOOD);
        let (orders, bad) = ndjson(file.as_bytes()).unwrap();
        assert_eq!(orders.len(), 2);
        assert_eq!(bad.len(), 2);
        assert!(bad[0].starts_with("2: "), "{bad:?}");
        assert!(bad[1].starts_with("4: ") && bad[1].contains("quantity"), "{bad:?}");
    }

    #[test]
    fn csv_lines_of_one_order_come_together_and_a_bad_one_spoils_its_order() {
        let file = "\
order_id,customer_id,country,service,line,product_id,sku,quantity,weight_g,length_mm,width_mm,height_mm
o-1,c,DE,standard,1,p1,s1,1,10,10,10,10
o-2,c,DE,standard,1,p1,s1,1,10,10,10,10
o-1,c,DE,standard,2,p2,s2,1,10,10,10,10
o-2,c,DE,standard,2,p2,s2,many,10,10,10,10
o-3,c,DE,standard,1,p1,s1,0,10,10,10,10
";
        let (orders, bad) = lines_csv(file.as_bytes()).unwrap();
        assert_eq!(orders.len(), 1);
        assert_eq!(orders[0].lines.len(), 2);
        assert_eq!(bad.len(), 3, "{bad:?}");
        assert!(bad[0].starts_with("5: "), "{bad:?}");
    }
}
