//! Steps that are made twice, and steps that come too late, on both databases.

use super::*;
use crate::campaign::{Kept, Next};
use serde_json::json;
use waybill_harness::postgres;
use waybill_store::Connection;

async fn execute(store: &mut Store, sql: &str) {
    let mut tx = store.begin().await.unwrap();
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    match tx.connection() {
        Connection::Postgres(c) => drop(sqlx::raw_sql(sql).execute(c).await.unwrap()),
        Connection::Sqlite(c) => drop(sqlx::raw_sql(sql).execute(c).await.unwrap()),
    }
    tx.commit().await.unwrap();
}

/// The campaign stands as this step says.
async fn keep(store: &mut Store, step: &Step) {
    let state = serde_json::to_string(&Kept::Campaign(step.campaign.clone())).unwrap();
    let none = if matches!(store, Store::Postgres(_)) { "''" } else { "x''" };
    execute(store, "delete from campaigns").await;
    execute(
        store,
        &format!("insert into campaigns (key, version, state, answer) values ('p/3', 1, '{state}', {none})"),
    )
    .await;
}

fn restocked() -> Restocked {
    serde_json::from_value(json!({"product_id": "p", "zero_version": 3, "version": 4, "available": 5,
        "restocked_at": "2026-11-21T07:00:00Z", "tell_at": "2026-11-21T07:00:00Z"}))
    .unwrap()
}

fn then(step: &Step, looked: &Looked) -> Step {
    match step.campaign.clone().next(looked, &FanoutSettings::default()) {
        Next::Step(campaign, _) => Step { campaign, ..step.clone() },
        Next::End(_) => panic!("it ends"),
    }
}

async fn planned_twice(mut store: Store) {
    store.migrate().await.unwrap();
    let expires = match store {
        Store::Postgres(_) => "now() + interval '1 day'",
        Store::Sqlite(_) => "unixepoch('subsec') + 86400",
    };
    execute(&mut store, "insert into stock (product_id, received, available) values ('p', 90, 90)").await;
    for n in 1..=250 {
        let sql = "insert into subscriptions (product_id, user_id, channel, expires_at) values";
        execute(&mut store, &format!("{sql} ('p', 'u-{n}', 'email', {expires})")).await;
    }
    let settings = FanoutSettings { portion: 150, ..FanoutSettings::default() };
    let first = Step { restocked: restocked(), campaign: Campaign::of(&restocked()) };
    keep(&mut store, &first).await;
    let looked = first.look(&mut store, &settings).await.unwrap();
    let Looked::Planned(planned) = &looked else { panic!("{looked:?}") };
    assert_eq!((planned.batches, planned.cursor, planned.left, planned.more), ([2, 0], 150, 120, true));

    // The process died before anybody knew. Meanwhile the stock is gone, and somebody with a lower number is, too.
    execute(
        &mut store,
        "update stock set available = 0, received = 0; delete from subscriptions where user_id = 'u-9'",
    )
    .await;
    let again = first.look(&mut store, &settings).await.unwrap();
    let Looked::Planned(adopted) = &again else { panic!("{again:?}") };
    assert_eq!((adopted.batches, adopted.cursor, adopted.begins), (planned.batches, planned.cursor, planned.begins));
    execute(&mut store, "update stock set available = 90, received = 90").await;

    let second = then(&first, &looked);
    keep(&mut store, &second).await;
    let late = first.look(&mut store, &settings).await.unwrap();
    assert!(matches!(late, Looked::Failed(_)), "the campaign has gone on: {late:?}");
    let looked = second.look(&mut store, &settings).await.unwrap();
    let Looked::Planned(rest) = &looked else { panic!("{looked:?}") };
    assert_eq!((rest.batches, rest.cursor, rest.more), ([1, 0], 250, false));
    let third = then(&second, &looked);
    assert_eq!((third.campaign.planned, third.campaign.doing), (3, Doing::Watch));
    keep(&mut store, &third).await;
    assert_eq!(third.look(&mut store, &settings).await.unwrap(), Looked::Open);
}

#[tokio::test]
async fn a_step_that_is_made_again_adopts_its_batches_and_one_that_comes_late_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("test.db").display());
    planned_twice(Store::open(&url).await.unwrap()).await;
    if let Some(server) = postgres() {
        let database = server.create_database("adoption").await.unwrap();
        planned_twice(Store::open(database.url()).await.unwrap()).await;
    }
}
