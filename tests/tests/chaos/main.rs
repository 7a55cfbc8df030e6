//! The real daemon in a storm: see `kvs_edge_tests::chaos`.

mod kvssink;
mod outage;

use kvs_edge_tests::chaos::{Figures, Schedule, Storm};

/// What happens within so long; then everything is settled.
const SHORT_MS: u64 = 22_000;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_storm_what_was_sent_what_is_stored_and_what_was_claimed_agree() {
    let seed = 1;
    let Some(mut storm) = Storm::start(seed).await else { return };
    storm.suffer(&Schedule::storm(seed, SHORT_MS, false)).await;
    storm.settle().await;
    let figures = agreed(&storm).await;
    assert!(figures.fragments > 0 && figures.claims > 0, "{figures}");
    // Whoever compares must notice.
    storm.lose_one_at_the_cloud().await;
    let findings = storm.accounts().await.expect_err("a fragment is gone");
    assert!(findings.iter().any(|finding| finding.contains("missing")), "{findings:#?}");
}

/// `cargo xtask chaos`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "as long as it is asked to: cargo xtask chaos"]
async fn as_long_as_it_is_asked_to() {
    if ["KILLS", "CUTS", "MINUTES"].iter().all(|name| number(name).is_none()) {
        return; // another test
    }
    let seed = number("SEED").unwrap_or(1);
    let Some(mut storm) = Storm::start(seed).await else { return };
    if let Some(kills) = number("KILLS") {
        storm.kills(kills, seed).await;
    }
    if let Some(cuts) = number("CUTS") {
        storm.cuts(cuts, seed).await;
    }
    if let Some(minutes) = number("MINUTES") {
        storm.suffer(&Schedule::storm(seed, minutes * 60_000, true)).await;
    }
    storm.settle().await;
    storm.read_records().await;
    agreed(&storm).await;
}

async fn agreed(storm: &Storm) -> Figures {
    match storm.accounts().await {
        Ok(figures) => {
            eprintln!("chaos: {figures}");
            figures
        }
        Err(findings) => panic!("seed {}: the accounts do not agree: {findings:#?}", storm.seed()),
    }
}

/// One of the numbers that `cargo xtask chaos` hands over.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(format!("KVS_EDGE_CHAOS_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("KVS_EDGE_CHAOS_{name} is {text}: {error}")))
}
