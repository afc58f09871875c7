import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Methods of classes that stand between an interface's method and its call without being public: what is selected (JVMS 5.4.6). */
public class Selected {
    public interface Shape {
        default String name() {
            return "a shape";
        }

        private String own() {
            return "a shape's own";
        }

        static String ownOf(Shape shape) {
            return shape.own();
        }
    }

    /** Its name is as long as that of the one before, whose place it takes in some classes. */
    public interface Other {}

    /** Its method becomes one that is not public. */
    public static class Hidden implements Shape {
        public synchronized String name() {
            return "hidden";
        }
    }

    public static class Below extends Hidden implements Shape {}

    public static class Again extends Hidden {
        @Override
        public String name() {
            return "seen again";
        }
    }

    public interface Copied {
        Object klone();
    }

    /** Has Object's clone alone for that of the interface. */
    public static class Copy implements Copied {
        public Object klone() {
            return "a copy";
        }
    }

    /** Has a method of Object's own, once its own one has another name. */
    public interface Round {
        int hashkode();
    }

    public static class Ball implements Round {
        public int hashkode() {
            return 7;
        }
    }

    public static class Roller implements Runnable {
        @Override
        public void run() {
            Round round = new Ball();
            try {
                System.out.println(round.hashkode() == round.hashkode());
            } catch (IncompatibleClassChangeError e) {
                System.out.println(e);
            }
        }
    }

    public static class User implements Runnable {
        static void attempt(Shape shape) {
            try {
                System.out.println(Shape.ownOf(shape));
            } catch (IncompatibleClassChangeError e) {
                System.out.println(e);
            }
            try {
                System.out.println(shape.name());
            } catch (IncompatibleClassChangeError e) {
                System.out.println(e);
            }
        }

        @Override
        public void run() {
            attempt(new Hidden());
            attempt(new Below());
            attempt(new Again());
            attempt(new Shape() {});
            System.out.println(new Hidden().name() + ", " + new Below().name());
            Copied copied = new Copy();
            try {
                System.out.println(copied.klone());
            } catch (IncompatibleClassChangeError e) {
                System.out.println(e);
            }
        }
    }

    static class Loader extends ClassLoader {
        final Map<String, String[]> changes;

        Loader(Map<String, String[]> changes) {
            this.changes = changes;
        }

        @Override
        public Class<?> loadClass(String name) throws ClassNotFoundException {
            Class<?> known = findLoadedClass(name);
            if (known != null || !name.startsWith("Selected$")) {
                return known == null ? super.loadClass(name) : known;
            }
            try (InputStream in = Selected.class.getResourceAsStream(name + ".class")) {
                String text = new String(in.readAllBytes(), StandardCharsets.ISO_8859_1);
                String[] change = changes.get(name);
                if (change != null) {
                    text = text.replace(change[0], change[1]);
                }
                byte[] bytes = text.getBytes(StandardCharsets.ISO_8859_1);
                return defineClass(name, bytes, 0, bytes.length);
            } catch (IOException e) {
                throw new ClassNotFoundException(name, e);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        // A private method of an interface wants an object of that interface, too.
        String[] other = {"Selected$Shape", "Selected$Other"};
        Loader others = new Loader(Map.of("Selected$Hidden", other, "Selected$Below", other));
        ((Runnable) others.loadClass("Selected$User").getConstructor().newInstance()).run();
        // So does one that the interface has from Object.
        String[] hash = {"hashkode", "hashCode"}, none = {"hashkode", "hashkodX"}, square = {"Selected$Round", "Selected$Other"};
        Loader round = new Loader(Map.of("Selected$Roller", hash, "Selected$Round", none));
        ((Runnable) round.loadClass("Selected$Roller").getConstructor().newInstance()).run();
        Loader squares = new Loader(Map.of("Selected$Roller", hash, "Selected$Round", none, "Selected$Ball", square));
        ((Runnable) squares.loadClass("Selected$Roller").getConstructor().newInstance()).run();
        String[] clone = {"klone", "clone"};
        // From public and synchronized to that with another access, or none.
        for (String access : new String[] {"\0\u0021", "\0\u0024", "\0\u0020"}) {
            String[] change = {"\0\u0021", access};
            Map<String, String[]> changes = Map.of(
                "Selected$Hidden", change, "Selected$Copied", clone, "Selected$User", clone, "Selected$Copy", new String[] {"klone", "kloni"});
            ((Runnable) new Loader(changes).loadClass("Selected$User").getConstructor().newInstance()).run();
        }
    }
}
