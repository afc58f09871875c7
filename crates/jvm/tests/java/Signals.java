import sun.misc.Signal;
import sun.misc.SignalHandler;

/** Signals: handlers in Java, what a thread does, shutdown hooks, and threads that wait for each other. */
public class Signals {
    static final Object FIRST = new Object();
    static final Object SECOND = new Object();

    static synchronized void held(Object lock) throws InterruptedException {
        synchronized (lock) {
            lock.wait();
        }
    }

    static void sleep(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    static Thread start(String name, Runnable body) {
        Thread thread = new Thread(body, name);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    static void await(Thread thread, Thread.State state) throws InterruptedException {
        while (thread.getState() != state) Thread.sleep(1);
        System.out.println(thread.getName() + " " + state);
    }

    static void handlers() throws Exception {
        for (String name : new String[] {"INT", "TERM", "HUP", "USR1", "QUIT", "SEGV", "FPE", "KILL", "WINCH", "NONE", "CHLD"}) {
            try {
                SignalHandler before = Signal.handle(new Signal(name), signal -> {
                    System.out.println("got " + signal + " " + signal.getNumber());
                    synchronized (FIRST) {
                        FIRST.notifyAll();
                    }
                });
                System.out.println(name + " " + before.toString().replaceAll("@.*", ""));
            } catch (IllegalArgumentException e) {
                System.out.println(name + " " + e);
            }
        }
        for (String name : new String[] {"WINCH", "INT", "TERM"}) {
            synchronized (FIRST) {
                Signal.raise(new Signal(name));
                FIRST.wait(10_000);
            }
        }
        Signal.handle(new Signal("HUP"), SignalHandler.SIG_IGN);
        System.out.println(Signal.handle(new Signal("HUP"), SignalHandler.SIG_DFL) == SignalHandler.SIG_IGN);
    }

    static void states() throws Exception {
        Thread created = new Thread(() -> { }, "created");
        await(created, Thread.State.NEW);
        Thread sleeper = start("sleeper", () -> sleep(100_000));
        await(sleeper, Thread.State.TIMED_WAITING);
        sleeper.interrupt();
        sleeper.join();
        await(sleeper, Thread.State.TERMINATED);
        await(start("parker", () -> java.util.concurrent.locks.LockSupport.park(FIRST)), Thread.State.WAITING);
        await(start("timed parker", () -> java.util.concurrent.locks.LockSupport.parkNanos(100_000_000_000L)), Thread.State.TIMED_WAITING);
        await(start("waiter", () -> {
            try {
                held(new Object());
            } catch (InterruptedException e) {
                throw new Error(e);
            }
        }), Thread.State.WAITING);
        await(start("spinner", () -> { while (true); }), Thread.State.RUNNABLE);
        Thread one = start("one", () -> { synchronized (FIRST) { sleep(300); synchronized (SECOND) { } } });
        Thread two = start("two", () -> { synchronized (SECOND) { sleep(300); synchronized (FIRST) { } } });
        await(one, Thread.State.BLOCKED);
        await(two, Thread.State.BLOCKED);
    }

    public static void main(String[] arguments) throws Exception {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
        if (arguments[0].equals("handlers")) {
            handlers();
            return;
        }
        if (arguments[0].equals("states")) states();
        System.out.println("ready");
        Thread.sleep(100_000);
    }
}
