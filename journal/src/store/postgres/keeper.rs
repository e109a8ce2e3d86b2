//! The thread on which a store speaks to its server. It renews leases however long its process is busy with something
//! else, and what has to be given back can be waited for where nothing else can be.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

/// A thread that ends when this is dropped, and everything on it.
#[derive(Debug)]
pub(super) struct Keeper {
    handle: Handle,
    thread: ThreadId,
    _end: oneshot::Sender<()>,
}

impl Keeper {
    pub(super) fn start() -> io::Result<Keeper> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("shared journal".to_owned()).spawn(move || {
            // It is never sent anything: it is closed.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Keeper { handle, thread: thread.thread().id(), _end: end })
    }

    /// Begins `work`.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(work)
    }

    /// Does `work`. It is done to its end even when nobody waits for that any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        self.begin(work).await
    }

    /// Does `work`, and waits for its end in place, but no longer than `limit`.
    pub(super) fn run_within(&self, limit: Duration, work: impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel();
        self.begin(async move {
            work.await;
            // Nobody listens any more when it took too long.
            let _ = sender.send(());
        });
        // On the thread itself there is nothing to wait for: it is what does the work.
        if thread::current().id() != self.thread {
            // Either it is done, or it took too long.
            let _ = receiver.recv_timeout(limit);
        }
    }
}
