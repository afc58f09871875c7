/* The sieve of Eratosthenes: bytes stored with a stride. */
#include "check.h"

enum { LIMIT = 8000000, ROUNDS = 12 };

static uint8_t composite[LIMIT];

int main(void)
{
    uint64_t sum = 0;
    int count = 0;
    for (int round = 0; round < ROUNDS; round++) {
        memset(composite, 0, sizeof composite);
        count = 0;
        for (int n = 2; n < LIMIT; n++) {
            if (composite[n])
                continue;
            count++;
            for (int64_t m = (int64_t)n * n; m < LIMIT; m += n)
                composite[m] = 1;
        }
        sum = mix(sum, (uint64_t)count);
    }
    /* There are 539,777 primes below eight million. */
    return finish("sieve", sum, count == 539777);
}
