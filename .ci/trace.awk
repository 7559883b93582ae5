# Compares the output of the feature `trace` with the calls that have happened. Reads the files, one for each thread,
# that `strace -ff -T -v -e abbrev=none` has written. In a file, each line of the trace is a write to standard error.
# The line must come right after the call that it reports, and must say the same. (Only `close` is reported before it
# happens, and several of them may be reported at once.)
#
# No call may be missing in the trace. But a program also has sockets of `std`, which report nothing. So the calls on a
# socket must be reported from the first line in which the thread mentions the socket until it is closed.

BEGIN {
  # `std` may make these calls on its own sockets.
  SOCKETS = "^(recv|readv|send|writev|accept|socket|connect|close)\\("
  # "wake-up!", as a number.
  WAKER = "2409554638478729591"
}

FNR == 1 { end_of_thread() }
# Skips signals, exits, and calls that were interrupted by the end of the program or by a restart.
/^(---|\+\+\+)/ || / = \?/ || /<unfinished/ { next }
/^write\(1, / { next }
# Skips the example's line that says what the columns are.
/^write\(2, " +returned  thread/ { next }
/^write\(2, / { told(); next }
# Skips calls with MSG_PEEK, which read nothing.
/^recvfrom/ && /, MSG_/ { next }
{
  call = in_our_words($0)
  # The allocator reads and closes a file when it needs memory for another thread, perhaps before a line is written.
  if (call ~ /^close/ && !is_ours[subject(call)] && index(closing, call " ") != 1) next
  forgotten()
  happened = call
  if (happened ~ /^close/) closed()
}
END {
  end_of_thread()
  printf "%d calls compared, %d of them with an error:%s\n", compared, errors, kinds
  if (!compared) complain("nothing was told")
  exit bad
}

function end_of_thread() {
  forgotten()
  if (closing != "") complain("told, but did not happen: " closing)
  thread = closing = happened = ""
  before = 0
  delete is_ours
}

# What `std` does on its own account is not told.
function forgotten() {
  if (happened != "" && (happened !~ SOCKETS || is_ours[subject(happened)])) complain("not told: " happened)
  # A number that is given anew belongs to a stranger at first.
  if (match(happened, / = fd [0-9]+$/)) is_ours[substr(happened, RSTART + 3)] = 0
  happened = ""
}

# What is told of closing is in `closing`, each with a space behind it, in the order in which it has to happen.
function closed() {
  if (index(closing, happened " ") == 1) {
    closing = substr(closing, length(happened) + 2)
    is_ours[subject(happened)] = 0
    happened = ""
  }
}

# What a call is about. (What `epoll_ctl` is about stands third.)
function subject(words,   part) {
  split(words, part, /[(), ]+/)
  return words ~ /^epoll_ctl/ ? part[5] " " part[6] : part[2] " " part[3]
}

# (A queue that could not be made whole is closed without a word.)
function remember(words) {
  if (words ~ /^(epoll_create1|eventfd)\(|, (waker|writers)\)/) return
  is_ours[subject(words)] = 1
  if (match(words, / = fd [0-9]+$/)) is_ours[substr(words, RSTART + 3)] = 1
}

function complain(why) {
  print FILENAME ":" FNR ": " why
  bad = 1
}

# Checks a line of the trace. Other lines on standard error are the program's own.
function told(   line, words, who, when, how_long) {
  line = $0
  if (!match(line, /"[ ]*[0-9]+\.[0-9][0-9][0-9] ms  /)) return
  when = substr(line, RSTART + 1, RLENGTH - 1) + 0
  line = substr(line, RSTART + RLENGTH)
  sub(/\\n".*/, "", line)
  how_long = -1
  if (match(line, /  \([0-9.]+ ms\)$/)) {
    how_long = substr(line, RSTART + 3) + 0
    line = substr(line, 1, RSTART - 1)
  }
  match(line, /  +/)
  who = substr(line, 1, RSTART - 1)
  words = substr(line, RSTART + RLENGTH)
  if (words ~ /^close/) return closing = closing words " "
  if (closing != "") complain("told, but did not happen: " closing)
  closing = ""
  remember(words)
  if (happened == "") return complain("told, but did not happen: " words)
  if (words != happened) complain("happened: " happened "\n  told:     " words)
  if (thread != "" && who != thread) complain("told by " who ", but this is " thread)
  # A call cannot begin before the previous one has ended, and cannot take less time than its part in the kernel.
  if (when - how_long + 0.002 < before) complain("began at " when - how_long " ms, in the call before it")
  if (how_long + 0.002 < kernel) complain("took " how_long " ms, but the kernel's part was " kernel)
  thread = who
  before = when
  count(words)
  happened = ""
}

function count(words) {
  compared++
  if (words !~ / = -1 /) return
  errors++
  sub(/.* = -1 /, "", words)
  if (!seen[words]++) kinds = kinds " " words
}

# Translates a line of strace: `call(arguments) = result (explanation) <seconds>`.
function in_our_words(line,   call, result, n, part) {
  match(line, / <[0-9.]+>$/)
  kernel = substr(line, RSTART + 2) * 1000
  line = substr(line, 1, RSTART - 1)
  match(line, / += [^=]*$/)
  result = substr(line, RSTART)
  line = substr(line, 1, RSTART - 2)
  sub(/ +/, "", result)
  sub(/ \(.*/, "", result)
  n = index(line, "(")
  call = substr(line, 1, n - 1)
  line = substr(line, n + 1)
  if (call == "epoll_create1") return "epoll_create1(" line ") " made(result)
  if (call == "eventfd2") return "eventfd(" line ") " made(result)
  split(line, part, ", ")
  if (call == "epoll_ctl") return "epoll_ctl(fd " part[1] ", " part[2] ", fd " part[3] event(line, part[2]) ") " result
  if (call == "epoll_wait") return wait(line, part[1]) " " result came(line)
  if (call == "close") return "close(fd " line ")"
  if (call == "socket") {
    sub(/IPPROTO_IP/, "0", line)
    return "socket(" line ") " made(result)
  }
  if (call == "connect") return "connect(fd " part[1] ", " address(line) ") " result
  if (call == "accept4") return "accept(fd " part[1] ") " made(result)
  if (call == "recvfrom" || call == "sendto") {
    match(line, /, [0-9]+, (0|MSG_NOSIGNAL), NULL, (NULL|0)$/)
    line = substr(line, RSTART + 2)
    return substr(call, 1, 4) "(fd " part[1] ", " line + 0 " bytes) " result
  }
  if (call == "readv" || call == "writev") return call "(fd " part[1] ", " all_lengths(line) " bytes) " result
  if (call == "write") {
    match(line, /[0-9]+$/)
    return "write(fd " part[1] ", " substr(line, RSTART) " bytes) " result
  }
  return "what is this: " call
}

function made(result) {
  sub(/= [0-9]/, "= fd &", result)
  sub(/fd = /, "fd ", result)
  return result
}

function address(line,   port, ip) {
  match(line, /htons\([0-9]+/)
  port = substr(line, RSTART + 6, RLENGTH - 6)
  match(line, /"[^"]+"/)
  ip = substr(line, RSTART + 1, RLENGTH - 2)
  return (ip ~ /:/ ? "[" ip "]" : ip) ":" port
}

function all_lengths(line,   sum) {
  for (; match(line, /iov_len=[0-9]+/); line = substr(line, RSTART + RLENGTH)) sum += substr(line, RSTART + 8, RLENGTH - 8)
  return sum + 0
}

function event(line, operation) {
  if (operation == "EPOLL_CTL_DEL") return ""
  return ", " events_of(line) ", " whose(line)
}

# Only entries of sources are one-shot, and what comes back never is.
function whose(line) {
  if (events_of(line) ~ /EPOLLRDNORM/) return "writers"
  return data_of(line) == WAKER && events_of(line) !~ /EPOLLONESHOT/ ? "waker" : "token " data_of(line)
}

function wait(line, queue,   end, part) {
  match(line, /, [0-9]+, -?[0-9]+$/)
  split(substr(line, RSTART), part, ", ")
  end = part[3] < 0 ? "no timeout" : "timeout " part[3] " ms"
  return "epoll_wait(fd " queue ", capacity " part[2] ", " end ")"
}

# Lists the events. strace prints all of them, the trace only the first 32.
function came(line,   list, n) {
  for (n = 0; match(line, /\{events=/); n++) {
    line = substr(line, RSTART)
    if (n < 32) list = list (n ? ", " : "") events_of(line) " " whose(line)
    line = substr(line, 2)
  }
  if (n > 32) list = list ", and " n - 32 " more"
  return n ? ": [" list "]" : ""
}

function events_of(line) {
  match(line, /events=[A-Z0-9x|]+/)
  return substr(line, RSTART + 7, RLENGTH - 7)
}

function data_of(line) {
  match(line, /u64=[0-9]+/)
  return substr(line, RSTART + 4, RLENGTH - 4)
}
