/* block_io FILE r|w BLOCK_BYTES COUNT SPAN_BYTES random|sequential: does COUNT transfers of BLOCK_BYTES, past the page cache and one
 * at a time, within the first SPAN_BYTES, makes what was written durable, and prints how many microseconds that took.
 *
 * Without a C library, so that one 32 bit program, built wherever gcc is, runs in the test guest and in a pod alike. Exit code: 1 for
 * a wrong use, 2 when the file does not open, 3 for a transfer that fails.
 */
enum {
    SYS_EXIT = 1, SYS_WRITE = 4, SYS_OPEN = 5, SYS_FSYNC = 118, SYS_PREAD64 = 180, SYS_PWRITE64 = 181,
    SYS_CLOCK_GETTIME = 265,
    O_RDONLY = 0, O_WRONLY = 1, O_DIRECT = 040000, CLOCK_MONOTONIC = 1,
    MOST_BYTES = 1 << 20,
};

struct moment {
    long s, ns;
};

static char block[MOST_BYTES] __attribute__((aligned(4096)));

static long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory");
    return result;
}

static __attribute__((noreturn)) void end(int code)
{
    for (;;)
        call(SYS_EXIT, code, 0, 0, 0, 0);
}

static unsigned long number(const char *text)
{
    unsigned long value = 0;
    if (!*text)
        end(1);
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            end(1);
        value = value * 10 + (unsigned long)(*text - '0');
    }
    return value;
}

static void print(unsigned long value)
{
    char text[12];
    int at = sizeof text;
    text[--at] = '\n';
    do
        text[--at] = (char)('0' + value % 10);
    while (value /= 10);
    call(SYS_WRITE, 1, (long)(text + at), (long)sizeof text - at, 0, 0);
}

/* Marsaglia's xorshift: the same places in every run. */
static unsigned long next(unsigned long *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

__attribute__((used)) static void run(int count, char **words)
{
    struct moment began, ended;
    unsigned long seed = 2463534242UL;

    if (count != 7)
        end(1);
    int writes = words[2][0] == 'w', random = words[6][0] == 'r';
    unsigned long bytes = number(words[3]), transfers = number(words[4]), span = number(words[5]);
    if (!bytes || bytes > MOST_BYTES || span < bytes)
        end(1);
    unsigned long places = span / bytes;

    /* No zeros: they might be written as holes. */
    for (unsigned long at = 0; at < bytes; at++)
        block[at] = (char)(at * 7 + 1);
    long file = call(SYS_OPEN, (long)words[1], (writes ? O_WRONLY : O_RDONLY) | O_DIRECT, 0, 0, 0);
    if (file < 0)
        end(2);
    call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&began, 0, 0, 0);
    for (unsigned long done = 0; done < transfers; done++) {
        unsigned long place = (random ? next(&seed) : done) % places;
        long moved = call(writes ? SYS_PWRITE64 : SYS_PREAD64, file, (long)block, (long)bytes, (long)(place * bytes), 0);
        if (moved != (long)bytes)
            end(3);
    }
    if (writes && call(SYS_FSYNC, file, 0, 0, 0, 0) < 0)
        end(3);
    call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&ended, 0, 0, 0);
    print((unsigned long)((ended.s - began.s) * 1000000 + (ended.ns - began.ns) / 1000));
    end(0);
}

__asm__(".globl _start\n"
        "_start:\n"
        "    movl (%esp), %eax\n"
        "    leal 4(%esp), %edx\n"
        "    andl $-16, %esp\n"
        "    subl $8, %esp\n"
        "    pushl %edx\n"
        "    pushl %eax\n"
        "    call run\n");
