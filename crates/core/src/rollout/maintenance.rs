//! Maintenance: what is desired is placed at once, between any two steps.

use super::RollOutStep;
use gaiola_model::placement::Maintenance;

impl RollOutStep<'_> {
    pub(super) fn lead_maintenance(&mut self) {
        let (held, wanted) = (&self.plan.maintenance, &self.desired.maintenance);
        if held == wanted {
            return;
        }
        let text = in_words(held.as_ref(), wanted.as_ref());
        self.plan.maintenance.clone_from(wanted);
        self.report(None, text);
    }
}

fn in_words(held: Option<&Maintenance>, wanted: Option<&Maintenance>) -> String {
    match (held, wanted) {
        (None, Some(on)) => format!("maintenance is on by {}: balancers answer 503", on.by),
        (Some(_), Some(on)) => format!("maintenance is changed by {}", on.by),
        (_, None) => "maintenance is over: balancers serve clients".into(),
    }
}
