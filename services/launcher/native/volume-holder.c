/* volume-holder: the one process of a pod that has a volume mounted for a guest which runs already; keeps the pod alive.
 *
 * It listens on sockets/holder.sock, by which virt-handler knows this process from any other of the node, walks from its root to the
 * volume and passes what it opens there on to the guest. Nothing is said on the socket: a connection is closed at once.
 *
 * It holds nothing itself, so an order to end is obeyed at once: that the guest has let go of the volume is known before it is given.
 *
 * Exit 0 when told to end, 1 when there is no listening, 2 for wrong arguments.
 */
#define _GNU_SOURCE
#include "compute.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef SOCKETS_DIR
#define SOCKETS_DIR "/run/podvisor/sockets"
#endif
#define SOCKET SOCKETS_DIR "/holder.sock"
#define NEW_SOCKET SOCKETS_DIR "/.holder.sock"
#define WAITING_CONNECTIONS 8

static void told_to_end(int number) {
    (void)number;
    _exit(0);
}

/* Whoever finds the name finds somebody who listens. What a killed predecessor has left is replaced. */
static int listener(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = NEW_SOCKET};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || (unlink(NEW_SOCKET) == -1 && errno != ENOENT) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) == -1 || listen(fd, WAITING_CONNECTIONS) == -1 ||
        rename(NEW_SOCKET, SOCKET) == -1)
        fail(SOCKET);
    return fd;
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc != 1) {
        dprintf(STDERR_FILENO, "usage: volume-holder\n");
        return 2;
    }
    /* The first process of a container has no default action for them. */
    struct sigaction order = {.sa_handler = told_to_end};
    sigaction(SIGTERM, &order, NULL);
    sigaction(SIGINT, &order, NULL);
    int fd = listener();
    for (;;) {
        int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (connection != -1)
            close(connection);
        else if (errno != EINTR && errno != ECONNABORTED)
            fail("accept");
    }
}
