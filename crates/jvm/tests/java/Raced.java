import java.util.concurrent.CyclicBarrier;
import javax.net.ssl.*;

/** Threads load a class of the bootstrap loader at once, which another loader has promised to mean the same by. */
public class Raced {
    /** Its methods override those of a class of the bootstrap loader: both must mean the same by the names in them. */
    static class Own extends SSLContextSpi {
        protected void engineInit(KeyManager[] keys, TrustManager[] trust, java.security.SecureRandom random) {}
        protected SSLSocketFactory engineGetSocketFactory() { return null; }
        protected SSLServerSocketFactory engineGetServerSocketFactory() { return null; }
        protected SSLEngine engineCreateSSLEngine() { return null; }
        protected SSLEngine engineCreateSSLEngine(String host, int port) { return null; }
        protected SSLSessionContext engineGetServerSessionContext() { return null; }
        protected SSLSessionContext engineGetClientSessionContext() { return null; }
    }

    public static void main(String[] args) throws Exception {
        Object own = new Own();
        String[] names = {"SSLEngine", "SSLSocketFactory", "SSLServerSocketFactory", "SSLSessionContext", "KeyManager", "TrustManager"};
        int count = 8;
        CyclicBarrier barrier = new CyclicBarrier(count);
        Thread[] threads = new Thread[count];
        Class<?>[][] found = new Class<?>[count][names.length];
        for (int i = 0; i < count; i++) {
            int number = i;
            threads[i] = new Thread(() -> {
                try {
                    for (int n = 0; n < names.length; n++) {
                        barrier.await();
                        found[number][n] = Class.forName("javax.net.ssl." + names[n], false, null);
                    }
                } catch (Throwable thrown) {
                    System.out.println(thrown);
                    System.exit(1);
                }
            });
            threads[i].start();
        }
        for (Thread thread : threads) thread.join();
        for (int n = 0; n < names.length; n++) {
            Class<?> meant = Class.forName("javax.net.ssl." + names[n], false, Raced.class.getClassLoader());
            for (int i = 0; i < count; i++) {
                if (found[i][n] != meant) System.out.println("another " + names[n]);
            }
        }
        System.out.println(own.getClass() + ": one of each");
    }
}
