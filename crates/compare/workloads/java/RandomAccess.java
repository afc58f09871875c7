/** A chain of places in 32 MiB, each of which tells the next: how long memory takes to answer, and address translation with it. */
final class RandomAccess implements Main.Workload {
    private static final int PLACES = 1 << 23;

    private int[] next;

    @Override
    public void prepare(int amount) {
        next = new int[PLACES];
        for (int i = 0; i < PLACES; i++) {
            next[i] = i * 1664525 + 1013904223 & PLACES - 1;
        }
    }

    @Override
    public long work(int amount) {
        int[] next = this.next;
        int at = 1;
        for (int i = 0; i < amount; i++) {
            at = next[at];
        }
        return Main.mix(1, at);
    }
}
