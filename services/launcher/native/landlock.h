/* Landlock (https://docs.kernel.org/userspace-api/landlock.html), as far as programs here restrict themselves by it. Of
 * linux/landlock.h, whose version depends on where this is compiled.
 */
#ifndef PODVISOR_LANDLOCK_H
#define PODVISOR_LANDLOCK_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CREATE_RULESET_VERSION (1U << 0)
#define RULE_PATH_BENEATH 1

enum {
    EXECUTE = 1 << 0,
    WRITE_FILE = 1 << 1,
    READ_FILE = 1 << 2,
    READ_DIR = 1 << 3,
    REMOVE_DIR = 1 << 4,
    REMOVE_FILE = 1 << 5,
    MAKE_DIR = 1 << 7,
    MAKE_REG = 1 << 8,
    MAKE_SOCK = 1 << 9,
    MAKE_FIFO = 1 << 10,
    MAKE_SYM = 1 << 12,
    REFER = 1 << 13,    /* version 2; before, nothing can be moved from one directory to another */
    TRUNCATE = 1 << 14, /* version 3 */
    READ = READ_FILE | READ_DIR,
    OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE,
    NO_LANDLOCK = 3,
};

struct ruleset {
    uint64_t handled_access_fs;
};

struct path_beneath {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

/* Says what went wrong, and ends the program. */
void fail(const char *what);

/* The kernel's version of Landlock; below 1 where it has none. */
static int landlock_version(void) {
    return syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
}

/* Every right that a version of Landlock knows. */
static uint64_t handled_by(int version) {
    if (version == 1)
        return (1 << 13) - 1;
    if (version == 2)
        return (1 << 14) - 1;
    return version < 5 ? (1 << 15) - 1 : (1 << 16) - 1;
}

/* A set of rules that allows nothing yet. */
static int new_rules(uint64_t handled) {
    struct ruleset attributes = {handled};
    int rules = syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
    if (rules == -1)
        fail("Landlock");
    return rules;
}

static void allow(int rules, const char *path, uint64_t access, uint64_t handled, bool is_directory) {
    int fd = open(path, O_PATH | O_CLOEXEC | (is_directory ? O_DIRECTORY : 0));
    if (fd == -1)
        fail(path);
    struct path_beneath rule = {access & handled & (is_directory ? ~0ULL : OF_A_FILE), fd};
    if (syscall(SYS_landlock_add_rule, rules, RULE_PATH_BENEATH, &rule, 0) == -1)
        fail(path);
    close(fd);
}

/* From here on this process and what it becomes can do what the rules allow, and no more. */
static void enforce(int rules) {
    if (syscall(SYS_landlock_restrict_self, rules, 0) == -1)
        fail("Landlock");
    close(rules);
}

#endif
