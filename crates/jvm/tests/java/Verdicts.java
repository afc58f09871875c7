import java.io.DataInputStream;
import java.io.FileInputStream;
import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.jar.JarFile;
import java.util.zip.ZipEntry;

/**
 * Says of many class files whether they are accepted: arguments are a jar, whose classes are around each, and a file of names and class files.
 * Prints a line for each: OK, or the class and first line of what was thrown.
 */
public class Verdicts {
    static JarFile jar;

    static class Loader extends ClassLoader {
        final String name;
        final byte[] bytes;

        Loader(String name, byte[] bytes) {
            this.name = name;
            this.bytes = bytes;
        }

        @Override
        protected Class<?> loadClass(String wanted, boolean resolve) throws ClassNotFoundException {
            Class<?> known = findLoadedClass(wanted);
            if (known != null) {
                return known;
            }
            if (wanted.equals(name)) {
                return defineClass(name, bytes, 0, bytes.length);
            }
            ZipEntry entry = jar.getEntry(wanted.replace('.', '/') + ".class");
            if (entry == null) {
                return ClassLoader.getPlatformClassLoader().loadClass(wanted);
            }
            try (InputStream in = jar.getInputStream(entry)) {
                byte[] all = in.readAllBytes();
                return defineClass(wanted, all, 0, all.length);
            } catch (IOException e) {
                throw new ClassNotFoundException(wanted, e);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        jar = new JarFile(arguments[0]);
        StringBuilder out = new StringBuilder();
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(new FileInputStream(arguments[1])))) {
            int count = in.readInt();
            for (int i = 0; i < count; i++) {
                String name = in.readUTF().replace('/', '.');
                byte[] bytes = new byte[in.readInt()];
                in.readFully(bytes);
                String verdict = "OK";
                try {
                    Class<?> defined = new Loader(name, bytes).loadClass(name);
                    // Looking at its members links a class, and does not initialise it.
                    defined.getDeclaredFields();
                } catch (Throwable thrown) {
                    String text = String.valueOf(thrown.getMessage());
                    int end = text.indexOf('\n');
                    verdict = thrown.getClass().getName() + ": " + (end < 0 ? text : text.substring(0, end));
                }
                out.append(verdict.replace('\n', ' ').replace('\r', ' ')).append('\n');
            }
        }
        System.out.print(out);
    }
}
