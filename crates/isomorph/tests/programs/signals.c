// Signals: contexts that handlers change, interrupted and repeated calls, masks, stacks, faults.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int caught, value;
static sigjmp_buf back;

static void set(int signal, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    if (sigaction(signal, &action, NULL)) perror("sigaction");
}

static void count(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    caught++;
    value = info->si_value.sival_int;
}

static void leave(int signal, siginfo_t *info, void *context) {
    (void)context;
    printf("fault %d code %d at %#lx\n", signal, info->si_code, (long)info->si_addr & 0xfff);
    siglongjmp(back, 1);
}

// The faulting load gets its answer from the handler, which also goes past it.
static void answer(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *uc = context;
#ifdef __riscv
    unsigned long *pc = &uc->uc_mcontext.__gregs[0];
    *pc += (*(unsigned short *)*pc & 3) == 3 ? 4 : 2;
    uc->uc_mcontext.__gregs[10] = 4711;
#else
    uc->uc_mcontext.gregs[REG_RIP] += 3;
    uc->uc_mcontext.gregs[REG_RAX] = 4711;
#endif
}

__attribute__((noinline)) static long fetch(long *from) {
#ifdef __riscv
    register long a0 __asm__("a0") = (long)from;
    __asm__ volatile("ld a0, 0(a0)" : "+r"(a0));
    return a0;
#else
    long rax = (long)from;
    __asm__ volatile("movq (%%rax), %%rax" : "+a"(rax));
    return rax;
#endif
}

static char stack[65536] __attribute__((aligned(16)));
static void overflow_handler(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info, (void)context;
    char here;
    printf("on the alternate stack: %d\n", &here >= stack && &here < stack + sizeof stack);
    siglongjmp(back, 1);
}
static int recurse(int depth) {
    volatile char room[4096];
    room[0] = (char)depth;
    return recurse(depth + 1) + room[0];
}

static void *sender(void *target) {
    for (int i = 0; i < 2000; i++) {
        pthread_kill(*(pthread_t *)target, SIGUSR1);
        if (i % 16 == 0) usleep(50);
    }
    return NULL;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    // Queued signals keep their order and values.
    set(SIGRTMIN, count, 0);
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &block, &old);
    for (int i = 1; i <= 5; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
    printf("blocked: %d\n", caught);
    siginfo_t info;
    int waited = sigwaitinfo(&block, &info);
    printf("waited for %d, value %d\n", waited == SIGRTMIN, info.si_value.sival_int);
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("caught %d, last %d\n", caught, value);

    // Faults.
    set(SIGSEGV, leave, 0);
    set(SIGBUS, leave, 0);
    set(SIGILL, leave, 0);
    set(SIGTRAP, leave, 0);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!sigsetjmp(back, 1)) page[0x123] = 1;
    munmap(page, 4096);
    if (!sigsetjmp(back, 1)) printf("%d\n", page[0x321]);
    if (!sigsetjmp(back, 1)) ((void (*)(void))page)();
    set(SIGSEGV, answer, 0);
    printf("the handler's answer: %ld\n", fetch((long *)8));
    set(SIGSEGV, answer, SA_RESETHAND);
    printf("once more: %ld\n", fetch((long *)8));
    struct sigaction now;
    sigaction(SIGSEGV, NULL, &now);
    printf("reset: %d\n", now.sa_handler == SIG_DFL);

    // A stack that overflows.
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    set(SIGSEGV, overflow_handler, SA_ONSTACK);
    if (!sigsetjmp(back, 1)) printf("%d\n", recurse(0));

    // Interrupted calls.
    caught = 0;
    set(SIGALRM, count, 0);
    int ends[2];
    if (pipe(ends)) return 1;
    char byte;
    struct itimerval soon = {.it_value.tv_usec = 20000};
    setitimer(ITIMER_REAL, &soon, NULL);
    ssize_t got = read(ends[0], &byte, 1);
    printf("read: %zd %s, caught %d\n", got, got < 0 ? strerror(errno) : "", caught);
    set(SIGALRM, count, SA_RESTART);
    setitimer(ITIMER_REAL, &soon, NULL);
    if (!fork()) {
        usleep(100000);
        _exit(write(ends[1], "x", 1) != 1);
    }
    got = read(ends[0], &byte, 1);
    printf("read again: %zd %c, caught %d\n", got, byte, caught);
    wait(NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    struct timespec second = {.tv_sec = 5}, left;
    int slept = nanosleep(&second, &left);
    printf("nanosleep: %d %s, left %ld\n", slept, strerror(errno), (long)left.tv_sec);
    sigset_t none;
    sigemptyset(&none);
    setitimer(ITIMER_REAL, &soon, NULL);
    slept = sigsuspend(&none);
    printf("sigsuspend: %d %s, caught %d\n", slept, strerror(errno), caught);

    // A descriptor for signals.
    sigset_t user;
    sigemptyset(&user);
    sigaddset(&user, SIGUSR2);
    sigprocmask(SIG_BLOCK, &user, NULL);
    int file = signalfd(-1, &user, SFD_CLOEXEC);
    kill(getpid(), SIGUSR2);
    struct signalfd_siginfo event;
    got = read(file, &event, sizeof event);
    printf("signalfd: %zd bytes, signal %d\n", got, (int)event.ssi_signo == SIGUSR2);

    // A storm over a pipe, with and without repeated calls: no byte and no signal is lost.
    for (int restart = 0; restart < 2; restart++) {
        set(SIGUSR1, count, restart ? SA_RESTART : 0);
        caught = 0;
        pthread_t self = pthread_self(), other;
        pid_t child = fork();
        if (!child) {
            for (int i = 0; i < 400; i++) {
                if (write(ends[1], "y", 1) != 1) _exit(1);
                usleep(100);
            }
            _exit(0);
        }
        pthread_create(&other, NULL, sender, &self);
        int bytes = 0, interrupted = 0;
        while (bytes < 400) {
            got = read(ends[0], &byte, 1);
            if (got == 1) bytes++;
            else if (errno == EINTR) interrupted++;
            else break;
        }
        pthread_join(other, NULL);
        int status;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        printf("storm: %d bytes, interrupted %d, caught some %d, child %d\n", bytes, restart ? interrupted : interrupted > 0, caught > 0, status);
    }

    // Deaths.
    int deaths[] = {SIGTERM, SIGSEGV, SIGABRT, SIGPIPE, SIGKILL};
    for (unsigned i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        int status;
        pid_t child = fork();
        if (!child) {
            signal(deaths[i], SIG_DFL);
            if (deaths[i] == SIGSEGV) *(volatile int *)16 = 1;
            if (deaths[i] == SIGABRT) abort();
            kill(getpid(), deaths[i]);
            _exit(1);
        }
        waitpid(child, &status, 0);
        printf("died of %d: %d\n", deaths[i], WIFSIGNALED(status) && WTERMSIG(status) == deaths[i]);
    }
    return 0;
}
