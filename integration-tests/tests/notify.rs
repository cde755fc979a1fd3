//! Previews of mails, as a shop that edits its templates sees them.

use std::process::{Command, Output};

fn preview(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waybill"));
    command.args(["notify", "preview"]).args(args).output().unwrap()
}

fn shown(args: &[&str]) -> String {
    let output = preview(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_shop_sees_its_edit_and_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("order_shipped.subject.txt");
    std::fs::write(&own, "Order {{ order }} has left").unwrap();
    let args = ["order_shipped", "--templates", folder.path().to_str().unwrap()];
    assert!(shown(&args).starts_with("Subject: Order o-1-0000042 has left\n\nHello Ada Lovelace,\n"));

    std::fs::write(&own, "Order\n{{ ordr }} has left").unwrap();
    let output = preview(&args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("template order_shipped.subject.txt, line 2: undefined value in `ordr`"), "{error}");
}

#[test]
fn every_mail_is_shown_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["back_in_stock", "order_confirmed", "order_shipped"] {
        assert!(shown(&[name]).contains("\n\nHello Ada Lovelace,\n"));
        assert!(shown(&[name, "--format", "html"]).starts_with("<!doctype html>\n"));
        let file = folder.path().join(name);
        assert_eq!(shown(&[name, "--format", "eml", "--to", file.to_str().unwrap()]), "");
        let mail = std::fs::read_to_string(&file).unwrap();
        assert!(mail.contains("Message-ID: <preview@") && mail.contains("multipart/alternative"), "{mail}");
        assert_eq!(mail.contains("List-Unsubscribe: <https://"), name == "back_in_stock");
    }
    assert_eq!(preview(&["order_lost"]).status.code(), Some(2));
}
