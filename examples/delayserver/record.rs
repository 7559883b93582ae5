//! Records what happened and when. Both threads write to the record, and the timeline and the picture are drawn from
//! it. All times are measured from the start.

use minimio::{Event, Events, Interests, Token};
use std::time::{Duration, Instant};

pub struct Query {
    pub delay_ms: u32,
    pub text: String,
}

/// The longest delay comes first, so that the order of the events differs from that of the requests.
pub fn ten_queries() -> impl Iterator<Item = Query> {
    (1..=10).rev().map(|i| Query {
        delay_ms: i * 100,
        text: format!("after-{}-ms", i * 100),
    })
}

pub struct Record {
    pub outcomes: Vec<Outcome>,
    pub waits: Vec<Wait>,
}

/// The outcome of a query. If the answer arrives in parts, each part has its own registration and its own read.
pub struct Outcome {
    /// When the connection was started, and when it was established.
    pub connecting_at: Option<Duration>,
    pub connected_at: Option<Duration>,
    pub registered_at: Vec<Duration>,
    pub read_at: Vec<Duration>,
    pub ended_at: Duration,
    /// The body, or why there is none.
    pub answer: Result<String, String>,
}

impl Outcome {
    /// Nothing has happened yet. If nothing will, `why` says so.
    pub fn new(why: &str) -> Outcome {
        Outcome {
            connecting_at: None,
            connected_at: None,
            registered_at: Vec::new(),
            read_at: Vec::new(),
            ended_at: Duration::ZERO,
            answer: Err(why.into()),
        }
    }
}

/// One call of `poll`.
pub struct Wait {
    pub began: Duration,
    pub ended: Duration,
    pub end: End,
}

pub enum End {
    Events(Vec<(Token, Interests)>),
    Timeout,
    Closed,
}

impl Record {
    /// When the reactor received the events for the answer, one for each registration.
    pub fn events(&self, token: Token) -> impl Iterator<Item = Duration> {
        let event = (token, Interests::READABLE);
        self.waits.iter().filter_map(move |wait| match &wait.end {
            End::Events(events) if events.contains(&event) => Some(wait.ended),
            _ => None,
        })
    }

    /// When the answer began to arrive, or when the request failed without an event.
    pub fn waited_until(&self, token: Token) -> Duration {
        let event = self.events(token).next();
        event.unwrap_or(self.outcomes[token].ended_at)
    }

    /// The time until the last answer began to arrive.
    pub fn total(&self) -> Duration {
        let ends = (0..self.outcomes.len()).map(|token| self.waited_until(token));
        ends.max().unwrap_or_default()
    }
}

/// The reactor's log. It needs no lock, because no other thread reads it before the reactor's thread has ended.
pub struct WaitLog {
    started: Instant,
    began: Duration,
    waits: Vec<Wait>,
}

impl WaitLog {
    pub fn new(started: Instant) -> WaitLog {
        WaitLog {
            started,
            began: Duration::ZERO,
            waits: Vec::new(),
        }
    }

    pub fn wait_begins(&mut self) {
        self.began = self.started.elapsed();
    }

    pub fn wait_ended(&mut self, events: &Events) {
        let direction = |event: &Event| match event.is_writable() {
            true => Interests::WRITABLE,
            false => Interests::READABLE,
        };
        let events = events.iter().map(|event| (event.id(), direction(event)));
        let events: Vec<_> = events.collect();
        self.write(match events.is_empty() {
            true => End::Timeout,
            false => End::Events(events),
        });
    }

    /// Records that `close_loop` has ended the last wait.
    pub fn end(mut self) -> Vec<Wait> {
        self.write(End::Closed);
        self.waits
    }

    fn write(&mut self, end: End) {
        self.waits.push(Wait {
            began: self.began,
            ended: self.started.elapsed(),
            end,
        });
    }
}
