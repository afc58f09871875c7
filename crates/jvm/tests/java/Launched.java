import java.io.InputStream;
import java.util.Scanner;

/** Tells how it was started; the first argument may say what to do then. */
public class Launched {
    static boolean asserts() {
        boolean on = false;
        assert on = true;
        return on;
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println(String.join("|", arguments) + " " + asserts() + " " + System.getProperty("p") + " " + Other.asserts());
        switch (arguments.length == 0 ? "" : arguments[0]) {
            case "path" -> System.out.println(System.getProperty("java.class.path").replaceAll("[^:]*/", ""));
            case "resource" -> {
                try (InputStream in = Launched.class.getResourceAsStream("/inside.txt")) {
                    System.out.println(in == null ? "none" : new String(in.readAllBytes()));
                }
            }
            case "opened" -> {
                var field = String.class.getDeclaredField("value");
                field.setAccessible(true);
                System.out.println(((byte[]) field.get("abc")).length);
            }
            case "throw" -> throw new IllegalStateException("uncaught", new RuntimeException("cause"));
            case "handler" -> {
                Thread.setDefaultUncaughtExceptionHandler((thread, e) -> System.out.println(thread.getName() + " " + e));
                Thread thread = new Thread(() -> { throw new IllegalStateException("thrown"); }, "thread");
                thread.start();
                thread.join();
                throw new Error("last");
            }
            case "exit" -> {
                Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                    System.out.println("hook");
                    Runtime.getRuntime().halt(4);
                }));
                System.exit(3);
            }
            case "halt" -> {
                Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("not run")));
                Runtime.getRuntime().halt(5);
            }
            case "memory" -> {
                Thread thread = new Thread("greedy") {
                    @Override public void run() {
                        long[][] all = new long[10_000][];
                        for (int i = 0; i < all.length; i++) all[i] = new long[1 << 17];
                    }
                };
                thread.start();
                thread.join();
                System.out.println("went on");
            }
            case "deep" -> {
                try {
                    System.out.println(deep(0) > 0);
                } catch (StackOverflowError e) {
                    System.out.println(e);
                }
            }
            case "input" -> {
                Scanner in = new Scanner(System.in);
                int sum = 0;
                while (in.hasNextInt()) sum += in.nextInt();
                System.out.println(sum + " " + in.hasNext() + " " + System.in.read());
            }
            default -> { }
        }
    }

    static int deep(int depth) { return depth == 20_000 ? depth : deep(depth + 1); }

    static class Other {
        static boolean asserts() { return Launched.Other.class.desiredAssertionStatus(); }
    }
}
