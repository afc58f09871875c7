import java.lang.invoke.*;
import java.lang.management.*;
import java.lang.ref.*;
import java.lang.reflect.*;
import java.util.*;
import java.util.function.*;

/** Class loaders that nobody needs go, with all that they have; those that somebody needs stay. */
public class Unloading {
    public interface Task {
        String run(int n);
    }

    /** One class, no more. */
    public static class Small implements Task {
        static int count;

        public String run(int n) {
            return "small" + ++count;
        }
    }

    /** What leaves traces all over a virtual machine. */
    public static class Large implements Task, Comparable<Large> {
        static Object held;
        static int count;

        enum Kind {
            A, B
        }

        record Pair(int a, String b) {}

        public int compareTo(Large other) {
            return 0;
        }

        void fail(int n) {
            throw new IllegalStateException("n" + n);
        }

        public synchronized String run(int n) {
            count++;
            Supplier<String> lambda = () -> "lambda" + count + Large.class.getName();
            Comparable<Large> own = this;
            Object[] arrays = {new Large[1], new Pair[2][3], Kind.values(), new Pair(n % 7, "pair")};
            try {
                fail(n % 3);
            } catch (IllegalStateException e) {
                held = e;
            }
            Map<Kind, Object> map = new EnumMap<>(Kind.class);
            map.put(Kind.B, arrays[3]);
            return switch (Kind.values()[n % 2].ordinal()) {
                case 0 -> lambda.get() + own.compareTo(this) + map;
                default -> "" + (arrays[0] instanceof Large[]) + (held instanceof Task);
            };
        }

        public static Object anonymous(int n) {
            return new Task() {
                public String run(int m) {
                    return "anonymous" + n + m;
                }
            };
        }
    }

    static final Map<String, byte[]> FILES = new HashMap<>();

    static byte[] file(String name) throws Exception {
        byte[] known = FILES.get(name);
        if (known == null) {
            try (var in = Unloading.class.getResourceAsStream("/" + name + ".class")) {
                FILES.put(name, known = in.readAllBytes());
            }
        }
        return known;
    }

    static class Loader extends ClassLoader {
        Loader(String name) {
            super(name, Unloading.class.getClassLoader());
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            if (!name.startsWith("Unloading$Large") && !name.startsWith("Unloading$Small")) {
                return super.loadClass(name, resolve);
            }
            synchronized (getClassLoadingLock(name)) {
                Class<?> known = findLoadedClass(name);
                if (known != null) {
                    return known;
                }
                try {
                    byte[] bytes = file(name);
                    return defineClass(name, bytes, 0, bytes.length);
                } catch (Exception e) {
                    throw new ClassNotFoundException(name, e);
                }
            }
        }
    }

    static final ReferenceQueue<ClassLoader> GONE = new ReferenceQueue<>();
    static final Set<Reference<?>> WATCHED = new HashSet<>();

    static Class<?> load(String name) throws Exception {
        Loader loader = new Loader(null);
        WATCHED.add(new PhantomReference<>(loader, GONE));
        return loader.loadClass("Unloading$" + name);
    }

    static Task task(String name) throws Exception {
        return (Task) load(name).getDeclaredConstructor().newInstance();
    }

    /** Collects until so many loaders are left, or it is hopeless. */
    static int left(int wanted) throws Exception {
        for (int i = 0; i < 50 && WATCHED.size() > wanted; i++) {
            System.gc();
            for (Reference<?> gone; (gone = GONE.remove(20)) != null; ) {
                WATCHED.remove(gone);
            }
        }
        return WATCHED.size();
    }

    static long metadata() {
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
            if (pool.getName().equals("Metaspace")) {
                return pool.getUsage().getUsed();
            }
        }
        return -1;
    }

    static void part(String name, Object value) {
        System.out.println(name + ": " + value);
    }

    static void many(String name, int count) throws Exception {
        for (int i = 0; i < count; i++) {
            Task task = task(name);
            String told = task.run(i);
            if (i % 250 == 7) {
                part(name, told + " " + task.run(i + 1));
                System.gc();
            }
        }
    }

    /** Whether a loader stays as long as this object does, and goes when it does. */
    static void keeps(String what, Object kept) throws Exception {
        int with = left(1);
        Reference.reachabilityFence(kept);
        kept = null;
        part(what, with);
    }

    static Object stuck;

    public static void main(String[] arguments) throws Throwable {
        ClassLoadingMXBean classes = ManagementFactory.getClassLoadingMXBean();
        many("Large", 20);
        many("Small", 200);
        part("left", left(0));
        long unloaded = classes.getUnloadedClassCount(), before = metadata();
        many("Small", 2000);
        many("Large", 30);
        part("left", left(0));
        part("unloaded", classes.getUnloadedClassCount() - unloaded >= 2000 + 30 * 4);
        part("counts", classes.getTotalLoadedClassCount() == classes.getLoadedClassCount() + classes.getUnloadedClassCount());
        long growth = metadata() - before;
        part("bounded", growth < 3_000_000 ? "yes" : growth);

        keeps("an instance", task("Large"));
        keeps("an array of arrays", Array.newInstance(load("Small"), 0, 0));
        keeps("a class", load("Large"));
        keeps("a loader", load("Large").getClassLoader());
        keeps("a method", load("Large").getMethod("run", int.class));
        Task task = task("Large");
        task.run(1);
        Field held = task.getClass().getDeclaredField("held");
        held.setAccessible(true);
        Throwable thrown = (Throwable) held.get(task);
        task = null;
        held = null;
        keeps("an exception", thrown);
        part("its trace", thrown.getStackTrace()[0]);
        thrown = null;
        part("left", left(0));
        Class<?> large = load("Large");
        MethodHandle handle = MethodHandles.lookup().findStatic(large, "anonymous", MethodType.methodType(Object.class, int.class));
        large = null;
        keeps("a method handle", handle);
        Object made = handle.invoke(5);
        handle = null;
        keeps("an object of an inner class", made);
        part("which says", ((Task) made).run(6));
        made = null;
        part("left", left(0));

        // A frame keeps the class of its method.
        Object gate = new Object();
        boolean[] state = new boolean[2];
        Runnable waits = () -> {
            synchronized (gate) {
                state[0] = true;
                gate.notifyAll();
                while (!state[1]) {
                    try {
                        gate.wait();
                    } catch (InterruptedException e) {
                        return;
                    }
                }
            }
        };
        Object proxy = Proxy.newProxyInstance(load("Small").getClassLoader(), new Class<?>[] {Runnable.class}, (p, m, a) -> m.invoke(waits));
        Thread thread = new Thread((Runnable) proxy);
        proxy = null;
        thread.start();
        synchronized (gate) {
            while (!state[0]) {
                gate.wait();
            }
        }
        part("a thread", left(1));
        synchronized (gate) {
            state[1] = true;
            gate.notifyAll();
        }
        thread.join();
        thread = null;
        part("left", left(0));

        // Loaders that name each other's classes, in a circle and in a chain.
        Class<?> first = load("Large"), second = load("Small");
        first.getMethod("run", int.class);
        Field circle = first.getDeclaredField("held");
        circle.setAccessible(true);
        circle.set(null, second.getClassLoader());
        WeakReference<Class<?>> weak = new WeakReference<>(second);
        second = null;
        part("a chain", left(2) + " " + (weak.get() != null));
        circle = null;
        first = null;
        part("left", left(0) + " " + (weak.get() == null));

        // Hidden classes.
        byte[] small = file("Unloading$Small");
        MethodHandles.Lookup lookup = MethodHandles.lookup();
        WeakReference<Class<?>> passing = new WeakReference<>(lookup.defineHiddenClass(small, true).lookupClass());
        WeakReference<Class<?>> strong = new WeakReference<>(lookup.defineHiddenClass(small, true, MethodHandles.Lookup.ClassOption.STRONG).lookupClass());
        Class<?> used = lookup.defineHiddenClass(small, true).lookupClass();
        Task instance = (Task) used.getDeclaredConstructor().newInstance();
        used = null;
        instance.run(1);
        for (int i = 0; i < 20 && passing.get() != null; i++) {
            System.gc();
        }
        part("hidden", (passing.get() == null) + " " + (strong.get() != null) + " " + instance.run(2) + " " + instance.getClass().isHidden());
        for (int i = 0; i < 300; i++) {
            Task hidden = (Task) lookup.defineHiddenClass(small, true).lookupClass().getDeclaredConstructor().newInstance();
            hidden.run(i);
        }

        try {
            part("member", load("Large").getSimpleName());
        } catch (IncompatibleClassChangeError e) {
            part("refused", e.getMessage());
        }

        // Interned strings.
        String literal = "a literal";
        List<WeakReference<String>> interned = new ArrayList<>();
        for (int i = 0; i < 20_000; i++) {
            interned.add(new WeakReference<>(("interned " + i).intern()));
        }
        String one = ("interned " + 77).intern();
        for (int i = 0; i < 20 && interned.get(19_000).get() != null; i++) {
            System.gc();
        }
        interned.removeIf(reference -> reference.get() == null);
        part("interned", (interned.size() < 10_000) + " " + (("interned " + 77).intern() == one) + " " + (literal == ("a " + "literal".substring(0)).intern()));
        part("again", ("interned " + 100).intern() == ("interned " + 100).intern());

        // A cleaner is told of a loader that is gone.
        boolean[] cleaned = new boolean[1];
        Cleaner.create().register(load("Small").getClassLoader(), () -> cleaned[0] = true);
        for (int i = 0; i < 100 && !cleaned[0]; i++) {
            System.gc();
            Thread.sleep(5);
        }
        part("cleaned", cleaned[0]);
        part("left", left(0));

        MemoryUsage heap = ManagementFactory.getMemoryMXBean().getHeapMemoryUsage();
        part("heap", heap.getUsed() > 0 && heap.getCommitted() >= heap.getUsed() && heap.getMax() >= heap.getCommitted());
    }
}
