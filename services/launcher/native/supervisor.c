/* supervisor: the first process of the container `compute`; keeps the guest's keepers alive and outlives them.
 *
 * It starts libvirtd and the launcher and starts either again when it dies. QEMU is daemonised by libvirtd and becomes a
 * child of this process, which reaps everything below it, so neither of the two is an ancestor the guest needs. It need not have
 * process id 1: where the pod's containers share their process ids, others' processes are seen and never touched, and should this
 * one be killed, the container runtime kills what is left in the container's control group. It holds a lock on
 * console/compute.lock for its whole life: the container that copies the serial log ends when the kernel frees that lock,
 * however this process ended. On SIGTERM it records the stop and its deadline in private/stop.json before it tells the
 * launcher, so that a launcher which is just being restarted finds out as well. How QEMU ended is known to whoever reaps it
 * alone, and is recorded in private/qemu-end.json: a libvirtd that was being restarted at that moment takes every end for a crash.
 *
 * Ends when the launcher says that the guest has ended: launcher exit 0 -> 0, launcher exit 10 -> 1. Any other end of the
 * launcher is a fault of the launcher, never of the guest.
 *
 * Never allocates, never reads anything a guest could write.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef RUN_DIR
#define RUN_DIR "/run/podvisor"
#endif
#ifndef LIBVIRTD
#define LIBVIRTD "/usr/sbin/libvirtd"
#endif
#ifndef PYTHON
#define PYTHON "/opt/podvisor/bin/python"
#endif
#ifndef CONFIG_DIR
#define CONFIG_DIR "/etc/podvisor"
#endif

#ifndef QEMU
#define QEMU "/usr/bin/qemu-system-x86_64"
#endif
#ifndef QEMU_DRIVER
#define QEMU_DRIVER "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so"
#endif

#ifndef KVM_DEVICE
#define KVM_DEVICE "/dev/kvm"
#endif

#define LOCK_FILE RUN_DIR "/console/compute.lock"
#define STOP_FILE RUN_DIR "/private/stop.json"
#define QEMU_END_FILE RUN_DIR "/private/qemu-end.json"
#define RUNTIME_DIR RUN_DIR "/runtime"
#define CAPABILITIES_DIR RUNTIME_DIR "/cache/libvirt/qemu/cache/capabilities"
/* libvirt's name for it: the SHA-256 of the emulator's path. */
#define CAPABILITIES_FILE CAPABILITIES_DIR "/926803a9278e445ec919c2b6cbd8c1c449c75b26dcb1686b774314180376c725.xml"

enum {
    LAUNCHER_GUEST_ENDED = 0,  /* exit code of the launcher: the guest ended cleanly */
    LAUNCHER_GUEST_FAILED = 10, /* the guest crashed, was refused, or had to be destroyed */
    BACKOFF_FIRST_MS = 200,
    BACKOFF_MAX_MS = 5000,
    KILLED_BACKOFF_MS = 200, /* SIGKILL is no fault of the process: it may come back at once, however often that happens */
    HEALTHY_AFTER_MS = 10000, /* a process that lived this long starts again without delay */
    LIBVIRTD_END_MS = 500,
    LEFTOVERS_END_MS = 1000,
};

struct service {
    const char *name;
    char *const *argv;
    pid_t pid;          /* 0 while it does not run */
    int64_t started_ms;
    int64_t restart_ms; /* when to start it again; meaningful while pid is 0 */
    int64_t backoff_ms; /* delay before the next restart */
};

static int64_t boottime_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* One JSON line on standard error, like every other process of podvisor. Arguments must need no escaping. */
static void say(const char *format, ...) {
    char fields[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fields, sizeof fields, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "{\"service\": \"supervisor\", %s}\n", fields);
}

static void fail(const char *what) {
    say("\"level\": \"error\", \"event\": \"cannot start\", \"what\": \"%s\", \"error\": \"%s\"", what, strerror(errno));
    exit(1);
}

static void make_directory(const char *path) {
    if (mkdir(path, 0700) == -1 && errno != EEXIST)
        fail(path);
}

/* What HOME and XDG_* of the image point to; a session libvirtd reads its qemu.conf below XDG_CONFIG_HOME only. */
static void make_runtime_directories(void) {
    static const char *const directories[] = {
        RUNTIME_DIR "/run",        RUNTIME_DIR "/config",          RUNTIME_DIR "/config/libvirt",
        RUNTIME_DIR "/cache",      RUNTIME_DIR "/data",            RUNTIME_DIR "/state",
        RUNTIME_DIR "/tmp",
        RUNTIME_DIR "/cache/libvirt", RUNTIME_DIR "/cache/libvirt/qemu", RUNTIME_DIR "/cache/libvirt/qemu/cache",
        CAPABILITIES_DIR,
    };
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        make_directory(directories[i]);
    const char *link = RUNTIME_DIR "/config/libvirt/qemu.conf";
    if (symlink(CONFIG_DIR "/qemu.conf", link) == -1 && errno != EEXIST)
        fail(link);
}

static long long changed_s(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 ? (long long)status.st_ctime : 0;
}

/* Gives libvirt what it found out about this QEMU when the image was built, in place of probing it in every pod. libvirt checks
 * that neither has changed since, by times that are known only where the image was unpacked, and that KVM is as absent as then;
 * where it disagrees, it probes. */
static void hand_over_capabilities(void) {
    int from = open(CONFIG_DIR "/capabilities.xml", O_RDONLY | O_CLOEXEC);
    int to = open(CAPABILITIES_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    long long daemon_s = changed_s(LIBVIRTD), driver_s = changed_s(QEMU_DRIVER);
    bool written = from != -1 && to != -1 &&
                   dprintf(to, "<qemuCaps>\n  <!-- found out when the image was built -->\n"
                               "  <qemuctime>%lld</qemuctime>\n  <selfctime>%lld</selfctime>\n",
                           changed_s(QEMU), daemon_s > driver_s ? daemon_s : driver_s) > 0;
    ssize_t copied = 1;
    while (written && copied > 0)
        copied = sendfile(to, from, NULL, 1 << 20);
    if (!written || copied == -1) {
        say("\"level\": \"warning\", \"event\": \"libvirt has to probe QEMU itself\", \"error\": \"%s\"", strerror(errno));
        unlink(CAPABILITIES_FILE);
    }
    if (from != -1)
        close(from);
    if (to != -1)
        close(to);
}

/* No process here may leave a core dump: the guest's memory and its cloud-init data would be in it. A limit of one byte, unlike
 * none, also keeps the kernel from feeding the dump to a program of the host. */
static void forbid_core_dumps(void) {
    const struct rlimit limit = {1, 1};
    if (setrlimit(RLIMIT_CORE, &limit) == -1)
        fail("RLIMIT_CORE");
}

/* Where guests are emulated, QEMU gets no huge pages, which it asks for: clearing two megabytes at every first touch is a tenth of
 * a small guest's boot, and it makes resident what the guest never touches. Under KVM they are worth it. Children inherit this. */
static void forbid_huge_pages(void) {
    if (access(KVM_DEVICE, F_OK) == -1 && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == -1)
        say("\"level\": \"warning\", \"event\": \"huge pages stay allowed\", \"error\": \"%s\"", strerror(errno));
}

/* The byte is written after the lock is held: whoever sees it and then gets the lock knows that this process is gone.
 * Close-on-exec keeps the lock out of every child. */
static void take_lock(void) {
    int fd = open(LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
    if (fd == -1 || flock(fd, LOCK_EX) == -1 || pwrite(fd, "1", 1, 0) != 1)
        fail(LOCK_FILE);
}

static void start(struct service *service) {
    service->pid = fork();
    if (service->pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execv(service->argv[0], service->argv);
        say("\"level\": \"error\", \"event\": \"cannot execute\", \"process\": \"%s\", \"error\": \"%s\"", service->name,
            strerror(errno));
        _exit(127);
    }
    service->started_ms = boottime_ms();
    if (service->pid == -1) { /* no process to be had right now */
        service->pid = 0;
        service->restart_ms = service->started_ms + BACKOFF_MAX_MS;
    }
}

static void has_died(struct service *service, int status) {
    int64_t now = boottime_ms();
    if (now - service->started_ms >= HEALTHY_AFTER_MS)
        service->backoff_ms = 0;
    service->pid = 0;
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    int64_t delay_ms = killed && service->backoff_ms > KILLED_BACKOFF_MS ? KILLED_BACKOFF_MS : service->backoff_ms;
    service->restart_ms = now + delay_ms;
    say("\"level\": \"warning\", \"event\": \"process died, starting it again\", \"process\": \"%s\", \"exit_code\": %d, "
        "\"signal\": %d, \"delay_ms\": %d",
        service->name, WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        (int)delay_ms);
    service->backoff_ms = service->backoff_ms == 0 ? BACKOFF_FIRST_MS : service->backoff_ms * 2;
    if (service->backoff_ms > BACKOFF_MAX_MS)
        service->backoff_ms = BACKOFF_MAX_MS;
}

/* Whole or absent for whoever reads it, and on disk when this returns. */
static void record(const char *path, const char *new_path, const char *text, int length) {
    int fd = open(new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool written = fd != -1 && write(fd, text, length) == length && fsync(fd) == 0;
    if (fd != -1)
        close(fd);
    if (!written || rename(new_path, path) == -1)
        say("\"level\": \"error\", \"event\": \"cannot write\", \"file\": \"%s\", \"error\": \"%s\"", path, strerror(errno));
}

static void record_stop(int64_t deadline_ms) {
    char text[64];
    int length = snprintf(text, sizeof text, "{\"deadline_boottime_ms\": %lld}\n", (long long)deadline_ms);
    record(STOP_FILE, STOP_FILE ".new", text, length);
}

/* Whether a process that has ended and was not reaped yet was a QEMU. The kernel keeps 15 characters of a program's name. */
static bool was_qemu(pid_t pid) {
    char path[32], name[16] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd == -1 ? -1 : read(fd, name, sizeof name - 1);
    if (fd != -1)
        close(fd);
    const char *program = strrchr(QEMU, '/') + 1;
    return length == sizeof name - 1 && strncmp(name, program, sizeof name - 1) == 0;
}

/* The launcher is told by a signal that does nothing to a process which is not ready for it. */
static void qemu_has_ended(int status, const struct service *launcher) {
    int exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    char text[64];
    int length = snprintf(text, sizeof text, "{\"exit_code\": %d, \"signal\": %d}\n", exit_code, signal);
    record(QEMU_END_FILE, QEMU_END_FILE ".new", text, length);
    say("\"level\": \"info\", \"event\": \"QEMU ended\", \"exit_code\": %d, \"signal\": %d", exit_code, signal);
    if (launcher->pid)
        kill(launcher->pid, SIGCHLD);
}

/* Waits for a signal until `until_ms`. Returns its number, or 0 when the time is over. */
static int next_signal(const sigset_t *signals, int64_t until_ms) {
    int64_t left = until_ms - boottime_ms();
    if (left < 0)
        left = 0;
    struct timespec timeout = {left / 1000, (left % 1000) * 1000000};
    int signal = sigtimedwait(signals, NULL, &timeout);
    return signal > 0 ? signal : 0;
}

static void signal_children(int signal) {
    char path[64], list[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd == -1 ? -1 : read(fd, list, sizeof list - 1);
    if (fd != -1)
        close(fd);
    if (length <= 0)
        return;
    list[length] = '\0';
    for (char *word = strtok(list, " "); word; word = strtok(NULL, " "))
        kill((pid_t)atoi(word), signal);
}

/* Reaps until no child is left or the time is over. */
static bool all_gone(const sigset_t *signals, int64_t within_ms) {
    int64_t until_ms = boottime_ms() + within_ms;
    for (;;) {
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (pid == -1)
            return true;
        if (boottime_ms() >= until_ms)
            return false;
        next_signal(signals, until_ms);
    }
}

/* The guest has ended: nothing that is still here is of use to anyone. */
static void end_everything(const struct service *libvirtd, const sigset_t *signals) {
    if (libvirtd->pid)
        kill(libvirtd->pid, SIGTERM);
    if (all_gone(signals, LIBVIRTD_END_MS))
        return;
    signal_children(SIGKILL);
    while (!all_gone(signals, LEFTOVERS_END_MS)) /* what was reparented meanwhile */
        signal_children(SIGKILL);
}

static long parse_grace_period_s(int argc, char **argv) {
    static const char option[] = "--grace-period-s=";
    long seconds = 30;
    for (int i = 1; i < argc; i++) {
        char *end = NULL;
        if (strncmp(argv[i], option, sizeof option - 1) == 0) {
            errno = 0;
            seconds = strtol(argv[i] + sizeof option - 1, &end, 10);
        }
        if (!end || end == argv[i] + sizeof option - 1 || *end || errno || seconds < 0 || seconds > INT_MAX) {
            dprintf(STDERR_FILENO, "usage: supervisor [--grace-period-s=SECONDS]\n");
            exit(2);
        }
    }
    return seconds;
}

/* Reaps whatever has ended. Returns the launcher's exit code once it says that the guest has ended, else -1. */
static int reap(struct service *libvirtd, struct service *launcher) {
    int status, verdict = -1;
    siginfo_t ended = {0};
    while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0) {
        pid_t pid = ended.si_pid;
        bool is_qemu = was_qemu(pid);
        waitpid(pid, &status, 0);
        ended.si_pid = 0;
        if (is_qemu) {
            qemu_has_ended(status, launcher);
        } else if (pid == libvirtd->pid) {
            has_died(libvirtd, status);
        } else if (pid == launcher->pid) {
            int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
            if (code == LAUNCHER_GUEST_ENDED || code == LAUNCHER_GUEST_FAILED) {
                launcher->pid = 0;
                verdict = code;
            } else {
                has_died(launcher, status);
            }
        }
    }
    return verdict;
}

static int64_t start_due(struct service *service, int64_t next_ms) {
    if (service->pid == 0 && service->restart_ms <= boottime_ms())
        start(service);
    return service->pid == 0 && service->restart_ms < next_ms ? service->restart_ms : next_ms;
}

int main(int argc, char **argv) {
    static char *const libvirtd_argv[] = {LIBVIRTD, "-f", CONFIG_DIR "/libvirtd.conf", NULL};
    static char *const launcher_argv[] = {PYTHON, "-m", "podvisor_launcher", NULL};
    struct service libvirtd = {.name = "libvirtd", .argv = libvirtd_argv};
    struct service launcher = {.name = "launcher", .argv = launcher_argv};
    long grace_period_s = parse_grace_period_s(argc, argv);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    umask(0077);
    forbid_core_dumps();
    forbid_huge_pages();

    if (prctl(PR_SET_CHILD_SUBREAPER, 1) == -1)
        fail("PR_SET_CHILD_SUBREAPER");
    make_runtime_directories();
    hand_over_capabilities();
    take_lock();

    bool stopping = false;
    int verdict = -1;
    while (verdict == -1) {
        int64_t next_ms = start_due(&launcher, start_due(&libvirtd, boottime_ms() + 3600 * 1000));
        int signal = next_signal(&signals, next_ms);
        if (signal == SIGTERM || signal == SIGINT) {
            if (!stopping) /* the first one starts the clock */
                record_stop(boottime_ms() + (int64_t)grace_period_s * 1000);
            stopping = true;
            if (launcher.pid)
                kill(launcher.pid, SIGTERM);
        }
        verdict = reap(&libvirtd, &launcher);
    }
    end_everything(&libvirtd, &signals);
    return verdict == LAUNCHER_GUEST_ENDED ? 0 : 1;
}
