import java.io.IOException;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadInfo;
import java.lang.management.ThreadMXBean;
import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.StandardSocketOptions;
import java.nio.file.DirectoryStream;
import java.nio.file.FileStore;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SecureDirectoryStream;
import java.util.Arrays;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.ReentrantLock;

/** What the library has kept from older versions, and what few programs use: each part tells what it finds. */
@SuppressWarnings({"deprecation", "removal"})
public class Older {
    interface Part {
        void run() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        System.setProperty("jdk.net.usePlainSocketImpl", "true");
        System.setProperty("jdk.net.usePlainDatagramSocketImpl", "true");
        part("sockets", Older::sockets);
        part("closed while waiting", Older::closedWhileWaiting);
        part("datagrams", Older::datagrams);
        part("threads", Older::threads);
        part("deadlock", Older::deadlock);
        part("folders", Older::folders);
        for (String name : new String[] {"user.language", "user.country", "user.script", "file.encoding", "native.encoding", "user.name", "user.home"}) {
            System.out.println(name + "=" + System.getProperty(name));
        }
        System.out.println(InetAddress.getLoopbackAddress().isReachable(3000));
        Thread main = Thread.currentThread();
        new Thread(() -> {
            try {
                main.join();
                System.out.println("main is " + main.getState());
            } catch (InterruptedException wrong) {
                System.out.println(wrong);
            }
        }).start();
    }

    private static void part(String name, Part part) {
        System.out.println("- " + name);
        try {
            part.run();
        } catch (Throwable thrown) {
            System.out.println(thrown);
        }
    }

    private static void told(String what, Part part) {
        try {
            part.run();
            System.out.println(what + ": nothing thrown");
        } catch (Throwable thrown) {
            System.out.println(what + ": " + thrown);
        }
    }

    private static void sockets() throws Exception {
        InetAddress here = InetAddress.getLoopbackAddress();
        try (ServerSocket server = new ServerSocket(0, 5, here)) {
            server.setSoTimeout(50);
            told("nobody comes", server::accept);
            try (Socket client = new Socket(here, server.getLocalPort()); Socket accepted = server.accept()) {
                System.out.println(accepted.getPort() == client.getLocalPort());
                System.out.println(accepted.getInetAddress() + " " + client.getLocalAddress());
                client.setTcpNoDelay(true);
                client.setSoLinger(true, 7);
                client.setKeepAlive(true);
                System.out.println(client.getTcpNoDelay() + " " + client.getSoLinger() + " " + client.getKeepAlive() + " " + client.getReuseAddress());
                client.setSoLinger(false, 0);
                client.setReceiveBufferSize(9000);
                System.out.println(client.getReceiveBufferSize() + " " + client.getOption(StandardSocketOptions.SO_REUSEPORT));
                byte[] bytes = new byte[300_000];
                Arrays.fill(bytes, (byte) 7);
                Thread writer = new Thread(() -> told("written", () -> client.getOutputStream().write(bytes)));
                writer.start();
                InputStream input = accepted.getInputStream();
                int length = input.readNBytes(bytes.length).length;
                writer.join();
                System.out.println(length);
                accepted.setSoTimeout(30);
                told("nothing to read", input::read);
                client.getOutputStream().write(65);
                while (input.available() == 0) {
                    Thread.onSpinWait();
                }
                System.out.println(input.available() + " " + input.read());
                client.shutdownOutput();
                System.out.println(input.read());
                client.close();
                told("closed", () -> client.getInputStream().read());
            }
        }
        int port;
        try (ServerSocket gone = new ServerSocket(0, 1, here)) {
            port = gone.getLocalPort();
        }
        told("refused", () -> new Socket(here, port));
        told("taken", () -> {
            try (ServerSocket first = new ServerSocket(0, 1, here); ServerSocket second = new ServerSocket()) {
                second.bind(new InetSocketAddress(here, first.getLocalPort()));
            }
        });
    }

    private static void closedWhileWaiting() throws Exception {
        InetAddress here = InetAddress.getLoopbackAddress();
        ServerSocket server = new ServerSocket(0, 5, here);
        Socket client = new Socket(here, server.getLocalPort());
        Socket accepted = server.accept();
        DatagramSocket datagrams = new DatagramSocket(0, here);
        Part[] waits = {server::accept, () -> client.getInputStream().read(), () -> datagrams.receive(new DatagramPacket(new byte[1], 1))};
        AutoCloseable[] ends = {server, client, datagrams};
        for (int index = 0; index < waits.length; index++) {
            Part wait = waits[index];
            Thread waiter = new Thread(() -> told("woken", wait));
            waiter.start();
            Thread.sleep(100);
            ends[index].close();
            waiter.join(5000);
            System.out.println(waiter.isAlive());
        }
        accepted.close();
    }

    private static void datagrams() throws Exception {
        InetAddress here = InetAddress.getLoopbackAddress();
        try (DatagramSocket one = new DatagramSocket(0, here); DatagramSocket other = new DatagramSocket(0, here)) {
            other.setSoTimeout(40);
            told("nothing comes", () -> other.receive(new DatagramPacket(new byte[9], 9)));
            other.setSoTimeout(5000);
            one.send(new DatagramPacket("hello, you".getBytes(), 10, here, other.getLocalPort()));
            DatagramPacket packet = new DatagramPacket(new byte[9], 2, 5);
            other.receive(packet);
            System.out.println(new String(packet.getData(), packet.getOffset(), packet.getLength()) + " " + packet.getAddress() + " "
                + (packet.getPort() == one.getLocalPort()));
            one.connect(here, other.getLocalPort());
            one.send(new DatagramPacket(new byte[3], 3));
            other.receive(packet);
            System.out.println(packet.getLength() + " " + one.isConnected());
            one.disconnect();
            one.setTrafficClass(8);
            System.out.println(one.getTrafficClass() + " " + one.getBroadcast() + " " + one.getLocalAddress());
        }
        try (java.net.MulticastSocket group = new java.net.MulticastSocket()) {
            group.setTimeToLive(3);
            System.out.println(group.getTimeToLive() + " " + group.getLoopbackMode());
            System.out.println(group.getOption(java.net.StandardSocketOptions.IP_MULTICAST_IF) + " " + group.getNetworkInterface() + " "
                + group.getInterface());
        }
        groups(java.net.NetworkInterface.getByInetAddress(here));
    }

    /** A channel gets what is sent to its group, not what is sent to another's. */
    private static void groups(java.net.NetworkInterface loopback) throws Exception {
        var reuse = java.net.StandardSocketOptions.SO_REUSEADDR;
        InetAddress[] groups = {InetAddress.getByName("239.1.2.3"), InetAddress.getByName("239.1.2.4")};
        var family = java.net.StandardProtocolFamily.INET;
        try (var one = java.nio.channels.DatagramChannel.open(family).setOption(reuse, true).bind(new java.net.InetSocketAddress(0));
                var other = java.nio.channels.DatagramChannel.open(family).setOption(reuse, true).bind(one.getLocalAddress());
                var sender = java.nio.channels.DatagramChannel.open(family)) {
            one.join(groups[0], loopback);
            other.join(groups[1], loopback);
            sender.setOption(java.net.StandardSocketOptions.IP_MULTICAST_IF, loopback);
            for (InetAddress group : groups) {
                sender.send(java.nio.ByteBuffer.wrap(group.getAddress()), new java.net.InetSocketAddress(group, one.socket().getLocalPort()));
            }
            java.nio.ByteBuffer[] got = {java.nio.ByteBuffer.allocate(9), java.nio.ByteBuffer.allocate(9)};
            one.receive(got[0]);
            other.receive(got[1]);
            one.configureBlocking(false);
            other.configureBlocking(false);
            System.out.println(got[0].get(3) + " " + got[1].get(3) + " " + one.receive(got[0]) + " " + other.receive(got[1]));
        }
    }

    private static volatile long count;

    private static void threads() throws Exception {
        Thread busy = new Thread(() -> {
            while (true) {
                count++;
            }
        });
        busy.setDaemon(true);
        busy.start();
        while (count == 0) {
            Thread.onSpinWait();
        }
        busy.suspend();
        long before = count;
        Thread.sleep(50);
        System.out.println("stands still: " + (before == count) + " " + busy.isAlive());
        busy.resume();
        while (count == before) {
            Thread.onSpinWait();
        }
        busy.stop();
        busy.join(5000);
        System.out.println("stopped: " + busy.getState());
        Object lock = new Object();
        for (Part part : new Part[] {() -> Thread.sleep(60_000), () -> { synchronized (lock) { lock.wait(); } }, java.util.concurrent.locks.LockSupport::park}) {
            Thread waiting = new Thread(() -> {
                try {
                    part.run();
                    // What was parked goes on until it is at a safe point.
                    while (true) {
                        count++;
                    }
                } catch (Throwable thrown) {
                    System.out.println(thrown.getClass());
                }
            });
            waiting.start();
            while (waiting.getState() != Thread.State.WAITING && waiting.getState() != Thread.State.TIMED_WAITING) {
                Thread.onSpinWait();
            }
            waiting.stop();
            waiting.join(5000);
            System.out.println(waiting.getState());
        }
    }

    private static void deadlock() throws Exception {
        ThreadMXBean bean = ManagementFactory.getThreadMXBean();
        System.out.println(bean.findDeadlockedThreads() == null);
        Object first = new Object();
        ReentrantLock second = new ReentrantLock();
        CountDownLatch both = new CountDownLatch(2);
        Thread one = new Thread(() -> {
            synchronized (first) {
                both.countDown();
                await(both);
                second.lock();
            }
        }, "one");
        Thread two = new Thread(() -> {
            second.lock();
            both.countDown();
            await(both);
            synchronized (first) {
                System.out.println("never");
            }
        }, "two");
        one.setDaemon(true);
        two.setDaemon(true);
        one.start();
        two.start();
        while (bean.findDeadlockedThreads() == null) {
            Thread.onSpinWait();
        }
        System.out.println(bean.findMonitorDeadlockedThreads() == null);
        for (ThreadInfo info : bean.getThreadInfo(bean.findDeadlockedThreads(), true, false)) {
            System.out.println(info.getThreadName() + " " + info.getThreadState() + " wants " + info.getLockInfo().getClassName() + " of "
                + info.getLockOwnerName() + ", holds " + info.getLockedMonitors().length);
        }
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException wrong) {
            throw new IllegalStateException(wrong);
        }
    }

    private static void folders() throws IOException {
        Path folder = Files.createTempDirectory("older");
        Files.createDirectory(folder.resolve("a"));
        Files.writeString(folder.resolve("a/text"), "hello");
        try (DirectoryStream<Path> stream = Files.newDirectoryStream(folder)) {
            SecureDirectoryStream<Path> secure = (SecureDirectoryStream<Path>) stream;
            try (SecureDirectoryStream<Path> inner = secure.newDirectoryStream(Path.of("a"))) {
                for (Path path : inner) {
                    System.out.println(folder.relativize(path));
                }
                inner.move(Path.of("text"), secure, Path.of("moved"));
            }
            secure.deleteDirectory(Path.of("a"));
            secure.deleteFile(Path.of("moved"));
        }
        FileStore store = Files.getFileStore(folder);
        System.out.println(store.getTotalSpace() > 0 && !store.type().isEmpty());
        Files.delete(folder);
        told("gone", () -> Files.newDirectoryStream(Path.of("/none")).close());
    }
}
