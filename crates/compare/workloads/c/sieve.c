/* The sieve of Eratosthenes: bytes stored with a stride. */
#include "rt.h"

void sieve_prepare(u32 amount) { (void)amount; }

u64 sieve_work(u32 amount)
{
    u8 *composite = arena;
    u32 count = 0, last = 0;
    for (u32 n = 0; n < amount; n++)
        composite[n] = 0;
    for (u32 n = 2; n < amount; n++) {
        if (composite[n])
            continue;
        count++;
        last = n;
        for (u64 m = (u64)n * n; m < amount; m += n)
            composite[m] = 1;
    }
    return mix(mix(1, count), last);
}
