import java.io.*;
import java.lang.reflect.*;
import java.net.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;

/** Tries the ways out that its arguments name, `WAY` or `WAY=VALUE`, and says of each what came of it. */
public class Hostile {
    interface Way {
        Object go(String value) throws Throwable;
    }

    static final Map<String, Way> WAYS = new TreeMap<>();

    static {
        WAYS.put("read", path -> new FileInputStream(path).readAllBytes().length);
        WAYS.put("random", path -> new RandomAccessFile(path, "r").length());
        WAYS.put("nio", path -> Files.readString(Path.of(path)).length());
        WAYS.put("map", path -> FileChannel.open(Path.of(path)).map(FileChannel.MapMode.READ_ONLY, 0, 1).get(0));
        WAYS.put("attributes", path -> Files.size(Path.of(path)));
        WAYS.put("exists", path -> new File(path).exists());
        WAYS.put("list", path -> new File(path).list() != null);
        WAYS.put("stream", path -> Files.list(Path.of(path)).count() > 0);
        WAYS.put("write", path -> {
            new FileOutputStream(path).write(1);
            return "written";
        });
        WAYS.put("append", path -> Files.writeString(Path.of(path), "x", StandardOpenOption.CREATE, StandardOpenOption.APPEND));
        WAYS.put("make", path -> Files.createDirectory(Path.of(path)));
        WAYS.put("delete", path -> {
            Files.delete(Path.of(path));
            return "deleted";
        });
        WAYS.put("move", path -> Files.move(Path.of(path), Path.of(path + ".moved")));
        WAYS.put("mode", path -> new File(path).setReadOnly());
        WAYS.put("link", path -> Files.readString(Files.createSymbolicLink(Path.of(path), Path.of("/etc/passwd"))).length());
        WAYS.put("hard", path -> Files.readString(Files.createLink(Path.of(path), Path.of("/etc/passwd"))).length());
        WAYS.put("copy", path -> Files.copy(Path.of("/etc/passwd"), Path.of(path)));
        WAYS.put("temp", none -> Files.createTempFile("hostile", null));
        WAYS.put("connect", address -> {
            try (Socket socket = new Socket(address.split(":")[0], Integer.parseInt(address.split(":")[1]))) {
                return socket.isConnected();
            }
        });
        WAYS.put("channel", address -> {
            String[] parts = address.split(":");
            try (var channel = SocketChannel.open(new InetSocketAddress(parts[0], Integer.parseInt(parts[1])))) {
                return channel.isConnected();
            }
        });
        WAYS.put("listen", port -> {
            try (ServerSocket socket = new ServerSocket(Integer.parseInt(port))) {
                return socket.isBound();
            }
        });
        WAYS.put("send", address -> {
            try (DatagramSocket socket = new DatagramSocket()) {
                String[] parts = address.split(":");
                var to = new InetSocketAddress(parts[0], Integer.parseInt(parts[1]));
                socket.send(new DatagramPacket(new byte[1], 1, to));
                return "sent";
            }
        });
        WAYS.put("local", path -> SocketChannel.open(UnixDomainSocketAddress.of(path)));
        WAYS.put("name", host -> InetAddress.getByName(host).isReachable(1) || true);
        WAYS.put("run", program -> new ProcessBuilder(program).redirectErrorStream(true).start().waitFor());
        WAYS.put("output", program -> new String(new ProcessBuilder(program.split(" ")).start().getInputStream().readAllBytes()).trim().replace('\n', ' '));
        WAYS.put("exec", program -> Runtime.getRuntime().exec(program).waitFor());
        WAYS.put("kill", id -> ProcessHandle.of(Long.parseLong(id)).map(ProcessHandle::destroyForcibly).orElse(false));
        WAYS.put("processes", none -> ProcessHandle.allProcesses().anyMatch(process -> process.pid() != ProcessHandle.current().pid()));
        WAYS.put("env", name -> System.getenv(name) + " " + System.getenv().containsKey(name));
        WAYS.put("load", path -> {
            System.load(path);
            return "loaded";
        });
        WAYS.put("library", name -> {
            System.loadLibrary(name);
            return "loaded";
        });
        WAYS.put("reflect", none -> {
            Method method = Class.forName("java.lang.ProcessImpl").getDeclaredMethod("init");
            method.setAccessible(true);
            return method.invoke(null);
        });
        WAYS.put("dispatcher", path -> {
            Class<?> dispatcher = Class.forName("sun.nio.fs.UnixNativeDispatcher");
            Method method = dispatcher.getDeclaredMethod("open0", long.class, int.class, int.class);
            method.setAccessible(true);
            return "opened";
        });
        WAYS.put("memory", none -> {
            Field field = Class.forName("sun.misc.Unsafe").getDeclaredField("theUnsafe");
            field.setAccessible(true);
            var unsafe = (sun.misc.Unsafe) field.get(null);
            // The class itself is no way to native code: what it reads and writes is this process.
            long address = unsafe.allocateMemory(8);
            unsafe.putLong(address, 42);
            return unsafe.getLong(address);
        });
        WAYS.put("own", none -> Hostile.class.getResource("/Hostile.class") != null);
        WAYS.put("beside", name -> Class.forName(name).getDeclaredConstructor().newInstance());
        WAYS.put("resource", name -> Hostile.class.getResourceAsStream(name).readAllBytes().length);
        WAYS.put("zone", none -> java.time.ZonedDateTime.now().getYear() > 2000);
        WAYS.put("secure", none -> new java.security.SecureRandom().nextInt() != new java.security.SecureRandom().nextInt());
        WAYS.put("heap", none -> Runtime.getRuntime().maxMemory() >> 20);
        WAYS.put("certificates", none -> {
            var factory = javax.net.ssl.TrustManagerFactory.getInstance("PKIX");
            factory.init((java.security.KeyStore) null);
            return ((javax.net.ssl.X509TrustManager) factory.getTrustManagers()[0]).getAcceptedIssuers().length > 20;
        });
    }

    public static void main(String[] arguments) {
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            String result;
            try {
                result = String.valueOf(WAYS.get(parts[0]).go(parts.length > 1 ? parts[1] : null));
            } catch (Throwable thrown) {
                result = thrown.getClass().getSimpleName() + ": " + thrown.getMessage();
            }
            System.out.println(parts[0] + " -> " + result);
        }
    }
}
