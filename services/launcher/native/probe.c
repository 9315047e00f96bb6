/* probe: one probe of a guest by its agent, for the kubelet, which starts this program in `compute` again and again.
 *
 *   probe TIMEOUT_S ping                      the agent answers
 *   probe TIMEOUT_S exec COMMAND [ARGUMENT…]  the command ends with 0 in the guest
 *
 * The launcher does it, which is the only one to speak with libvirt: this program brings it the question, over a socket that keeps
 * messages apart, and prints what comes back. A question is the arguments, each ended by a zero byte; an answer is '0' for success
 * or '1', and words for a person.
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
#include <unistd.h>

#ifndef PRIVATE_DIR
#define PRIVATE_DIR "/run/podvisor/private"
#endif
#define SOCKET PRIVATE_DIR "/probe.sock"
#define QUESTION_LIMIT 65536
#define ANSWER_LIMIT 2048
#define TIMEOUT_MAX_S 86400

static int fail(const char *what) {
    printf("the launcher cannot be asked: %s: %s\n", what, strerror(errno));
    return 1;
}

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

int main(int argc, char **argv) {
    static char question[QUESTION_LIMIT];
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
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd == -1 || connect(fd, (struct sockaddr *)&address, sizeof address) == -1)
        return fail(SOCKET);
    if (send(fd, question, length, MSG_NOSIGNAL) == -1)
        return fail("send");
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    int ready = poll(&readable, 1, (int)timeout_s * 1000);
    if (ready == -1)
        return fail("poll");
    if (ready == 0) {
        printf("no answer within %ld s\n", timeout_s);
        return 1;
    }
    char answer[ANSWER_LIMIT];
    ssize_t got = recv(fd, answer, sizeof answer, 0);
    if (got == -1)
        return fail("recv");
    if (got > 1)
        printf("%.*s\n", (int)got - 1, answer + 1);
    return got > 0 && answer[0] == '0' ? 0 : 1;
}
