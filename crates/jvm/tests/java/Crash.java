/** C code that does what ends the process. */
public class Crash {
    static native void crash(int which);

    static void inner(int which) { crash(which); }

    public static void main(String[] arguments) {
        System.loadLibrary("crash");
        System.out.println("before");
        System.out.flush();
        inner(Integer.parseInt(arguments[0]));
    }
}
