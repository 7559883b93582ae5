/*
 * The part of <sys/event.h> that kqueue.c implements. The layout is that of libkqueue on Linux, and that of macOS on 64
 * bits. The values are those of libkqueue.
 */
#ifndef SYS_EVENT_H
#define SYS_EVENT_H
#include <stdint.h>
#include <time.h>

struct kevent {
    uintptr_t      ident;
    short          filter;
    unsigned short flags;
    unsigned int   fflags;
    intptr_t       data;
    void          *udata;
};

#define EV_SET(k, i, fi, fl, ff, d, u) (*(k) = (struct kevent){ (i), (fi), (fl), (ff), (d), (u) })

#define EVFILT_READ  (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER  (-11)

#define EV_ADD      0x0001
#define EV_DELETE   0x0002
#define EV_ENABLE   0x0004
#define EV_DISABLE  0x0008
#define EV_ONESHOT  0x0010
#define EV_CLEAR    0x0020
#define EV_RECEIPT  0x0040
#define EV_DISPATCH 0x0080
#define EV_ERROR    0x4000
#define EV_EOF      0x8000

#define NOTE_TRIGGER 0x01000000

int kqueue(void);
int kevent(int kq, const struct kevent *changelist, int nchanges, struct kevent *eventlist, int nevents,
           const struct timespec *timeout);
#endif
