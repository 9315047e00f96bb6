/* console-log: copies the guest's serial log to standard output and ends when the container `compute` has ended.
 *
 * It follows console/serial0.log by inotify, starts over when the launcher truncates the file to keep it small, and does not
 * end on SIGTERM unless `compute` has never begun: the guest's last words come after the pod was told to end. The supervisor of
 * `compute` holds a lock on console/compute.lock for its whole life, and writes one byte into that file once it has it; a child
 * of this process waits for the lock, so its end is the end of `compute`, even after SIGKILL. Then the rest of the log is
 * copied, and that is all.
 *
 * QEMU writes every character by itself; a pause after the first lets more of them come, so that a guest that prints for ever
 * costs a hundred wake-ups a second and no processor.
 *
 * A container runtime shows whole lines only, and a prompt is none: a line on which nothing has come for a moment is ended here.
 *
 * Exit 0 when everything was copied, 1 when it could not be.
 */
#define _GNU_SOURCE
#include "compute.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#define LOG_FILE CONSOLE_DIR "/serial0.log"
#define UNFINISHED_LINE_MS 200
#define GATHER_MS 10

static volatile sig_atomic_t told_to_end;

static void note_signal(int number) {
    (void)number;
    told_to_end = 1;
}

/* Returns a descriptor that reports a hang-up when `compute` has ended. */
static int end_of_compute(void) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) == -1)
        fail("pipe");
    pid_t child = fork();
    if (child == -1)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        wait_for_end_of_compute();
        _exit(0);
    }
    close(ends[1]);
    return ends[0];
}

static void write_all(const char *data, size_t size) {
    while (size > 0) {
        ssize_t written = write(STDOUT_FILENO, data, size);
        if (written == -1 && errno != EINTR)
            fail("standard output");
        if (written > 0) {
            data += written;
            size -= (size_t)written;
        }
    }
}

/* Copies what is new. The log may not exist yet, and shrinks when it is truncated. */
static void copy_new(int *log, off_t *offset, bool *mid_line) {
    static char buffer[32768];
    struct stat status;
    if (*log == -1)
        *log = open(LOG_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (*log == -1)
        return;
    for (;;) {
        if (fstat(*log, &status) == 0 && status.st_size < *offset)
            *offset = 0;
        ssize_t size = pread(*log, buffer, sizeof buffer, *offset);
        if (size == -1 && errno != EINTR)
            fail(LOG_FILE);
        if (size == 0)
            return;
        if (size > 0) {
            write_all(buffer, (size_t)size);
            *offset += size;
            *mid_line = buffer[size - 1] != '\n';
        }
    }
}

int main(void) {
    int log = -1;
    off_t offset = 0;
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    int events = watch_console();
    struct pollfd waits[] = {{.fd = events, .events = POLLIN}, {.fd = end_of_compute(), .events = POLLIN}};
    /* SIGTERM is delivered inside ppoll only, so that it cannot slip in between the look and the wait. */
    sigset_t outside, inside;
    sigemptyset(&outside);
    sigaddset(&outside, SIGTERM);
    sigprocmask(SIG_BLOCK, &outside, &inside);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = note_signal}, NULL);
    const struct timespec unfinished_line = {.tv_nsec = UNFINISHED_LINE_MS * 1000000L};
    const struct timespec gather = {.tv_nsec = GATHER_MS * 1000000L};
    bool ended = false, mid_line = false;
    while (!ended) {
        copy_new(&log, &offset, &mid_line);
        waits[0].revents = waits[1].revents = 0;
        int ready = ppoll(waits, 2, mid_line ? &unfinished_line : NULL, &inside);
        if (ready == -1 && errno != EINTR)
            fail("ppoll");
        if (ready == 0) {
            write_all("\n", 1);
            mid_line = false;
        }
        if (waits[0].revents) {
            if (!waits[1].revents)
                nanosleep(&gather, NULL);
            drain_events(events);
        }
        ended = waits[1].revents != 0 || (told_to_end && !compute_has_begun());
    }
    copy_new(&log, &offset, &mid_line);
    return 0;
}
