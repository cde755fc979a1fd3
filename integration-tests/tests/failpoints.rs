//! A crash at every point of the loop, in every stage: nothing lost, no effect twice.

use crate::shop::{LIMIT, Shop};
use waybill_harness::{Process, eventually};

const STAGES: [&str; 3] = ["pick", "pack", "ship"];
const ORDERS: usize = 300;
const ROUNDS: usize = 5;

fn input(stage: &str) -> &'static str {
    match stage {
        "pick" => "orders.new",
        "pack" => "orders.picked",
        _ => "orders.packed",
    }
}

/// One stage crashes at the `nth` pass of `point` and is started again; the others go on.
async fn crash(stage: &str, point: &str, nth: u32) {
    let Some(mut shop) = Shop::open(&format!("{point}-{stage}"), 1_000).await else { return };
    let others: Vec<Process> = STAGES.iter().filter(|s| **s != stage).map(|s| shop.run(&[s])).collect();
    shop.set("WAYBILL_TEST_FAILPOINT", &format!("{point}:{nth}"));
    let mut crashing = shop.run(&[stage]);
    shop.set("WAYBILL_TEST_FAILPOINT", "none");
    // Each round is at least one batch of its own: the next begins when this one is done, or the stage has crashed.
    for round in 1..=ROUNDS {
        shop.done(&["produce", "orders", "--count", &(ORDERS / ROUNDS).to_string(), "--seed", &round.to_string()]);
        eventually("the round is done, or the stage has crashed", LIMIT, async || {
            let committed = usize::try_from(shop.committed(stage, input(stage))).unwrap();
            let crashed = crashing.ended().unwrap().is_some();
            if crashed || committed >= round * ORDERS / ROUNDS { Ok(()) } else { Err(format!("{committed} committed")) }
        })
        .await;
    }
    if point == "during_shutdown" {
        crashing.terminate().unwrap();
    }
    let status = crashing.wait(LIMIT).await.unwrap();
    assert!(!status.success(), "{stage} ended with {status} instead of crashing {point}");
    assert!(crashing.log().unwrap().contains("aborting, as a test asked for"), "{}", crashing.log().unwrap());
    let again = shop.run(&[stage]);
    shop.until("orders.shipped", ORDERS).await;
    shop.until_committed("pick", "orders.new").await;
    shop.until_committed("pack", "orders.picked").await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(ORDERS, 400 * 1_000).await;
    drop((others, again));
}

/// A test for each point, all stages at once.
macro_rules! at {
    ($($point:ident $nth:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $point() {
            let at = |stage| crash(stage, stringify!($point), $nth);
            tokio::join!(at("pick"), at("pack"), at("ship"));
        }
    )*};
}

at! {
    after_decode 3;
    after_commit 3;
    after_produce 3;
    after_reports 3;
    after_offsets 3;
    during_rebalance 1;
    during_shutdown 1;
}
