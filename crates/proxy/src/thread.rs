//! A worker's thread: its own runtime, and the loop that applies new orders.

use super::accept;
use super::heartbeat::Heartbeat;
use super::listen::Listener;
use super::orders::Orders;
use super::reports::SessionQuery;
use super::serving::{Backend, WorkerConfig};
use super::worker::{Accepting, Worker, WorkerSetup};
use super::{exchange, io};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::watch::error::RecvError;
use tokio::task::AbortHandle;

/// Interval between sweeps for idle connections that are too old.
const SWEEP: Duration = Duration::from_secs(1);

/// Works until the supervisor ends.
pub(super) fn run(setup: WorkerSetup) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_io()
        .enable_time()
        .build_local(Default::default());
    match runtime {
        Ok(runtime) => runtime.block_on(work(setup)),
        // The supervisor notices that the worker has ended.
        Err(error) => tracing::error!(%error, worker = setup.index, "no event loop"),
    }
}

async fn work(mut setup: WorkerSetup) {
    io::send_together(&setup.counters.late);
    let worker = Rc::new(Worker::new(&setup));
    let sweeper = Rc::clone(&worker);
    tokio::task::spawn_local(async move { sweeper.sweep().await });
    loop {
        let orders = Arc::clone(&setup.orders.borrow_and_update());
        worker.apply(&orders, &setup);
        setup.applied.send_replace(orders.seq);
        if other_orders(&worker, &mut setup).await.is_err() {
            io::send_alone();
            worker.log_cut_off();
            worker.log.flush();
            return;
        }
    }
}

/// Waits for new orders, answering session listings meanwhile.
async fn other_orders(worker: &Worker, setup: &mut WorkerSetup) -> Result<(), RecvError> {
    loop {
        tokio::select! {
            changed = setup.orders.changed() => return changed,
            Some(SessionQuery { most, shown }) = setup.queries.recv() => {
                // The requester may have gone.
                let _ = shown.send(worker.shown(most));
            }
        }
    }
}

impl Worker {
    pub(super) fn apply(self: &Rc<Self>, orders: &Arc<Orders>, setup: &WorkerSetup) {
        let before = self.orders.replace(Arc::clone(orders));
        if same(&before.config, &orders.config) {
            self.serving().take_health(orders);
        } else {
            let old = self.serving();
            let rng = &mut self.rng.borrow_mut();
            let new = Rc::new(WorkerConfig::new(
                orders,
                &old,
                &self.counters,
                self.index,
                rng,
            ));
            self.serving.replace(Rc::clone(&new));
            old.supersede(&new);
        }
        self.listen(&orders.listeners);
        self.beat(setup, orders);
        // A mere change of health does not concern idle connections.
        let same_config = same(&before.config, &orders.config);
        let same_admissions = Arc::ptr_eq(&before.admissions, &orders.admissions);
        let leaves = before.ending != orders.ending || before.leaving != orders.leaving;
        if !same_config || !same_admissions || leaves {
            self.wake.notify_all();
        }
    }

    /// Starts accepting from new listeners and stops with those that are gone.
    fn listen(self: &Rc<Self>, wanted: &[Arc<Listener>]) {
        let mut accepting = self.accepting.borrow_mut();
        accepting.retain(|held| {
            let stays = wanted
                .iter()
                .any(|listener| Arc::ptr_eq(listener, &held.listener));
            if !stays {
                held.done.iter().for_each(|done| done.notify_one());
            }
            stays
        });
        for listener in wanted {
            if accepting
                .iter()
                .any(|held| Arc::ptr_eq(&held.listener, listener))
            {
                continue;
            }
            let sockets = listener.take(self.index);
            if sockets.is_empty() {
                continue;
            }
            let bind = Rc::new(listener.address.clone());
            let accept = |socket| {
                let done = Rc::new(Notify::new());
                let task = accept::run(Rc::clone(self), socket, Rc::clone(&bind), Rc::clone(&done));
                tokio::task::spawn_local(task);
                done
            };
            accepting.push(Accepting {
                listener: Arc::clone(listener),
                done: sockets.into_iter().map(accept).collect(),
            });
        }
    }

    /// Sends heartbeats to the keeper while clients can be served.
    fn beat(&self, setup: &WorkerSetup, orders: &Orders) {
        let wanted = self.serving().serves_http() && !orders.ending && !orders.leaving;
        let mut beat = self.beat.borrow_mut();
        match (wanted, beat.take(), &setup.keeper) {
            (true, None, Some(keeper)) => {
                let (keeper, index, count) = (keeper.clone(), setup.index, setup.count);
                let counters = Arc::clone(&setup.counters);
                let task = async move {
                    let keeper = &keeper;
                    Heartbeat {
                        keeper,
                        index,
                        count,
                        beating: &counters.beating,
                    }
                    .beat()
                    .await;
                };
                *beat = Some(tokio::task::spawn_local(task).abort_handle());
            }
            (true, running, _) => *beat = running,
            (false, running, _) => running.iter().for_each(AbortHandle::abort),
        }
    }

    async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.serving().backends().for_each(Backend::sweep);
            self.log_suppressed();
            self.unaccepted.set(false);
            io::trim();
            exchange::trim();
        }
    }
}

fn same<T>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
