// Processes: fork, vfork, posix_spawn, exec of itself, of scripts and of the host's programs, pipes, waiting, groups, terminals.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

extern char **environ;

static int ended(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (count > 1) {
        // Executed by itself: what was ignored and blocked still is.
        struct sigaction ignored, caught;
        sigset_t blocked;
        sigaction(SIGUSR1, NULL, &ignored);
        sigaction(SIGUSR2, NULL, &caught);
        sigprocmask(SIG_BLOCK, NULL, &blocked);
        printf("%s %s: ignored %d, caught %d, blocked %d, HOME=%s\n", arguments[0], arguments[1], ignored.sa_handler == SIG_IGN,
               caught.sa_handler != SIG_DFL, sigismember(&blocked, SIGTERM), getenv("HOME"));
        return 9;
    }
    char self[4096] = {0};
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return 1;
    printf("self: %d\n", access(self, X_OK));

    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int private = 1;
    pid_t child = fork();
    if (!child) {
        *shared = 42, private = 2;
        _exit(3);
    }
    int status = ended(child);
    printf("fork: %d, shared %d, private %d\n", status, *shared, private);

    volatile int borrowed = 1;
    child = vfork();
    if (!child) {
        borrowed = 2;
        _exit(4);
    }
    status = ended(child);
    printf("vfork: %d, borrowed %d\n", status, borrowed);

    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, (void (*)(int))main);
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigprocmask(SIG_BLOCK, &block, NULL);
    char *again[] = {"again", "1", NULL}, *environment[] = {"HOME=/nowhere", NULL};
    if (!(child = fork())) {
        execve(self, again, environment);
        _exit(1);
    }
    printf("exec: %d\n", ended(child));
    int error = posix_spawn(&child, self, NULL, NULL, again, environment);
    printf("spawn: %d, %d\n", error, ended(child));
    error = posix_spawn(&child, "/no/such/file", NULL, NULL, again, environ);
    printf("spawn nothing: %s\n", strerror(error));
    struct sigaction still;
    sigaction(SIGUSR2, NULL, &still);
    printf("own handler is still there: %d\n", still.sa_handler == (void (*)(int))main);

    char script[] = "/tmp/isomorph-script-XXXXXX";
    int file = mkstemp(script);
    dprintf(file, "#!/bin/sh -e\necho \"script $1\"; exit 6\n");
    fchmod(file, 0755);
    close(file);
    char *words[] = {"script", "word", NULL};
    if (!(child = fork())) {
        execv(script, words);
        _exit(1);
    }
    printf("script: %d\n", ended(child));
    unlink(script);
    if (!(child = fork())) {
        execv("/dev/null", words);
        _exit(errno == EACCES ? 7 : 1);
    }
    printf("no program: %d\n", ended(child));

    FILE *pipe = popen("echo one; echo two | tr a-z A-Z", "r");
    char line[64];
    while (fgets(line, sizeof line, pipe)) printf("popen: %s", line);
    printf("pclose: %d\n", pclose(pipe));

    child = fork();
    if (!child) {
        for (;;) pause();
    }
    siginfo_t info;
    kill(child, SIGSTOP);
    waitid(P_PID, child, &info, WSTOPPED);
    printf("stopped: %d\n", info.si_code == CLD_STOPPED && info.si_status == SIGSTOP && info.si_pid == child);
    kill(child, SIGCONT);
    waitid(P_PID, child, &info, WCONTINUED);
    printf("continued: %d\n", info.si_code == CLD_CONTINUED);
    kill(child, SIGKILL);
    printf("killed: %d\n", ended(child));

    int master;
    child = forkpty(&master, NULL, NULL, NULL);
    if (!child) {
        printf("tty %d, session %d\n", isatty(0), getsid(0) == getpid());
        if (fgets(line, sizeof line, stdin)) printf("read %s", line);
        _exit(8);
    }
    struct winsize size = {.ws_row = 33, .ws_col = 77};
    ioctl(master, TIOCSWINSZ, &size);
    struct termios mode;
    tcgetattr(master, &mode);
    printf("echo %d\n", (mode.c_lflag & ECHO) != 0);
    if (write(master, "typed\n", 6) != 6) return 1;
    char all[512];
    size_t length = 0;
    ssize_t got;
    while ((got = read(master, all + length, sizeof all - 1 - length)) > 0) length += (size_t)got;
    all[length] = 0;
    status = ended(child);
    printf("terminal: %d %d, %d\n", strstr(all, "tty 1, session 1") != NULL, strstr(all, "read typed") != NULL, status);
    return 0;
}
