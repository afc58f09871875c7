/* What every build has in common: the table of workloads, how one is run, and what is printed.

   Prints "ready" when it has started; for each iteration its name, checksum and nanoseconds; and "end". Nothing is printed while the time runs. */
#include "rt.h"

u8 arena[ARENA_BYTES] __attribute__((aligned(4096)));

#define WORKLOAD(name) void name##_prepare(u32 amount); u64 name##_work(u32 amount);
#include "table.h"
#undef WORKLOAD

const struct workload workloads[] = {
#define WORKLOAD(name) {#name, name##_prepare, name##_work},
#include "table.h"
#undef WORKLOAD
    {0, 0, 0},
};

enum { ITERATIONS_MAX = 2000, LINE_BYTES = 64 };

static struct {
    u64 sum;
    i64 time_ns;
} iterations[ITERATIONS_MAX];

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static u32 number(const char *text)
{
    u32 value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (u32)(*text - '0');
    return value;
}

static size length(const char *text)
{
    size count = 0;
    while (text[count])
        count++;
    return count;
}

static void print(const char *text)
{
    size count = length(text);
    while (count > 0) {
        i64 written = host_write(1, text, count);
        if (written <= 0)
            host_exit(2);
        text += written, count -= (size)written;
    }
}

void fail(const char *why)
{
    print("failed: ");
    print(why);
    print("\n");
    host_exit(1);
}

static void print_iteration(const char *name, u64 sum, u64 time_ns)
{
    char line[LINE_BYTES], digits[20];
    size at = 0, count = 0;
    while (*name && at < 24)
        line[at++] = *name++;
    line[at++] = ' ';
    for (int shift = 60; shift >= 0; shift -= 4)
        line[at++] = "0123456789abcdef"[sum >> shift & 15];
    line[at++] = ' ';
    do
        digits[count++] = (char)('0' + time_ns % 10);
    while ((time_ns /= 10) > 0);
    while (count > 0)
        line[at++] = digits[--count];
    line[at++] = '\n';
    line[at] = 0;
    print(line);
}

void run(int count, char **words)
{
    const struct workload *workload = workloads;
    if (count < 5)
        fail("usage: WORKLOAD AMOUNT ITERATIONS-MIN ITERATIONS-MAX MILLISECONDS");
    while (workload->name && !same(workload->name, words[0]))
        workload++;
    if (!workload->name)
        fail("no such workload");
    u32 amount = number(words[1]), least = number(words[2]), most = number(words[3]), done = 0;
    i64 budget_ns = (i64)number(words[4]) * 1000000;
    if (most > ITERATIONS_MAX)
        most = ITERATIONS_MAX;
    print("ready\n");
    workload->prepare(amount);
    i64 begin = host_time_ns(), before = begin;
    while (done < most && (done < least || before - begin < budget_ns)) {
        iterations[done].sum = workload->work(amount);
        i64 after = host_time_ns();
        iterations[done++].time_ns = after - before;
        before = after;
    }
    for (u32 i = 0; i < done; i++)
        print_iteration(workload->name, iterations[i].sum, (u64)iterations[i].time_ns);
    print("end\n");
}

/* What compilers call by these names although nobody else does. */
void *memset(void *to, int value, size count)
{
    u8 *bytes = to;
    for (size i = 0; i < count; i++)
        bytes[i] = (u8)value;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size count)
{
    u8 *bytes = to;
    for (size i = 0; i < count; i++)
        bytes[i] = ((const u8 *)from)[i];
    return to;
}
