/** Two streams of doubles read and a third written: what the way to memory can carry. */
final class Bandwidth implements Main.Workload {
    private double[] a, b, c;

    @Override
    public void prepare(int amount) {
        a = new double[amount];
        b = new double[amount];
        c = new double[amount];
        for (int i = 0; i < amount; i++) {
            b[i] = i % 1000;
            c[i] = i % 777;
        }
    }

    @Override
    public long work(int amount) {
        double[] a = this.a, b = this.b, c = this.c;
        long sum = 1;
        for (int i = 0; i < amount; i++) {
            a[i] = b[i] + 3 * c[i];
        }
        for (int i = 0; i < amount; i += 4096) {
            sum = Main.mix(sum, Double.doubleToRawLongBits(a[i]));
        }
        return sum;
    }
}
