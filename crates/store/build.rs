//! A new migration builds the crate again: `sqlx::migrate!` sees only the files that were there.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
