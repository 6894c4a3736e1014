//! `[backend.NAME]`.

use super::balance::{ejection, slow_ejection};
use super::{Reader, Reference, positive, value};
use crate::file::{Section, text};
use gaiola_model::proxy::{Backend, OnMarkedDown, ServerTimeouts};

impl Reader<'_, '_, '_> {
    pub(super) fn backend(
        &mut self,
        name: &str,
        section: &Section<'_>,
        timeouts: &ServerTimeouts,
        references: &mut Vec<Reference>,
    ) -> Backend {
        let own = section.table("timeouts", "backend.NAME.timeouts", self.mistakes);
        let timeouts = match own {
            Some(own) => self.server_timeouts(&own, timeouts),
            None => timeouts.clone(),
        };
        let fallback = self.fallback(name, section);
        let fallback_name = fallback.as_ref().map(|fallback| fallback.value.clone());
        references.extend(fallback);
        let check = self.check(section, timeouts.connect);
        let servers = self.servers(section, check.as_ref());
        let on_marked_down = text(
            section,
            "on_marked_down",
            value::on_marked_down,
            self.mistakes,
        );
        let backend = Backend {
            algorithm: self.algorithm(section),
            check,
            timeouts: ServerTimeouts {
                queue_when_down: section
                    .boolean("queue_when_down", self.mistakes)
                    .unwrap_or(timeouts.queue_when_down),
                queue_size: section
                    .number("queue_size", 0..=1_000_000, self.mistakes)
                    .unwrap_or(timeouts.queue_size),
                ..timeouts
            },
            on_marked_down: on_marked_down.unwrap_or(OnMarkedDown::ClosePooled),
            fallback: fallback_name,
            all_spares: section
                .boolean("all_spares", self.mistakes)
                .unwrap_or_default(),
            slow_start: text(section, "slow_start", positive, self.mistakes),
            slow_ejection: slow_ejection(section, self.mistakes),
            ejection: ejection(section, self.mistakes),
            sticky: self.sticky(section),
            count_tunnels: section
                .boolean("count_tunnels", self.mistakes)
                .unwrap_or(true),
            ..Backend::new(name, servers)
        };
        self.note_only_http(&backend, section);
        backend
    }

    fn fallback(&mut self, name: &str, section: &Section<'_>) -> Option<Reference> {
        let fallback = self.backend_name(section, "fallback")?;
        if fallback.value == name {
            let what = format!("[{}] falls back to itself", section.name());
            let hint = "name another backend, or leave `fallback` out";
            self.mistakes.add(&fallback.span, what, hint);
        }
        Some(fallback)
    }
}
