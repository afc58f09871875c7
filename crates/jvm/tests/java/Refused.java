import java.io.InputStream;

/** Classes with a wrong instruction, and with a method that a final one forbids: what the error says. */
public class Refused {
    static class Sum {
        static int of(int x, int y) {
            try {
                String text = "";
                if (y > 3) {
                    text = "a" + y;
                }
                for (int i = 0; i < y; i++) {
                    System.out.println(text);
                }
                return x + y;
            } catch (RuntimeException e) {
                return 3;
            }
        }
    }

    static class Base {
        final int last(int x) {
            return x;
        }

        private final int own(int x) {
            return x;
        }
    }

    static class Over extends Base {
        int lost(int x) {
            return -x;
        }

        int one(int x) {
            return -x;
        }
    }

    interface Asked {
        void notifz();
    }

    /** Defines the class of that name with a name of its own changed. */
    static class Renaming extends ClassLoader {
        final String changed;
        final String from;
        final String to;

        Class<?> nothing(byte[] bytes) {
            return defineClass("Nothing", bytes, 0, 0);
        }

        Renaming(String changed, String from, String to) {
            this.changed = changed;
            this.from = from;
            this.to = to;
        }

        @Override
        public Class<?> loadClass(String name) throws ClassNotFoundException {
            Class<?> known = findLoadedClass(name);
            if (known != null || !name.startsWith("Refused") || name.equals("Refused")) {
                return known == null ? super.loadClass(name) : known;
            }
            try (InputStream in = Refused.class.getResourceAsStream(name.replace('+', '$') + ".class")) {
                String text = new String(in.readAllBytes(), java.nio.charset.StandardCharsets.ISO_8859_1);
                if (name.equals(changed)) {
                    text = text.replace((char) from.length() + from, (char) to.length() + to);
                }
                byte[] bytes = text.getBytes(java.nio.charset.StandardCharsets.ISO_8859_1);
                return defineClass(name, bytes, 0, bytes.length);
            } catch (java.io.IOException e) {
                throw new ClassNotFoundException(name, e);
            }
        }
    }

    /** Defines the class with another instruction where both arguments are added. */
    static class Loader extends ClassLoader {
        final int opcode;

        Loader(int opcode) {
            this.opcode = opcode;
        }

        @Override
        public Class<?> loadClass(String name) throws ClassNotFoundException {
            if (!name.equals("Refused$Sum")) {
                return super.loadClass(name);
            }
            try (InputStream in = Refused.class.getResourceAsStream("Refused$Sum.class")) {
                byte[] bytes = in.readAllBytes();
                for (int i = 2; i < bytes.length; i++) {
                    if (bytes[i - 2] == 0x1a && bytes[i - 1] == 0x1b && bytes[i] == 0x60) {
                        bytes[i] = (byte) opcode;
                    }
                }
                return defineClass(name, bytes, 0, bytes.length);
            } catch (java.io.IOException e) {
                throw new ClassNotFoundException(name, e);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        // iadd, ladd, fneg, swap, arraylength, pop2, return, areturn, dup2_x1, an opcode that there is not
        for (int opcode : new int[] {0x60, 0x61, 0x76, 0x5f, 0xbe, 0x58, 0xb1, 0xb0, 0x5d, 0xff}) {
            try {
                Class<?> defined = Class.forName("Refused$Sum", true, new Loader(opcode));
                System.out.println(defined.getDeclaredMethods().length);
            } catch (LinkageError e) {
                System.out.println(e);
            }
        }
        String[][] renamings = {
            {"Refused$Over", "lost", "last"}, {"Refused$Over", "one", "own"}, {"Refused$Asked", "notifz", "notify"}
        };
        // A name that no language allows, and the class file does.
        Renaming loader = new Renaming("Refused+Asked", "Refused$Asked", "Refused+Asked");
        Class<?> odd = loader.loadClass("Refused+Asked");
        System.out.println(odd + " in " + odd.getPackageName() + ", " + odd.arrayType().getName());
        System.out.println(java.lang.reflect.Proxy.newProxyInstance(loader, new Class<?>[] {odd}, (proxy, method, with) -> "made"));
        for (byte[] bytes : new byte[][] {null, {}}) {
            try {
                System.out.println(loader.nothing(bytes));
            } catch (NullPointerException | LinkageError e) {
                System.out.println(e);
            }
        }
        for (String[] renaming : renamings) {
            try {
                Class<?> defined = new Renaming(renaming[0], renaming[1], renaming[2]).loadClass(renaming[0]);
                System.out.println(defined.getDeclaredMethods().length);
            } catch (LinkageError e) {
                System.out.println(e);
            }
        }
    }
}
