//! The tasks: ten that ask, as in the book's story, and some that answer.

use crate::executor::spawn;
use crate::http;
use crate::net::{TcpListener, TcpStream, sleep};
use crate::record::{End, Outcome, Query, Record, Wait};
use minimio::Interests;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Sends all queries at the same time, each in a task of its own.
pub async fn ask_all(addr: SocketAddr, queries: Rc<[Query]>) -> Record {
    let started = Instant::now();
    let asks = (0..queries.len()).map(|i| spawn(ask(addr, queries.clone(), i, started)));
    let mut record = Record {
        outcomes: Vec::new(),
        waits: Vec::new(),
    };
    for (token, task) in asks.collect::<Vec<_>>().into_iter().enumerate() {
        let outcome = task.await.expect("this task does not panic");
        let events = outcome.read_at.iter().map(|&ended| Wait {
            began: Duration::ZERO,
            ended,
            end: End::Events(vec![(token, Interests::READABLE)]),
        });
        record.waits.extend(events);
        record.outcomes.push(outcome);
    }
    record
}

async fn ask(addr: SocketAddr, queries: Rc<[Query]>, i: usize, started: Instant) -> Outcome {
    let mut outcome = Outcome::new("the task has not ended");
    outcome.connecting_at = Some(started.elapsed());
    let result = answer(addr, &queries[i], started, &mut outcome).await;
    outcome.answer = result.map_err(|error| error.to_string());
    outcome.ended_at = started.elapsed();
    outcome
}

/// The whole story of a request. At each `await` the thread may run other tasks.
async fn answer(
    addr: SocketAddr,
    query: &Query,
    started: Instant,
    outcome: &mut Outcome,
) -> io::Result<String> {
    let stream = TcpStream::connect(addr).await?;
    outcome.connected_at = Some(started.elapsed());
    let request = http::request(&addr.to_string(), query.delay_ms, &query.text);
    stream.write_all(&request).await?;
    let (mut received, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        outcome.registered_at.push(started.elapsed());
        let n = stream.read(&mut buffer).await?;
        outcome.read_at.push(started.elapsed());
        received.extend_from_slice(&buffer[..n]);
        let answer = http::parse_response(&received, n == 0).map_err(io::Error::other)?;
        if let Some(answer) = answer {
            return http::text(answer).map_err(io::Error::other);
        }
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Answers every client in a task of its own.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let stream = listener.accept().await?;
        // An error ends only this connection.
        spawn(async move { reply(stream).await.ok() });
    }
}

async fn reply(stream: TcpStream) -> io::Result<()> {
    let (mut received, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let n = stream.read(&mut buffer).await?;
        received.extend_from_slice(&buffer[..n]);
        if let Some((delay, response)) = http::reply(&received, 0) {
            sleep(delay).await;
            return stream.write_all(response.rest()).await;
        }
        if n == 0 {
            return Ok(());
        }
    }
}
