//! The store during a roll: its members are asked themselves, since no agent's report shows one that has not come back.

use crate::connect::SiteClient;
use anyhow::{Context as _, bail};
use gaiola_core::roll::{Turn, keeps_quorum, members_missing};
use gaiola_model::status::StoreMemberStatus;
use gaiola_net::client::Request;
use std::time::{Duration, Instant};

/// The longest until all members have been asked: each has three seconds.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a turn waits for a member without which it would cost the majority: one that was lost a moment ago may be back soon.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);

/// What is missing of the store, in words.
pub(super) async fn missing(client: &SiteClient) -> Vec<String> {
    match members(client).await {
        Ok(members) => members_missing(&members),
        Err(error) => vec![format!("the store's members: {error:#}")],
    }
}

/// Waits for a moment until the store can do without the machine of a turn.
///
/// # Errors
/// Where it cannot, or where nobody says so.
pub(super) async fn can_do_without(client: &SiteClient, turn: &Turn) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let members = members(client).await;
        let judged = members.and_then(|members| Ok(keeps_quorum(&members, turn)?));
        if judged.is_ok() || began.elapsed() >= PATIENCE {
            return judged;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// None where the machine that is asked has an older program, which does not know the question.
async fn members(client: &SiteClient) -> anyhow::Result<Vec<StoreMemberStatus>> {
    let answer = client.send(&Request::get("/store"), LIMIT).await?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).context("cannot read the answer"),
        404 => Ok(Vec::new()),
        _ => bail!("{}", answer.text().trim()),
    }
}
