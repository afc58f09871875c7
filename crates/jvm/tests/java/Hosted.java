import java.util.stream.IntStream;

/** What the C program runs. */
public class Hosted {
    static int run(int count) {
        System.out.println(System.getProperty("greeting") + " in " + Thread.currentThread().getName() + ", "
            + Thread.currentThread().getThreadGroup().getName());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
        try {
            return deep(0) > 100 ? IntStream.rangeClosed(1, count).sum() : -1;
        } finally {
            System.out.flush();
        }
    }

    static void leave(int status) {
        System.exit(status);
    }

    private static int deep(int depth) {
        try {
            return deep(depth + 1);
        } catch (StackOverflowError error) {
            return depth;
        }
    }
}
