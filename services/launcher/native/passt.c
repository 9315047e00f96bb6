/* passt: what libvirt finds by that name, and what becomes passt (https://passt.top) in a container that has no privilege.
 *
 * passt puts itself into namespaces of its own before it looks at a packet, and does not start where it cannot. A launcher may not
 * make any: its seccomp profile keeps unshare(2), mount(2), umount2(2) and pivot_root(2) for CAP_SYS_ADMIN. So this program has the
 * kernel answer those calls with success and do nothing, by a filter that is newer than the container's and so wins among equals;
 * and does by Landlock, which needs no privilege, what the namespaces are for: passt and what it becomes read programs, the
 * resolver's configuration and what the kernel says of networks, and write where libvirt wants its socket and the number of its
 * process. passt's own seccomp filter, which leaves it little more than sockets, comes on top.
 *
 * A kernel without Landlock would leave it with that filter alone; there it is not started: exit 3.
 *
 * Without `--no-map-gw` a guest would reach the launcher's loopback by the gateway's address, and never the gateway.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <libgen.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "landlock.h"

#ifndef PASST
#define PASST "/usr/bin/passt"
#define PROGRAMS "/usr"
#endif

enum { FILES = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | MAKE_SOCK | TRUNCATE };

void fail(const char *what) {
    dprintf(STDERR_FILENO, "passt: %s: %s\n", what, strerror(errno));
    exit(1);
}

#define PRETEND(call)                                                                                                                  \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 0)

static void pretend_namespaces(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        PRETEND(SYS_unshare),
        PRETEND(SYS_mount),
        PRETEND(SYS_umount2),
        PRETEND(SYS_pivot_root),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == -1)
        fail("seccomp");
}

static void allow_directory_of(int rules, const char *path, uint64_t handled) {
    char *copy = strdup(path);
    if (!copy)
        fail("strdup");
    allow(rules, dirname(copy), FILES, handled, true);
    free(copy);
}

static void confine(char **arguments, int version) {
    static const char *const readable[] = {"/etc", "/proc/self", "/proc/sys/net"};
    uint64_t handled = handled_by(version);
    int rules = new_rules(handled);
    allow(rules, PROGRAMS, READ | EXECUTE, handled, true);
    allow(rules, "/dev/null", READ_FILE | WRITE_FILE, handled, false);
    for (size_t i = 0; i < sizeof readable / sizeof *readable; i++)
        allow(rules, readable[i], READ, handled, true);
    for (char **each = arguments; *each && each[1]; each++)
        if (strcmp(*each, "--socket") == 0 || strcmp(*each, "--pid") == 0 || strcmp(*each, "--log-file") == 0)
            allow_directory_of(rules, each[1], handled);
    enforce(rules);
}

int main(int argc, char **argv) {
    char **arguments = calloc(argc + 2, sizeof *arguments);
    if (!arguments)
        fail("calloc");
    memcpy(arguments, argv, argc * sizeof *arguments);
    arguments[argc] = "--no-map-gw";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
        fail("PR_SET_NO_NEW_PRIVS");
    int version = landlock_version();
    if (version < 1) {
        dprintf(STDERR_FILENO, "passt: this kernel has no Landlock, by which passt is confined: %s\n", strerror(errno));
        return NO_LANDLOCK;
    }
    confine(arguments, version);
    pretend_namespaces();
    execv(PASST, arguments);
    fail(PASST);
}
