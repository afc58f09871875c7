/** The sieve of Eratosthenes: bytes stored with a stride. */
final class Sieve implements Main.Workload {
    private byte[] composite;

    @Override
    public void prepare(int amount) {
        composite = new byte[amount];
    }

    @Override
    public long work(int amount) {
        byte[] composite = this.composite;
        int count = 0, last = 0;
        for (int n = 0; n < amount; n++) {
            composite[n] = 0;
        }
        for (int n = 2; n < amount; n++) {
            if (composite[n] != 0) {
                continue;
            }
            count++;
            last = n;
            for (long m = (long) n * n; m < amount; m += n) {
                composite[(int) m] = 1;
            }
        }
        return Main.mix(Main.mix(1, count), last);
    }
}
