/** Classes whose initialisation has failed: what whoever asks for them later is told (JVMS 5.5). */
public class Uninitialized {
    static class Divides {
        static int x = divide(0);

        static int divide(int by) {
            return 1 / by;
        }
    }

    static class Throws {
        static {
            if (divides() == 0) {
                throw new AssertionError("not here", new IllegalStateException("the reason"));
            }
        }

        static int divides() {
            return 0;
        }

        static void use() {}
    }

    static class Plain {
        static {
            if (Throws.divides() == 0) {
                throw new StackOverflowError();
            }
        }

        static void use() {}
    }

    static class Above {
        static int x = Divides.divide(0);
    }

    static class Below extends Above {
        static void use() {}
    }

    static void attempt(String name, Runnable body) {
        for (int i = 0; i < 3; i++) {
            try {
                body.run();
                System.out.println("works");
            } catch (Throwable e) {
                System.out.println(name + ": " + e);
                for (Throwable cause = e.getCause(); cause != null; cause = cause.getCause()) {
                    System.out.println("  because of " + cause);
                    for (StackTraceElement element : cause.getStackTrace()) {
                        if (element.getClassName().startsWith("Uninitialized")) {
                            System.out.println("    at " + element);
                        }
                    }
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        attempt("divides", () -> System.out.println(Divides.x));
        Thread other = new Thread(() -> attempt("throws", Throws::use), "another thread");
        other.start();
        other.join();
        attempt("throws", Throws::use);
        attempt("plain", Plain::use);
        attempt("below", Below::use);
        attempt("above", () -> System.out.println(Above.x));
    }
}
