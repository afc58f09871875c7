import java.lang.invoke.MethodHandles;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;

/** What exceptions of the machine say, who may see what, and what threads tell of themselves. */
public class Messages {
    interface Body {
        void run() throws Throwable;
    }

    static void show(String name, Body body) {
        try {
            body.run();
            System.out.println(name + ": nothing");
        } catch (Throwable thrown) {
            System.out.println(name + ": " + thrown);
        }
    }

    static class Node {
        Node next;
        int[][] table;
        String name;
        long wide;
        static Node root;

        Node next() {
            return next;
        }

        String name(int a, Object b, String... c) {
            return name;
        }
    }

    static Node none() {
        return null;
    }

    static void nulls(Node parameter, long wide, int[] numbers) {
        Node local = null;
        show("field", () -> System.out.println(none().name));
        show("call", () -> parameter.next());
        try {
            local.next.next.name.length();
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        Node node = new Node();
        try {
            node.next.next.name.length();
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            node.next().next().name(1, null, "x");
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            node.table[1][2] = 3;
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        node.table = new int[2][];
        try {
            int i = 1;
            node.table[i][(int) wide]++;
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            System.out.println(numbers.length);
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            Node.root.wide = 5;
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            synchronized (node.name) {
                System.out.println("not here");
            }
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            RuntimeException nothing = null;
            throw nothing;
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            throw new NullPointerException();
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            Object object = node.name;
            ((String) object).concat("x");
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
        try {
            boolean which = numbers == null;
            (which ? node.next : parameter).next();
        } catch (NullPointerException e) {
            System.out.println(e.getMessage());
        }
    }

    static void objects() {
        Object text = "text";
        show("cast", () -> System.out.println((Integer) text));
        show("cast to own", () -> System.out.println((Node) text));
        show("cast of own", () -> System.out.println((Comparable<?>) (Object) new Node()));
        show("cast of array", () -> System.out.println((Node[]) (Object) new int[1]));
        show("store", () -> ((Object[]) new String[1])[0] = 1);
        show("negative", () -> System.out.println(new int[Integer.parseInt("-3")]));
        show("negative of two", () -> System.out.println(new int[2][Integer.parseInt("-4")]));
        show("index", () -> System.out.println(new long[3][Integer.parseInt("7") - 4].length));
        show("divide", () -> System.out.println(1 / Integer.parseInt("0")));
        show("copy", () -> System.arraycopy(new int[2], 1, new int[2], 0, 2));
        show("copy of types", () -> System.arraycopy(new int[2], 0, new long[2], 0, 2));
        show("class", () -> Class.forName("not.There"));
        show("lookup", () -> MethodHandles.lookup().findVirtual(String.class, "nothing", java.lang.invoke.MethodType.methodType(int.class)));
        show("private", () -> System.out.println(String.class.getDeclaredField("value").get("x")));
    }

    static void walks() {
        StackWalker walker = StackWalker.getInstance(StackWalker.Option.RETAIN_CLASS_REFERENCE);
        List<String> frames = walker.walk(stream -> stream.map(frame -> frame.getClassName() + "." + frame.getMethodName() + frame.getDescriptor()
            + ":" + frame.getLineNumber()).collect(Collectors.toList()));
        System.out.println(frames);
        System.out.println(walker.getCallerClass());
        System.out.println(deep(walker, 100));
        Runnable lambda = () -> {
            List<String> texts = walker.walk(stream -> stream.map(StackWalker.StackFrame::toString).collect(Collectors.toList()));
            System.out.println(texts);
        };
        lambda.run();
    }

    static long deep(StackWalker walker, int depth) {
        return depth > 0 ? deep(walker, depth - 1) : walker.walk(stream -> stream.filter(frame -> frame.getMethodName().equals("deep")).count());
    }

    static void await(Thread thread, Thread.State state) throws InterruptedException {
        for (int turns = 0; thread.getState() != state && turns < 5000; turns++) {
            Thread.sleep(2);
        }
        StackTraceElement[] trace = thread.getStackTrace();
        List<String> own = new ArrayList<>();
        for (StackTraceElement element : trace) {
            // The name of a hidden class is never the same; where a lock is entered depends on how far the instruction is.
            boolean named = !element.getClassName().contains("Lambda") && state != Thread.State.BLOCKED;
            if (element.getClassName().startsWith("Messages") && named) {
                own.add(element.toString());
            }
        }
        System.out.println(thread.getName() + " " + thread.getState() + " " + own);
    }

    static void threads() throws Exception {
        Object lock = new Object();
        Thread waiting = new Thread(() -> waitFor(lock, 0), "waiting");
        Thread timed = new Thread(() -> waitFor(lock, 1_000_000), "timed");
        Thread sleeping = new Thread(() -> {
            try {
                Thread.sleep(1_000_000);
            } catch (InterruptedException e) {
                interruption = e.getMessage();
            }
        }, "sleeping");
        Thread parked = new Thread(java.util.concurrent.locks.LockSupport::park, "parked");
        System.out.println(waiting.getState() + " " + waiting.getStackTrace().length);
        for (Thread thread : new Thread[] {waiting, timed, sleeping, parked}) {
            thread.start();
        }
        await(waiting, Thread.State.WAITING);
        await(timed, Thread.State.TIMED_WAITING);
        await(sleeping, Thread.State.TIMED_WAITING);
        await(parked, Thread.State.WAITING);
        Thread blocked = new Thread(() -> waitFor(lock, 1), "blocked");
        synchronized (lock) {
            blocked.start();
            await(blocked, Thread.State.BLOCKED);
            System.out.println(Thread.getAllStackTraces().containsKey(blocked));
            lock.notifyAll();
        }
        sleeping.interrupt();
        java.util.concurrent.locks.LockSupport.unpark(parked);
        for (Thread thread : new Thread[] {waiting, timed, sleeping, parked, blocked}) {
            thread.join();
            System.out.println(thread.getName() + " " + thread.getState());
        }
        System.out.println(interruption);
        interrupted();
    }

    static volatile String interruption;

    static volatile boolean again;

    /** What may be interrupted. */
    interface Pause {
        void run() throws InterruptedException;
    }

    /** Who is interrupted, before or meanwhile, is told once. */
    static void interrupted() throws Exception {
        Object lock = new Object();
        Pause wait = () -> {
            synchronized (lock) {
                lock.wait();
            }
        };
        Pause timed = () -> {
            synchronized (lock) {
                lock.wait(1_000_000);
            }
        };
        Pause join = Thread.currentThread()::join;
        for (Pause pause : new Pause[] {wait, timed, join, () -> Thread.sleep(1_000_000)}) {
            Thread thread = new Thread(() -> {
                Thread.currentThread().interrupt();
                for (int i = 0; i < 2; i++) {
                    try {
                        pause.run();
                    } catch (InterruptedException e) {
                        System.out.println(e + " " + Thread.currentThread().isInterrupted() + " " + Thread.interrupted());
                    }
                    again = true;
                }
            });
            again = false;
            thread.start();
            while (!again || !thread.getState().toString().endsWith("WAITING")) {
                Thread.onSpinWait();
            }
            thread.interrupt();
            thread.join();
        }
    }

    static void waitFor(Object lock, long millis) {
        synchronized (lock) {
            try {
                lock.wait(millis);
            } catch (InterruptedException e) {
                System.out.println(e);
            }
        }
    }

    @SuppressWarnings("unused")
    private static final int CONSTANT = Integer.parseInt("5");

    public static void main(String[] arguments) throws Exception {
        nulls(null, 1, null);
        objects();
        walks();
        threads();
        java.lang.reflect.Field constant = Messages.class.getDeclaredField("CONSTANT");
        constant.setAccessible(true);
        show("final", () -> constant.setInt(null, 6));
    }
}
