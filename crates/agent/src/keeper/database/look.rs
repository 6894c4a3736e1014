//! A query that runs in the background, one at a time, while the caller does other work.

use tokio::sync::oneshot::{self, error::TryRecvError};

#[derive(Default)]
pub(super) enum Look<T> {
    #[default]
    Idle,
    Asked(oneshot::Receiver<T>),
}

impl<T: Send + 'static> Look<T> {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Starts a query. Call it only while idle, within a runtime.
    pub(super) fn ask(&mut self, question: impl Future<Output = T> + Send + 'static) {
        debug_assert!(self.is_idle());
        let (tell, told) = oneshot::channel();
        *self = Self::Asked(told);
        tokio::spawn(async move {
            // The receiver may be gone.
            let _ = tell.send(question.await);
        });
    }

    /// The answer, returned once.
    pub(super) fn take(&mut self) -> Option<T> {
        let Self::Asked(told) = self else { return None };
        match told.try_recv() {
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
        let mut look = Look::Idle;
        assert_eq!(look.take(), None::<u8>);
        look.ask(async { 7 });
        assert!(!look.is_idle());
        tokio::task::yield_now().await;
        assert_eq!(look.take(), Some(7));
        assert_eq!(look.take(), None);
        assert!(look.is_idle());
    }
}
