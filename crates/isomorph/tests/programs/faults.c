/* Faults of memory as a program's own handlers see them, and code that a program writes. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int seen, code;
static void *volatile where;

static void note(int signal, siginfo_t *info, void *context)
{
    seen = signal, code = info->si_code, where = info->si_addr;
    siglongjmp(back, 1);
}

static void try(const char *what, volatile char *at, char *base, int write)
{
    seen = code = 0, where = 0;
    /* A value that lives in a register through the fault. */
    volatile int before = 17;
    if (!sigsetjmp(back, 1)) {
        if (write)
            *at = 1;
        else
            (void)*at;
    }
    printf("%s: signal %d code %d at %ld, %d\n", what, seen, code, seen ? (long)((char *)where - base) : 0, before);
}

/* A handler that makes the page accessible: the instruction is executed again. */
static char *page;
static int repaired;

static void repair(int signal, siginfo_t *info, void *context)
{
    repaired++;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

#ifdef __riscv
static unsigned constant(int value) { return (unsigned)value << 20 | 10 << 7 | 0x13; }
static const unsigned back_again = 0x00008067;
#endif

typedef int function(void);

static void put(unsigned char *at, int value)
{
#ifdef __riscv
    unsigned words[] = {constant(value), back_again};
    memcpy(at, words, sizeof words);
#else
    unsigned char bytes[] = {0xb8, value, value >> 8, value >> 16, value >> 24, 0xc3};
    memcpy(at, bytes, sizeof bytes);
#endif
    __builtin___clear_cache((char *)at, (char *)at + 8);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    char *pages = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + 4096, 4096, PROT_READ);
    munmap(pages + 2 * 4096, 4096);
    /* More than once, so that it is translated. */
    for (int round = 0; round < 40; round++) {
        try("mapped", pages, pages, 1);
        try("read-only, read", pages + 4096, pages, 0);
        try("read-only, written", pages + 4100, pages, 1);
        try("a hole", pages + 2 * 4096 + 5, pages, 1);
        try("null", (char *)0, 0, 0);
        try("far away", (char *)0x300000000123, 0, 1);
    }

    /* Past the end of a file. */
    char name[] = "/tmp/faultsXXXXXX";
    int file = mkstemp(name);
    unlink(name);
    ftruncate(file, 4096);
    char *mapped = mmap(0, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    for (int round = 0; round < 40; round++) {
        try("in the file", mapped + 4095, mapped, 1);
        try("past its end", mapped + 4096 + 7, mapped, round & 1);
    }
    ftruncate(file, 0);
    try("a file that has shrunk", mapped, mapped, 0);
    printf("write from past the end: %ld\n", (long)write(file, mapped, 1));

    /* Repaired by the handler. */
    action.sa_sigaction = repair;
    sigaction(SIGSEGV, &action, 0);
    page = pages;
    for (int round = 0; round < 100; round++) {
        mprotect(page, 4096, PROT_NONE);
        page[round] += round;
    }
    printf("repaired %d times, %d\n", repaired, page[99]);

    /* Code that changes, in place and by way of protections. */
    unsigned char *made = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int sum = 0;
    for (int round = 0; round < 300; round++) {
        if (round % 50 == 0)
            put(made, round);
        if (round % 50 == 25) {
            mprotect(made, 4096, PROT_READ | PROT_WRITE);
            put(made, round);
            mprotect(made, 4096, PROT_READ | PROT_EXEC);
        }
        if (round % 50 == 49)
            mprotect(made, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
        sum += ((function *)made)();
    }
    printf("made code: %d\n", sum);

    /* Sent and not caused; ignored, blocked, and deadly. */
    signal(SIGSEGV, SIG_IGN);
    kill(getpid(), SIGSEGV);
    signal(SIGBUS, SIG_DFL);
    fflush(stdout);
    int status;
    if (!fork())
        kill(getpid(), SIGBUS), _exit(1);
    wait(&status);
    printf("sent: %d\n", WTERMSIG(status));
    fflush(stdout);
    if (!fork())
        *(volatile char *)1 = 1, _exit(1);
    wait(&status);
    printf("ignored and caused: %d\n", WTERMSIG(status));
    return 0;
}
