//! For tests: a disk that does not answer, used by a thread that serves others.

use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_blocking, spawn_local, yield_now};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

/// Carries `work` out. While the disk does not answer, the thread must run other tasks, and `meanwhile` is called; work done
/// on the thread itself has finished by then, which is a failure.
///
/// # Panics
/// If the work did not wait for the disk, or does not end.
pub fn carry_out<T: 'static>(
    work: impl Future<Output = T> + 'static,
    meanwhile: impl FnOnce(),
) -> T {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (answers, waits) = mpsc::channel::<()>();
        // The only blocking thread waits until the sender is dropped.
        spawn_blocking(move || waits.recv().is_ok());
        let work = spawn_local(work);
        for _ in 0..100 {
            yield_now().await;
        }
        assert!(!work.is_finished(), "it did not wait for the disk");
        meanwhile();
        drop(answers);
        timeout(LONG, work).await.unwrap().unwrap()
    })
}
