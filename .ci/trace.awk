# Compares the output of the feature `trace` with the calls that have happened. Reads the files, one for each thread,
# that `strace -ff -T -v -e abbrev=none` has written. In a file, each line of the trace is a write to standard error.
# The line must come right after the call that it reports, and must say the same. With `without=recv`, lines about
# `recv` are skipped.

FNR == 1 { end_of_thread() }
# Skips signals, exits, and calls that were interrupted by the end of the program or by a restart.
/^(---|\+\+\+)/ || / = \?/ || /<unfinished/ { next }
/^write\(1, / { next }
/^write\(2, / { told(); next }
# Skips calls with MSG_PEEK, which read nothing.
/^recvfrom/ && (/, MSG_/ || without == "recv") { next }
{
  forgotten()
  happened = in_our_words($0)
}
END {
  end_of_thread()
  printf "%d calls compared, %d of them with an error:%s\n", compared, errors, kinds
  if (!compared) complain("nothing was told")
  exit bad
}

function end_of_thread() {
  forgotten()
  thread = ""
  began = took = 0
}

function forgotten() {
  if (happened != "") complain("not told: " happened)
  happened = ""
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
  if (without != "" && index(words, without "(") == 1) return
  if (happened == "") return complain("told, but did not happen: " words)
  if (words != happened) complain("happened: " happened "\n  told:     " words)
  if (thread != "" && who != thread) complain("told by " who ", but this is " thread)
  # A call cannot begin before the previous one has ended, and cannot take less time than its part in the kernel.
  if (when + 0.002 < began + took) complain("began at " when " ms, in the call before it")
  if (how_long >= 0 && how_long + 0.002 < kernel) complain("took " how_long " ms, but the kernel's part was " kernel)
  if (how_long < 0 && words ~ /^(epoll_wait|recv)\(/) complain("does not say how long it took: " words)
  thread = who
  began = when
  took = how_long < 0 ? 0 : how_long
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
  if (call == "recvfrom") {
    match(line, /, [0-9]+, 0, NULL, NULL$/)
    line = substr(line, RSTART + 2)
    return "recv(fd " part[1] ", " line + 0 " bytes) " result
  }
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

function event(line, operation) {
  if (operation == "EPOLL_CTL_DEL") return ""
  return ", " events_of(line) ", token " data_of(line)
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
    if (n < 32) list = list (n ? ", " : "") events_of(line) " token " data_of(line)
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
