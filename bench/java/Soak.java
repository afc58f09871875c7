import java.lang.management.ManagementFactory;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;

/**
 * Works for as many seconds as its argument says: threads that are started and ended, objects that live for a while, classes that are loaded by
 * loaders that are then dropped, locks that are fought for. Prints a line every five seconds: seconds, threads ended, loaders dropped, heap in use after a
 * collection and memory of the process in MiB, memory of classes in KiB. What is wrong is an exception.
 */
public class Soak {
    /** Loaded anew by every short-lived loader. */
    public static class Guest implements Callable<Integer> {
        static int calls;
        private final int[][] data = new int[50][];

        @Override
        public Integer call() {
            for (int i = 0; i < data.length; i++) {
                data[i] = new int[i * 8];
            }
            Callable<String> text = () -> "call " + (calls + 1);
            try {
                check(text.call().equals("call " + ++calls), "a lambda of its own");
            } catch (Exception thrown) {
                throw new AssertionError(thrown);
            }
            return calls;
        }
    }

    static final AtomicLong threads = new AtomicLong(), loaders = new AtomicLong(), rounds = new AtomicLong();
    static final ConcurrentHashMap<Integer, byte[]> shared = new ConcurrentHashMap<>();
    static final Object lock = new Object();
    static long guarded;

    static void check(boolean right, String what) {
        if (!right) {
            throw new AssertionError(what);
        }
    }

    static void work(int seed) throws Exception {
        Random random = new Random(seed);
        List<Object> kept = new ArrayList<>();
        for (int i = 0; i < 300; i++) {
            byte[] bytes = new byte[random.nextInt(4000)];
            Arrays.fill(bytes, (byte) seed);
            kept.add(bytes);
            if (kept.size() > 100) {
                byte[] old = (byte[]) kept.remove(random.nextInt(kept.size()));
                check(old.length == 0 || old[old.length - 1] == (byte) seed, "bytes of thread " + seed);
            }
            shared.merge(random.nextInt(1000), bytes, (a, b) -> a.length > b.length ? a : b);
            synchronized (lock) {
                guarded++;
            }
        }
        if (seed % 4 == 0) {
            URL[] path = {Soak.class.getProtectionDomain().getCodeSource().getLocation()};
            try (URLClassLoader loader = new URLClassLoader(path, ClassLoader.getPlatformClassLoader())) {
                Class<?> guest = loader.loadClass("Soak$Guest");
                check(guest != Guest.class, "a class of its own");
                Callable<?> made = (Callable<?>) guest.getDeclaredConstructor().newInstance();
                check(made.call().equals(1) && made.call().equals(2), "statics of its own");
            }
            loaders.incrementAndGet();
        }
        String text = String.join(",", Collections.nCopies(50, "soak" + seed));
        check(text.split(",").length == 50, "strings");
        rounds.incrementAndGet();
    }

    static long metadata() {
        return ManagementFactory.getMemoryPoolMXBeans().stream().filter(pool -> pool.getName().equals("Metaspace")).mapToLong(pool -> pool.getUsage().getUsed()).sum() >> 10;
    }

    static long resident() throws Exception {
        try (var status = new java.io.BufferedReader(new java.io.FileReader("/proc/self/status"))) {
            for (String line; (line = status.readLine()) != null; ) {
                if (line.startsWith("VmRSS:")) {
                    return Long.parseLong(line.replaceAll("[^0-9]", "")) >> 10;
                }
            }
        }
        return 0;
    }

    public static void main(String[] arguments) throws Exception {
        long seconds = Long.parseLong(arguments[0]), start = System.nanoTime(), told = 0;
        AtomicReference<Throwable> failure = new AtomicReference<>();
        int seed = 0;
        while (true) {
            long elapsed = (System.nanoTime() - start) / 1_000_000_000;
            Thread[] group = new Thread[8];
            for (int i = 0; i < group.length; i++) {
                int own = seed++;
                group[i] = new Thread(() -> {
                    try {
                        work(own);
                    } catch (Throwable thrown) {
                        failure.compareAndSet(null, thrown);
                    }
                });
                group[i].start();
            }
            for (Thread thread : group) {
                thread.join();
                threads.incrementAndGet();
            }
            if (failure.get() != null) {
                throw new Exception("after " + elapsed + " s", failure.get());
            }
            if (elapsed >= told + 5 || elapsed >= seconds) {
                told = elapsed;
                check(guarded == rounds.get() * 300, "every thread had the lock");
                System.gc();
                Runtime runtime = Runtime.getRuntime();
                System.out.println(elapsed + " " + threads + " " + loaders + " " + (runtime.totalMemory() - runtime.freeMemory() >> 20) + " " + resident() + " " + metadata());
            }
            if (elapsed >= seconds) {
                return;
            }
        }
    }
}
