/** A hash map with open addressing: keys inserted, looked up (also such as are not there) and removed. */
final class Hashmap implements Main.Workload {
    /** Keys are odd, so that zero is an empty place. */
    private long[] keys, values;
    private int mask;

    private int home(long key) {
        return (int) (key * 0x9e3779b97f4a7c15L >>> 40) & mask;
    }

    private int place(long key) {
        int at = home(key);
        while (keys[at] != 0 && keys[at] != key) {
            at = (at + 1) & mask;
        }
        return at;
    }

    private void erase(long key) {
        int hole = place(key);
        if (keys[hole] == 0) {
            return;
        }
        // What would not be found behind a hole moves into it.
        for (int at = (hole + 1) & mask; keys[at] != 0; at = (at + 1) & mask) {
            if (((at - home(keys[at])) & mask) >= ((at - hole) & mask)) {
                keys[hole] = keys[at];
                values[hole] = values[at];
                hole = at;
            }
        }
        keys[hole] = 0;
    }

    private static long nextKey(Main.Random random) {
        return (long) random.next() << 8 | 1;
    }

    @Override
    public void prepare(int amount) {
        int places = 1;
        while (places < 2 * amount) {
            places *= 2;
        }
        mask = places - 1;
        keys = new long[places];
        values = new long[places];
    }

    @Override
    public long work(int amount) {
        long sum = 1;
        for (int i = 0; i <= mask; i++) {
            keys[i] = 0;
        }
        Main.Random random = new Main.Random(11);
        for (int i = 0; i < amount; i++) {
            long key = nextKey(random);
            int at = place(key);
            if (keys[at] == 0) {
                keys[at] = key;
                values[at] = 0;
            }
            values[at] += i;
        }
        random = new Main.Random(11);
        for (int i = 0; i < amount; i++) {
            long key = nextKey(random) + (i % 4 == 0 ? 2 : 0);
            int at = place(key);
            sum = Main.mix(sum, keys[at] == key ? values[at] : 1);
        }
        random = new Main.Random(11);
        for (int i = 0; i < amount / 2; i++) {
            erase(nextKey(random));
        }
        int left = 0;
        for (int i = 0; i <= mask; i++) {
            left += keys[i] != 0 ? 1 : 0;
        }
        return Main.mix(sum, left);
    }
}
