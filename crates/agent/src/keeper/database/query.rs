//! A query that runs in the background, one at a time, while the caller does other work.

use tokio::sync::oneshot::{self, error::TryRecvError};

#[derive(Default)]
pub(super) enum Query<T> {
    #[default]
    Idle,
    Running(oneshot::Receiver<T>),
}

impl<T: Send + 'static> Query<T> {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Starts a query. Call it only while idle, within a runtime.
    pub(super) fn start(&mut self, question: impl Future<Output = T> + Send + 'static) {
        debug_assert!(self.is_idle());
        let (sender, receiver) = oneshot::channel();
        *self = Self::Running(receiver);
        tokio::spawn(async move {
            // The receiver may be gone.
            let _ = sender.send(question.await);
        });
    }

    /// The answer, returned once.
    pub(super) fn take(&mut self) -> Option<T> {
        let Self::Running(receiver) = self else {
            return None;
        };
        match receiver.try_recv() {
            Err(TryRecvError::Empty) => None,
            answer => {
                *self = Self::Idle;
                answer.ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_comes_once() {
        let mut query = Query::Idle;
        assert_eq!(query.take(), None::<u8>);
        query.start(async { 7 });
        assert!(!query.is_idle());
        tokio::task::yield_now().await;
        assert_eq!(query.take(), Some(7));
        assert_eq!(query.take(), None);
        assert!(query.is_idle());
    }
}
