//! Walks through the table at the head of `operation.rs`, row by row: brings an operation into the phase, lets the
//! thing happen, and looks at what has become of it.

use super::super::{DRAIN_MS, associate_with_port};
use super::{Operation, Phase, Selector, ffi, lock};
use std::io::{IoSliceMut, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::windows::io::AsRawSocket;
use std::sync::Arc;

struct Walk {
    selector: Option<Arc<Selector>>,
    operation: Arc<Operation>,
    peer: TcpStream,
    /// Open as long as the operation needs it.
    _socket: TcpStream,
}

impl Walk {
    fn new() -> Walk {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let selector = Selector::new().unwrap();
        associate_with_port(socket.as_raw_socket(), &selector.port).unwrap();
        Walk {
            selector: Some(selector),
            operation: Operation::receiving(socket.as_raw_socket()),
            peer: listener.accept().unwrap().0,
            _socket: socket,
        }
    }

    fn selector(&self) -> &Selector {
        self.selector.as_ref().expect("the loop is there")
    }

    fn phase(&self) -> Phase {
        lock(&self.operation.state).phase
    }

    fn register(&mut self) {
        self.operation.register(self.selector(), 1).unwrap();
    }

    /// The packets that are in the port. With a timeout, waits until there is one.
    fn packets(&self, timeout_ms: u32) -> Vec<ffi::OVERLAPPED_ENTRY> {
        // SAFETY: all of it may be zero.
        let mut room: [ffi::OVERLAPPED_ENTRY; 8] = unsafe { mem::zeroed() };
        let n = self.selector().get_packets(&mut room, timeout_ms).unwrap();
        room.into_iter().take(n).collect()
    }

    fn dequeue(&mut self) {
        for packet in self.packets(DRAIN_MS) {
            self.selector().on_packet(&packet).expect("it has ended");
        }
    }

    fn receive(&mut self) {
        self.peer.write_all(b"!").unwrap();
        self.dequeue();
    }

    /// Reads the buffer, or begins to read the socket itself if nothing is in the buffer.
    fn read(&mut self) {
        let result = self
            .operation
            .read_buffer(&mut [IoSliceMut::new(&mut [0; 8])]);
        assert!(result.is_ok_and(|n| n.is_none_or(|n| n == 1)));
    }

    fn select(&mut self) -> Option<bool> {
        Some(self.operation.to_event(self.selector()).is_some())
    }

    /// The call that was made, by what it has caused.
    fn call(&mut self, before: Phase) -> &'static str {
        let after = self.phase();
        if self.selector.is_none() {
            // Without this call, dropping the loop would have given up, and left the phase `Idle`.
            let is_cancelled = (before, after) == (Phase::Lent, Phase::Ended);
            return if is_cancelled { "`CancelIoEx`" } else { "" };
        }
        let mut timeout_ms = 0;
        if after == Phase::Lent {
            self.peer.write_all(b"!").unwrap(); // ends a receive that was not cancelled
            timeout_ms = DRAIN_MS;
        }
        let has_result = lock(&self.operation.state).unread.is_some();
        let mut statuses = Vec::new();
        for packet in self.packets(timeout_ms) {
            statuses.push(packet.Internal as i32);
            self.selector().on_packet(&packet); // otherwise the loop waits for it when it is dropped
        }
        match (before, after, &statuses[..]) {
            (Phase::Lent, Phase::Lent, [0]) | (Phase::Posted, Phase::Posted, [0]) => "",
            (Phase::Lent, Phase::Lent, [_]) => "`CancelIoEx`",
            (_, Phase::Lent, [0]) => "`WSARecv`",
            (_, Phase::Posted, [0]) => "`PostQueuedCompletionStatus`",
            (Phase::Lent, Phase::Ended, []) if has_result => "`WSAGetOverlappedResult`",
            (_, Phase::Idle | Phase::Deferred | Phase::Ended, []) => "",
            _ => panic!("{before:?}, {after:?}, packets: {statuses:?}"),
        }
    }
}

fn idle(_: &mut Walk) {}

fn lent(walk: &mut Walk) {
    walk.register();
}

fn ended(walk: &mut Walk) {
    walk.register();
    walk.receive();
}

fn unread(walk: &mut Walk) {
    ended(walk);
    walk.select();
}

fn posted(walk: &mut Walk) {
    unread(walk);
    walk.register();
}

fn consumed(walk: &mut Walk) {
    ended(walk);
    walk.read();
}

fn deferred(walk: &mut Walk) {
    walk.read();
    walk.register();
}

fn shut_down(walk: &mut Walk) {
    walk.operation.cancel();
}

fn register(walk: &mut Walk) -> Option<bool> {
    walk.register();
    None
}

fn dequeue(walk: &mut Walk) -> Option<bool> {
    walk.dequeue();
    None
}

fn drop_loop(walk: &mut Walk) -> Option<bool> {
    walk.selector = None;
    None
}

/// What happens, the steps that lead to the phase before, and the step itself, which returns whether there was an
/// event.
type Row = (&'static str, fn(&mut Walk), fn(&mut Walk) -> Option<bool>);

const ROWS: [Row; 21] = [
    ("`register`, and nothing is unread", idle, register),
    ("`register`, and something is unread", unread, register),
    (
        "`register`, while a thread reads the socket itself",
        Walk::read,
        register,
    ),
    (
        "`register`, after a `shutdown` of reading",
        shut_down,
        register,
    ),
    (
        "`register` again",
        |walk| {
            deferred(walk);
            walk.operation.end_direct_read(); // `start_deferred` will follow
        },
        register,
    ),
    (
        "the last read of the socket itself returns",
        deferred,
        |walk| {
            walk.operation.end_direct_read();
            walk.operation.start_deferred(walk.selector.as_deref());
            None
        },
    ),
    ("`shutdown` of reading", deferred, |walk| {
        walk.operation.cancel();
        walk.operation.start_deferred(walk.selector.as_deref());
        None
    }),
    ("a read finds that the loop was dropped", deferred, |walk| {
        walk.operation.forget_deferred();
        drop_loop(walk)
    }),
    ("`register` again", lent, register),
    (
        "its packet is dequeued",
        |walk| {
            lent(walk);
            walk.peer.write_all(b"!").unwrap();
        },
        dequeue,
    ),
    ("`shutdown` of reading", lent, |walk| {
        walk.operation.cancel();
        None
    }),
    ("the source is dropped", lent, |walk| {
        walk.operation.retire();
        None
    }),
    ("the loop is dropped", lent, drop_loop),
    ("`register` again", posted, register),
    ("its packet is dequeued", posted, dequeue),
    ("`register` again", ended, register),
    ("`select`, and something is unread", ended, Walk::select),
    (
        "`select`, after a `shutdown` of reading",
        |walk| {
            lent(walk);
            shut_down(walk);
            walk.dequeue();
        },
        Walk::select,
    ),
    (
        "`select`, after reads have consumed everything",
        consumed,
        Walk::select,
    ),
    (
        "`select`, after the same, while a thread reads the socket itself",
        |walk| {
            consumed(walk);
            walk.read();
        },
        Walk::select,
    ),
    (
        "`select`, after the source was dropped",
        |walk| {
            lent(walk);
            walk.operation.retire();
            walk.dequeue();
        },
        Walk::select,
    ),
];

fn walk((what, prepare, step): &Row) -> String {
    let mut walk = Walk::new();
    prepare(&mut walk);
    let before = walk.phase();
    let event = match step(&mut walk) {
        None => "",
        Some(false) => "no",
        Some(true) => "yes",
    };
    let (after, call) = (walk.phase(), walk.call(before));
    let row = format!("| `{before:?}` | {what} | `{after:?}` | {call} | {event} |");
    row.replace("|  |", "| |").replace("|  |", "| |")
}

#[test]
fn the_table_says_what_happens() {
    let source = include_str!("operation.rs").lines();
    let rows = source
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| line.starts_with("| `"));
    let walked: Vec<_> = ROWS.iter().map(walk).collect();
    assert_eq!(walked, rows.collect::<Vec<_>>());
}
