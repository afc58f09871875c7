import java.util.*;

/** Classes that somebody needs fill the memory for classes: an error that can be survived. */
public class Metaspace {
    public static class Guest {
        int value;

        int twice() {
            return value * 2;
        }
    }

    static class Loader extends ClassLoader {
        Loader() {
            super(null);
        }

        Class<?> define(byte[] bytes) {
            return defineClass(null, bytes, 0, bytes.length);
        }
    }

    public static void main(String[] arguments) throws Exception {
        byte[] bytes;
        try (var in = Metaspace.class.getResourceAsStream("/Metaspace$Guest.class")) {
            bytes = in.readAllBytes();
        }
        for (int round = 0; round < 3; round++) {
            List<Object> kept = new ArrayList<>();
            String told = null;
            try {
                while (true) {
                    kept.add(new Loader().define(bytes));
                }
            } catch (OutOfMemoryError e) {
                told = e.getMessage();
            }
            boolean many = kept.size() > 100;
            kept = null;
            System.gc();
            System.out.println(many);
            System.out.println(told);
        }
    }
}
