/*
 * Checks that a kqueue behaves as kqueue(2) says and as kernels do, as far as an event loop for sockets needs it. With
 * KQUEUE_KERNEL=darwin the kernel is XNU, otherwise a BSD kernel. Prints each check that fails, and then exits with 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/event.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int checks, failures;
#define CHECK(cond) \
    do { \
        checks++; \
        if (!(cond)) { \
            failures++; \
            printf("line %d: %s (errno %d)\n", __LINE__, #cond, errno); \
        } \
    } while (0)

static struct kevent e[8];
static int           a, b; /* a connected pair */
static bool          darwin;

static void pair(void) {
    int s[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) < 0) {
        perror("socketpair");
        exit(2);
    }
    a = s[0], b = s[1];
}
static int listener(struct sockaddr_in *at) {
    socklen_t len = sizeof *at;
    int       l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    if (bind(l, (void *)at, len) < 0 || listen(l, 8) < 0 || getsockname(l, (void *)at, &len) < 0) {
        perror("a listener");
        exit(2);
    }
    return l;
}
static int connected(struct sockaddr_in *to) {
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(s, (void *)to, sizeof *to) == 0);
    return s;
}
static void tcp_pair(void) {
    struct sockaddr_in at;
    int                l = listener(&at);
    a = connected(&at), b = accept(l, NULL, NULL);
    close(l);
}
static void reset_by_peer(void) {
    struct linger none = { 1, 0 };
    setsockopt(b, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(b);
    usleep(10000); /* because some kernels deliver the reset later */
}
static int change(int kq, uintptr_t ident, int filter, int flags, unsigned fflags, void *udata) {
    struct kevent c;
    EV_SET(&c, ident, filter, flags, fflags, 0, udata);
    return kevent(kq, &c, 1, NULL, 0, NULL);
}
static int poll_ms(int kq, int n, long ms) {
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    memset(e, 0, sizeof e);
    return kevent(kq, NULL, 0, e, n, &t);
}
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static void send_byte(int fd) { CHECK(write(fd, "x", 1) == 1); }
static void take_byte(int fd) {
    char c;
    CHECK(read(fd, &c, 1) == 1);
}
static bool no_more(int fd, int error) { /* a read returns this error, or the end of the stream if it is 0 */
    char c;
    errno = 0;
    return read(fd, &c, 1) == (error ? -1 : 0) && errno == error;
}
#define T(n) ((void *)(uintptr_t)(n))

static void reading(void) {
    int kq = kqueue();
    CHECK(kq >= 0);
    pair();
    CHECK(poll_ms(kq, 8, 0) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(7)) == 0);
    CHECK(poll_ms(kq, 8, 10) == 0);
    send_byte(b), send_byte(b);
    CHECK(poll_ms(kq, 8, 1000) == 1);
    CHECK(e[0].ident == (uintptr_t)a && e[0].filter == EVFILT_READ && e[0].udata == T(7) && e[0].data == 2);
    CHECK(e[0].flags == (EV_ADD | EV_ONESHOT) && e[0].fflags == 0);
    CHECK(poll_ms(kq, 8, 10) == 0); /* one-shot: no second event */
    CHECK(change(kq, a, EVFILT_READ, EV_DELETE, 0, 0) == -1 && errno == ENOENT);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(8)) == 0); /* data that is there already counts */
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(-1)) == 0); /* the latest udata, in one event */
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(-1));
    CHECK(poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(1)) == 0); /* level-triggered: an event each time */
    CHECK(poll_ms(kq, 8, 1000) == 1 && poll_ms(kq, 8, 0) == 1);
    CHECK(change(kq, a, EVFILT_READ, EV_DISABLE, 0, T(1)) == 0 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ENABLE, 0, T(1)) == 0 && poll_ms(kq, 8, 1000) == 1);
    take_byte(a), take_byte(a);
    CHECK(poll_ms(kq, 8, 10) == 0);
    send_byte(b);
    CHECK(poll_ms(kq, 8, 1000) == 1 && poll_ms(kq, 8, 0) == 1);
    take_byte(a);
    CHECK(change(kq, a, EVFILT_READ, EV_DELETE, 0, 0) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_CLEAR, 0, T(2)) == 0); /* edge-triggered: one event for each arrival */
    send_byte(b);
    CHECK(poll_ms(kq, 8, 1000) == 1 && poll_ms(kq, 8, 10) == 0);
    send_byte(b);
    CHECK(poll_ms(kq, 8, 1000) == 1 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(2)) == 0 && poll_ms(kq, 8, 1000) == 1 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_DELETE, 0, 0) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_DISPATCH, 0, T(3)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && poll_ms(kq, 8, 10) == 0);
    send_byte(b);
    CHECK(poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ENABLE, 0, T(3)) == 0 && poll_ms(kq, 8, 1000) == 1);
    CHECK(change(kq, a, EVFILT_READ, EV_DELETE, 0, 0) == 0);
    take_byte(a), take_byte(a), take_byte(a);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(4)) == 0 && poll_ms(kq, 8, 10) == 0);
    CHECK(shutdown(b, SHUT_WR) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF);
    CHECK(change(kq, a, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, T(5)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].filter == EVFILT_WRITE && e[0].udata == T(5) && e[0].data > 0 &&
          !(e[0].flags & EV_EOF));
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(6)) == 0); /* two filters of one descriptor are two knotes */
    CHECK(change(kq, a, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, T(7)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 2);
    close(a), close(b), close(kq);
}

/* Changes of an existing knote. */
static void changes(void) {
    int kq = kqueue();
    pair();
    send_byte(b);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(1)) == 0); /* its flags stay: level-triggered, */
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT | EV_CLEAR, 0, T(2)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(2) && e[0].flags == EV_ADD && poll_ms(kq, 8, 0) == 1);
    CHECK(change(kq, a, EVFILT_READ, EV_DELETE, 0, 0) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(1)) == 0); /* one-shot, */
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(2)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(2) && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_DISABLE, 0, T(1)) == 0 && poll_ms(kq, 8, 10) == 0); /* or disabled */
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(2)) == 0 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ENABLE, 0, T(3)) == 0 && poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(3));
    CHECK(change(kq, a, EVFILT_READ, EV_DISABLE, 0, T(3)) == 0 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ENABLE, 0, T(4)) == 0 && poll_ms(kq, 8, 1000) == 1);
    CHECK(change(kq, a, EVFILT_READ, 0, 0, T(5)) == 0 && poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(5));
    CHECK(change(kq, a, EVFILT_READ, EV_DELETE, 0, 0) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ENABLE, 0, 0) == -1 && errno == ENOENT);
    close(a), close(b), close(kq);
}

static ssize_t by_read(void) { char c[8]; return read(a, c, 8); }
static ssize_t by_readv(void) { char c[8]; return readv(a, &(struct iovec){ c, 8 }, 1); }
static ssize_t by_recv(void) { char c[8]; return recv(a, c, 8, 0); }
static ssize_t by_recvfrom(void) { char c[8]; return recvfrom(a, c, 8, 0, NULL, NULL); }
static ssize_t by_recvmsg(void) {
    char          c[8];
    struct iovec  to = { c, 8 };
    struct msghdr message = { .msg_iov = &to, .msg_iovlen = 1 };
    return recvmsg(a, &message, 0);
}
static void *taken(void *unused) { return (void)unused, T(by_recv()); }

/* The data is read before the event is returned. A BSD returns the event of a one-shot nevertheless; XNU evaluates again. */
static void stale(void) {
    int     kq = kqueue(), stays = !darwin;
    ssize_t (*by[])(void) = { by_read, by_readv, by_recv, by_recvfrom, by_recvmsg };
    pair();
    for (int i = 0; i < 5; i++) {
        CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(1)) == 0);
        send_byte(b), send_byte(b);
        CHECK(by[i]() == 2);
        CHECK(poll_ms(kq, 8, 10) == stays && (!stays || (e[0].data == 2 && e[0].udata == T(1))));
        CHECK(poll_ms(kq, 8, 0) == 0);
    }
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(1)) == 0); /* (on XNU the knote is still there) */
    send_byte(b), take_byte(a);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(2)) == 0);
    CHECK(poll_ms(kq, 8, 10) == stays && (!stays || (e[0].data == 0 && e[0].udata == T(2))));
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(3)) == 0);
    send_byte(b), take_byte(a), send_byte(b);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].data == 1 && e[0].udata == T(3) && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(4)) == 0); /* the byte was there when it was added */
    take_byte(a);
    CHECK(poll_ms(kq, 8, 10) == stays);
    change(kq, a, EVFILT_READ, EV_DELETE, 0, 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT | EV_DISABLE, 0, T(5)) == 0);
    send_byte(b), take_byte(a);
    CHECK(poll_ms(kq, 8, 10) == 0 && change(kq, a, EVFILT_READ, EV_ENABLE, 0, T(5)) == 0 && poll_ms(kq, 8, 10) == stays);
    change(kq, a, EVFILT_READ, EV_DELETE, 0, 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(6)) == 0);
    send_byte(b), take_byte(a);
    CHECK(change(kq, a, EVFILT_READ, EV_DELETE, 0, 0) == 0 && change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(6)) == 0);
    CHECK(poll_ms(kq, 8, 10) == 0); /* a new knote */
    for (int when = 0; when < 3; when++) { /* a read waits for its byte; the knote is added before, during and after it */
        pthread_t t;
        void     *count;
        change(kq, a, EVFILT_READ, EV_DELETE, 0, 0);
        if (when == 0)
            CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(7)) == 0);
        pthread_create(&t, NULL, taken, NULL);
        usleep(30000);
        if (when == 1)
            CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(7)) == 0);
        send_byte(b);
        pthread_join(t, &count);
        CHECK(count == T(1));
        if (when == 2)
            CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(7)) == 0);
        CHECK(poll_ms(kq, 8, 10) == (when == 2 ? 0 : stays));
    }
    CHECK(recv(a, &(char){ 0 }, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN && poll_ms(kq, 8, 10) == 0);
    static const int looks_again[] = { 0, EV_CLEAR, EV_DISPATCH };
    for (int i = 0; i < 3; i++) { /* all kernels evaluate these again */
        change(kq, a, EVFILT_READ, EV_DELETE, 0, 0);
        CHECK(change(kq, a, EVFILT_READ, EV_ADD | looks_again[i], 0, T(8)) == 0);
        send_byte(b), take_byte(a);
        CHECK(poll_ms(kq, 8, 10) == 0);
        send_byte(b), send_byte(b);
        CHECK(poll_ms(kq, 8, 1000) == 1);
        take_byte(a); /* the byte that is left is no new arrival */
        CHECK(poll_ms(kq, 8, 10) == !i);
        take_byte(a);
    }
    close(a), close(b), close(kq);
}

/* The same for EVFILT_WRITE: the buffer is filled before the event is returned. */
static void stale_write(void) {
    int kq = kqueue(), stays = !darwin;
    pair();
    char      many[4096] = { 0 };
    const int one_shot = EV_ADD | EV_ONESHOT;
    CHECK(change(kq, a, EVFILT_WRITE, EV_ADD, 0, T(0)) == 0 && poll_ms(kq, 8, 1000) == 1);
    intptr_t room = e[0].data;
    send_byte(a);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].data < room);
    take_byte(b);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].data == room && change(kq, a, EVFILT_WRITE, EV_DELETE, 0, 0) == 0);
    fcntl(a, F_SETFL, O_NONBLOCK), fcntl(b, F_SETFL, O_NONBLOCK);
    CHECK(change(kq, a, EVFILT_WRITE, one_shot, 0, T(1)) == 0);
    while (write(a, many, sizeof many) > 0)
        ;
    CHECK(poll_ms(kq, 8, 10) == stays);
    change(kq, a, EVFILT_WRITE, EV_DELETE, 0, 0);
    CHECK(change(kq, a, EVFILT_WRITE, one_shot, 0, T(2)) == 0 && poll_ms(kq, 8, 10) == 0);
    while (read(b, many, sizeof many) > 0)
        ;
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(2) && e[0].data > 0);
    while (write(a, many, sizeof many) > 0)
        ;
    CHECK(change(kq, a, EVFILT_WRITE, one_shot, 0, T(3)) == 0 && poll_ms(kq, 8, 10) == 0);
    while (read(b, many, sizeof many) > 0)
        ;
    while (send(a, many, sizeof many, 0) > 0) /* the room that the reads have made is gone again */
        ;
    CHECK(poll_ms(kq, 8, 10) == stays);
    while (read(b, many, sizeof many) > 0)
        ;
    change(kq, a, EVFILT_WRITE, EV_DELETE, 0, 0);
    int other = kqueue(); /* each queue has a knote of its own, and closing the descriptor removes both */
    CHECK(change(kq, a, EVFILT_READ, one_shot, 0, T(1)) == 0 && change(other, a, EVFILT_READ, one_shot, 0, T(2)) == 0);
    send_byte(b), take_byte(a);
    CHECK(poll_ms(kq, 8, 10) == stays && poll_ms(other, 8, 10) == stays);
    CHECK(change(other, a, EVFILT_READ, one_shot, 0, T(3)) == 0);
    send_byte(b), take_byte(a), close(a);
    CHECK(poll_ms(other, 8, 10) == 0);
    close(b), close(other), close(kq);
}

/* Events are returned in the order in which knotes became active. */
static void arrivals(void) {
    int kq = kqueue(), far[4], near[4];
    for (int i = 0; i < 4; i++) {
        pair();
        near[i] = a, far[i] = b;
        CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(i)) == 0);
    }
    send_byte(far[2]), send_byte(far[0]), send_byte(far[3]);
    CHECK(change(kq, near[0], EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(9)) == 0); /* keeps its place */
    send_byte(far[1]);
    CHECK(poll_ms(kq, 1, 1000) == 1 && e[0].udata == T(2));
    CHECK(poll_ms(kq, 8, 1000) == 3 && e[0].udata == T(9) && e[1].udata == T(3) && e[2].udata == T(1));
    for (int i = 0; i < 4; i++)
        close(near[i]), close(far[i]);
    enum { MANY = 100 };
    static int    fds[2 * MANY];
    struct kevent all[MANY];
    for (int i = 0; i < MANY; i++) {
        pair();
        fds[2 * i] = a, fds[2 * i + 1] = b;
        CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(i)) == 0);
    }
    for (int i = 0; i < MANY; i++)
        send_byte(fds[2 * i + 1]);
    CHECK(kevent(kq, NULL, 0, all, MANY, NULL) == MANY && all[0].udata == T(0) && all[MANY - 1].udata == T(MANY - 1));
    for (int i = 0; i < 2 * MANY; i++)
        close(fds[i]);
    close(kq);
}

static void tcp(void) {
    struct sockaddr_in at;
    int                kq = kqueue(), l = listener(&at), error = 0;
    socklen_t          len = sizeof error;
    CHECK(change(kq, l, EVFILT_READ, EV_ADD, 0, T(1)) == 0 && poll_ms(kq, 8, 10) == 0);
    int one = connected(&at), two = connected(&at);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].data == 2);
    close(accept(l, NULL, NULL));
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].data == 1);
    close(accept4(l, NULL, NULL, SOCK_CLOEXEC)), close(one), close(two);
    CHECK(poll_ms(kq, 8, 10) == 0 && change(kq, l, EVFILT_READ, EV_DELETE, 0, 0) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(change(kq, l, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(2)) == 0);
        one = connected(&at), two = i ? accept4(l, NULL, NULL, 0) : accept(l, NULL, NULL); /* accepted before the event */
        CHECK(two >= 0 && poll_ms(kq, 8, 10) == !darwin);
        close(one), close(two);
    }
    close(l);

    tcp_pair(); /* a reset: the event shows the error, and does not clear it */
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(1)) == 0 &&
          change(kq, a, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, T(2)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].filter == EVFILT_WRITE && e[0].data > 0);
    CHECK(change(kq, a, EVFILT_WRITE, EV_ADD, 0, T(2)) == 0 && poll_ms(kq, 8, 1000) == 1);
    reset_by_peer();
    CHECK(poll_ms(kq, 8, 1000) == 2 && e[0].flags & EV_EOF && e[1].flags & EV_EOF);
    CHECK(e[0].fflags == ECONNRESET && e[1].fflags == ECONNRESET && change(kq, a, EVFILT_WRITE, EV_DELETE, 0, 0) == 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(1)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF && e[0].fflags == ECONNRESET && e[0].data == 0);
    CHECK(no_more(a, ECONNRESET) && no_more(a, 0)); /* the error is returned once */
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(1)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF && e[0].fflags == 0);
    close(a);
    tcp_pair();
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(1)) == 0);
    send_byte(b), reset_by_peer();
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].data == 1);
    take_byte(a);
    CHECK(getsockopt(a, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == ECONNRESET && no_more(a, 0));
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF && e[0].fflags == 0);
    close(a);
    tcp_pair();
    CHECK(shutdown(b, SHUT_WR) == 0 && change(kq, a, EVFILT_READ, EV_ADD, 0, T(1)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF && e[0].fflags == 0);
    reset_by_peer();
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF && e[0].fflags == ECONNRESET);
    close(a);
    tcp_pair(); /* the same number, and a socket without an error */
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(1)) == 0 && shutdown(b, SHUT_WR) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF && e[0].fflags == 0 && no_more(a, 0));
    close(a), close(b);

    for (int unix_sockets = 0; unix_sockets < 2; unix_sockets++) { /* the program's own shutdown */
        unix_sockets ? pair() : tcp_pair();
        CHECK(change(kq, a, EVFILT_WRITE, EV_ADD | EV_DISPATCH, 0, T(1)) == 0);
        CHECK(poll_ms(kq, 8, 1000) == 1 && !(e[0].flags & EV_EOF) && shutdown(a, SHUT_WR) == 0);
        CHECK(change(kq, a, EVFILT_WRITE, EV_ENABLE, 0, T(1)) == 0);
        CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF && e[0].fflags == 0);
        close(a), close(b);
    }

    l = listener(&at); /* not connected yet, and then connected */
    a = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(1)) == 0 && change(kq, a, EVFILT_WRITE, EV_ADD, 0, T(2)) == 0);
    CHECK(poll_ms(kq, 8, 10) == 0);
    CHECK(connect(a, (void *)&at, sizeof at) == 0 || errno == EINPROGRESS);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(2) && !(e[0].flags & EV_EOF));
    close(a), close(l); /* connections to this address are refused now */
    a = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(connect(a, (void *)&at, sizeof at) == -1 && errno == EINPROGRESS);
    CHECK(change(kq, a, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, T(2)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF && e[0].fflags == ECONNREFUSED);
    CHECK(getsockopt(a, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == ECONNREFUSED);
    CHECK(getsockopt(a, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0);
    close(a);
    int end[2]; /* pipes */
    CHECK(pipe(end) == 0);
    CHECK(change(kq, end[0], EVFILT_READ, EV_ADD, 0, T(1)) == 0 &&
          change(kq, end[1], EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, T(2)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(2) && e[0].data > 0 && !(e[0].flags & EV_EOF));
    send_byte(end[1]);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(1) && e[0].data == 1 && !(e[0].flags & EV_EOF));
    CHECK(change(kq, end[1], EVFILT_WRITE, EV_ADD | EV_DISABLE, 0, T(2)) == 0);
    close(end[0]);
    CHECK(change(kq, end[1], EVFILT_WRITE, EV_ENABLE, 0, T(2)) == 0 && poll_ms(kq, 8, 1000) == 1 && e[0].flags & EV_EOF);
    close(end[1]), close(kq);
}

static void closing(void) {
    int kq = kqueue();
    pair();
    CHECK(change(kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(1)) == 0);
    send_byte(b);
    int dup_of_a = dup(a), old = a;
    close(a); /* removes the knote, although a duplicate is open */
    CHECK(poll_ms(kq, 8, 10) == 0);
    close(dup_of_a), close(b);
    pair(); /* the same number, and another socket */
    CHECK(a == old || b == old);
    send_byte(a), send_byte(b);
    CHECK(poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, old, EVFILT_READ, EV_DELETE, 0, 0) == -1 && errno == ENOENT);
    close(a);
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, 0) == -1 && errno == EBADF);
    CHECK(change(kq, b, -77, EV_ADD, 0, 0) == -1 && errno == EINVAL);
    close(kq);
    CHECK(poll_ms(kq, 8, 0) == -1 && errno == EBADF);
    CHECK(change(kq, b, EVFILT_READ, EV_ADD, 0, 0) == -1 && errno == EBADF);
    close(b);
    int before = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(before);
    for (int i = 0; i < 100; i++)
        close(kqueue());
    int after = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(after == before); /* nothing leaks */
    close(after);
    kq = kqueue();
    int   status;
    pid_t child = fork(); /* does not inherit the queue */
    if (child == 0)
        _exit(fcntl(kq, F_GETFD) == -1 && errno == EBADF ? 0 : 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0 && poll_ms(kq, 8, 0) == 0);
    close(kq);
}

static void receipts(void) {
    int kq = kqueue();
    pair();
    struct kevent c[3];
    EV_SET(&c[0], a, EVFILT_READ, EV_ADD | EV_ONESHOT | EV_RECEIPT, 0, 0, T(1));
    EV_SET(&c[1], 999999, EVFILT_READ, EV_ADD | EV_RECEIPT, 0, 0, T(2));
    EV_SET(&c[2], b, EVFILT_READ, EV_DELETE, 0, 0, T(3));
    send_byte(b);
    CHECK(kevent(kq, c, 3, e, 8, NULL) == 3); /* only receipts, and without waiting */
    CHECK(e[0].flags == (EV_ERROR | (darwin ? c[0].flags : 0)) && e[0].data == 0 && e[0].udata == T(1));
    CHECK(e[1].flags == (EV_ERROR | (darwin ? c[1].flags : 0)) && e[1].data == EBADF);
    CHECK(e[2].flags == (EV_ERROR | (darwin ? c[2].flags : 0)) && e[2].data == ENOENT);
    CHECK(poll_ms(kq, 8, 1000) == 1 && !(e[0].flags & EV_ERROR) && e[0].udata == T(1));
    for (int room = 0; room < 2; room++) { /* not enough: a BSD stops there, and does not count what it has written */
        EV_SET(&c[0], a, EVFILT_WRITE, EV_ADD | EV_ONESHOT | EV_RECEIPT, 0, 0, T(1));
        EV_SET(&c[1], a, EVFILT_READ, EV_ADD | EV_ONESHOT | EV_RECEIPT, 0, 0, T(2));
        EV_SET(&c[2], b, EVFILT_WRITE, EV_ADD | EV_ONESHOT | EV_RECEIPT, 0, 0, T(3));
        CHECK(kevent(kq, c, 3, e, room, NULL) == (darwin ? room : 0));
        CHECK(poll_ms(kq, 8, 1000) == (darwin ? 3 : room + 1));
        c[room].ident = 999999;
        CHECK(kevent(kq, c, 3, e, room, NULL) == -1 && errno == EBADF && poll_ms(kq, 8, 10) == room);
    }
    EV_SET(&c[0], a, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, 0, T(1)); /* without receipts, changes need no room */
    EV_SET(&c[1], b, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, 0, T(2));
    CHECK(kevent(kq, c, 2, NULL, 0, NULL) == 0 && poll_ms(kq, 8, 1000) == 2);
    EV_SET(&c[0], a, EVFILT_READ, EV_ADD | EV_ONESHOT | EV_RECEIPT, 0, 0, T(1));
    CHECK(kevent(kq, c, 1, c, 1, NULL) == 1 && c[0].flags & EV_ERROR && c[0].data == 0); /* one list for both */
    CHECK(kevent(kq, NULL, 0, NULL, 0, NULL) == 0); /* no room: it does not wait */
    close(a), close(b), close(kq);
}

static void user_events(void) {
    int kq = kqueue();
    CHECK(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0) == -1 && errno == ENOENT);
    CHECK(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, T(11)) == 0);
    CHECK(poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0) == 0 && change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, T(11)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].filter == EVFILT_USER && e[0].ident == 1 && e[0].udata == T(11));
    CHECK(poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, 1, EVFILT_USER, EV_ADD, 0, T(11)) == 0 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, 2, EVFILT_USER, EV_ADD, 0, 0) == 0 && change(kq, 2, EVFILT_USER, 0, NOTE_TRIGGER, T(12)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(12) && poll_ms(kq, 8, 0) == 1); /* it stays triggered */
    CHECK(change(kq, 2, EVFILT_USER, EV_ADD, 0, T(12)) == 0 && poll_ms(kq, 8, 0) == 1);
    pair();
    CHECK(change(kq, a, EVFILT_READ, EV_ADD, 0, T(13)) == 0); /* with room for one event, they take turns */
    send_byte(b);
    CHECK(poll_ms(kq, 1, 0) == 1 && e[0].udata == T(12) && poll_ms(kq, 1, 0) == 1 && e[0].udata == T(13));
    CHECK(poll_ms(kq, 1, 0) == 1 && e[0].udata == T(12) && poll_ms(kq, 8, 0) == 2);
    close(a), close(b);
    CHECK(change(kq, 2, EVFILT_USER, EV_CLEAR, 0, T(12)) == 0 && poll_ms(kq, 8, 10) == darwin); /* no longer triggered */
    CHECK(change(kq, 2, EVFILT_USER, EV_DELETE, 0, 0) == 0 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, 1, EVFILT_USER, EV_CLEAR, NOTE_TRIGGER, T(11)) == 0 && poll_ms(kq, 8, 10) == darwin); /* both at once */
    CHECK(change(kq, 3, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER, T(14)) == 0); /* a BSD does not trigger a new one */
    CHECK(poll_ms(kq, 8, 10) == darwin);
    CHECK(change(kq, 3, EVFILT_USER, EV_ADD | EV_ONESHOT, 0, T(14)) == 0 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, 3, EVFILT_USER, 0, NOTE_TRIGGER, T(15)) == 0 && poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(15));
    CHECK(change(kq, 3, EVFILT_USER, 0, NOTE_TRIGGER, 0) == -1 && errno == ENOENT);
    CHECK(change(kq, 4, EVFILT_USER, EV_ADD | EV_DISPATCH, 0, 0) == 0);
    CHECK(change(kq, 4, EVFILT_USER, 0, NOTE_TRIGGER, 0) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1 && poll_ms(kq, 8, 10) == 0);
    CHECK(change(kq, 4, EVFILT_USER, EV_ENABLE, 0, T(16)) == 0 && poll_ms(kq, 8, 1000) == 1 && e[0].udata == T(16));
    close(kq);
}

static void on_signal(int s) { (void)s; }
static void waiting(void) {
    int    kq = kqueue();
    double start = now();
    CHECK(poll_ms(kq, 8, 50) == 0 && now() - start >= 0.05 && now() - start < 2);
    for (int i = 0; i < 12; i++) { /* so many that one ends in a later second than it began */
        start = now();
        CHECK(poll_ms(kq, 8, 90) == 0 && now() - start >= 0.09 && now() - start < 1);
    }
    CHECK(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, T(1)) == 0);
    CHECK(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, T(1)) == 0);
    CHECK(poll_ms(kq, 8, 1000) == 1);
    clock_t worked = clock();
    CHECK(poll_ms(kq, 8, 200) == 0 && clock() - worked < CLOCKS_PER_SEC / 20); /* asleep */
    struct timespec bad = { 0, 1000000000L };
    CHECK(kevent(kq, NULL, 0, e, 8, &bad) == -1 && errno == EINVAL);
    struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigaction(SIGALRM, &act, NULL);
    struct itimerval in_50ms = { .it_value = { 0, 50000 } };
    setitimer(ITIMER_REAL, &in_50ms, NULL);
    CHECK(poll_ms(kq, 8, 5000) == -1 && errno == EINTR); /* not restarted */
    CHECK(fcntl(kq, F_GETFD) & FD_CLOEXEC);
    close(kq);
}

static int   shared_kq;
static void *later(void *what) {
    usleep(30000);
    if (what == T(1))
        change(shared_kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, T(11));
    if (what == T(2))
        change(shared_kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(21));
    if (what == T(3))
        write(b, "y", 1);
    return NULL;
}
static void *wait_until_closed(void *unused) {
    struct kevent event;
    int           result = kevent(shared_kq, NULL, 0, &event, 1, NULL);
    return (void)unused, T(result == 0 || errno != EBADF ? result : EBADF);
}
static void *add_many(void *pairs) {
    for (int i = 0; i < 2000; i++)
        if (change(shared_kq, ((int *)pairs)[i], EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(((int *)pairs)[i])))
            return T(1);
    return NULL;
}
static void threads(void) {
    shared_kq = kqueue();
    pair();
    send_byte(b);
    CHECK(change(shared_kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, T(11)) == 0);
    for (uintptr_t what = 1; what <= 3; what++) { /* each wakes a thread that already waits, without a timeout */
        pthread_t t;
        pthread_create(&t, NULL, later, T(what));
        if (what == 3) {
            take_byte(a);
            CHECK(change(shared_kq, a, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, T(22)) == 0);
        }
        CHECK(kevent(shared_kq, NULL, 0, e, 8, NULL) == 1 && e[0].udata == T(what == 1 ? 11 : what + 19));
        pthread_join(t, NULL);
    }
    close(a), close(b);
    struct rlimit many = { 20000, 20000 };
    setrlimit(RLIMIT_NOFILE, &many);
    static int near[8000], far[8000], seen[32768];
    for (int i = 0; i < 8000; i++) {
        pair();
        near[i] = a, far[i] = b;
        if (write(b, "z", 1) != 1)
            exit(2);
    }
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, add_many, near + 2000 * i);
    int got = 0, n, most = 0;
    while (got < 8000 && (n = poll_ms(shared_kq, 8, 2000)) > 0) {
        most = n > most ? n : most;
        for (int i = 0; i < n; i++)
            seen[e[i].ident]++;
        got += n;
    }
    int wrong = 0;
    for (int i = 0; i < 8000; i++)
        wrong += seen[near[i]] != 1;
    CHECK(got == 8000 && !wrong && most <= 8);
    CHECK(poll_ms(shared_kq, 8, 10) == 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        CHECK(!failed);
    }
    for (int i = 0; i < 8000; i++)
        close(near[i]), close(far[i]);
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, wait_until_closed, NULL);
    usleep(30000);
    close(shared_kq);
    for (int i = 0; i < 2; i++) {
        void *result;
        pthread_join(t[i], &result);
        CHECK(result == T(darwin ? EBADF : 0));
    }
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } groups[] = {
        { "reading", reading },   { "changes", changes },     { "stale", stale },     { "stale-write", stale_write },
        { "arrivals", arrivals }, { "tcp", tcp },             { "closing", closing }, { "receipts", receipts },
        { "user", user_events },  { "waiting", waiting },     { "threads", threads },
    };
    const char *kernel = getenv("KQUEUE_KERNEL");
    darwin = kernel && !strcmp(kernel, "darwin");
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IONBF, 0);
    alarm(60);
    for (unsigned i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (argc > 1 && strcmp(argv[1], groups[i].name))
            continue;
        int before = failures;
        groups[i].run();
        printf("%s: %s\n", groups[i].name, failures == before ? "ok" : "FAILED");
    }
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
