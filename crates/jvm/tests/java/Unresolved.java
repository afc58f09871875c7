import java.io.InputStream;
import java.nio.charset.StandardCharsets;

/** Constants that cannot be resolved: the same error each time, whatever has changed since (JVMS 5.4.3). */
public class Unresolved {
    static class Missing {
        static int field = 3;

        static int method() {
            return 4;
        }
    }

    interface Made {
        int make();
    }

    /** Each method has its own way to the class that is missing at first. */
    public static class User implements Runnable {
        static void create() {
            new Missing();
        }

        static void use() {
            System.out.println(Missing.field + Missing.method());
        }

        static void constant() {
            System.out.println(Missing.class);
        }

        static void linked() {
            Made made = Missing::method;
            System.out.println(made.make());
        }

        static void array() {
            System.out.println(new Missing[2][3].length);
        }

        @Override
        public void run() {
            attempt("create", User::create);
            attempt("use", User::use);
            attempt("constant", User::constant);
            attempt("linked", User::linked);
            attempt("array", User::array);
        }

        static void attempt(String what, Runnable body) {
            try {
                body.run();
                System.out.println(what + ": works");
            } catch (Throwable e) {
                System.out.println(what + ": " + e + ", caused by " + e.getCause());
            }
        }
    }

    static class Loader extends ClassLoader {
        final boolean complete;
        boolean open;
        int asked;

        Loader(boolean complete) {
            this.complete = complete;
        }

        @Override
        public Class<?> loadClass(String name) throws ClassNotFoundException {
            if (!name.startsWith("Unresolved$")) {
                return super.loadClass(name);
            }
            Class<?> known = findLoadedClass(name);
            if (known != null) {
                return known;
            }
            if (name.equals("Unresolved$Missing")) {
                asked++;
                if (!open && complete) {
                    throw new ClassNotFoundException("not yet: " + name);
                }
                if (!open) {
                    throw new IllegalStateException("busy");
                }
            }
            try (InputStream in = Unresolved.class.getResourceAsStream(name + ".class")) {
                byte[] bytes = in.readAllBytes();
                return defineClass(name, bytes, 0, bytes.length);
            } catch (java.io.IOException e) {
                throw new ClassNotFoundException(name, e);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        for (boolean complete : new boolean[] {true, false}) {
            Loader loader = new Loader(complete);
            Runnable user = (Runnable) loader.loadClass("Unresolved$User").getConstructor().newInstance();
            user.run();
            user.run();
            System.out.println("asked " + loader.asked);
            loader.open = true;
            user.run();
            System.out.println("asked " + loader.asked);
        }
    }
}
