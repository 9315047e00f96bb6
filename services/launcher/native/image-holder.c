/* image-holder: the one process of a container that is made of a user's image; keeps the image mounted until `compute` has ended.
 *
 * It makes the symbolic link images/NAME to its own root directory. `compute` reads the image through it, without any privilege:
 * the containers of the pod share their process ids and their user. Started anew, it has another process id and makes the link anew.
 *
 * It is a static program, so nothing of the image is executed or loaded. The guest reads its disk until it is off, so an order to
 * end is obeyed only where `compute` has never begun. Which signal is the order, the image decides: all are taken for it.
 *
 * Exit 0 when `compute` has ended or is not to come, 1 when there is no keeping the image, 2 for wrong arguments.
 */
#define _GNU_SOURCE
#include "compute.h"

#include <limits.h>
#include <signal.h>

#ifndef IMAGES_DIR
#define IMAGES_DIR "/run/podvisor/images"
#endif

static void told_to_end(int number) {
    int error = errno;
    (void)number;
    if (!compute_has_begun())
        _exit(0);
    errno = error;
}

/* Faults keep their meaning; what cannot be caught is refused by the kernel. */
static void take_every_signal_for_an_order_to_end(void) {
    struct sigaction order = {.sa_handler = told_to_end, .sa_flags = SA_RESTART};
    sigfillset(&order.sa_mask);
    for (int number = 1; number <= SIGRTMAX; number++) {
        bool is_fault = number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE || number == SIGTRAP ||
                        number == SIGSYS || number == SIGABRT;
        if (!is_fault)
            sigaction(number, &order, NULL);
    }
}

/* A name that is one step of a path, and not that of a link in the making. */
static bool is_name(const char *text) {
    return *text && *text != '.' && strlen(text) <= NAME_MAX - sizeof "..new" && !strchr(text, '/');
}

/* Whole or absent for whoever reads it. */
static void link_to_own_root(const char *name) {
    char root[32], link[PATH_MAX], new_link[PATH_MAX];
    snprintf(root, sizeof root, "/proc/%d/root", (int)getpid());
    snprintf(link, sizeof link, "%s/%s", IMAGES_DIR, name);
    snprintf(new_link, sizeof new_link, "%s/.%s.new", IMAGES_DIR, name);
    if ((unlink(new_link) == -1 && errno != ENOENT) || symlink(root, new_link) == -1 || rename(new_link, link) == -1)
        fail(link);
}

int main(int argc, char **argv) {
    if (argc != 2 || !is_name(argv[1])) {
        dprintf(STDERR_FILENO, "usage: image-holder NAME\n");
        return 2;
    }
    take_every_signal_for_an_order_to_end();
    link_to_own_root(argv[1]);
    wait_for_end_of_compute();
    return 0;
}
