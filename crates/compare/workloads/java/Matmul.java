/** A product of square matrices of doubles, row by row: what compilers turn into vectors where they may. */
final class Matmul implements Main.Workload {
    private double[][] a, b, c;

    @Override
    public void prepare(int amount) {
        Main.Random random = new Main.Random(3);
        a = new double[amount][amount];
        b = new double[amount][amount];
        c = new double[amount][amount];
        for (int i = 0; i < amount; i++) {
            for (int j = 0; j < amount; j++) {
                a[i][j] = (double) (random.next() % 1000) / 999;
                b[i][j] = (double) (random.next() % 1000) / 777;
            }
        }
    }

    @Override
    public long work(int amount) {
        long sum = 1;
        for (int i = 0; i < amount; i++) {
            double[] row = c[i];
            for (int j = 0; j < amount; j++) {
                row[j] = 0;
            }
            for (int k = 0; k < amount; k++) {
                double factor = a[i][k];
                double[] other = b[k];
                for (int j = 0; j < amount; j++) {
                    row[j] += factor * other[j];
                }
            }
        }
        for (int i = 0; i < amount; i++) {
            sum = Main.mix(sum, Double.doubleToRawLongBits(c[i][i * 7 % amount]));
        }
        return sum;
    }
}
