//! Tasks, and the loop that polls them. The futures that wait for the event loop are in `net.rs`.
//!
//! A task is a future in a box. The executor polls a task after the task's waker was called, and only then. While no task
//! is woken, the thread sleeps in minimio's `Poll::poll`, and nowhere else.

use crate::net::Reactor;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::{future, mem, pin::Pin, thread};

/// What the tasks of one `block_on` share. Only the thread of this `block_on` uses it.
pub struct Executor {
    pub reactor: Reactor,
    tasks: RefCell<std::collections::HashMap<usize, Task>>,
    woken: Arc<Woken>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Arc<TaskWaker>,
}

/// The part that all threads share, because any thread may wake a task.
struct Woken {
    /// The tasks to poll next.
    queue: Mutex<Vec<usize>>,
    /// Whether the executor sleeps, or is about to.
    is_asleep: AtomicBool,
    /// A write to this stream wakes the executor.
    bell: minimio::TcpStream,
}

/// A waker knows its task by number only, because the waker may move to another thread, and the task may not.
struct TaskWaker {
    id: usize,
    /// A task that is woken several times before its turn is in the queue once.
    is_queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if self.is_queued.swap(true, SeqCst) {
            return;
        }
        self.woken.queue.lock().unwrap().push(self.id);
        if self.woken.is_asleep.swap(false, SeqCst) {
            // There is room for a byte, because the executor reads the bytes before it sleeps again.
            let _ = (&self.woken.bell).write(b"!");
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Weak<Executor>> = RefCell::default();
}

/// The executor of this thread. Panics outside of [`block_on`].
pub fn current() -> Rc<Executor> {
    let current = CURRENT.with_borrow(Weak::upgrade);
    current.expect("spawn, sleep and sockets need `block_on`")
}

/// Runs a future and the tasks that it spawns, until the future ends. Tasks that have not ended by then are dropped.
///
/// An error comes from the event loop. If the future panics, so does this function.
pub fn block_on<F: Future + 'static>(future: F) -> io::Result<F::Output> {
    let (reactor, bell) = Reactor::new()?;
    let executor = Rc::new(Executor {
        reactor,
        tasks: RefCell::default(),
        woken: Arc::new(Woken {
            queue: Mutex::default(),
            is_asleep: AtomicBool::new(false),
            bell,
        }),
    });
    let outer = CURRENT.replace(Rc::downgrade(&executor));
    let result = executor.run(&spawn(future));
    drop(executor.tasks.take()); // they hold references to the executor
    CURRENT.set(outer);
    result.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
}

impl Executor {
    /// Polls tasks until this one has ended.
    fn run<T>(&self, JoinHandle(main): &JoinHandle<T>) -> io::Result<thread::Result<T>> {
        let mut batch = Vec::new();
        loop {
            // A task that wakes itself goes to the next batch, so the loop looks for events in between.
            mem::swap(&mut batch, &mut self.woken.queue.lock().unwrap());
            for id in batch.drain(..) {
                self.poll_task(id);
                if let Some(result) = main.0.take() {
                    return Ok(result);
                }
            }
            // In this order: a waker that is called after the second line finds the flag, and rings the bell.
            self.woken.is_asleep.store(true, SeqCst);
            let may_sleep = self.woken.queue.lock().unwrap().is_empty();
            self.reactor.wait(may_sleep)?;
            self.woken.is_asleep.store(false, SeqCst);
        }
    }

    fn poll_task(&self, id: usize) {
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else {
            return; // the task has ended, but one of its wakers still exists
        };
        // Before the poll, so that a wake during the poll gives the task another turn.
        task.waker.is_queued.store(false, SeqCst);
        let waker = Waker::from(task.waker.clone());
        let result = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if result.is_pending() {
            self.tasks.borrow_mut().insert(id, task);
        }
    }
}

/// Starts a task, which runs beside the others of this [`block_on`], whether its handle is awaited or not.
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    let (executor, join) = (current(), Rc::<Join<_>>::default());
    let (mut future, at_end) = (Box::pin(future), join.clone());
    let future = Box::pin(future::poll_fn(move |context| {
        // A panic ends this task, and not the others.
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        let result = ready!(poll.map_or_else(|panic| Poll::Ready(Err(panic)), |poll| poll.map(Ok)));
        at_end.0.set(Some(result));
        at_end.1.take().into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }));
    let id = executor.reactor.new_token(); // any number that no other task has
    let waker = Arc::new(TaskWaker {
        id,
        is_queued: AtomicBool::new(false),
        woken: executor.woken.clone(),
    });
    waker.clone().wake();
    let task = Task { future, waker };
    executor.tasks.borrow_mut().insert(id, task);
    JoinHandle(join)
}

/// The end of a task, as a future: the output of the task, or the panic that has ended it.
pub struct JoinHandle<T>(Rc<Join<T>>);

/// The result, and the waker of the task that waits for it.
type Join<T> = (Cell<Option<thread::Result<T>>>, Cell<Option<Waker>>);

impl<T> Future for JoinHandle<T> {
    type Output = thread::Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.1.set(Some(context.waker().clone()));
        self.0.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}
