/** Trees built and dropped, some of them kept for a while: what a collector has to do, and so its pauses. */
final class Garbage implements Main.Workload {
    private static final int DEPTH = 12, KEPT = 400;

    private static final class Node {
        final Node left, right;
        final long value;

        Node(Node left, Node right, long value) {
            this.left = left;
            this.right = right;
            this.value = value;
        }
    }

    private final Node[] kept = new Node[KEPT];

    private static Node tree(int depth, long value) {
        return depth == 0 ? null : new Node(tree(depth - 1, 2 * value), tree(depth - 1, 2 * value + 1), value);
    }

    private static long walk(Node node) {
        return node == null ? 1 : Main.mix(walk(node.left) + walk(node.right), node.value);
    }

    @Override
    public void prepare(int amount) {}

    @Override
    public long work(int amount) {
        long sum = 1;
        Main.Random random = new Main.Random(17);
        for (int i = 0; i < amount; i++) {
            Node made = tree(DEPTH, i);
            int place = random.next() % KEPT;
            if (i % 4 == 0) {
                kept[place] = made;
            }
            sum = Main.mix(sum, i % 16 == 0 ? walk(made) : i);
        }
        return sum;
    }
}
