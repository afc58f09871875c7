import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.List;

/**
 * Calls the method {@code test} of classes with arguments and compares what it returns or throws.
 *
 * <p>Standard input has a line for each class: its name, a tab, and its runs, such as {@code (1, 2L) = 3; null = !java.lang.Error}. Of each is
 * written that it begins, and then what came of it: {@code begin NAME}, {@code pass NAME} or {@code fail NAME: WHY}.
 */
public final class Cases {
    private static final PrintStream RESULT = System.out;

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            int tab = line.indexOf('\t');
            String name = line.substring(0, tab);
            say("begin " + name);
            String why;
            try {
                why = check(name, line.substring(tab + 1));
            } catch (Throwable thrown) {
                why = thrown.toString();
            }
            say(why == null ? "pass " + name : "fail " + name + ": " + why.replace('\n', ' '));
        }
        // Threads that a test left behind do not keep the others waiting.
        System.exit(0);
    }

    private static void say(String line) {
        // A line of its own, whatever the test has written before.
        RESULT.print("\n" + line + "\n");
        RESULT.flush();
    }

    private static String check(String name, String runs) throws Throwable {
        Class<?> type = Class.forName(name);
        Method test = null;
        for (Method method : type.getDeclaredMethods()) {
            if (method.getName().equals("test")) {
                test = method;
            }
        }
        test.setAccessible(true);
        for (String run : split(runs, ';')) {
            List<String> sides = split(run, '=');
            String left = sides.get(0).trim();
            String right = run.substring(sides.get(0).length() + 1).trim();
            if (left.startsWith("(")) {
                left = left.substring(1, left.lastIndexOf(')'));
            }
            Class<?>[] types = test.getParameterTypes();
            List<String> words = left.isBlank() ? List.of() : split(left, ',');
            Object[] values = new Object[types.length];
            for (int index = 0; index < types.length; index++) {
                values[index] = value(words.get(index).trim(), types[index]);
            }
            String why = compare(test, values, right);
            if (why != null) {
                return run.trim() + ": " + why;
            }
        }
        return null;
    }

    private static String compare(Method test, Object[] values, String expected) throws Throwable {
        Object result;
        try {
            result = test.invoke(null, values);
        } catch (InvocationTargetException thrown) {
            String name = thrown.getCause().getClass().getName();
            return expected.equals("!" + name) ? null : "threw " + thrown.getCause();
        } catch (IllegalAccessException | IllegalArgumentException wrong) {
            throw new Error("the runs do not fit the method", wrong);
        }
        if (expected.startsWith("!")) {
            return "returned " + result;
        }
        if (expected.startsWith("()")) {
            int dot = expected.lastIndexOf('.');
            Method predicate = Class.forName(expected.substring(2, dot)).getMethod(expected.substring(dot + 1), test.getReturnType());
            return Boolean.TRUE.equals(predicate.invoke(null, result)) ? null : "returned " + result;
        }
        Object wanted = value(expected, test.getReturnType());
        boolean same = wanted == null ? result == null : wanted.equals(result instanceof Class ? ((Class<?>) result).getName() : result);
        return same ? null : "returned " + result;
    }

    /** The value that a word means where a type is wanted. */
    private static Object value(String word, Class<?> type) throws ReflectiveOperationException {
        if (word.equals("null")) {
            return null;
        }
        if (word.startsWith("`")) {
            int dot = word.lastIndexOf('.');
            return Class.forName(word.substring(1, dot)).getField(word.substring(dot + 1)).get(null);
        }
        if (word.startsWith("\"")) {
            return word.substring(1, word.length() - 1).translateEscapes();
        }
        if (type == boolean.class || word.equals("true") || word.equals("false")) {
            return Boolean.valueOf(word);
        }
        String digits = word;
        boolean hexadecimal = word.contains("0x");
        char last = Character.toLowerCase(word.charAt(word.length() - 1));
        char kind = switch (last) {
            case 'l', 's', 'c' -> last;
            case 'f', 'd', 'b' -> hexadecimal ? 'i' : last;
            default -> word.contains(".") ? 'd' : 'i';
        };
        if (kind != 'i' && kind == last) {
            digits = word.substring(0, word.length() - 1);
        }
        Number number;
        if (kind == 'd' || kind == 'f') {
            number = kind == 'f' ? (Number) Float.valueOf(digits) : (Number) Double.valueOf(digits);
        } else {
            long whole = hexadecimal ? Long.parseUnsignedLong(digits.substring(2), 16) : Long.parseLong(digits);
            number = kind == 'l' ? (Number) whole : (Number) (int) whole;
        }
        if (kind == 'c') {
            return (char) number.intValue();
        }
        return switch (type.getName()) {
            case "byte" -> (Object) number.byteValue();
            case "short" -> (Object) number.shortValue();
            case "char" -> (Object) (char) number.intValue();
            case "int" -> (Object) number.intValue();
            case "long" -> (Object) number.longValue();
            case "float" -> (Object) number.floatValue();
            case "double" -> (Object) number.doubleValue();
            default -> kind == 'b' ? (Object) number.byteValue() : kind == 's' ? (Object) number.shortValue() : (Object) number;
        };
    }

    /** The parts between the separators that stand outside of strings. */
    private static List<String> split(String text, char separator) {
        List<String> parts = new ArrayList<>();
        StringBuilder part = new StringBuilder();
        boolean string = false;
        for (int index = 0; index < text.length(); index++) {
            char c = text.charAt(index);
            if (c == '"') {
                string = !string;
            }
            if (c == separator && !string) {
                parts.add(part.toString());
                part.setLength(0);
            } else {
                part.append(c);
            }
        }
        if (!part.toString().isBlank()) {
            parts.add(part.toString());
        }
        return parts;
    }
}
