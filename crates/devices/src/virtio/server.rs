//! The thread that serves one queue.

use std::io;
use std::sync::{Arc, Mutex};

use machine::sys::Bell;

use super::queue::{Queue, QueueError, State};
use crate::lock;
use crate::worker::{Crew, Next, Turn, Worker};

/// What a device does with the chains of one of its queues.
pub(super) trait Serve: Send + 'static {
    /// Takes what waits, up to a batch, and gives it back. False if it can do nothing now: the queue is empty, or something else is missing
    /// that will kick the worker when it comes. Between requests it looks whether `turn` is over.
    fn serve(&mut self, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError>;

    /// What gets [`Self::serve`] out of a wait of its own, if it ever waits.
    fn bell(&self) -> Option<Arc<Bell>> {
        None
    }
}

/// A queue and the thread that serves it while the queue is there.
pub(super) struct QueueServer {
    queue: Arc<Mutex<Option<Queue>>>,
    worker: Worker,
    bell: Option<Arc<Bell>>,
}

impl QueueServer {
    /// A thread called `name` that will serve by `handler`.
    pub(super) fn hire(crew: &Crew, name: &str, mut handler: impl Serve) -> io::Result<Self> {
        let queue = Arc::new(Mutex::new(None));
        let theirs = Arc::clone(&queue);
        let bell = handler.bell();
        let worker = Worker::hire(crew, name, move |turn| serve_all(&mut lock(&theirs), &mut handler, turn))?;
        Ok(Self { queue, worker, bell })
    }

    /// Serves `queue` from now on; buffers may be in it already.
    pub(super) fn activate(&self, queue: Option<Queue>) {
        *lock(&self.queue) = queue;
        self.worker.kick();
    }

    /// How far the queue is, while the server is paused; `None` if it has none.
    pub(super) fn queue_state(&self) -> Option<State> {
        lock(&self.queue).as_ref().map(Queue::state)
    }

    /// There are new buffers, or whatever else was missing has come.
    pub(super) fn kick(&self) {
        self.worker.kick();
        self.bell.iter().for_each(|bell| bell.ring());
    }

    /// Forgets the queue once the request in work is done.
    pub(super) fn reset(&self) {
        self.worker.pause();
        *lock(&self.queue) = None;
        self.worker.resume();
    }

    pub(super) fn pause(&self) {
        self.worker.pause();
    }

    pub(super) fn resume(&self) {
        self.worker.resume();
    }

    /// Waits until all that was kicked for has been looked at.
    pub(super) fn drain(&self) {
        self.worker.drain();
    }
}

fn serve_all(slot: &mut Option<Queue>, handler: &mut impl Serve, turn: &Turn<'_>) -> Next {
    let Some(queue) = slot else { return Next::Kick };
    match serve_until_idle(queue, handler, turn) {
        Ok(next) => next,
        Err(error) => {
            queue.fail(&error);
            *slot = None;
            Next::Kick
        }
    }
}

fn serve_until_idle(queue: &mut Queue, handler: &mut impl Serve, turn: &Turn<'_>) -> Result<Next, QueueError> {
    while !turn.is_over() {
        queue.suppress_notifications()?;
        while handler.serve(queue, turn)? && !turn.is_over() {}
        if turn.is_over() {
            break;
        }
        let before = queue.state().next_available;
        if !queue.request_notification()? {
            return Ok(Next::Kick);
        }
        // Something waits: new chains, or those for which the handler lacks something. The latter must not make this loop spin.
        let served = handler.serve(queue, turn)?;
        if !served && queue.state().next_available == before && !turn.is_over() {
            return Ok(Next::Kick);
        }
    }
    Ok(Next::Again)
}
