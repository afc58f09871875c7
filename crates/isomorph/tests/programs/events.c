// Waiting for things, time, sockets and what goes through them, System V IPC.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int ticks;
static void tick(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    ticks += info->si_value.sival_int;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    int epoll = epoll_create1(EPOLL_CLOEXEC), counter = eventfd(0, EFD_NONBLOCK), timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1122334455667788}, got[4];
    epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event);
    event.data.u64 = 7;
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    printf("nothing: %d\n", epoll_wait(epoll, got, 4, 0));
    eventfd_write(counter, 5);
    int count = epoll_wait(epoll, got, 4, -1);
    printf("event: %d %x %llx\n", count, got[0].events, (unsigned long long)got[0].data.u64);
    eventfd_t total;
    eventfd_read(counter, &total);
    printf("total %d\n", (int)total);
    struct itimerspec soon = {.it_value.tv_nsec = 5000000};
    timerfd_settime(timer, 0, &soon, NULL);
    count = epoll_wait(epoll, got, 4, -1);
    printf("timer: %d %d\n", count, (int)got[0].data.u64);
    count = epoll_wait(epoll, got, 0, 0);
    printf("bad: %d %s\n", count, strerror(errno));

    struct sigaction action = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 1, &action, NULL);
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 3};
    timer_t id;
    timer_create(CLOCK_MONOTONIC, &how, &id);
    timer_settime(id, 0, &soon, NULL);
    while (!ticks) {
        sigset_t open;
        sigemptyset(&open);
        struct timespec limit = {.tv_sec = 1};
        ppoll(NULL, 0, &limit, &open);
    }
    printf("ticks %d\n", ticks);
    timer_delete(id);

    // Descriptors and credentials over a socket.
    int pair[2], ends[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) || pipe(ends)) return 1;
    char text[] = "message", into[16] = {0};
    char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec parts[2] = {{text, 3}, {text + 3, 5}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &ends[1], sizeof(int));
    printf("sent %zd\n", sendmsg(pair[0], &message, 0));
    memset(control, 0, sizeof control);
    struct iovec whole = {into, sizeof into};
    struct msghdr received = {.msg_iov = &whole, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(pair[1], &received, 0);
    printf("received %zd %s, flags %d\n", size, into, received.msg_flags);
    int passed;
    memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&received)), sizeof(int));
    char byte = 0;
    ssize_t written = write(passed, "z", 1);
    size = read(ends[0], &byte, 1);
    printf("passed: %zd %zd %c\n", written, size, byte);
    struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = parts + 1, .msg_iovlen = 1}}};
    count = sendmmsg(pair[0], many, 2, 0);
    printf("many: %d %u %u\n", count, many[0].msg_len, many[1].msg_len);

    // TCP to oneself.
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (void *)&address, length) || listen(listener, 1)) perror("listen");
    getsockname(listener, (void *)&address, &length);
    if (!fork()) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(client, (void *)&address, sizeof address)) _exit(1);
        _exit(write(client, "over tcp", 8) != 8);
    }
    int client = accept(listener, NULL, NULL);
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(client, &readable);
    struct timeval limit = {.tv_sec = 5};
    printf("select %d\n", select(client + 1, &readable, NULL, NULL, &limit));
    memset(into, 0, sizeof into);
    size = recv(client, into, sizeof into, 0);
    printf("tcp: %zd %s\n", size, into);
    wait(NULL);

    // System V: memory and semaphores.
    int segment = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600), set = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
    int *shared = shmat(segment, NULL, 0);
    struct semid_ds state = {0};
    semctl(set, 0, IPC_STAT, &state);
    printf("semaphores %d\n", (int)state.sem_nsems);
    if (!fork()) {
        shared[0] = 99;
        struct sembuf up = {0, 1, 0};
        _exit(semop(set, &up, 1) != 0);
    }
    struct sembuf down = {0, -1, 0};
    int done = semop(set, &down, 1);
    printf("semop %d, shared %d\n", done, shared[0]);
    wait(NULL);
    done = shmdt(shared);
    printf("detached %d %d\n", done, shmdt(shared));
    shmctl(segment, IPC_RMID, NULL);
    semctl(set, 0, IPC_RMID);

    // Time moves, and comes by the vdso where there is one.
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    usleep(2000);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long passed_us = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    printf("slept %d\n", passed_us >= 2000 && passed_us < 2000000);
    struct timeval now;
    gettimeofday(&now, NULL);
    printf("now %d, vdso %d\n", now.tv_sec - time(NULL) <= 1, getauxval(AT_SYSINFO_EHDR) != 0);
    return 0;
}
