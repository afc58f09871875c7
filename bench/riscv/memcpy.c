/* Copies, fills and comparisons by the C library, of many sizes. */
#include <stdlib.h>

#include "check.h"

enum { SIZE = 1 << 20, ROUNDS = 8000 };

int main(void)
{
    uint8_t *from = malloc(SIZE), *to = malloc(SIZE);
    if (!from || !to)
        return finish("memcpy", 0, 0);
    uint64_t random = 11, sum = 0;
    int right = 1;
    for (int i = 0; i < SIZE; i++)
        from[i] = (uint8_t)next_random(&random);
    for (int round = 0; round < ROUNDS; round++) {
        from[round] ^= 1;
        memcpy(to, from, SIZE);
        right &= memcmp(from, to, SIZE / 4) == 0;
        /* Short ones, as most are. */
        for (int i = 0; i < 200; i++) {
            size_t length = next_random(&random) % 200, at = next_random(&random) % (SIZE - 256);
            memcpy(to + at, from + at, length);
        }
        memset(to + SIZE / 2, round, SIZE / 4);
        sum = mix(sum, to[SIZE / 2 + round] + to[round]);
    }
    return finish("memcpy", sum, right);
}
