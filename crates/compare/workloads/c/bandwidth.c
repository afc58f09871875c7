/* Two streams of doubles read and a third written: what the way to memory can carry. */
#include "rt.h"

void bandwidth_prepare(u32 amount)
{
    f64 *b = (f64 *)arena + amount, *c = b + amount;
    for (u32 i = 0; i < amount; i++) {
        b[i] = i % 1000;
        c[i] = i % 777;
    }
}

u64 bandwidth_work(u32 amount)
{
    f64 *restrict a = (f64 *)arena;
    const f64 *b = a + amount, *c = b + amount;
    u64 sum = 1;
    for (u32 i = 0; i < amount; i++)
        a[i] = b[i] + 3 * c[i];
    for (u32 i = 0; i < amount; i += 4096)
        sum = mix(sum, bits(a[i]));
    return sum;
}
