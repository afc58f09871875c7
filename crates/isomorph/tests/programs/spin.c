/* Spins on as many threads as it is told, for ever; says so when SIGTERM comes, and ends. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static volatile unsigned long turns;

static void *spin(void *unused) {
    for (;;)
        turns++;
    return unused;
}

static void end(int number) {
    write(1, "asked to end\n", 13);
    _exit(3);
}

int main(int count, char **arguments) {
    signal(SIGTERM, end);
    for (int n = count > 1 ? atoi(arguments[1]) : 1; n > 1; n--) {
        pthread_t thread;
        pthread_create(&thread, 0, spin, 0);
    }
    /* What does not belong to the program is not there to be closed. */
    for (int n = 3; n < 1000; n++)
        close(n);
    write(1, "spinning\n", 9);
    spin(0);
}
