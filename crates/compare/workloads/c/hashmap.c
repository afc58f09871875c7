/* A hash map with open addressing: keys inserted, looked up (also such as are not there) and removed. */
#include "rt.h"

/* Keys are odd, so that zero is an empty place. Keys, then values. */
static u64 *keys, *values;
static u32 mask;

static u32 place(u64 key)
{
    u32 at = (u32)(key * 0x9e3779b97f4a7c15u >> 40) & mask;
    while (keys[at] != 0 && keys[at] != key)
        at = (at + 1) & mask;
    return at;
}

static void erase(u64 key)
{
    u32 hole = place(key);
    if (keys[hole] == 0)
        return;
    /* What would not be found behind a hole moves into it. */
    for (u32 at = (hole + 1) & mask; keys[at] != 0; at = (at + 1) & mask) {
        u32 home = (u32)(keys[at] * 0x9e3779b97f4a7c15u >> 40) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            keys[hole] = keys[at];
            values[hole] = values[at];
            hole = at;
        }
    }
    keys[hole] = 0;
}

static u64 next_key(u64 *random) { return (u64)next_random(random) << 8 | 1; }

void hashmap_prepare(u32 amount)
{
    u32 places = 1;
    while (places < 2 * amount)
        places *= 2;
    mask = places - 1;
    keys = (u64 *)arena;
    values = keys + places;
}

u64 hashmap_work(u32 amount)
{
    u64 random = 11, sum = 1;
    for (u32 i = 0; i <= mask; i++)
        keys[i] = 0;
    for (u32 i = 0; i < amount; i++) {
        u64 key = next_key(&random);
        u32 at = place(key);
        if (keys[at] == 0) {
            keys[at] = key;
            values[at] = 0;
        }
        values[at] += i;
    }
    random = 11;
    for (u32 i = 0; i < amount; i++) {
        u64 key = next_key(&random) + (i % 4 == 0 ? 2 : 0);
        u32 at = place(key);
        sum = mix(sum, keys[at] == key ? values[at] : 1);
    }
    random = 11;
    for (u32 i = 0; i < amount / 2; i++)
        erase(next_key(&random));
    u32 left = 0;
    for (u32 i = 0; i <= mask; i++)
        left += keys[i] != 0;
    return mix(sum, left);
}
