/** Nothing: what is left is the start and the end of a program. */
final class Startup implements Main.Workload {
    @Override
    public void prepare(int amount) {}

    @Override
    public long work(int amount) {
        return Main.mix(1, amount);
    }
}
