/*
 * A stand-in for the BSD kqueue on Linux, built on epoll: enough to run a program that waits for sockets. README.md
 * says what it leaves out.
 *
 * As in a kernel, a knote becomes active when its filter has an event, and stays in the queue's ready list until
 * kevent() returns the event. Linux reports changes through epoll. A queue has one epoll set for EVFILT_READ and one
 * for EVFILT_WRITE, because an epoll set takes a descriptor only once; their entries are edge-triggered, so each
 * change is reported once. An eventfd, `wakeup`, is readable while the ready list has members, and when the queue was
 * closed. kevent() sleeps on these three without the lock. Everything else happens under one lock, so that a change
 * is seen either entirely before an event is returned or entirely after.
 *
 * epoll reports nothing of data that was read in the meantime, but a BSD kernel still returns the event of a
 * one-shot. So read(), write() and the functions like them are defined here too: before they act, they collect what
 * epoll has to report. close() is defined here because it removes a descriptor's knotes.
 */
#define _GNU_SOURCE
#include "sys/event.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILTERS = 2, BUCKETS = 1024, MAX_FD = 1 << 20 };

struct knote {
    LIST_ENTRY(knote) in_bucket;
    TAILQ_ENTRY(knote) in_ready;
    struct kevent event; /* as kevent() returns it; its flags are those that it was added with */
    bool          enabled, active, is_ready;
    bool          triggered; /* EVFILT_USER only */
};

struct queue {
    struct queue *next;
    int           fd; /* what kqueue() has returned: a duplicate of `wakeup` */
    int           set[FILTERS], wakeup;
    int           waiters; /* threads that sleep in kevent() */
    bool          closed;  /* the last waiter frees it */
    LIST_HEAD(, knote) bucket[BUCKETS];
    TAILQ_HEAD(ready, knote) ready; /* knotes that are active and enabled, in the order in which they became so */
};

/* By descriptor: what Linux forgets or does not report about a socket. */
static struct {
    unsigned char error;     /* `evaluate` has taken it from the socket, and the program has not collected it yet */
    bool          shut_down; /* the program has shut down writing */
} sockets[MAX_FD];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct queue   *queues;
static bool            darwin; /* which kernel to imitate: see README.md */

/* The system calls themselves: this file, or a program that injects faults, replaces the functions of these names. */
static int sys_close(int fd) { return (int)syscall(SYS_close, fd); }
static int sys_getsockopt(int fd, int level, int name, void *value, socklen_t len) {
    return (int)syscall(SYS_getsockopt, fd, level, name, value, &len);
}

/* ---- Queues */

static struct queue *find_queue(int kq) {
    struct queue *q = queues;
    while (q && q->fd != kq)
        q = q->next;
    return q;
}

static void free_queue(struct queue *q) {
    int members[] = { q->set[0], q->set[1], q->wakeup };
    for (int i = 0; i < 3; i++)
        if (members[i] >= 0)
            sys_close(members[i]);
    for (int i = 0; i < BUCKETS; i++)
        for (struct knote *n; (n = LIST_FIRST(&q->bucket[i]));) {
            LIST_REMOVE(n, in_bucket);
            free(n);
        }
    free(q);
}

/* Takes a queue out of the list. Threads that wait for it are woken, and the last of them frees it. */
static void close_queue(struct queue *q) {
    struct queue **at = &queues;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    q->closed = true;
    if (q->waiters)
        eventfd_write(q->wakeup, 1);
    else
        free_queue(q);
}

int kqueue(void) {
    struct queue *q = calloc(1, sizeof *q);
    if (!q)
        return -1;
    TAILQ_INIT(&q->ready);
    q->set[0] = q->set[1] = q->wakeup = -1;
    bool complete = (q->set[0] = epoll_create1(EPOLL_CLOEXEC)) >= 0 && (q->set[1] = epoll_create1(EPOLL_CLOEXEC)) >= 0 &&
                    (q->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0 &&
                    (q->fd = (int)syscall(SYS_fcntl, q->wakeup, F_DUPFD_CLOEXEC, 0)) >= 0;
    if (!complete) {
        int error = errno;
        free_queue(q);
        errno = error;
        return -1;
    }
    pthread_mutex_lock(&lock);
    q->next = queues;
    queues = q;
    pthread_mutex_unlock(&lock);
    return q->fd;
}

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork_in_parent(void) { pthread_mutex_unlock(&lock); }
static void after_fork_in_child(void) {
    while (queues) { /* a child does not inherit them, nor the threads that wait */
        sys_close(queues->fd);
        queues->waiters = 0;
        close_queue(queues);
    }
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void initialize(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    const char *kernel = getenv("KQUEUE_KERNEL");
    darwin = kernel && !strcmp(kernel, "darwin");
    if (kernel && !darwin && strcmp(kernel, "bsd")) {
        fprintf(stderr, "KQUEUE_KERNEL is bsd or darwin, not \"%s\"\n", kernel);
        _exit(2);
    }
}

/* ---- Knotes */

static int set_of(struct queue *q, int filter) { return q->set[filter == EVFILT_WRITE]; }

static struct knote *find_knote(struct queue *q, uintptr_t ident, int filter) {
    struct knote *n;
    LIST_FOREACH(n, &q->bucket[ident % BUCKETS], in_bucket)
        if (n->event.ident == ident && n->event.filter == filter)
            break;
    return n;
}

/* How much there is to read: bytes, or connections to accept. */
static int readable_amount(int fd) {
    int             bytes;
    struct tcp_info info;
    if (ioctl(fd, FIONREAD, &bytes) == 0)
        return bytes;
    return sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, sizeof info) == 0 ? (int)info.tcpi_unacked : 1;
}

/* How much room there is in the buffer of a socket (of this size, as it is not negative) or a pipe. */
static int writable_amount(int fd, bool is_socket, int size) {
    int used = 0;
    if (!is_socket)
        size = (int)syscall(SYS_fcntl, fd, F_GETPIPE_SZ);
    ioctl(fd, is_socket ? TIOCOUTQ : FIONREAD, &used);
    return size - used;
}

/* What a kernel's filter does: is there an event? What the event says is stored in the knote. */
static bool evaluate(struct knote *n) {
    if (n->event.filter == EVFILT_USER)
        return n->triggered;
    int           fd = (int)n->event.ident, size, error = 0;
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };
    poll(&p, 1, 0);
    bool is_socket = sys_getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0, ready, eof;
    if (is_socket && p.revents & POLLHUP && !(p.revents & POLLRDHUP))
        p.revents = 0; /* how Linux reports a socket that was never connected */
    if (n->event.filter == EVFILT_READ) {
        ready = p.revents & (POLLIN | POLLHUP | POLLERR);
        eof = p.revents & (POLLHUP | POLLRDHUP);
        n->event.data = readable_amount(fd);
    } else {
        ready = p.revents & (POLLOUT | POLLERR);
        eof = p.revents & (is_socket ? POLLHUP : POLLERR) || sockets[fd].shut_down;
        n->event.data = writable_amount(fd, is_socket, size);
    }
    /* Reading SO_ERROR clears it. So it is stored until the program collects it. */
    if (eof && p.revents & POLLERR && sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, sizeof error) == 0 && error)
        sockets[fd].error = (unsigned char)(error == EPIPE ? ECONNRESET : error);
    n->event.fflags = eof ? sockets[fd].error : 0;
    n->event.flags = (unsigned short)(eof ? n->event.flags | EV_EOF : n->event.flags & ~EV_EOF);
    return ready;
}

/* Adds a knote to the ready list or removes it, as its state demands. */
static void update_ready(struct queue *q, struct knote *n) {
    eventfd_t count;
    bool      is_ready = n->active && n->enabled;
    if (is_ready && !n->is_ready) {
        if (TAILQ_EMPTY(&q->ready))
            eventfd_write(q->wakeup, 1);
        TAILQ_INSERT_TAIL(&q->ready, n, in_ready);
    } else if (!is_ready && n->is_ready) {
        TAILQ_REMOVE(&q->ready, n, in_ready);
        if (TAILQ_EMPTY(&q->ready))
            eventfd_read(q->wakeup, &count);
    }
    n->is_ready = is_ready;
}

static void set_active(struct queue *q, struct knote *n, bool active) {
    n->active = active;
    update_ready(q, n);
}

static void remove_knote(struct queue *q, struct knote *n) {
    if (n->event.filter != EVFILT_USER)
        epoll_ctl(set_of(q, n->event.filter), EPOLL_CTL_DEL, (int)n->event.ident, NULL);
    set_active(q, n, false);
    LIST_REMOVE(n, in_bucket);
    free(n);
}

/* Activates the knotes for which epoll has reported something since the last call. */
static void collect(struct queue *q) {
    struct epoll_event reports[64];
    for (int f = 0; f < FILTERS; f++)
        for (int count = 64; count == 64;) {
            count = epoll_wait(q->set[f], reports, 64, 0);
            for (int i = 0; i < count; i++) {
                struct knote *n = find_knote(q, (uintptr_t)reports[i].data.fd, f ? EVFILT_WRITE : EVFILT_READ);
                if (n && evaluate(n))
                    set_active(q, n, true);
            }
        }
}

/* ---- kevent() */

struct call {
    struct kevent *events;
    int            room, got, error;
    bool           done; /* it returns, with events or without */
};

static int add_knote(struct queue *q, const struct kevent *c, struct knote **added) {
    struct knote *n = calloc(1, sizeof *n);
    if (!n)
        return ENOMEM;
    EV_SET(&n->event, c->ident, c->filter, c->flags, 0, 0, c->udata);
    n->enabled = true;
    n->triggered = darwin && c->fflags & NOTE_TRIGGER;
    struct epoll_event ev = { .events = EPOLLET, .data.fd = (int)c->ident };
    ev.events |= c->filter == EVFILT_READ ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
    if (c->filter != EVFILT_USER && epoll_ctl(set_of(q, c->filter), EPOLL_CTL_ADD, (int)c->ident, &ev) < 0) {
        int error = errno;
        free(n);
        return error;
    }
    LIST_INSERT_HEAD(&q->bucket[c->ident % BUCKETS], n, in_bucket);
    *added = n;
    return 0;
}

/* An existing knote keeps its flags, and an event that waits to be returned. */
static void modify_knote(struct knote *n, const struct kevent *c) {
    n->event.udata = c->udata;
    if (c->fflags & NOTE_TRIGGER)
        n->triggered = true;
    if (c->flags & EV_CLEAR && !darwin)
        n->triggered = false;
}

static int apply_change(struct queue *q, const struct kevent *c) {
    bool user = c->filter == EVFILT_USER;
    if (!user && c->filter != EVFILT_READ && c->filter != EVFILT_WRITE)
        return EINVAL;
    if (!user && (c->ident >= MAX_FD || syscall(SYS_fcntl, (int)c->ident, F_GETFD) < 0))
        return EBADF;
    struct knote *n = find_knote(q, c->ident, c->filter);
    int           error = 0;
    if (n && c->flags & EV_DELETE) {
        remove_knote(q, n);
        return 0;
    }
    if (n)
        modify_knote(n, c);
    else if ((error = c->flags & EV_ADD ? add_knote(q, c, &n) : ENOENT))
        return error;
    if (evaluate(n))
        n->active = true;
    if (c->flags & EV_DISABLE)
        n->enabled = false;
    if (c->flags & EV_ENABLE)
        n->enabled = true;
    update_ready(q, n);
    return 0;
}

/* Updates a knote whose event is returned. A level goes to the end of the list, so that others have their turn. */
static void after_event(struct queue *q, struct knote *n) {
    int flags = n->event.flags;
    if (flags & EV_ONESHOT) {
        remove_knote(q, n);
        return;
    }
    if (flags & EV_CLEAR)
        n->triggered = false;
    if (flags & EV_DISPATCH)
        n->enabled = false;
    set_active(q, n, false);
    set_active(q, n, !(flags & (EV_CLEAR | EV_DISPATCH)));
}

/* Goes through the ready list once. */
static void take_events(struct queue *q, struct call *call) {
    struct knote *n = TAILQ_FIRST(&q->ready), *last = TAILQ_LAST(&q->ready, ready), *next;
    for (; n && call->got < call->room; n = next) {
        next = n == last ? NULL : TAILQ_NEXT(n, in_ready);
        bool evaluated_again = darwin || !(n->event.flags & EV_ONESHOT);
        if (evaluated_again && !evaluate(n)) {
            set_active(q, n, false);
            continue;
        }
        call->events[call->got++] = n->event;
        after_event(q, n);
    }
}

static void apply_changes(struct queue *q, const struct kevent *changes, int count, struct call *call) {
    for (int i = 0; i < count; i++) {
        struct kevent c = changes[i]; /* a copy, because both lists may be the same memory */
        c.flags &= (unsigned short)~(EV_ERROR | EV_EOF);
        int error = apply_change(q, &c);
        if (!error && !(c.flags & EV_RECEIPT))
            continue;
        call->done = true;
        if (call->got < call->room) {
            c.flags = (unsigned short)(darwin ? c.flags | EV_ERROR : EV_ERROR);
            c.data = error;
            call->events[call->got++] = c;
        } else if (error || !darwin) {
            /* Without room for a receipt, a BSD stops, and does not count the earlier ones. */
            call->error = error;
            call->got = 0;
            return;
        }
    }
}

/* Returns false if the time is longer than the clock can express. */
static bool deadline_after(const struct timespec *timeout, struct timespec *deadline) {
    clock_gettime(CLOCK_MONOTONIC, deadline);
    if (__builtin_add_overflow(deadline->tv_sec, timeout->tv_sec, &deadline->tv_sec))
        return false;
    deadline->tv_nsec += timeout->tv_nsec;
    if (deadline->tv_nsec > 999999999L) {
        deadline->tv_nsec -= 1000000000L;
        deadline->tv_sec++;
    }
    return true;
}

static struct timespec left_until(struct timespec deadline) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct timespec left = { deadline.tv_sec - now.tv_sec, deadline.tv_nsec - now.tv_nsec };
    if (left.tv_nsec < 0) {
        left.tv_sec--;
        left.tv_nsec += 1000000000L;
    }
    return left.tv_sec < 0 ? (struct timespec){ 0, 0 } : left;
}

/* Sleeps without the lock until there may be events. */
static void sleep_on(struct queue *q, const struct timespec *timeout, struct call *call) {
    struct pollfd sources[] = { { q->set[0], POLLIN, 0 }, { q->set[1], POLLIN, 0 }, { q->wakeup, POLLIN, 0 } };
    q->waiters++;
    pthread_mutex_unlock(&lock);
    int error = ppoll(sources, 3, timeout, NULL) < 0 ? errno : 0;
    pthread_mutex_lock(&lock);
    q->waiters--;
    call->error = error;
    if (!q->closed)
        return;
    call->error = darwin ? EBADF : 0;
    call->done = true;
    if (!q->waiters)
        free_queue(q);
}

static void wait_for_events(struct queue *q, const struct timespec *timeout, struct call *call) {
    struct timespec deadline, left;
    bool            limited = timeout && deadline_after(timeout, &deadline);
    while (!call->done && !call->error) {
        collect(q);
        take_events(q, call);
        if (limited)
            left = left_until(deadline);
        if (call->got || (limited && !left.tv_sec && !left.tv_nsec))
            return;
        sleep_on(q, limited ? &left : NULL, call);
    }
}

static bool is_valid(const struct timespec *timeout) {
    return !timeout || (timeout->tv_sec >= 0 && timeout->tv_nsec >= 0 && timeout->tv_nsec <= 999999999L);
}

int kevent(int kq, const struct kevent *changelist, int nchanges, struct kevent *eventlist, int nevents,
           const struct timespec *timeout) {
    struct call call = { .events = eventlist, .room = nevents, .done = !nevents };
    pthread_mutex_lock(&lock);
    struct queue *q = find_queue(kq);
    if (nevents < 0 || nchanges < 0 || !is_valid(timeout))
        call.error = EINVAL;
    else if (!q)
        call.error = EBADF;
    else if (nchanges) {
        collect(q); /* what happened before a change comes before it in the ready list */
        apply_changes(q, changelist, nchanges, &call);
    }
    wait_for_events(q, timeout, &call);
    pthread_mutex_unlock(&lock);
    if (call.error) {
        errno = call.error;
        return -1;
    }
    return call.got;
}

/* ---- What replaces functions of libc */

int close(int fd) {
    pthread_mutex_lock(&lock);
    struct queue *closed = find_queue(fd);
    if (closed)
        close_queue(closed);
    for (struct queue *q = queues; q; q = q->next)
        for (int f = 0; f < FILTERS; f++) {
            struct knote *n = find_knote(q, (uintptr_t)fd, f ? EVFILT_WRITE : EVFILT_READ);
            if (n)
                remove_knote(q, n);
        }
    if (fd >= 0 && fd < MAX_FD)
        memset(&sockets[fd], 0, sizeof sockets[fd]);
    int result = sys_close(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

int shutdown(int fd, int how) {
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_shutdown, fd, how);
    if (result == 0 && how != SHUT_RD && fd < MAX_FD)
        sockets[fd].shut_down = true;
    pthread_mutex_unlock(&lock);
    return result;
}

/* Returns the error that `evaluate` has taken from the socket, once. */
static int collect_error(int fd) {
    pthread_mutex_lock(&lock);
    int error = fd >= 0 && fd < MAX_FD ? sockets[fd].error : 0;
    if (error)
        sockets[fd].error = 0;
    pthread_mutex_unlock(&lock);
    return error;
}

int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict len) {
    int result = (int)syscall(SYS_getsockopt, fd, level, name, value, len);
    if (result == 0 && level == SOL_SOCKET && name == SO_ERROR && *len == sizeof(int) && !*(int *)value)
        *(int *)value = collect_error(fd);
    return result;
}

/* Activates the descriptor's knotes for events that happened before this call. */
static void collect_before(int fd, int filter) {
    pthread_mutex_lock(&lock);
    for (struct queue *q = darwin ? NULL : queues; q; q = q->next)
        if (find_knote(q, (uintptr_t)fd, filter))
            collect(q);
    pthread_mutex_unlock(&lock);
}

/* Activates one-shot knotes again, because the data may have arrived after `collect_before` if the read had to wait. */
static long after_reading(int fd, long result) {
    int error = errno;
    pthread_mutex_lock(&lock);
    for (struct queue *q = darwin || result <= 0 ? NULL : queues; q; q = q->next) {
        struct knote *n = find_knote(q, (uintptr_t)fd, EVFILT_READ);
        if (n && n->event.flags & EV_ONESHOT)
            set_active(q, n, true);
    }
    pthread_mutex_unlock(&lock);
    int uncollected = result == 0 ? collect_error(fd) : 0;
    errno = uncollected ? uncollected : error;
    return uncollected ? -1 : result;
}

#define READS(type, name, parameters, number, ...) \
    type name parameters { \
        collect_before(fd, EVFILT_READ); \
        return (type)after_reading(fd, syscall(number, fd, __VA_ARGS__)); \
    }
READS(ssize_t, read, (int fd, void *to, size_t len), SYS_read, to, len)
READS(ssize_t, readv, (int fd, const struct iovec *to, int count), SYS_readv, to, count)
READS(ssize_t, recv, (int fd, void *to, size_t len, int flags), SYS_recvfrom, to, len, flags, NULL, NULL)
READS(ssize_t, recvfrom,
      (int fd, void *restrict to, size_t len, int flags, __SOCKADDR_ARG from, socklen_t *restrict from_len), SYS_recvfrom,
      to, len, flags, from.__sockaddr__, from_len)
READS(ssize_t, recvmsg, (int fd, struct msghdr *to, int flags), SYS_recvmsg, to, flags)
READS(int, accept, (int fd, __SOCKADDR_ARG from, socklen_t *restrict len), SYS_accept4, from.__sockaddr__, len, 0)
READS(int, accept4, (int fd, __SOCKADDR_ARG from, socklen_t *restrict len, int flags), SYS_accept4, from.__sockaddr__, len,
      flags)

#define WRITES(name, parameters, number, ...) \
    ssize_t name parameters { \
        collect_before(fd, EVFILT_WRITE); \
        return (ssize_t)syscall(number, fd, __VA_ARGS__); \
    }
WRITES(write, (int fd, const void *from, size_t len), SYS_write, from, len)
WRITES(writev, (int fd, const struct iovec *from, int count), SYS_writev, from, count)
WRITES(send, (int fd, const void *from, size_t len, int flags), SYS_sendto, from, len, flags, NULL, 0)
WRITES(sendto, (int fd, const void *from, size_t len, int flags, __CONST_SOCKADDR_ARG to, socklen_t to_len),
       SYS_sendto, from, len, flags, to.__sockaddr__, to_len)
WRITES(sendmsg, (int fd, const struct msghdr *from, int flags), SYS_sendmsg, from, flags)
