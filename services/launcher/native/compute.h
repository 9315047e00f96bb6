/* compute.h: what a container beside `compute` knows of it, and how such a small program fails.
 *
 * The supervisor of `compute` holds a lock on console/compute.lock for its whole life, and writes one byte into that file once it
 * has it. Whoever sees the byte and then gets the lock knows that `compute` has ended, even after SIGKILL.
 */
#ifndef COMPUTE_H
#define COMPUTE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef CONSOLE_DIR
#define CONSOLE_DIR "/run/podvisor/console"
#endif
#define LOCK_FILE CONSOLE_DIR "/compute.lock"

static void fail(const char *what) {
    dprintf(STDERR_FILENO, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

static int watch_console(void) {
    int fd = inotify_init1(IN_CLOEXEC);
    if (fd == -1 || inotify_add_watch(fd, CONSOLE_DIR, IN_CREATE | IN_MODIFY | IN_MOVED_TO) == -1)
        fail(CONSOLE_DIR);
    return fd;
}

/* What happened does not matter: everything is looked at again. */
static void drain_events(int fd) {
    char events[4096];
    if (read(fd, events, sizeof events) == -1 && errno != EINTR)
        fail("inotify");
}

/* The supervisor writes its byte once it runs; a pod whose images cannot be pulled never gets that far. */
static inline bool compute_has_begun(void) {
    struct stat status;
    return stat(LOCK_FILE, &status) == 0 && status.st_size > 0;
}

/* Returns when `compute` has come and gone. The lock is a shared one: all who wait for it get it at once. */
static inline void wait_for_end_of_compute(void) {
    int events = watch_console();
    for (;;) {
        struct stat status;
        int fd = open(LOCK_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd != -1 && fstat(fd, &status) == 0 && status.st_size > 0) {
            while (flock(fd, LOCK_SH) == -1)
                if (errno != EINTR)
                    fail(LOCK_FILE);
            return;
        }
        if (fd != -1)
            close(fd);
        drain_events(events);
    }
}

#endif
