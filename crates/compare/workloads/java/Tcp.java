import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

/** Round trips of 64 bytes over the loopback interface, both ends in this program: the way through the network's layers, twice. */
final class Tcp implements Main.Workload {
    private static final int BYTES = 64;

    private final ByteBuffer bytes = ByteBuffer.allocateDirect(BYTES);
    private SocketChannel left, right;

    @Override
    public void prepare(int amount) throws IOException {
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress(InetAddress.getByAddress(new byte[] {127, 0, 0, 1}), 0));
        left = SocketChannel.open(listener.getLocalAddress());
        right = listener.accept();
        listener.close();
        left.setOption(StandardSocketOptions.TCP_NODELAY, true);
        right.setOption(StandardSocketOptions.TCP_NODELAY, true);
    }

    private void pass(SocketChannel from, SocketChannel to) throws IOException {
        bytes.clear();
        while (bytes.hasRemaining()) {
            from.write(bytes);
        }
        bytes.clear();
        while (bytes.hasRemaining()) {
            if (to.read(bytes) < 0) {
                throw new IOException("cannot receive");
            }
        }
    }

    @Override
    public long work(int amount) throws IOException {
        long sum = 1;
        for (int i = 0; i < BYTES; i++) {
            bytes.put(i, (byte) i);
        }
        for (int i = 0; i < amount; i++) {
            int at = i % BYTES;
            bytes.put(at, (byte) (bytes.get(at) + i));
            pass(left, right);
            pass(right, left);
            sum = sum * 31 + (bytes.get(at) & 255);
        }
        return sum;
    }
}
