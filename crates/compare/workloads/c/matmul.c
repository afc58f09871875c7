/* A product of square matrices of doubles, row by row: what compilers turn into vectors where they may. */
#include "rt.h"

void matmul_prepare(u32 amount)
{
    f64 *a = (f64 *)arena, *b = a + amount * amount;
    u64 random = 3;
    for (u32 i = 0; i < amount * amount; i++) {
        a[i] = (f64)(next_random(&random) % 1000) / 999;
        b[i] = (f64)(next_random(&random) % 1000) / 777;
    }
}

u64 matmul_work(u32 amount)
{
    const f64 *a = (const f64 *)arena, *b = a + amount * amount;
    f64 *c = (f64 *)arena + 2 * amount * amount;
    u64 sum = 1;
    for (u32 i = 0; i < amount; i++) {
        f64 *row = c + i * amount;
        for (u32 j = 0; j < amount; j++)
            row[j] = 0;
        for (u32 k = 0; k < amount; k++) {
            f64 factor = a[i * amount + k];
            const f64 *other = b + k * amount;
            for (u32 j = 0; j < amount; j++)
                row[j] += factor * other[j];
        }
    }
    for (u32 i = 0; i < amount; i++)
        sum = mix(sum, bits(c[i * amount + i * 7 % amount]));
    return sum;
}
