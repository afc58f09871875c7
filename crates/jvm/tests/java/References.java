import java.lang.ref.*;
import java.util.*;
import java.util.concurrent.*;

/** References by strength, finalizers, running out of memory, and threads that allocate while others collect. */
public class References {
    static volatile int finalized;
    static volatile Object sink;

    static class Finalized {
        @Override
        protected void finalize() {
            finalized++;
        }
    }

    static void make() {
        new Finalized();
    }

    public static void main(String[] arguments) throws Exception {
        WeakReference<Object> weak = new WeakReference<>(new Object());
        SoftReference<Object> soft = new SoftReference<>(new Object());
        ReferenceQueue<Object> queue = new ReferenceQueue<>();
        PhantomReference<Object> phantom = new PhantomReference<>(new Object(), queue);
        make();
        System.gc();
        System.out.println((weak.get() == null) + " " + (soft.get() != null) + " " + (queue.remove(5000) == phantom));
        for (int i = 0; i < 200 && finalized == 0; i++) {
            System.gc();
            Thread.sleep(10);
        }
        System.out.println("finalized " + finalized);

        ConcurrentHashMap<String, Integer> map = new ConcurrentHashMap<>();
        BlockingQueue<int[]> handed = new ArrayBlockingQueue<>(4);
        Thread[] threads = new Thread[8];
        for (int k = 0; k < threads.length; k++) {
            boolean gives = k % 2 == 0;
            threads[k] = new Thread(() -> {
                try {
                    for (int i = 0; i < 300; i++) {
                        map.merge("x" + i % 50, 1, Integer::sum);
                        sink = new byte[1000 + i];
                        if (gives) {
                            handed.put(new int[] {i});
                        } else {
                            handed.take();
                        }
                    }
                } catch (InterruptedException e) {
                    throw new Error(e);
                }
            });
            threads[k].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.println(map.values().stream().mapToInt(Integer::intValue).sum());

        try {
            List<long[]> all = new ArrayList<>();
            while (true) {
                all.add(new long[1 << 16]);
            }
        } catch (OutOfMemoryError e) {
            System.out.println(e.getMessage() + " " + (soft.get() == null));
        }
        try {
            sink = new int[Integer.MAX_VALUE];
        } catch (OutOfMemoryError e) {
            System.out.println(e.getMessage());
        }
    }
}
