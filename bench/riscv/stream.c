/* The triad a = b + q * c over arrays that fit no inner cache: one multiplication, one addition, two loads and a store for each element. */
#include <stdlib.h>

#include "check.h"

enum { COUNT = 1 << 19, ROUNDS = 1000 };

__attribute__((noinline)) static void triad(double *restrict a, const double *restrict b, const double *restrict c, double q)
{
    for (int i = 0; i < COUNT; i++)
        a[i] = b[i] + q * c[i];
}

int main(void)
{
    double *a = malloc(COUNT * sizeof *a), *b = malloc(COUNT * sizeof *b), *c = malloc(COUNT * sizeof *c);
    if (!a || !b || !c)
        return finish("stream", 0, 0);
    for (int i = 0; i < COUNT; i++) {
        a[i] = 0;
        b[i] = i;
        c[i] = 1.0 / (i + 1);
    }
    for (int i = 0; i < ROUNDS; i++)
        triad(a, b, c, i);
    uint64_t sum = 0;
    int right = 1;
    for (int i = 0; i < COUNT; i++) {
        sum = mix(sum, bits(a[i]));
        right &= a[i] == b[i] + (ROUNDS - 1) * c[i];
    }
    return finish("stream", sum, right);
}
