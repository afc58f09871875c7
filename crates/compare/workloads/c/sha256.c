/* SHA-256 (FIPS 180-4) of many blocks: shifts, additions and nothing else. The constants are computed, not listed. */
#include "rt.h"

static u32 k[64], begin[8];

/* The first 32 bits of the fractional part of the square (`degree` 2) or cube root of a prime below 512: the largest x with (x / 2^32)^degree < n, bit
   by bit. A double has 17 bits more than x, and no root of a prime comes as close to a number of 32 bits behind the point. */
static u32 root_fraction(u32 n, int degree)
{
    const f64 scale = 4294967296.0;
    u64 x = 0;
    for (int bit = 36; bit >= 0; bit--) {
        u64 y = x | (u64)1 << bit;
        f64 value = (f64)y / scale, power = degree == 2 ? value * value : value * value * value;
        if (power < (f64)n)
            x = y;
    }
    return (u32)x;
}

static inline u32 rotate(u32 x, int n) { return x >> n | x << (32 - n); }

static void compress(u32 h[8], const u8 *block)
{
    u32 w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (u32)block[4 * i] << 24 | (u32)block[4 * i + 1] << 16 | (u32)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        u32 s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        u32 s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    u32 a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], z = h[7];
    for (int i = 0; i < 64; i++) {
        u32 t1 = z + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
        u32 t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        z = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e, h[5] += f, h[6] += g, h[7] += z;
}

void sha256_prepare(u32 amount)
{
    int found = 0;
    (void)amount;
    for (u32 n = 2; found < 64; n++) {
        int prime = 1;
        for (u32 d = 2; d * d <= n; d++)
            prime &= n % d != 0;
        if (!prime)
            continue;
        k[found] = root_fraction(n, 3);
        if (found < 8)
            begin[found] = root_fraction(n, 2);
        found++;
    }
}

u64 sha256_work(u32 amount)
{
    u8 block[64];
    u32 h[8];
    u64 sum = 1;
    for (int i = 0; i < 64; i++)
        block[i] = 0;
    block[0] = 'a', block[1] = 'b', block[2] = 'c', block[3] = 0x80, block[63] = 24;
    for (int i = 0; i < 8; i++)
        h[i] = begin[i];
    compress(h, block);
    /* The standard's example: "abc" hashes to ba7816bf ... f20015ad. */
    if (h[0] != 0xba7816bf || h[7] != 0xf20015ad)
        return 0;
    for (u32 i = 0; i < amount; i++) {
        block[i & 63] += (u8)h[0];
        compress(h, block);
    }
    for (int i = 0; i < 8; i++)
        sum = mix(sum, h[i]);
    return sum;
}
