import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.IntBuffer;
import java.util.ArrayList;
import java.util.List;

/** What C code does by JNI, told in lines that are the same on every virtual machine. */
public class Jni {
    static class Base {
        int number = 7;
        static String shared = "shared";
        String name() { return "base"; }
        static long twice(long value) { return 2 * value; }
        Base() { }
        Base(int number, double part) { this.number = number + (int) part; }
    }

    static class Derived extends Base {
        boolean z = true; byte b = -8; char c = '\u20ac'; short s = -16; long j = 1L << 40; float f = 1.5f; double d = -2.25;
        volatile Object o = "object";
        static boolean sz; static byte sb; static char sc; static short ss; static int si; static long sj; static float sf; static double sd; static Object so;
        @Override String name() { return "derived"; }
        boolean callZ(boolean z) { return !z; }
        byte callB(byte b) { return (byte) (b + 1); }
        char callC(char c) { return (char) (c + 1); }
        short callS(short s) { return (short) (s - 1); }
        int callI(int i) { return i * 3; }
        long callJ(long j) { return j * 3; }
        float callF(float f) { return f / 2; }
        double callD(double d) { return d / 4; }
        void callV(StringBuilder to) { to.append("called"); }
        Object callL(Object o) { return o; }
        static String mixed(boolean z, byte b, char c, short s, int i, long j, float f, double d, Object o, int[] a,
                float f2, double d2, float f3, double d3, float f4, double d4, float f5, double d5, long j2, String t) {
            return z + " " + b + " " + (int) c + " " + s + " " + i + " " + j + " " + f + " " + d + " " + o + " " + a.length + " "
                + f2 + " " + d2 + " " + f3 + " " + d3 + " " + f4 + " " + d4 + " " + f5 + " " + d5 + " " + j2 + " " + t;
        }
    }

    interface Shape { default String shape() { return "shape of " + this.getClass().getSimpleName(); } }
    static class Circle implements Shape { }
    static abstract class Abstract { }

    static native String version();
    static native int machines();
    static native int many(int a, long b, float c, double d, byte e, short f, char g, boolean h, int i, int j, float k, float l, double m,
        double n, float o, double p, float q, Object r, long s);
    static native boolean returnZ(int bits);
    static native byte returnB(int bits);
    static native char returnC(int bits);
    static native short returnS(int bits);
    static native float returnF(double value);
    static native double returnD(float value);
    static native long returnJ(int value);
    native String instance(String text);
    static native String over(int value);
    static native String over(String value);
    static native String under_score$dollar\u00e4(int[][] array, String text);
    static native void fields(Derived object, Class<?> type);
    static native void calls(Derived object, Class<?> type, Class<?> base);
    static native Object make(Class<?> type, int number, double part);
    static native Object allocate(Class<?> type);
    static native void strings(String text);
    static native void arrays(int[] ints, byte[] bytes, double[] doubles, boolean[] booleans, String[] texts);
    static native void failures(int which, Object argument);
    static native Object references(Object object);
    static native int walk(Object object, int count);
    static native void exceptions(Runnable runnable);
    static native Object reflected(Method method, Constructor<?> constructor, Field field, Field statics);
    static native void buffers(ByteBuffer direct, ByteBuffer heap, IntBuffer view);
    static native void monitors(Object lock);
    static native Class<?> find(String name);
    static native Class<?> define(String name, ClassLoader loader, byte[] bytes);
    static native int registered(int value);
    static native int register(Class<?> type, String name, String signature);
    static native void unregister(Class<?> type);
    static native void threads(Runnable runnable, int count, boolean daemon);
    static native String relations(Class<?> a, Class<?> b);
    static native int recursion(int depth);
    static native void returnWithException();

    static native long stress(Class<?> type, int threads, int rounds);

    /** Called by many threads of C code: what it is given must be what was put there. */
    static long mix(Object[] array, int number) {
        long sum = number;
        for (Object element : array) sum = sum * 31 + element.hashCode();
        return sum + new StringBuilder().append(array.length).append(number).toString().hashCode();
    }

    static int recurse(int depth) { return depth == 0 ? 0 : 1 + recursion(depth - 1); }

    static void say(Object text) { System.out.println(text); }

    interface Body { Object run() throws Throwable; }

    static void attempt(String what, Body body) {
        try {
            say(what + ": " + body.run());
        } catch (Throwable e) {
            say(what + " threw " + e + (e.getCause() == null ? "" : " because of " + e.getCause()));
        }
    }

    public static void main(String[] arguments) throws Throwable {
        attempt("before loading", () -> version());
        attempt("no such library", () -> { System.loadLibrary("nothere"); return 0; });
        attempt("no such file", () -> { System.load("/nowhere/libx.so"); return 0; });
        attempt("relative", () -> { System.load("libx.so"); return 0; });
        System.loadLibrary("checks");
        say(version());
        say(machines());
        say(many(1, 1L << 33, 2.5f, 3.5, (byte) -4, (short) -5, 'z', true, 8, 9, 10.5f, 11.5f, 12.5, 13.5, 14.5f, 15.5, 16.5f, "eighteen", 19L));
        say(returnZ(256) + " " + returnZ(3) + " " + returnB(0x1ff) + " " + (int) returnC(0x12345) + " " + returnS(0x18000));
        say(returnF(2.5) + " " + returnD(1.25f) + " " + returnJ(-1));
        say(new Jni().instance("text"));
        say(over(3) + " " + over("three"));
        say(under_score$dollar\u00e4(new int[2][3], "t"));
        Derived object = new Derived();
        fields(object, Derived.class);
        say(object.number + " " + object.z + " " + object.b + " " + (int) object.c + " " + object.s + " " + object.j + " " + object.f + " " + object.d + " " + object.o);
        say(Derived.sz + " " + Derived.sb + " " + (int) Derived.sc + " " + Derived.ss + " " + Derived.si + " " + Derived.sj + " " + Derived.sf + " " + Derived.sd + " " + Derived.so + " " + Base.shared);
        calls(object, Derived.class, Base.class);
        say(((Base) make(Base.class, 4, 2.75)).number);
        attempt("make abstract", () -> make(Abstract.class, 1, 1));
        say(((Derived) allocate(Derived.class)).number);
        attempt("allocate abstract", () -> allocate(Abstract.class));
        attempt("allocate interface", () -> allocate(Runnable.class));
        strings("plain");
        strings("\u00e4\u20ac\0\ud83d\ude00 lone \ud800 end");
        strings("");
        int[] ints = {1, 2, 3, 4, 5};
        byte[] bytes = {1, 2, 3};
        double[] doubles = {0.5, 1.5};
        boolean[] booleans = {true, false, true};
        String[] texts = {"a", null, "c"};
        arrays(ints, bytes, doubles, booleans, texts);
        say(java.util.Arrays.toString(ints) + java.util.Arrays.toString(bytes) + java.util.Arrays.toString(doubles) + java.util.Arrays.toString(booleans) + java.util.Arrays.toString(texts));
        for (int which = 0; which < 16; which++) {
            int number = which;
            attempt("failure " + which, () -> { failures(number, new int[3]); return "nothing"; });
        }
        say(references(new Object()) != null);
        say(walk("link", 3_000_000));
        exceptions(() -> { throw new IllegalStateException("from Java"); });
        attempt("returning", () -> { returnWithException(); return 0; });
        Object[] reflected = (Object[]) reflected(Base.class.getDeclaredMethod("name"), Base.class.getDeclaredConstructor(int.class, double.class),
            Base.class.getDeclaredField("number"), Base.class.getDeclaredField("shared"));
        for (Object member : reflected) say(member);
        buffers(ByteBuffer.allocateDirect(32).put(0, (byte) 9), ByteBuffer.allocate(8), ByteBuffer.allocateDirect(64).asIntBuffer());
        Object lock = new Object();
        monitors(lock);
        say(Thread.holdsLock(lock));
        for (String name : new String[] {"java/lang/String", "[I", "[[Ljava/lang/String;", "Jni$Circle", "Ljava/lang/String;", "java.lang.String", "no/Such", "", "[no.such", "java/sql/Connection"})
            attempt("find " + name, () -> find(name));
        attempt("define", () -> define("Nothing", Jni.class.getClassLoader(), new byte[] {1, 2, 3, 4}));
        attempt("registered before", () -> registered(1));
        say(register(Jni.class, "registered", "(I)I"));
        attempt("registered", () -> registered(20));
        attempt("register other", () -> register(Jni.class, "nothere", "(I)I"));
        attempt("register other type", () -> register(Jni.class, "registered", "(J)I"));
        attempt("register not native", () -> register(Jni.class, "recurse", "(I)I"));
        unregister(Jni.class);
        attempt("registered after", () -> registered(1));
        say(new Jni().instance("again"));
        say(relations(Derived.class, Base.class) + relations(Base.class, Derived.class) + relations(int.class, long.class) + relations(int[].class, Object.class)
            + relations(String[].class, Object[].class) + relations(Runnable.class, Object.class) + relations(Circle.class, Shape.class));
        say(recurse(200));
        List<String> list = java.util.Collections.synchronizedList(new ArrayList<>());
        threads(() -> list.add(Thread.currentThread().getThreadGroup().getName() + Thread.currentThread().isDaemon()), 8, false);
        threads(() -> list.add(Thread.currentThread().getName().substring(0, 6) + Thread.currentThread().isDaemon()), 2, true);
        java.util.Collections.sort(list);
        say(list);
        say(stress(Jni.class, 24, 100));
        attempt("deep", () -> {
            int depth = 0;
            try { recurse(1 << 30); } catch (StackOverflowError e) { depth++; }
            return depth;
        });
    }
}
