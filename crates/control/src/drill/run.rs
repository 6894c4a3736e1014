//! The phases of one drill: calm, harm, healing, review.

use super::witness::Witness;
use super::{
    Acknowledged, Course, DrillError, Harm, HarmFuture, Load, Plan, Probe, Record, Sight,
    check_lost,
};
use gaiola_core::drill::{Contents, DrillReport, Findings, Marks, Verdict, Writes};
use gaiola_model::Time;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Poll interval of the status.
const POLL: Duration = Duration::from_millis(50);
/// Timeout of looking up writes once the operator has interrupted the drill.
const HASTE: Duration = Duration::from_secs(2);
/// Poll timeout.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a drill ended early.
type Trouble = (Verdict, String);

/// Runs one drill. Whatever happens after the harm, it is undone.
///
/// `interrupted` completes when the operator interrupts the drill; `progress` is called with a line for each step.
pub async fn run(
    plan: &Plan,
    harm: &dyn Harm,
    interrupted: impl Future<Output = ()>,
    progress: &mut dyn FnMut(&str),
) -> DrillReport {
    let mut drill = Run {
        plan,
        course: plan.course.clone(),
        harm,
        progress,
        marks: Marks::default(),
        healthy_since: None,
        touched: false,
        record: Record::default(),
    };
    let mut interrupted = pin!(interrupted);
    let mut trouble = unless(interrupted.as_mut(), drill.wait_until_ready())
        .await
        .err();
    let mut findings = Findings::default();
    if trouble.is_none() {
        drill.course = plan.course.clone().calibrated().await;
        let load = Load::start(&drill.course, &drill.record);
        let probe = Probe::start(&drill.course, &drill.record);
        let witnesses = drill.witnesses().await;
        drill.marks.begun = drill.record.now();
        trouble = match &witnesses {
            Ok(_) => unless(interrupted, drill.rehearse()).await.err(),
            Err(why) => Some((Verdict::NotReady, why.to_string())),
        };
        let broken_off = matches!(trouble, Some((Verdict::Interrupted, _)));
        if let Err(more) = drill.restore(broken_off).await {
            trouble.get_or_insert(more);
        }
        drill.marks.ended = drill.record.now();
        let stopped = tokio::join!(
            probe.stop(),
            load.stop(),
            stop(witnesses.unwrap_or_default())
        );
        let ((), outside, inside) = stopped;
        findings = drill.review(outside, inside, broken_off).await;
    }
    drill.conclude(findings, trouble)
}

/// Does the work, unless the operator interrupts it.
async fn unless(
    interrupted: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = Result<(), Trouble>>,
) -> Result<(), Trouble> {
    tokio::select! {
        done = work => done,
        () = interrupted => Err((Verdict::Interrupted, "interrupted by the operator".into())),
    }
}

/// The writes of witnesses that were acknowledged: by the site, and by the database itself.
async fn stop(witnesses: Vec<Witness>) -> (Vec<Acknowledged>, Vec<Acknowledged>) {
    let (mut by_site, mut by_database) = (Vec::new(), Vec::new());
    for witness in witnesses {
        let kept = if witness.is_by_sql() {
            &mut by_database
        } else {
            &mut by_site
        };
        kept.extend(witness.stop().await);
    }
    (by_site, by_database)
}

/// Runs a future with a timeout.
async fn within<T>(limit: Duration, answer: HarmFuture<'_, T>) -> Result<T, DrillError> {
    let late = || Err(DrillError::TimedOut(limit));
    timeout(limit, answer).await.unwrap_or_else(|_| late())
}

/// A running drill.
struct Run<'a> {
    plan: &'a Plan,
    /// The plan's course, at a rate that the site can bear.
    course: Course,
    harm: &'a dyn Harm,
    progress: &'a mut dyn FnMut(&str),
    marks: Marks,
    /// Since when the status has reported a healthy site without interruption.
    healthy_since: Option<Time>,
    /// Whether the harm was ordered, so that it must be undone.
    touched: bool,
    record: Record,
}

impl Run<'_> {
    async fn wait_until_ready(&mut self) -> Result<(), Trouble> {
        let began = self.record.now();
        loop {
            let sight = self.poll().await;
            if sight.healthy {
                return Ok(());
            }
            if self.record.now() - began > self.plan.limits.ready {
                return Err((
                    Verdict::NotReady,
                    format!(
                        "the site is not healthy before the drill: {}",
                        sight.missing
                    ),
                ));
            }
            sleep(POLL).await;
        }
    }

    async fn witnesses(&self) -> Result<Vec<Witness>, DrillError> {
        let sent = self
            .harm
            .witnesses(&self.plan.target, &self.course, &self.record);
        within(self.plan.limits.order, sent)
            .await
            .map_err(|why| DrillError::Witnesses(Box::new(why)))
    }

    async fn rehearse(&mut self) -> Result<(), Trouble> {
        self.calm().await?;
        self.do_harm().await?;
        if self.plan.target.is_held() {
            self.hold().await
        } else {
            self.heal().await?
        }
        Ok(())
    }

    /// The load must be clean before the harm, or its failures could not be distinguished from the harm's.
    async fn calm(&mut self) -> Result<(), Trouble> {
        let limits = &self.plan.limits;
        let began = self.record.now();
        let slowest = self.course.paces().into_iter().map(|(_, pace)| pace).max();
        let calm = limits.calm.max(slowest.unwrap_or_default() * 3);
        loop {
            self.record.ledger().clear();
            self.marks.begun = self.record.now();
            sleep(calm).await;
            let (failed, why) = self.failures();
            if failed == 0 {
                (self.progress)(&format!(
                    "{} ms of load without a failure",
                    calm.as_millis()
                ));
                return Ok(());
            }
            if self.record.now() - began > limits.calm_within {
                return Err((Verdict::NotReady, self.not_calm(failed, &why)));
            }
            (self.progress)(&format!("not steady yet: {why}"));
        }
    }

    fn not_calm(&self, failed: u64, why: &str) -> String {
        let sent: usize = self.record.ledger().sent_count();
        let kinds: Vec<String> = (self.course.paces().iter())
            .map(|(kind, pace)| format!("{kind} every {} ms", pace.as_millis()))
            .collect();
        format!(
            "the load fails before any harm is done: {failed} of the last {sent} requests, {why}; the load was \
             {}; if that is too much for the site, lower [drill] rate",
            kinds.join(", ")
        )
    }

    async fn do_harm(&mut self) -> Result<(), Trouble> {
        let plan = self.plan;
        let target = &plan.target;
        (self.progress)(&target.to_string());
        self.touched = true;
        self.marks.harm = Some(self.record.now());
        let not_done = |why: String| (Verdict::NotDone, why);
        let limits = &plan.limits;
        within(limits.order, self.harm.harm(target))
            .await
            .map_err(|why| not_done(why.to_string()))?;
        let ordered = self.record.now();
        while let Err(why) = within(limits.confirm, self.harm.confirm(target)).await {
            if self.record.now() - ordered > limits.confirm {
                return Err(not_done(format!("cannot confirm it: {why}")));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Watches until the fault's span is over, whether or not the site recovers: it may need the server.
    async fn hold(&mut self) {
        let harmed = self.marks.harm.unwrap_or_default();
        self.healthy_since = None;
        while self.record.now() - harmed < self.plan.hold {
            let sight = self.poll().await;
            let now = self.record.now();
            self.watch(&sight, now);
            let settled = now - harmed > self.plan.limits.settle && self.is_settled(now);
            self.recover(settled, harmed);
            sleep(POLL).await;
        }
    }

    /// Waits until requests succeed again and, if the site heals itself, it is whole.
    async fn heal(&mut self) -> Result<(), Trouble> {
        let limits = &self.plan.limits;
        let harmed = self.marks.harm.unwrap_or_default();
        self.healthy_since = None;
        loop {
            let sight = self.poll().await;
            let now = self.record.now();
            let since = now - harmed;
            self.watch(&sight, now);
            let settled = since > limits.settle && self.is_settled(now);
            self.recover(settled, harmed);
            let seen = self.marks.detected.is_some() || since > limits.notice;
            let healthy = self.healthy_since.is_some() || !self.plan.target.heals_itself();
            if seen && settled && healthy {
                return Ok(());
            }
            if since > limits.heal {
                return Err((Verdict::NotHealthy, self.overdue(settled, &sight)));
            }
            sleep(POLL).await;
        }
    }

    /// Updates the mark of recovery, which is removed when requests fail again.
    fn recover(&mut self, settled: bool, harmed: Time) {
        if settled == self.marks.recovered.is_some() {
            return; // the whole ledger is read only when something has changed
        }
        let paces = self.course.paces();
        let took = self
            .record
            .ledger()
            .recovered(&paces, harmed)
            .filter(|_| settled);
        self.marks.recovered = took.map(|took| harmed + took);
        if let Some(took) = took {
            (self.progress)(&format!(
                "recovered: {} ms after the harm",
                took.as_millis()
            ));
        }
    }

    /// Undoes the harm and waits until the site is whole; `in_haste`: does not wait.
    async fn restore(&mut self, in_haste: bool) -> Result<(), Trouble> {
        if !self.touched {
            return Ok(());
        }
        let began = self.record.now();
        self.put_back(began).await?;
        if in_haste {
            Ok(())
        } else {
            self.wait_until_whole(began).await
        }
    }

    async fn put_back(&mut self, now: Time) -> Result<(), Trouble> {
        let target = &self.plan.target;
        if !target.heals_itself() {
            (self.progress)(&format!("{target} is undone"));
            self.marks.put_back = Some(now);
            self.healthy_since = None;
        }
        within(self.plan.limits.whole, self.harm.put_back(target))
            .await
            .map_err(|why| (Verdict::NotHealthy, format!("cannot undo it: {why}")))
    }

    async fn wait_until_whole(&mut self, began: Time) -> Result<(), Trouble> {
        loop {
            let sight = self.poll().await;
            let now = self.record.now();
            self.watch(&sight, now);
            let settled = self.is_settled(now);
            self.recover(settled, self.marks.harm.unwrap_or_default());
            if let (Some(since), true) = (self.healthy_since, settled) {
                self.whole(since);
                return Ok(());
            }
            if now - began > self.plan.limits.whole {
                return Err((Verdict::NotHealthy, self.overdue(settled, &sight)));
            }
            sleep(POLL).await;
        }
    }

    /// The status may still be healthy at the moment of the harm: the site is not whole before the harm was detected and recovered from.
    fn whole(&mut self, healthy_since: Time) {
        let others = [self.marks.detected, self.marks.recovered];
        let whole = others.into_iter().flatten().fold(healthy_since, Time::max);
        self.marks.whole = Some(whole);
        let took = whole - self.marks.harm.unwrap_or_default();
        (self.progress)(&format!("whole: {} ms after the harm", took.as_millis()));
    }

    /// Updates the marks that depend on the status.
    fn watch(&mut self, sight: &Sight, now: Time) {
        if (sight.noticed || !sight.healthy) && self.marks.detected.is_none() {
            self.marks.detected = Some(now);
            let took = now - self.marks.harm.unwrap_or_default();
            (self.progress)(&format!("detected: {} ms after the harm", took.as_millis()));
        }
        self.healthy_since = self.healthy_since.or(Some(now)).filter(|_| sight.healthy);
    }

    async fn poll(&self) -> Sight {
        let unknown = |why: DrillError| Sight {
            missing: format!("cannot read its status: {why}"),
            ..Sight::default()
        };
        within(POLL_TIMEOUT, self.harm.status())
            .await
            .unwrap_or_else(unknown)
    }

    fn is_settled(&self, now: Time) -> bool {
        let paces = self.course.paces();
        self.record
            .ledger()
            .is_settled(&paces, now, self.plan.limits.settle)
    }

    fn overdue(&self, settled: bool, sight: &Sight) -> String {
        if settled {
            format!("the site is not healthy again: {}", sight.missing)
        } else {
            format!("requests still fail: {}", self.failures().1)
        }
    }

    /// How many requests failed, and the most frequent reason.
    fn failures(&self) -> (u64, String) {
        let ledger = self.record.ledger();
        let most = ledger.failures().max_by_key(|(.., count)| *count);
        let why = most.map_or_else(
            || "too few answers".to_string(),
            |(kind, why, count)| format!("{count} of kind {kind} with {why}"),
        );
        (ledger.failed_count(), why)
    }

    async fn review(
        &mut self,
        mut acknowledged: Vec<Acknowledged>,
        (by_site, by_database): (Vec<Acknowledged>, Vec<Acknowledged>),
        in_haste: bool,
    ) -> Findings {
        acknowledged.extend(by_site);
        let mut writes = self.look_up(&acknowledged, in_haste).await;
        let (all, found) = (by_database.len() as u64, self.harm.look_up(&by_database));
        match within(self.plan.limits.look_up, found).await {
            Ok(found) => writes.add(found),
            Err(why) => writes.add(Writes {
                acknowledged: all,
                unknown: by_database
                    .iter()
                    .map(|it| format!("{}: {why}", it.id))
                    .collect(),
                ..Writes::default()
            }),
        }
        let contents = match self.marks.whole {
            Some(_) => within(self.plan.limits.look_up, self.harm.contents()).await,
            None => Ok(Contents::NotAsked),
        };
        Findings {
            writes,
            contents: contents.unwrap_or_else(|why| Contents::Unknown(why.to_string())),
            notes: self.harm.notes(),
        }
    }

    async fn look_up(&mut self, acknowledged: &[Acknowledged], in_haste: bool) -> Writes {
        let limit = if in_haste {
            HASTE
        } else {
            self.plan.limits.look_up
        };
        if !acknowledged.is_empty() {
            (self.progress)(&format!(
                "looking up {} acknowledged writes",
                acknowledged.len()
            ));
        }
        check_lost(&self.course, acknowledged, limit).await
    }

    fn conclude(self, findings: Findings, trouble: Option<Trouble>) -> DrillReport {
        let what = (self.plan.site.to_string(), self.plan.target.clone());
        let paces = self.course.paces();
        let ledger = self.record.ledger();
        let limits = &self.course.drill.limits;
        DrillReport::conclude(what, &ledger, &paces, self.marks, findings, trouble, limits)
    }
}
