// Threads: mutexes, condition variables, barriers, robust mutexes, cancellation, thread-local storage, many short lives.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static long counter, turn;
static atomic_long atomic_counter;
static __thread int own = 1;

static void *add(void *unused) {
    (void)unused;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 50000; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
        atomic_fetch_add(&atomic_counter, 1);
        own++;
    }
    return (void *)(long)own;
}

static void *ping(void *parity) {
    for (int i = 0; i < 500; i++) {
        pthread_mutex_lock(&lock);
        while (turn % 2 != (long)parity) pthread_cond_wait(&condition, &lock);
        turn++;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void *die_with(void *mutex) {
    pthread_mutex_lock(mutex);
    return NULL;
}

static void *forever(void *unused) {
    (void)unused;
    for (;;) pause();
    return NULL;
}

static void *nothing(void *argument) { return argument; }

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    pthread_t threads[4];
    pthread_barrier_init(&barrier, NULL, 4);
    long sum = 0;
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, add, NULL);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        sum += (long)result;
    }
    printf("counted %ld, %ld, own %ld, here %d\n", counter, (long)atomic_counter, sum, own);

    for (long i = 0; i < 2; i++) pthread_create(&threads[i], NULL, ping, (void *)i);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    printf("turns %ld\n", turn);

    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    for (int inherits = 0; inherits < 2; inherits++) {
        pthread_mutex_t robust;
        if (inherits) pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
        pthread_mutex_init(&robust, &attributes);
        pthread_create(&threads[0], NULL, die_with, &robust);
        pthread_join(threads[0], NULL);
        int error = pthread_mutex_lock(&robust);
        int consistent = pthread_mutex_consistent(&robust), unlocked = pthread_mutex_unlock(&robust);
        printf("owner died: %d, consistent %d, unlock %d\n", error == EOWNERDEAD, consistent, unlocked);
    }

    pthread_create(&threads[0], NULL, forever, NULL);
    usleep(1000);
    pthread_cancel(threads[0]);
    void *result;
    pthread_join(threads[0], &result);
    printf("cancelled %d\n", result == PTHREAD_CANCELED);

    long lives = 0;
    for (long i = 0; i < 300; i++) {
        pthread_create(&threads[0], NULL, nothing, (void *)i);
        pthread_join(threads[0], &result);
        lives += (long)result;
    }
    printf("lives %ld\n", lives);

    // A deadline that passes.
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_nsec += 10000000;
    if (deadline.tv_nsec >= 1000000000) deadline.tv_sec++, deadline.tv_nsec -= 1000000000;
    int waited = sem_timedwait(&semaphore, &deadline);
    printf("timed wait: %d %s\n", waited, strerror(errno));

    // A fork beside other threads; then an end with a thread inside a call.
    pthread_create(&threads[0], NULL, forever, NULL);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (!child) {
            pthread_t inner;
            pthread_create(&inner, NULL, nothing, (void *)7L);
            pthread_join(inner, &result);
            exit((int)(long)result);
        }
        int status;
        waitpid(child, &status, 0);
        if (WEXITSTATUS(status) != 7) printf("child %d: %x\n", i, status);
    }
    printf("forked\n");
    return 5;
}
