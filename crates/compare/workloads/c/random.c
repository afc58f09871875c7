/* A chain of places in 32 MiB, each of which tells the next: how long memory takes to answer, and address translation with it. */
#include "rt.h"

enum { PLACES = 1 << 23 };

void random_prepare(u32 amount)
{
    u32 *next = (u32 *)arena;
    (void)amount;
    /* One cycle through all places (Hull and Dobell: the factor is 1 modulo 4, the addend odd). */
    for (u32 i = 0; i < PLACES; i++)
        next[i] = (i * 1664525u + 1013904223u) % PLACES;
}

u64 random_work(u32 amount)
{
    const u32 *next = (const u32 *)arena;
    u32 at = 1;
    for (u32 i = 0; i < amount; i++)
        at = next[at];
    return mix(1, at);
}
