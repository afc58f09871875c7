/** Five bodies under gravity: double-precision arithmetic in which each operation waits for the one before. */
final class Nbody implements Main.Workload {
    private static final int BODIES = 5;

    private static final class Body {
        double x, y, z, vx, vy, vz, mass;
    }

    private final Body[] bodies = new Body[BODIES];

    private void place() {
        for (int i = 0; i < BODIES; i++) {
            bodies[i] = new Body();
        }
        bodies[0].mass = 40;
        for (int i = 1; i < BODIES; i++) {
            double t = 0.3 * i, c = (1 - t * t) / (1 + t * t), s = 2 * t / (1 + t * t), r = 3.0 * i, v = Math.sqrt(40 / r);
            Body a = bodies[i];
            a.x = r * c;
            a.y = r * s;
            a.z = 0.1 * i;
            a.vx = -s * v;
            a.vy = c * v;
            a.vz = 0;
            a.mass = 0.01 * i;
        }
    }

    private void advance(double dt) {
        for (int i = 0; i < BODIES; i++) {
            Body a = bodies[i];
            for (int j = i + 1; j < BODIES; j++) {
                Body b = bodies[j];
                double dx = a.x - b.x, dy = a.y - b.y, dz = a.z - b.z;
                double d2 = dx * dx + dy * dy + dz * dz;
                double pull = dt / (d2 * Math.sqrt(d2));
                double ma = a.mass * pull, mb = b.mass * pull;
                a.vx -= dx * mb;
                a.vy -= dy * mb;
                a.vz -= dz * mb;
                b.vx += dx * ma;
                b.vy += dy * ma;
                b.vz += dz * ma;
            }
        }
        for (int i = 0; i < BODIES; i++) {
            Body a = bodies[i];
            a.x += dt * a.vx;
            a.y += dt * a.vy;
            a.z += dt * a.vz;
        }
    }

    @Override
    public void prepare(int amount) {}

    @Override
    public long work(int amount) {
        long sum = 1;
        place();
        for (int i = 0; i < amount; i++) {
            advance(0.001);
        }
        for (Body a : bodies) {
            sum = Main.mix(sum, Double.doubleToRawLongBits(a.x));
            sum = Main.mix(sum, Double.doubleToRawLongBits(a.y));
            sum = Main.mix(sum, Double.doubleToRawLongBits(a.z));
        }
        return sum;
    }
}
