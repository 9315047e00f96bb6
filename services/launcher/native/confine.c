/* confine: a program that serves one tree of files, and can reach no other: `confine [--read-only] DIRECTORY PROGRAM ARGUMENT...`
 *
 * virtiofsd does what a guest's kernel tells it, and passes names on as they are: "../../private/x" in a request to make,
 * rename, link or remove a file would be followed out of the tree. It has sandboxes for that, which need a privilege that a
 * launcher does not have. Landlock (https://docs.kernel.org/userspace-api/landlock.html) needs none: after it, this process and
 * what it becomes open, make and remove files in DIRECTORY alone. Beyond that they read programs and libraries, and what the
 * kernel says of the process itself.
 *
 * Landlock says nothing about looking a name up. There virtiofsd is safe by openat2(2), if it finds that it works by opening its
 * working directory; otherwise it looks up as carelessly. So that is made a directory which may be opened, and tried here.
 *
 * A kernel without Landlock can serve a tree that is only read, since virtiofsd then refuses every other request itself. Without
 * `--read-only` the program is not started there: exit 3.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "landlock.h"

#define PROGRAMS "/usr"

enum {
    WRITE = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE,
};

void fail(const char *what) {
    dprintf(STDERR_FILENO, "confine: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void need_safe_lookups(void) {
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int fd = chdir(PROGRAMS) == -1 ? -1 : (int)syscall(SYS_openat2, AT_FDCWD, ".", &how, sizeof how);
    if (fd == -1)
        fail("openat2");
    close(fd);
}

static void confine_to(const char *directory, bool read_only, const char *program, int version) {
    uint64_t handled = handled_by(version);
    int rules = new_rules(handled);
    allow(rules, directory, read_only ? READ : READ | WRITE, handled, true);
    allow(rules, PROGRAMS, READ | EXECUTE, handled, true);
    allow(rules, program, READ_FILE | EXECUTE, handled, false);
    allow(rules, "/proc/self", READ, handled, true);
    allow(rules, "/proc/sys/fs/nr_open", READ_FILE, handled, false);
    enforce(rules);
}

int main(int argc, char **argv) {
    bool read_only = argc > 1 && strcmp(argv[1], "--read-only") == 0;
    char **arguments = argv + 1 + read_only;
    if (argc < 3 + read_only) {
        dprintf(STDERR_FILENO, "usage: confine [--read-only] DIRECTORY PROGRAM ARGUMENT...\n");
        return 2;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
        fail("PR_SET_NO_NEW_PRIVS");
    int version = landlock_version();
    if (version > 0) {
        confine_to(arguments[0], read_only, arguments[1], version);
    } else if (!read_only) {
        dprintf(STDERR_FILENO, "confine: this kernel has no Landlock: %s\n", strerror(errno));
        return NO_LANDLOCK;
    }
    need_safe_lookups();
    execv(arguments[1], arguments + 1);
    fail(arguments[1]);
}
