/* probe: one probe of a guest by its agent, for the kubelet, which starts this program in `compute` again and again.
 *
 *   probe TIMEOUT_S ping                      the agent answers
 *   probe TIMEOUT_S exec COMMAND [ARGUMENT…]  the command ends with 0 in the guest
 *
 * The launcher does it, which is the only one to speak with libvirt: this program brings it the question, over a socket that keeps
 * messages apart, and prints what comes back. A question is the arguments, each ended by a zero byte; an answer is '0' for success
 * or '1', and words for a person. A launcher that is killed is back in a moment, which says nothing of the guest: it is asked again until
 * the time is up. Nothing here waits longer, whatever is at the other end.
 *
 * Exit 0 for success, 1 when the guest fails or the launcher does not answer within TIMEOUT_S, 2 for wrong arguments.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef PRIVATE_DIR
#define PRIVATE_DIR "/run/podvisor/private"
#endif
#define SOCKET PRIVATE_DIR "/probe.sock"
#define QUESTION_LIMIT 65536
#define ANSWER_LIMIT 2048
#define TIMEOUT_MAX_S 86400
#define PAUSE_MS 50

/* The length of the question; 0 when it is too long. */
static size_t written(char *question, int count, char **arguments) {
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        size_t size = strlen(arguments[i]) + 1;
        if (size > QUESTION_LIMIT - length)
            return 0;
        memcpy(question + length, arguments[i], size);
        length += size;
    }
    return length;
}

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* The length of the answer; 0 when whoever took the question has gone without one, -1 with errno for a failure. */
static ssize_t asked(const char *question, size_t length, char *answer, long long until_ms) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1)
        return -1;
    ssize_t got = -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(fd, question, length, MSG_NOSIGNAL) != -1) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        long long left_ms = until_ms - now_ms();
        int ready = poll(&readable, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready == 0)
            errno = ETIMEDOUT;
        else if (ready == 1)
            got = recv(fd, answer, ANSWER_LIMIT, 0);
    }
    int error = errno;
    close(fd);
    errno = error;
    return got;
}

/* The launcher is not there, or no longer, or has no time yet. */
static int is_passing(int error) {
    return error == ENOENT || error == ECONNREFUSED || error == EAGAIN || error == ECONNRESET ||
           error == EPIPE;
}

int main(int argc, char **argv) {
    static char question[QUESTION_LIMIT];
    long long begun_ms = now_ms();
    char *end = NULL;
    long timeout_s = argc > 2 ? strtol(argv[1], &end, 10) : 0;
    if (argc < 3 || *end != '\0' || timeout_s < 1 || timeout_s > TIMEOUT_MAX_S ||
        (strcmp(argv[2], "ping") == 0 ? argc != 3 : strcmp(argv[2], "exec") != 0 || argc < 4)) {
        dprintf(STDERR_FILENO, "usage: probe TIMEOUT_S ping|exec COMMAND [ARGUMENT...]\n");
        return 2;
    }
    size_t length = written(question, argc - 1, argv + 1);
    if (length == 0) {
        dprintf(STDERR_FILENO, "probe: the command has more than %d bytes\n", QUESTION_LIMIT);
        return 2;
    }
    char answer[ANSWER_LIMIT];
    long long until_ms = begun_ms + timeout_s * 1000;
    ssize_t got = asked(question, length, answer, until_ms);
    while ((got == 0 || (got == -1 && is_passing(errno))) && now_ms() + PAUSE_MS < until_ms) {
        poll(NULL, 0, PAUSE_MS);
        got = asked(question, length, answer, until_ms);
    }
    if (got == -1 && errno == ETIMEDOUT)
        printf("no answer within %ld s\n", timeout_s);
    else if (got == -1)
        printf("the launcher cannot be asked: %s: %s\n", SOCKET, strerror(errno));
    else if (got == 0)
        printf("the launcher has gone without an answer\n");
    else if (got > 1)
        printf("%.*s\n", (int)got - 1, answer + 1);
    return got > 0 && answer[0] == '0' ? 0 : 1;
}
