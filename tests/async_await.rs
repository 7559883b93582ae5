//! The example `async_await`: the program as its users see it, and its runtime in what toy runtimes get wrong.

mod common;

#[path = "../examples/async_await/executor.rs"]
mod executor;
#[path = "../examples/async_await/net.rs"]
mod net;

use common::counting::{Counting, allocations};
use common::{PATIENCE, delayserver, nobody, within_patience};
use executor::{block_on, spawn};
use net::{TcpListener, TcpStream, sleep};
use std::cell::Cell;
use std::future::{self, poll_fn};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::catch_unwind;
use std::pin::pin;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static GLOBAL: Counting = Counting;

#[test]
fn the_program_tells_the_books_story_twice() {
    let mut program = delayserver::example("async_await", &[]);
    let output = program.stdin(Stdio::null()).output().unwrap();
    let stdout = delayserver::stdout(&output);
    assert!(output.status.success(), "{stdout}");
    assert_eq!(delayserver::stderr(&output), "");
    for delay in (100..=1000).step_by(100) {
        let answer = format!("| after-{delay}-ms");
        assert_eq!(stdout.matches(&answer).count(), 2, "{stdout}");
    }
    let figures = "Their delays: 5500 ms in total.";
    assert_eq!(stdout.matches(figures).count(), 2, "{stdout}");
    // One after the other they would take 5.5 seconds.
    for line in stdout
        .lines()
        .filter(|line| line.starts_with("The one thread"))
    {
        let ms = line.rsplit(' ').nth(1).unwrap();
        let ms: f64 = ms.parse().unwrap();
        assert!((1000.0..5000.0).contains(&ms), "{line}");
    }
}

/// Runs it in a thread of its own, so that a wake-up that is lost fails the test.
fn run<T: Send + 'static, F: Future<Output = T>>(future: impl FnOnce() -> F + Send + 'static) -> T {
    within_patience(move || block_on(async move { future().await }).unwrap())
}

/// A listener, and its address.
fn listen() -> (TcpListener, SocketAddr) {
    let (listener, addr) = common::listen();
    (TcpListener::new(listener.into()).unwrap(), addr)
}

/// A connection to ourselves.
async fn pair() -> (TcpStream, TcpStream) {
    let (listener, addr) = listen();
    let near = TcpStream::connect(addr).await.unwrap();
    (near, listener.accept().await.unwrap())
}

async fn read_exact(stream: &TcpStream, mut buf: &mut [u8]) {
    while !buf.is_empty() {
        let n = stream.read(buf).await.unwrap();
        assert!(n > 0, "the stream has ended");
        buf = &mut buf[n..];
    }
}

/// Gives the other tasks a turn.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| match has_yielded {
        true => Poll::Ready(()),
        false => {
            has_yielded = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Polls a future once, which has to wait.
#[track_caller]
fn poll_once(future: std::pin::Pin<&mut impl Future>, count: &Arc<Count>) {
    let waker = Waker::from(count.clone());
    assert!(future.poll(&mut Context::from_waker(&waker)).is_pending());
}

/// In each round another thread wakes the task, a little later than in the round before. So some of these wake-ups come at
/// the moment when the executor goes to sleep.
#[test]
fn a_wake_from_another_thread_is_not_lost() {
    const ROUNDS: usize = 5_000;
    let slot = Arc::new(Mutex::new(None::<Waker>));
    let done = Arc::new(AtomicUsize::new(0));
    let (others_slot, others_done) = (slot.clone(), done.clone());
    let thread = thread::spawn(move || {
        for round in 1..=ROUNDS {
            let waker = loop {
                let waker = others_slot.lock().unwrap().take();
                match waker {
                    Some(waker) => break waker,
                    None => thread::yield_now(),
                }
            };
            (0..round % 500).for_each(|_| std::hint::spin_loop());
            others_done.store(round, SeqCst);
            waker.wake();
        }
    });
    run(move || async move {
        for round in 1..=ROUNDS {
            let mut is_new = true;
            poll_fn(|context| {
                if std::mem::take(&mut is_new) {
                    *slot.lock().unwrap() = Some(context.waker().clone());
                }
                match done.load(SeqCst) == round {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    });
    thread.join().unwrap();
}

/// While it is being polled, a task is neither asleep nor in the queue.
#[test]
fn a_wake_during_the_poll_is_not_lost() {
    run(|| async {
        for _ in 0..100 {
            yield_now().await;
        }
    });
}

#[test]
fn a_task_that_is_woken_twice_has_one_turn() {
    let turns = run(|| async {
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let task = spawn(async move {
            poll_fn(|context| {
                counted.set(counted.get() + 1);
                if counted.get() == 1 {
                    context.waker().wake_by_ref();
                    context.waker().wake_by_ref();
                }
                match counted.get() {
                    2 => Poll::Ready(()),
                    _ => Poll::<()>::Pending,
                }
            })
            .await;
            future::pending::<()>().await;
        });
        for _ in 0..10 {
            yield_now().await;
        }
        drop(task);
        turns.get()
    });
    assert_eq!(turns, 2);
}

/// A future may move to another task between two polls, as those of a `select` do.
#[test]
fn the_last_waker_is_woken() {
    run(|| async {
        let (near, far) = pair().await;
        let (first, last) = (Arc::<Count>::default(), Arc::<Count>::default());
        let mut buf = [0; 8];
        let mut read = pin!(near.read(&mut buf));
        poll_once(read.as_mut(), &first);
        poll_once(read.as_mut(), &last);
        far.write_all(b"!").await.unwrap();
        while last.get() == 0 {
            yield_now().await;
        }
        assert_eq!(first.get(), 0);
        assert_eq!(read.await.unwrap(), 1);
    });
}

/// Nothing keeps its waker, and the event of its stream goes to no other.
#[test]
fn a_future_that_is_dropped_wakes_no_task() {
    run(|| async {
        let count = Arc::<Count>::default();
        let (near, far) = pair().await;
        let mut buf = [0; 8];
        poll_once(pin!(near.read(&mut buf)), &count);
        poll_once(pin!(sleep(Duration::from_millis(1))), &count);
        far.write_all(b"!").await.unwrap();
        drop(near);
        assert_eq!(Arc::strong_count(&count), 1);

        let (near, far) = pair().await;
        let mut read = pin!(near.read(&mut buf));
        poll_once(read.as_mut(), &count);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(count.get(), 0);
        far.write_all(b"!").await.unwrap();
        assert_eq!(read.await.unwrap(), 1);
    });
}

/// The waker of a reader is not that of a writer.
#[test]
fn a_stream_is_read_and_written_at_the_same_time() {
    const LEN: usize = 4 << 20;
    run(|| async {
        let (near, far) = pair().await;
        let near = Rc::new(near);
        let writer = near.clone();
        let write = spawn(async move { writer.write_all(&vec![b'x'; LEN]).await.unwrap() });
        let echo = spawn(async move {
            let (mut buf, mut echoed) = ([0; 10_000], 0);
            while echoed < LEN {
                let n = far.read(&mut buf).await.unwrap();
                far.write_all(&buf[..n]).await.unwrap();
                echoed += n;
            }
        });
        let mut received = vec![0; LEN];
        read_exact(&near, &mut received).await;
        assert!(received.iter().all(|&byte| byte == b'x'));
        write.await.unwrap();
        echo.await.unwrap();
    });
}

#[test]
fn a_task_that_wakes_itself_does_not_starve_the_loop() {
    run(|| async {
        let (near, far) = pair().await;
        let is_done = Rc::new(Cell::new(false));
        let done = is_done.clone();
        let busy = spawn(async move {
            while !done.get() {
                yield_now().await;
            }
        });
        let write = spawn(async move {
            sleep(Duration::from_millis(1)).await;
            far.write_all(b"!").await.unwrap();
        });
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 1);
        is_done.set(true);
        busy.await.unwrap();
        write.await.unwrap();
    });
}

#[test]
fn a_panic_reaches_the_handle_and_not_the_other_tasks() {
    run(|| async {
        let fails = spawn(async {
            yield_now().await;
            std::panic::resume_unwind(Box::new("by design")); // prints nothing
        });
        let works = spawn(async {
            sleep(Duration::from_millis(1)).await;
            7
        });
        let panic = fails.await.unwrap_err();
        assert_eq!(*panic.downcast::<&str>().unwrap(), "by design");
        assert_eq!(works.await.unwrap(), 7);
    });
}

#[test]
fn a_panic_of_the_main_future_is_passed_on() {
    let result = catch_unwind(|| {
        block_on(async { std::panic::resume_unwind(Box::new("by design")) }).unwrap()
    });
    let panic: Box<dyn std::any::Any + Send> = result.unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "by design");
    assert_eq!(block_on(async { 7 }).unwrap(), 7);
}

#[test]
fn ten_thousand_tasks_run() {
    const COUNT: usize = 10_000;
    let sum = run(|| async {
        let tasks = (0..COUNT).map(|i| {
            spawn(async move {
                sleep(Duration::from_millis(i as u64 % 10)).await;
                yield_now().await;
                i
            })
        });
        let mut sum = 0;
        for task in tasks.collect::<Vec<_>>() {
            sum += task.await.unwrap();
        }
        sum
    });
    assert_eq!(sum, COUNT * (COUNT - 1) / 2);
}

/// They are dropped with all that they own. So their peers see the end of the stream.
#[test]
fn tasks_that_are_left_are_dropped() {
    let (listener, addr) = common::listen();
    let peer = run(move || async move {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (peer, _) = listener.accept().unwrap();
        spawn(async move { stream.read(&mut [0; 8]).await });
        yield_now().await;
        peer
    });
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(io::Read::read(&mut &peer, &mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_round_of_reading_and_writing_allocates_nothing() {
    let counts = run(|| async {
        let (near, far) = pair().await;
        let echo = spawn(async move {
            let mut buf = [0; 8];
            while let Ok(1..) = far.read(&mut buf).await {
                far.write_all(&buf[..1]).await.unwrap();
            }
        });
        let mut counts = Vec::with_capacity(2);
        for rounds in [100, 1000] {
            let before = allocations();
            for _ in 0..rounds {
                near.write_all(b"!").await.unwrap();
                assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 1);
            }
            counts.push(allocations() - before);
        }
        drop(near);
        echo.await.unwrap();
        counts
    });
    assert_eq!(counts[1], 0, "{counts:?}");
}

/// While it waits, the task has no turn; so the thread has nothing to do but to sleep in `poll`.
#[test]
fn a_thread_with_nothing_to_run_sleeps() {
    const TIME: Duration = Duration::from_millis(300);
    let began = Instant::now();
    let turns = run(|| async {
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let mut nap = Box::pin(sleep(TIME));
        poll_fn(move |context| {
            counted.set(counted.get() + 1);
            nap.as_mut().poll(context)
        })
        .await;
        turns.get()
    });
    assert!(began.elapsed() >= TIME);
    assert_eq!(turns, 2);
}

#[test]
fn a_short_sleep_does_not_wait_for_a_long_one() {
    run(|| async {
        spawn(sleep(Duration::from_secs(3600)));
        yield_now().await;
        for time in [3, 1, 2].map(Duration::from_millis) {
            let began = Instant::now();
            sleep(time).await;
            assert!(began.elapsed() >= time);
        }
    });
}

#[test]
fn a_connection_that_is_refused_is_an_error() {
    let (_held, addr) = nobody();
    let error = run(move || async move { TcpStream::connect(addr).await.map(drop).unwrap_err() });
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_listener_waits_for_its_clients() {
    run(|| async {
        let (listener, addr) = listen();
        let server = spawn(async move {
            for _ in 0..10 {
                let stream = listener.accept().await.unwrap();
                spawn(async move {
                    let mut name = [0; 1];
                    read_exact(&stream, &mut name).await;
                    stream.write_all(&name).await.unwrap();
                });
            }
        });
        for i in 0..10 {
            let stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(&[i]).await.unwrap();
            let mut echo = [0; 1];
            read_exact(&stream, &mut echo).await;
            assert_eq!(echo, [i]);
            assert_eq!(stream.read(&mut echo).await.unwrap(), 0);
        }
        server.await.unwrap();
    });
}

#[test]
fn one_executor_may_run_in_another() {
    let sum = run(|| async {
        let inner = block_on(async { spawn(async { 3 }).await.unwrap() }).unwrap();
        inner + spawn(async { 4 }).await.unwrap()
    });
    assert_eq!(sum, 7);
}
