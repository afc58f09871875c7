/* SHA-256 (FIPS 180-4) of many bytes: shifts, additions and nothing else. The constants are computed, not listed. */
#include "check.h"

enum { BLOCKS = 2600000 };

static uint32_t k[64], start[8];

/* The first 32 bits of the fractional part of a root of `n`: the square root for `degree` 2, the cube root for 3. */
static uint32_t root_fraction(uint64_t n, int degree)
{
    /* The largest x with (x / 2^32)^degree <= n, bit by bit in 128-bit arithmetic; x < 2^36 and n < 2^10. */
    uint64_t x = 0;
    for (int bit = 37; bit >= 0; bit--) {
        uint64_t y = x | UINT64_C(1) << bit;
        unsigned __int128 power = (unsigned __int128)y * y;
        int fits;
        if (degree == 2) {
            fits = power <= (unsigned __int128)n << 64;
        } else {
            /* y^3 <= n * 2^96, with the low 32 bits of y^2 taken apart. */
            unsigned __int128 high = (power >> 32) * y, low = (power & 0xffffffff) * y;
            fits = high + (low >> 32) < (unsigned __int128)n << 64;
        }
        if (fits)
            x = y;
    }
    return (uint32_t)x;
}

static void prepare(void)
{
    int found = 0;
    for (uint64_t n = 2; found < 64; n++) {
        int prime = 1;
        for (uint64_t d = 2; d * d <= n; d++)
            prime &= n % d != 0;
        if (!prime)
            continue;
        k[found] = root_fraction(n, 3);
        if (found < 8)
            start[found] = root_fraction(n, 2);
        found++;
    }
}

static inline uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void compress(uint32_t h[8], const uint8_t *block)
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], z = h[7];
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = z + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
        uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        z = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e, h[5] += f, h[6] += g, h[7] += z;
}

int main(void)
{
    prepare();
    /* The standard's example: "abc" hashes to ba7816bf... */
    uint8_t block[64] = {'a', 'b', 'c', 0x80, [63] = 24};
    uint32_t h[8];
    memcpy(h, start, sizeof h);
    compress(h, block);
    int right = h[0] == 0xba7816bf && h[7] == 0xf20015ad;
    for (int i = 0; i < BLOCKS; i++) {
        block[i & 63] += (uint8_t)h[0];
        compress(h, block);
    }
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum = mix(sum, h[i]);
    return finish("sha256", sum, right);
}
