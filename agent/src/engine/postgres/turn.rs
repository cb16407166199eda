//! Whose turn it is to work on the folder of a server that is down.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::engine::EngineError;

/// One at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// Waits for the next turn.
    pub(super) async fn next(&self) -> Turn {
        Turn { _lock: Arc::new(Arc::clone(&self.0).lock_owned().await) }
    }
}

/// Ends when all its work has ended.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    _lock: Arc<OwnedMutexGuard<()>>,
}

impl Turn {
    /// Does what may take long with `path`, while everything else goes on. Who waits for it may be ended; the work goes on
    /// to its end, and so does the turn.
    pub(super) async fn work(
        &self,
        doing: &'static str,
        path: &Path,
        work: impl FnOnce(&Path) -> Result<(), EngineError> + Send + 'static,
    ) -> Result<(), EngineError> {
        let (turn, at) = (self.clone(), path.to_owned());
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&at)
        });
        done.await.unwrap_or_else(|e| Err(EngineError::io(doing, path)(io::Error::other(e))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_its_work() {
        let turns = Turns::default();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (end, may_end) = std::sync::mpsc::channel();
        let turn = turns.next().await;
        let task = tokio::spawn(async move {
            let work = turn.work("try", Path::new("/"), move |_| {
                begun.send(()).unwrap();
                may_end.recv().unwrap();
                Ok(())
            });
            work.await
        });
        while has_begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        tokio::time::timeout(Duration::from_millis(50), turns.next()).await.unwrap_err();
        end.send(()).unwrap();
        turns.next().await;
    }
}
