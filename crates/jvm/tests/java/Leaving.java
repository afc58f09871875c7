import java.lang.ref.WeakReference;
import java.nio.file.*;

/** A library of C code goes with the loader of the class that loaded it. */
public class Leaving {
    public static class Guest {
        static int count;

        static native int add(int by);

        static native void hold(boolean hold);

        static int told(int sum) {
            return sum * 10;
        }

        public static int start(String library) {
            System.load(library);
            return add(2) + add(3);
        }

        public static void let(boolean hold) {
            hold(hold);
        }
    }

    static class Loader extends ClassLoader {
        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            if (!name.equals("Leaving$Guest")) {
                return super.loadClass(name, resolve);
            }
            try (var in = Leaving.class.getResourceAsStream("/" + name + ".class")) {
                byte[] bytes = in.readAllBytes();
                return defineClass(name, bytes, 0, bytes.length);
            } catch (java.io.IOException e) {
                throw new ClassNotFoundException(name, e);
            }
        }
    }

    static boolean isMapped() throws Exception {
        return Files.readString(Path.of("/proc/self/maps")).contains("libleaves.so");
    }

    public static void main(String[] arguments) throws Exception {
        String library = Path.of(System.getProperty("java.library.path")).resolve("libleaves.so").toString();
        for (int round = 0; round < 3; round++) {
            Class<?> guest = new Loader().loadClass("Leaving$Guest");
            System.out.println("sum " + guest.getMethod("start", String.class).invoke(null, library));
            var let = guest.getMethod("let", boolean.class);
            WeakReference<Class<?>> weak = new WeakReference<>(guest);
            guest = null;
            let.invoke(null, true);
            let = null;
            for (int i = 0; i < 5; i++) {
                System.gc();
            }
            System.out.println("held " + (weak.get() != null) + " " + isMapped());
            weak.get().getMethod("let", boolean.class).invoke(null, false);
            for (int i = 0; i < 100 && isMapped(); i++) {
                System.gc();
                Thread.sleep(10);
            }
            System.out.println("left " + (weak.get() == null) + " " + !isMapped());
        }
    }
}
