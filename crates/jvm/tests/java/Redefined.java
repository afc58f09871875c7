import java.lang.instrument.ClassDefinition;
import java.lang.instrument.ClassFileTransformer;
import java.lang.instrument.Instrumentation;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.security.ProtectionDomain;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Supplier;

/** An agent and the program that it changes: class files of the versions below become the class `Version0`. */
public class Redefined {
    static Instrumentation tool;

    static volatile boolean entered, leave;

    static class Version0 {
        static int made = 7;
        int value = 1;
        static String say() { return "zero"; }
        int next(int n) { return n + value; }
        Supplier<String> later() { return () -> "later " + say(); }
        static void stay() {
            String word = "before";
            entered = true;
            int count = 0;
            while (!leave) {
                count++;
            }
            System.out.println(word + " " + say() + " " + (count > 0) + " " + List.of(word, "more").size());
        }
        synchronized String fail(Object o) { try { return o.toString(); } finally { made++; } }
        interface Asked { String ask(); }
    }

    @Deprecated static class Version1 {
        static int made = 8;
        int value = 2;
        static String say() { return "one" + new StringBuilder("!").append(made); }
        int next(int n) { long sum = n; for (int i = 0; i < 10; i++) sum += value; return (int) sum; }
        Supplier<String> later() { return () -> "then " + say(); }
        static void stay() { System.out.println("after " + say()); }
        synchronized String fail(Object o) { return "never " + o.hashCode(); }
        interface Asked { String ask(); }
    }

    static class Version2 {
        static int made = 3; int value; static String say() { return ""; } int next(int n) { return 0; } Supplier<String> later() { return () -> ""; }
        static void stay() {} synchronized String fail(Object o) { return ""; } void more() {} interface Asked {}
    }

    static class Version3 {
        static int made = 3; int value; static String say() { return ""; } Supplier<String> later() { return () -> ""; }
        static void stay() {} synchronized String fail(Object o) { return ""; } interface Asked {}
    }

    static class Version4 {
        static int made = 3; int value, more; static String say() { return ""; } int next(int n) { return 0; } Supplier<String> later() { return () -> ""; }
        static void stay() {} synchronized String fail(Object o) { return ""; } interface Asked {}
    }

    static class Version5 extends ArrayList<String> {
        static int made = 3; int value; static String say() { return ""; } int next(int n) { return 0; } Supplier<String> later() { return () -> ""; }
        static void stay() {} synchronized String fail(Object o) { return ""; } interface Asked {}
    }

    static class Version6 {
        static int made = 3; int value; static String say() { return ""; } final int next(int n) { return 0; } Supplier<String> later() { return () -> ""; }
        static void stay() {} synchronized String fail(Object o) { return ""; } interface Asked {}
    }

    static abstract class Version7 {
        static int made = 3; int value; static String say() { return ""; } int next(int n) { return 0; } Supplier<String> later() { return () -> ""; }
        static void stay() {} synchronized String fail(Object o) { return ""; } interface Asked {}
    }

    record Pair(int a, String b) {}

    static class Watched { String text() { return "plain text"; } }

    static class Seen { String text() { return "other text"; } }

    public static void premain(String options, Instrumentation given) {
        tool = given;
        System.out.println("premain " + options + " " + given.isRedefineClassesSupported() + " " + given.isRetransformClassesSupported()
            + " " + given.isNativeMethodPrefixSupported());
    }

    static byte[] replaced(byte[] file, String from, String to) {
        byte[] result = file.clone(), old = from.getBytes(StandardCharsets.UTF_8), changed = to.getBytes(StandardCharsets.UTF_8);
        for (int at = 0; at + old.length <= result.length; at++) {
            if (Arrays.equals(result, at, at + old.length, old, 0, old.length)) {
                System.arraycopy(changed, 0, result, at, changed.length);
            }
        }
        return result;
    }

    static byte[] file(Class<?> of) throws Exception {
        try (var in = of.getResourceAsStream("/" + of.getName() + ".class")) {
            return in.readAllBytes();
        }
    }

    static byte[] version(int n) throws Exception {
        try (var in = Redefined.class.getResourceAsStream("/Redefined$Version" + n + ".class")) {
            return replaced(in.readAllBytes(), "Version" + n, "Version0");
        }
    }

    static void attempt(String what, Class<?> of, byte[] file) {
        try {
            tool.redefineClasses(new ClassDefinition(of, file));
            System.out.println(what + ": done");
        } catch (Throwable error) {
            System.out.println(what + ": " + error);
        }
    }

    static class Tracer implements ClassFileTransformer {
        final String name;
        final String from, to;
        Tracer(String name, String from, String to) { this.name = name; this.from = from; this.to = to; }
        @Override
        public byte[] transform(Module module, ClassLoader loader, String of, Class<?> there, ProtectionDomain domain, byte[] file) {
            if (of == null || !(of.startsWith("Redefined$Watched") || of.startsWith("Redefined$Seen"))) {
                return null;
            }
            System.out.println(name + " sees " + of + ", there: " + there + ", " + module.isNamed() + " " + (domain != null) + " "
                + new String(file, StandardCharsets.ISO_8859_1).replaceAll("(?s).*(\\w{5} text).*", "$1"));
            return from == null ? null : replaced(file, from, to);
        }
    }

    public static void main(String[] args) throws Throwable {
        Version0 there = new Version0();
        Method next = Version0.class.getDeclaredMethod("next", int.class);
        MethodHandle handle = MethodHandles.lookup().findVirtual(Version0.class, "next", MethodType.methodType(int.class, int.class));
        Supplier<String> made = there.later();
        System.out.println(Version0.say() + there.next(1) + next.invoke(there, 2) + (int) handle.invoke(there, 3) + made.get());
        Thread stays = new Thread(Version0::stay);
        stays.start();
        while (!entered) {
            Thread.sleep(1);
        }
        attempt("one", Version0.class, version(1));
        System.out.println(Version0.say() + there.next(1) + next.invoke(there, 2) + (int) handle.invoke(there, 3) + made.get() + there.later().get());
        System.out.println(Arrays.toString(Version0.class.getAnnotations()) + new Version0().value + Version0.made);
        try {
            there.fail(null);
        } catch (NullPointerException error) {
            System.out.println(error.getMessage() + " " + error.getStackTrace()[0].getMethodName() + " " + Version0.made);
        }
        leave = true;
        stays.join();
        Version0.stay();
        for (int n = 2; n < 8; n++) {
            attempt("version " + n, Version0.class, version(n));
        }
        attempt("other name", Version0.class, file(Pair.class));
        attempt("half", Version0.class, Arrays.copyOf(version(1), 200));
        attempt("empty", Version0.class, new byte[0]);
        byte[] newer = version(1);
        newer[7] = 99;
        attempt("newer", Version0.class, newer);
        byte[] broken = version(1);
        for (int at = 0; at + 4 < broken.length; at++) {
            // iload_1, i2l, lstore_2 of `next`: aload_1
            if (broken[at] == 0x1B && broken[at + 1] == (byte) 0x85 && broken[at + 2] == 0x41) {
                broken[at] = 0x2B;
            }
        }
        attempt("unverified", Version0.class, broken);
        attempt("array", int[].class, version(1));
        attempt("primitive", int.class, version(1));
        attempt("record", Pair.class, file(Pair.class));
        attempt("fewer components", Pair.class, replaced(file(Pair.class), "\6Record", "\6Recorb"));
        System.out.println(new Pair(1, "x") + Version0.say());

        Tracer plain = new Tracer("plain", "plain", "PLAIN"), again = new Tracer("again", "ain text", "AIN text"), third = new Tracer("third", null, null);
        tool.addTransformer(plain);
        tool.addTransformer(again, true);
        tool.addTransformer(third, true);
        System.out.println(new Watched().text() + new Seen().text());
        System.out.println(tool.removeTransformer(again) + " " + tool.removeTransformer(again));
        tool.retransformClasses(Watched.class, Seen.class);
        System.out.println(new Watched().text() + new Seen().text());
        tool.addTransformer(new Tracer("late", "other", "OTHER"), true);
        tool.retransformClasses(Watched.class, Seen.class);
        System.out.println(new Watched().text() + new Seen().text());
        tool.redefineClasses(new ClassDefinition(Watched.class, file(Watched.class)), new ClassDefinition(Seen.class, file(Seen.class)));
        System.out.println(new Watched().text() + new Seen().text());
        tool.addTransformer(new ClassFileTransformer() {
            @Override
            public byte[] transform(ClassLoader loader, String of, Class<?> there, ProtectionDomain domain, byte[] file) {
                if (there == Integer.class) {
                    System.out.println("Integer " + loader + " " + (file.length > 1000));
                    return replaced(file, "radix %s", "ABCDE %s");
                }
                throw new IllegalStateException();
            }
        }, true);
        tool.retransformClasses(Integer.class);
        for (Class<?> c : new Class<?>[] {int.class, int[].class, String.class, made.getClass(), Pair.class}) {
            try {
                System.out.print(tool.isModifiableClass(c) + " ");
                tool.retransformClasses(c);
                System.out.println("done");
            } catch (Throwable error) {
                System.out.println(error);
            }
        }
        System.out.println(tool.getObjectSize(new int[10]) + " " + tool.getObjectSize(new Object()) + " " + tool.getObjectSize(there));
        List<Class<?>> loaded = Arrays.asList(tool.getAllLoadedClasses());
        System.out.println(loaded.contains(Redefined.class) + " " + loaded.contains(int[].class) + " " + loaded.contains(int.class) + " "
            + loaded.contains(made.getClass()));
        List<Class<?>> initiated = Arrays.asList(tool.getInitiatedClasses(Redefined.class.getClassLoader()));
        System.out.println(initiated.contains(Redefined.class) + " " + initiated.contains(Object.class));
        storm();
    }

    /** Threads that call methods while these are redefined all the time: each call is all of one version. */
    static void storm() throws Exception {
        byte[][] versions = {version(1), file(Version0.class)};
        boolean[] done = new boolean[1];
        int[] calls = new int[2];
        List<String> wrong = new ArrayList<>();
        Thread[] threads = new Thread[2];
        for (int t = 0; t < threads.length; t++) {
            int own = t;
            threads[t] = new Thread(() -> {
                Version0 object = new Version0();
                object.value = 5;
                while (!done[0]) {
                    int next = object.next(100);
                    String later = object.later().get();
                    if (next != 105 && next != 150 || !later.matches("(later|then) (zero|one!\\d+)")) {
                        synchronized (wrong) {
                            wrong.add(next + later);
                        }
                    }
                    calls[own]++;
                    Thread.onSpinWait();
                }
            });
            threads[t].start();
        }
        for (int n = 0; n < 60; n++) {
            tool.redefineClasses(new ClassDefinition(Version0.class, versions[n % 2]));
            Thread.sleep(1);
            if (n % 20 == 0) {
                System.gc();
            }
        }
        synchronized (done) {
            done[0] = true;
        }
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.println(wrong + " " + (calls[0] > 0 && calls[1] > 0) + " " + Version0.say());
    }
}
