import java.io.IOException;

/** The workloads in Java; the same protocol, work and checksums as in C. */
public final class Main {
    private static final int ITERATIONS_MAX = 2000;

    private Main() {}

    /** A workload: {@code prepare} is not timed, and each call of {@code work} does the same and answers the same checksum. */
    interface Workload {
        void prepare(int amount) throws IOException;

        long work(int amount) throws IOException;
    }

    /** What the workloads share. */
    static long mix(long sum, long value) {
        sum = (sum ^ value) * 0x9e3779b97f4a7c15L;
        return sum ^ sum >>> 29;
    }

    /** The next number, of 31 bits, of a sequence that is the same everywhere. */
    static final class Random {
        private long state;

        Random(long seed) {
            state = seed;
        }

        int next() {
            state = state * 6364136223846793005L + 1442695040888963407L;
            return (int) (state >>> 33);
        }
    }

    private static Workload find(String name) {
        switch (name) {
            case "startup": return new Startup();
            case "sieve": return new Sieve();
            case "nbody": return new Nbody();
            case "matmul": return new Matmul();
            case "sort": return new Sort();
            case "hashmap": return new Hashmap();
            case "sha256": return new Sha256();
            case "json": return new Json();
            case "regex": return new Regex();
            case "bandwidth": return new Bandwidth();
            case "random": return new RandomAccess();
            case "syscalls": return new Syscalls();
            case "files": return new Files();
            case "tcp": return new Tcp();
            case "garbage": return new Garbage();
            default: throw new IllegalArgumentException(name);
        }
    }

    public static void main(String[] words) throws IOException {
        System.out.println("ready");
        Workload workload = find(words[0]);
        int amount = Integer.parseInt(words[1]), least = Integer.parseInt(words[2]);
        int most = Math.min(Integer.parseInt(words[3]), ITERATIONS_MAX), done = 0;
        long budget = Integer.parseInt(words[4]) * 1000000L;
        long[] sums = new long[most], times = new long[most];
        workload.prepare(amount);
        long begin = System.nanoTime(), before = begin;
        while (done < most && (done < least || before - begin < budget)) {
            sums[done] = workload.work(amount);
            long after = System.nanoTime();
            times[done++] = after - before;
            before = after;
        }
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < done; i++) {
            String hexadecimal = Long.toHexString(sums[i]);
            lines.append(words[0]).append(' ');
            for (int digits = hexadecimal.length(); digits < 16; digits++) {
                lines.append('0');
            }
            lines.append(hexadecimal).append(' ').append(times[i]).append('\n');
        }
        lines.append("end\n");
        System.out.print(lines);
        System.out.flush();
        while (System.in.read() >= 0) {
            // Whoever measures looks at the memory that was taken, and then closes the input.
        }
    }
}
