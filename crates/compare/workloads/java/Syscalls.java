import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;

/** Calls of the host that do next to nothing: a byte read at some place of an open file. */
final class Syscalls implements Main.Workload {
    private final ByteBuffer one = ByteBuffer.allocateDirect(1);
    private FileChannel file;

    @Override
    public void prepare(int amount) throws IOException {
        File path = new File("syscalls.tmp");
        file = new RandomAccessFile(path, "rw").getChannel();
        ByteBuffer bytes = ByteBuffer.allocate(256);
        for (int i = 0; i < 256; i++) {
            bytes.put((byte) (i * 7));
        }
        bytes.flip();
        file.write(bytes, 0);
        // It goes when it is closed.
        path.delete();
    }

    @Override
    public long work(int amount) throws IOException {
        long sum = 1;
        for (int i = 0; i < amount; i++) {
            one.clear();
            if (file.read(one, i % 256) != 1) {
                throw new IOException("cannot read syscalls.tmp");
            }
            sum = sum * 31 + (one.get(0) & 255);
        }
        return sum;
    }
}
