//! The command line.

use crate::record::Query;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

pub const HELP: &str = "\
A server that answers late, and a client that waits for many answers in one
thread.

Usage:
  delayserver [--svg FILE]
      start a server, send it ten requests, and draw when each of them waited
  delayserver serve [--addr ADDR] [--size BYTES]
      only the server (default: 127.0.0.1:0, a free port)
  delayserver get [--svg FILE] [--timeout MS] ADDR DELAY TEXT [...]
      only the client: ask ADDR for TEXT after DELAY milliseconds
  delayserver --help

The server prints its address on its first line. It serves until its standard
input ends or Ctrl-C is pressed. To run it in the background, give it an input
that does not end: `tail -f /dev/null | delayserver serve &`.
It answers `GET /DELAY/TEXT HTTP/1.1` with TEXT after DELAY (0 to 60000)
milliseconds; try a browser, or `curl http://ADDR/1000/hello`. A client may
close its own direction of the connection after the request, and still gets the
answer. The server cannot tell such a client from one that has closed both
directions, so it keeps both until their answers are due. It drops a client that
resets the connection at once.
With --size, an answer has at least BYTES bytes: dots follow the text. A client
that reads its answer slowly does not keep the others waiting.

The client works with any server that answers such requests with at most 64 KiB.
ADDR may contain a name: `localhost:8000`. The client takes any number of DELAY
TEXT pairs, waits for all answers at once, and exits with status 1 if a request
got no answer. It gives up a request that has no connection after MS
milliseconds (default: 10000), or no complete answer after DELAY + MS.
Set NO_COLOR to get a timeline without colours in a terminal.
With --svg it also writes the timeline to FILE, as a picture for any browser
that shows more: what each thread did, and every wait of the reactor.
";

/// The default of `--timeout`.
pub const TIMEOUT: Duration = Duration::from_secs(10);

pub enum Job<'a> {
    Demo {
        svg: Option<&'a str>,
    },
    Serve {
        addr: &'a str,
        size: usize,
    },
    Get {
        svg: Option<&'a str>,
        timeout: Duration,
        addr: &'a str,
        queries: Vec<Query>,
    },
    Help,
}

/// An error names the argument that is wrong, or what is missing.
pub fn parse<'a>(args: &[&'a str]) -> Result<Job<'a>, String> {
    match args {
        ["serve" | "get", "--help" | "-h"] => Ok(Job::Help),
        ["--help" | "-h" | "help", rest @ ..] => no_more(rest).map(|()| Job::Help),
        ["serve", rest @ ..] => {
            let ([addr, size], rest) = options(rest, ["--addr", "--size"])?;
            let addr = addr.unwrap_or("127.0.0.1:0");
            let size = size.map_or(Ok(0), parse_size)?;
            no_more(rest).map(|()| Job::Serve { addr, size })
        }
        ["get", rest @ ..] => parse_get(rest),
        _ => {
            let ([svg], rest) = options(args, ["--svg"])?;
            no_more(rest).map(|()| Job::Demo { svg })
        }
    }
}

fn parse_get<'a>(args: &[&'a str]) -> Result<Job<'a>, String> {
    let ([svg, timeout], rest) = options(args, ["--svg", "--timeout"])?;
    let [addr, _, ..] = rest else {
        return Err("`get` needs an ADDR, a DELAY and a TEXT".into());
    };
    let timeout: Option<NonZeroU32> = timeout.map(parse_ms).transpose()?;
    let queries = rest[1..].chunks(2).map(parse_query);
    Ok(Job::Get {
        svg,
        timeout: timeout.map_or(TIMEOUT, |ms| Duration::from_millis(ms.get().into())),
        addr,
        queries: queries.collect::<Result<_, _>>()?,
    })
}

fn parse_query(pair: &[&str]) -> Result<Query, String> {
    let [delay, text] = pair else {
        return Err(format!("there is no TEXT after `{}`", pair.concat()));
    };
    Ok(Query {
        delay_ms: parse_ms(delay)?,
        text: text.to_string(),
    })
}

fn parse_ms<T: FromStr>(ms: &str) -> Result<T, String> {
    let number = ms.parse();
    number.map_err(|_| format!("not a number of milliseconds: `{ms}`"))
}

fn parse_size(size: &str) -> Result<usize, String> {
    let number = size.parse();
    number.map_err(|_| format!("not a number of bytes: `{size}`"))
}

/// Returns the values of the options, which come first and in any order, and the arguments that follow them.
fn options<'s, 'a, const N: usize>(
    args: &'s [&'a str],
    names: [&str; N],
) -> Result<([Option<&'a str>; N], &'s [&'a str]), String> {
    let mut values = [None; N];
    let mut rest = args;
    while let [name, after @ ..] = rest {
        let Some(at) = names.iter().position(|known| known == name) else {
            break;
        };
        let [value, after @ ..] = after else {
            return Err(format!("`{name}` needs a value"));
        };
        values[at] = Some(*value);
        rest = after;
    }
    match rest {
        [name, ..] if name.starts_with("--") => Err(unknown(name)),
        _ => Ok((values, rest)),
    }
}

fn no_more(args: &[&str]) -> Result<(), String> {
    args.first().map_or(Ok(()), |arg| Err(unknown(arg)))
}

fn unknown(arg: &str) -> String {
    format!("unknown argument `{arg}`")
}
