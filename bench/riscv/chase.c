/* Pointers that lead all over a large table: nothing but waiting for memory. */
#include <stdlib.h>

#include "check.h"

enum { COUNT = 1 << 20, STEPS = 12000000 };

struct cell {
    struct cell *next;
    uint64_t value;
};

int main(void)
{
    struct cell *cells = malloc(COUNT * sizeof *cells);
    uint32_t *order = malloc(COUNT * sizeof *order);
    if (!cells || !order)
        return finish("chase", 0, 0);
    uint64_t random = 5, sum = 0;
    for (uint32_t i = 0; i < COUNT; i++)
        order[i] = i;
    for (uint32_t i = COUNT - 1; i > 0; i--) {
        uint32_t j = next_random(&random) % (i + 1), old = order[i];
        order[i] = order[j];
        order[j] = old;
    }
    /* One circle through all cells. */
    for (uint32_t i = 0; i < COUNT; i++) {
        cells[order[i]].next = &cells[order[(i + 1) % COUNT]];
        cells[order[i]].value = i;
    }
    const struct cell *at = &cells[order[0]];
    for (int i = 0; i < STEPS; i++) {
        sum += at->value;
        at = at->next;
    }
    return finish("chase", mix(0, sum), at->value == STEPS % COUNT);
}
