/** Quicksort of integers in no order: branches that nobody can predict. */
final class Sort implements Main.Workload {
    private static final int FEW = 12;

    private int[] numbers;

    private static void sort(int[] numbers, int from, int to) {
        while (to - from > FEW) {
            int pivot = numbers[from + (to - from) / 2], i = from, j = to - 1;
            while (i <= j) {
                while (numbers[i] < pivot) {
                    i++;
                }
                while (numbers[j] > pivot) {
                    j--;
                }
                if (i <= j) {
                    int old = numbers[i];
                    numbers[i++] = numbers[j];
                    numbers[j--] = old;
                }
            }
            if (j + 1 - from < to - i) {
                sort(numbers, from, j + 1);
                from = i;
            } else {
                sort(numbers, i, to);
                to = j + 1;
            }
        }
        for (int i = from + 1; i < to; i++) {
            int value = numbers[i], j = i;
            for (; j > from && numbers[j - 1] > value; j--) {
                numbers[j] = numbers[j - 1];
            }
            numbers[j] = value;
        }
    }

    @Override
    public void prepare(int amount) {
        numbers = new int[amount];
    }

    @Override
    public long work(int amount) {
        Main.Random random = new Main.Random(7);
        long sum = 1;
        for (int i = 0; i < amount; i++) {
            numbers[i] = random.next();
        }
        sort(numbers, 0, amount);
        for (int i = 1; i < amount; i++) {
            if (numbers[i - 1] > numbers[i]) {
                return 0;
            }
        }
        for (int i = 0; i < amount; i += 100) {
            sum = Main.mix(sum, numbers[i]);
        }
        return sum;
    }
}
