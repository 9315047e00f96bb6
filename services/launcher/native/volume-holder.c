/* volume-holder: the one process of a pod that has a volume mounted for a guest which runs already; keeps the pod alive.
 *
 * It listens on sockets/holder.sock, by which virt-handler knows this process from others of the node, walks from its root to the
 * volume and passes what it opens there on to the guest. Nothing is said on the socket: a connection is closed at once.
 *
 * An order to end is not obeyed: a node that is drained or shut down, or whoever deletes the pod, gives one while the guest has
 * the volume still, and the mount goes with the pod. It holds until it is killed. Once the guest has let go, virt-controller sees
 * to that by deleting the pod; where somebody has deleted it before, the kubelet goes on waiting as long as it was told first,
 * and virt-handler, root of the node, kills this process. So there is nothing to be asked for on the socket, by anybody.
 *
 * Exit 1 when there is no listening, 2 for wrong arguments.
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
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    int fd = listener();
    for (;;) {
        int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (connection != -1)
            close(connection);
        else if (errno != EINTR && errno != ECONNABORTED)
            fail("accept");
    }
}
