/* What the workloads share, with no C library below: the same source becomes a Linux program, the first process of a machine, and a WebAssembly
   module. `linux.c` or `wasi.c` has the host's side. */
#ifndef RT_H
#define RT_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;
typedef double f64;
typedef __SIZE_TYPE__ size;

/* Memory that workloads lay out as they like. Zero at first; pages that nobody touches take none of the host's memory. */
enum { ARENA_BYTES = 64 << 20 };
extern u8 arena[ARENA_BYTES];

/* Mixes `value` into `sum`: the odd factor spreads low bits upwards, the shift brings them back. */
static inline u64 mix(u64 sum, u64 value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

/* The bits of a double, so that results are compared to the last one. */
static inline u64 bits(f64 value)
{
    u64 word;
    __builtin_memcpy(&word, &value, sizeof word);
    return word;
}

/* The next number, of 31 bits, of a sequence that is the same everywhere. */
static inline u32 next_random(u64 *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (u32)(*state >> 33);
}

/* What the host does for a workload. Answers below zero are failures. Files are named relative to the working folder. */
i64 host_time_ns(void);
i64 host_read(int file, void *bytes, size count);
i64 host_write(int file, const void *bytes, size count);
i64 host_read_at(int file, void *bytes, size count, u64 offset);
int host_open(const char *name, int create);
void host_close(int file);
int host_remove(const char *name);
/* A stream over the loopback interface and its two ends, in `ends`. */
int host_connect(int ends[2]);
i64 host_send(int socket, const void *bytes, size count);
i64 host_receive(int socket, void *bytes, size count);
/* Ends the program. */
__attribute__((noreturn)) void host_exit(int status);
/* Ends it with a line that says why. */
__attribute__((noreturn)) void fail(const char *why);

/* A workload: `prepare` is not timed, and each call of `work` does the same and answers the same checksum. `amount` says how much. */
struct workload {
    const char *name;
    void (*prepare)(u32 amount);
    u64 (*work)(u32 amount);
};
extern const struct workload workloads[];

/* Runs `words[0]`: amount, least and most iterations, and the milliseconds after which it stops in between. */
void run(int count, char **words);

#endif
