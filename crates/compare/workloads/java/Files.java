import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;

/** A file written in blocks and read back in the order of another, and small files made and removed. */
final class Files implements Main.Workload {
    private static final int BLOCK = 16384, FEW = 16, SMALL = 700;

    private final byte[] block = new byte[BLOCK];

    @Override
    public void prepare(int amount) {}

    @Override
    public long work(int amount) throws IOException {
        long sum = 1;
        File path = new File("files.tmp");
        try (RandomAccessFile file = new RandomAccessFile(path, "rw")) {
            for (int i = 0; i < amount; i++) {
                for (int j = 0; j < BLOCK; j += 512) {
                    block[j] = (byte) (i + j / 512);
                }
                file.write(block);
            }
            for (int i = 0; i < amount; i++) {
                file.seek((long) (i * 7 % amount) * BLOCK);
                file.readFully(block);
                sum = Main.mix(sum, block[i % 32 * 512] & 255);
            }
        }
        remove(path);
        for (int i = 0; i < FEW; i++) {
            try (RandomAccessFile file = new RandomAccessFile(small(i), "rw")) {
                file.write(block, 0, SMALL);
            }
        }
        for (int i = 0; i < FEW; i++) {
            try (RandomAccessFile file = new RandomAccessFile(small(i), "rw")) {
                sum = Main.mix(sum, file.read(block));
            }
            remove(small(i));
        }
        return sum;
    }

    private static File small(int number) {
        return new File("files-" + (char) ('a' + number) + ".tmp");
    }

    private static void remove(File path) throws IOException {
        if (!path.delete()) {
            throw new IOException("cannot remove " + path);
        }
    }
}
