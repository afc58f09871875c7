/* Loads a machine's devices from inside, on any Linux: built for the guest, started by a test.
 *
 *   stress disk DEVICE MIB THREADS ROUNDS SEED   writes blocks at random, flushes, reads all back and compares
 *   stress load DEVICE KIB THREADS SECONDS read|write   requests of that size at random places, one at a time in each thread
 *   stress send ADDRESS PORT MIB                 a TCP stream to there, of bytes that the other end can check
 *   stress receive ADDRESS PORT MIB              the same from there
 *
 * An ADDRESS of 0.0.0.0 waits for one connection instead; its end of a stream is the other one's. Byte n of a stream is a function of n alone, and so is a block of a
 * disk of its place, the round and the seed. Each prints one line "ok MIB SECONDS" ("ok REQUESTS SECONDS" for a load) and ends with 0, or says what was wrong and
 * ends with 1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, RUN_MAX = 16 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    printf("stress: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Words of a block that was written in `round` (1 on), or zero in round 0: never written. */
static void fill(uint64_t *words, uint64_t block, unsigned round, uint64_t seed) {
    uint64_t state = mix(seed ^ (block << 20) ^ round);
    for (int i = 0; i < BLOCK / 8; i++) words[i] = round ? state += 0x9e3779b97f4a7c15u : 0;
}

struct job {
    int fd;
    uint64_t first, count, seed;
    unsigned rounds;
    uint64_t bytes;
    pthread_t thread;
};

/* Each thread has blocks of its own, so many requests are under way at once and still every block's content is known. */
static void *disk_job(void *argument) {
    struct job *job = argument;
    unsigned char *written = calloc(job->count, 1);
    uint64_t *buffer, *expected;
    if (!written || posix_memalign((void **)&buffer, BLOCK, RUN_MAX * BLOCK) || posix_memalign((void **)&expected, BLOCK, BLOCK))
        fail("memory");
    memset(buffer, 0, RUN_MAX * BLOCK);
    for (uint64_t b = 0; b < job->count; b += RUN_MAX) {
        uint64_t run = job->count - b < RUN_MAX ? job->count - b : RUN_MAX;
        if (pwrite(job->fd, buffer, run * BLOCK, (off_t)((job->first + b) * BLOCK)) != (ssize_t)(run * BLOCK)) fail("clear");
    }
    uint64_t state = mix(job->seed ^ job->first);
    for (unsigned round = 1; round <= job->rounds; round++) {
        for (uint64_t n = 0; n < job->count / 4; n++) {
            state = mix(state + 0x9e3779b97f4a7c15u);
            uint64_t b = state % job->count, run = 1 + (state >> 40) % RUN_MAX;
            if (run > job->count - b) run = job->count - b;
            for (uint64_t i = 0; i < run; i++) {
                fill(buffer + i * BLOCK / 8, job->first + b + i, round, job->seed);
                written[b + i] = (unsigned char)round;
            }
            if (pwrite(job->fd, buffer, run * BLOCK, (off_t)((job->first + b) * BLOCK)) != (ssize_t)(run * BLOCK)) fail("write");
            job->bytes += run * BLOCK;
        }
        if (fdatasync(job->fd)) fail("flush");
        for (uint64_t b = 0; b < job->count; b++) {
            if (pread(job->fd, buffer, BLOCK, (off_t)((job->first + b) * BLOCK)) != BLOCK) fail("read");
            fill(expected, job->first + b, written[b], job->seed);
            if (memcmp(buffer, expected, BLOCK)) {
                printf("stress: block %llu is not as written in round %u\n", (unsigned long long)(job->first + b), written[b]);
                exit(1);
            }
            job->bytes += BLOCK;
        }
    }
    return NULL;
}

static void disk(char **arguments) {
    uint64_t blocks = strtoull(arguments[1], NULL, 0) * ((1 << 20) / BLOCK);
    unsigned threads = (unsigned)atoi(arguments[2]);
    struct job *jobs = calloc(threads, sizeof *jobs);
    double start = now();
    uint64_t bytes = 0;
    for (unsigned t = 0; t < threads; t++) {
        struct job *job = &jobs[t];
        /* Past the page cache: what is read was on the disk. */
        if ((job->fd = open(arguments[0], O_RDWR | O_DIRECT)) < 0) fail(arguments[0]);
        job->first = blocks / threads * t;
        job->count = blocks / threads;
        job->rounds = (unsigned)atoi(arguments[3]);
        job->seed = strtoull(arguments[4], NULL, 0);
        if (pthread_create(&job->thread, NULL, disk_job, job)) fail("thread");
    }
    for (unsigned t = 0; t < threads; t++) {
        pthread_join(jobs[t].thread, NULL);
        bytes += jobs[t].bytes;
    }
    printf("ok %.1f %.3f\n", (double)bytes / (1 << 20), now() - start);
}

struct load {
    int fd, writes;
    size_t bytes;
    uint64_t places, seed, count;
    double until;
    pthread_t thread;
};

static void *load_job(void *argument) {
    struct load *load = argument;
    void *buffer;
    if (posix_memalign(&buffer, BLOCK, load->bytes)) fail("memory");
    memset(buffer, 0x5a, load->bytes);
    uint64_t state = load->seed;
    do {
        state = mix(state + 0x9e3779b97f4a7c15u);
        off_t at = (off_t)(state % load->places * load->bytes);
        ssize_t count = load->writes ? pwrite(load->fd, buffer, load->bytes, at) : pread(load->fd, buffer, load->bytes, at);
        if (count != (ssize_t)load->bytes) fail("load");
        load->count++;
    } while (now() < load->until);
    return NULL;
}

static void load(char **arguments) {
    unsigned threads = (unsigned)atoi(arguments[2]);
    struct load *loads = calloc(threads, sizeof *loads);
    double start = now();
    uint64_t count = 0;
    for (unsigned t = 0; t < threads; t++) {
        struct load *load = &loads[t];
        if ((load->fd = open(arguments[0], O_RDWR | O_DIRECT)) < 0) fail(arguments[0]);
        load->writes = !strcmp(arguments[4], "write");
        load->bytes = (size_t)atoi(arguments[1]) << 10;
        load->places = (uint64_t)lseek(load->fd, 0, SEEK_END) / load->bytes;
        load->seed = mix(t + 1);
        load->until = start + atof(arguments[3]);
        if (pthread_create(&load->thread, NULL, load_job, load)) fail("thread");
    }
    for (unsigned t = 0; t < threads; t++) {
        pthread_join(loads[t].thread, NULL);
        count += loads[t].count;
    }
    printf("ok %llu %.3f\n", (unsigned long long)count, now() - start);
}

static unsigned char stream_byte(uint64_t n) {
    return (unsigned char)(n * 167 + (n >> 8) * 13 + (n >> 20));
}

/* A connection to there; to no place in particular, one from anywhere. */
static int connected(const struct sockaddr_in *to) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (to->sin_addr.s_addr != INADDR_ANY) {
        if (connect(fd, (const struct sockaddr *)to, sizeof *to)) fail("connect");
        return fd;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)to, sizeof *to) || listen(fd, 1)) fail("listen");
    int accepted = accept(fd, NULL, NULL);
    if (accepted < 0) fail("accept");
    return accepted;
}

static void network(char **arguments, int sends) {
    static unsigned char buffer[1 << 16];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1]))};
    inet_pton(AF_INET, arguments[0], &to.sin_addr);
    uint64_t total = strtoull(arguments[2], NULL, 0) << 20, done = 0;
    int fd = connected(&to);
    double start = now();
    /* The pattern of a buffer is made for each 64 KiB, from the number of its MiB on. */
    while (done < total) {
        ssize_t count;
        if (sends) {
            if (done % sizeof buffer == 0)
                for (uint64_t i = 0; i < sizeof buffer; i++) buffer[i] = stream_byte(i + (done & ~0xfffffull));
            uint64_t from = done % sizeof buffer;
            count = write(fd, buffer + from, sizeof buffer - from);
        } else {
            count = read(fd, buffer, sizeof buffer);
            for (ssize_t i = 0; i < count; i++) {
                uint64_t n = done + (uint64_t)i;
                if (buffer[i] != stream_byte((n % sizeof buffer) + (n & ~0xfffffull))) {
                    printf("stress: byte %llu is wrong\n", (unsigned long long)n);
                    exit(1);
                }
            }
        }
        if (count <= 0) fail("stream");
        done += (uint64_t)count;
    }
    /* Who has all of it says so. */
    if (!sends && write(fd, "k", 1) != 1) fail("the other end");
    if (sends) {
        shutdown(fd, SHUT_WR);
        if (read(fd, buffer, 1) != 1 || buffer[0] != 'k') fail("the other end");
    }
    printf("ok %.1f %.3f\n", (double)total / (1 << 20), now() - start);
}

int main(int count, char **arguments) {
    if (count == 7 && !strcmp(arguments[1], "disk")) disk(arguments + 2);
    else if (count == 7 && !strcmp(arguments[1], "load")) load(arguments + 2);
    else if (count == 5 && !strcmp(arguments[1], "send")) network(arguments + 2, 1);
    else if (count == 5 && !strcmp(arguments[1], "receive")) network(arguments + 2, 0);
    else {
        printf("stress: disk DEVICE MIB THREADS ROUNDS SEED | load DEVICE KIB THREADS SECONDS read|write | send ADDRESS PORT MIB | receive ADDRESS PORT MIB\n");
        return 2;
    }
    return 0;
}
