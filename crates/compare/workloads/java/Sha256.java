/** SHA-256 (FIPS 180-4) of many blocks: shifts, additions and nothing else. The constants are computed, not listed. */
final class Sha256 implements Main.Workload {
    private final int[] k = new int[64], begin = new int[8];

    /** The first 32 bits of the fractional part of the square or cube root of a prime below 512; see the C source. */
    private static int rootFraction(int n, int degree) {
        long x = 0;
        for (int bit = 36; bit >= 0; bit--) {
            long y = x | 1L << bit;
            double value = (double) y / 4294967296.0, power = degree == 2 ? value * value : value * value * value;
            if (power < n) {
                x = y;
            }
        }
        return (int) x;
    }

    private static int rotate(int x, int n) {
        return x >>> n | x << (32 - n);
    }

    private void compress(int[] hash, byte[] block) {
        int[] w = new int[64];
        for (int i = 0; i < 16; i++) {
            w[i] = (block[4 * i] & 255) << 24 | (block[4 * i + 1] & 255) << 16 | (block[4 * i + 2] & 255) << 8 | block[4 * i + 3] & 255;
        }
        for (int i = 16; i < 64; i++) {
            int s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >>> 3;
            int s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >>> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        int a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], f = hash[5], g = hash[6], h = hash[7];
        for (int i = 0; i < 64; i++) {
            int t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
            int t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g;
            g = f;
            f = e;
            e = d + t1;
            d = c;
            c = b;
            b = a;
            a = t1 + t2;
        }
        hash[0] += a;
        hash[1] += b;
        hash[2] += c;
        hash[3] += d;
        hash[4] += e;
        hash[5] += f;
        hash[6] += g;
        hash[7] += h;
    }

    @Override
    public void prepare(int amount) {
        int found = 0;
        for (int n = 2; found < 64; n++) {
            boolean prime = true;
            for (int d = 2; d * d <= n; d++) {
                prime &= n % d != 0;
            }
            if (!prime) {
                continue;
            }
            k[found] = rootFraction(n, 3);
            if (found < 8) {
                begin[found] = rootFraction(n, 2);
            }
            found++;
        }
    }

    @Override
    public long work(int amount) {
        byte[] block = new byte[64];
        int[] hash = begin.clone();
        long sum = 1;
        block[0] = 'a';
        block[1] = 'b';
        block[2] = 'c';
        block[3] = (byte) 0x80;
        block[63] = 24;
        compress(hash, block);
        if (hash[0] != 0xba7816bf || hash[7] != 0xf20015ad) {
            return 0;
        }
        for (int i = 0; i < amount; i++) {
            block[i & 63] += (byte) hash[0];
            compress(hash, block);
        }
        for (int word : hash) {
            sum = Main.mix(sum, word & 0xffffffffL);
        }
        return sum;
    }
}
