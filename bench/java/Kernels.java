import java.util.*;
import java.util.stream.*;

/** Small programs, each about one thing. Prints a line for each that its arguments name, or for all: name, milliseconds, checksum. */
public class Kernels {
    interface Kernel {
        long run();
    }

    static int fib(int n) {
        return n < 2 ? n : fib(n - 1) + fib(n - 2);
    }

    static long sieve() {
        boolean[] composite = new boolean[500_000];
        int count = 0;
        for (int i = 2; i < composite.length; i++) {
            if (!composite[i]) {
                count++;
                for (int j = i + i; j < composite.length; j += i) {
                    composite[j] = true;
                }
            }
        }
        return count;
    }

    static final class Body {
        double x, y, z, vx, vy, vz, mass;

        Body(double... state) {
            x = state[0];
            y = state[1];
            z = state[2];
            vx = state[3];
            vy = state[4];
            vz = state[5];
            mass = state[6];
        }
    }

    static long nbody() {
        Body[] bodies = {
            new Body(0, 0, 0, 0, 0, 0, 39.5),
            new Body(4.8, -1.2, -0.1, 0.6, 2.8, -0.02, 0.038),
            new Body(8.3, 4.1, -0.4, -1.0, 1.8, 0.008, 0.011),
            new Body(12.9, -15.1, -0.2, 1.1, 0.9, -0.01, 0.0017),
            new Body(15.4, -25.9, 0.2, 0.98, 0.6, -0.03, 0.002),
        };
        for (int step = 0; step < 15_000; step++) {
            for (int i = 0; i < bodies.length; i++) {
                Body a = bodies[i];
                for (int j = i + 1; j < bodies.length; j++) {
                    Body b = bodies[j];
                    double dx = a.x - b.x, dy = a.y - b.y, dz = a.z - b.z;
                    double square = dx * dx + dy * dy + dz * dz;
                    double pull = 0.01 / (square * Math.sqrt(square));
                    a.vx -= dx * b.mass * pull;
                    a.vy -= dy * b.mass * pull;
                    a.vz -= dz * b.mass * pull;
                    b.vx += dx * a.mass * pull;
                    b.vy += dy * a.mass * pull;
                    b.vz += dz * a.mass * pull;
                }
            }
            for (Body body : bodies) {
                body.x += 0.01 * body.vx;
                body.y += 0.01 * body.vy;
                body.z += 0.01 * body.vz;
            }
        }
        return Double.doubleToLongBits(bodies[0].x);
    }

    static double entry(int i, int j) {
        return 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1);
    }

    static void times(double[] from, double[] to, boolean transposed) {
        for (int i = 0; i < to.length; i++) {
            double sum = 0;
            for (int j = 0; j < from.length; j++) {
                sum += (transposed ? entry(j, i) : entry(i, j)) * from[j];
            }
            to[i] = sum;
        }
    }

    static long spectral() {
        double[] u = new double[120], v = new double[120], w = new double[120];
        Arrays.fill(u, 1);
        for (int round = 0; round < 5; round++) {
            times(u, w, false);
            times(w, v, true);
            times(v, w, false);
            times(w, u, true);
        }
        double above = 0, below = 0;
        for (int i = 0; i < u.length; i++) {
            above += u[i] * v[i];
            below += v[i] * v[i];
        }
        return Double.doubleToLongBits(Math.sqrt(above / below));
    }

    static long fannkuch() {
        int n = 8, flips = 0, checksum = 0, turns = n;
        int[] permutation = new int[n], first = new int[n], count = new int[n];
        for (int i = 0; i < n; i++) {
            first[i] = i;
        }
        for (int number = 0; ; number++) {
            for (; turns != 1; turns--) {
                count[turns - 1] = turns;
            }
            System.arraycopy(first, 0, permutation, 0, n);
            int done = 0;
            for (int k = permutation[0]; k != 0; k = permutation[0]) {
                for (int i = 0, j = k; i < j; i++, j--) {
                    int held = permutation[i];
                    permutation[i] = permutation[j];
                    permutation[j] = held;
                }
                done++;
            }
            flips = Math.max(flips, done);
            checksum += (number & 1) == 0 ? done : -done;
            for (; ; turns++) {
                if (turns == n) {
                    return checksum * 100L + flips;
                }
                int zeroth = first[0];
                for (int i = 0; i < turns; i++) {
                    first[i] = first[i + 1];
                }
                first[turns] = zeroth;
                if (--count[turns] > 0) {
                    break;
                }
            }
        }
    }

    static long mandelbrot() {
        int size = 120, inside = 0;
        for (int row = 0; row < size; row++) {
            for (int column = 0; column < size; column++) {
                double cr = 2.0 * column / size - 1.5, ci = 2.0 * row / size - 1, zr = 0, zi = 0;
                int i = 0;
                while (i < 100 && zr * zr + zi * zi <= 4) {
                    double next = zr * zr - zi * zi + cr;
                    zi = 2 * zr * zi + ci;
                    zr = next;
                    i++;
                }
                inside += i;
            }
        }
        return inside;
    }

    static final class Tree {
        final Tree left, right;

        Tree(int depth) {
            left = depth == 0 ? null : new Tree(depth - 1);
            right = depth == 0 ? null : new Tree(depth - 1);
        }

        int count() {
            return left == null ? 1 : 1 + left.count() + right.count();
        }
    }

    static long trees() {
        long count = 0;
        Tree kept = new Tree(12);
        for (int i = 0; i < 60; i++) {
            count += new Tree(10).count();
        }
        return count + kept.count();
    }

    static long hashMap() {
        Map<Integer, Integer> map = new HashMap<>();
        for (int i = 0; i < 100_000; i++) {
            map.merge(i * 31 % 20_011, 1, Integer::sum);
        }
        long sum = 0;
        for (Map.Entry<Integer, Integer> entry : map.entrySet()) {
            sum += (long) entry.getKey() * entry.getValue();
        }
        return sum;
    }

    static long strings() {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < 20_000; i++) {
            text.append("item ").append(i).append(i % 7 == 0 ? '\n' : ';');
        }
        long sum = 0;
        for (String line : text.toString().split("\n")) {
            sum = sum * 31 + line.toUpperCase(Locale.ROOT).hashCode() + line.indexOf("99;");
        }
        return sum;
    }

    static long streams() {
        long sum = 0;
        for (int round = 0; round < 10; round++) {
            sum += IntStream.range(0, 10_000).filter(i -> i % 3 == 0).mapToLong(i -> i * 7L).sum();
            sum += Stream.iterate(1, i -> i + 1).limit(2_000).map(i -> Integer.toString(i)).collect(Collectors.joining()).length();
        }
        return sum;
    }

    public static void main(String[] names) {
        Map<String, Kernel> kernels = new LinkedHashMap<>();
        kernels.put("fib", () -> fib(27));
        kernels.put("sieve", Kernels::sieve);
        kernels.put("nbody", Kernels::nbody);
        kernels.put("spectral", Kernels::spectral);
        kernels.put("fannkuch", Kernels::fannkuch);
        kernels.put("mandelbrot", Kernels::mandelbrot);
        kernels.put("trees", Kernels::trees);
        kernels.put("hashmap", Kernels::hashMap);
        kernels.put("strings", Kernels::strings);
        kernels.put("streams", Kernels::streams);
        for (String name : names.length == 0 ? kernels.keySet().toArray(new String[0]) : names) {
            long best = Long.MAX_VALUE, result = 0;
            for (int round = 0; round < 3; round++) {
                long start = System.nanoTime();
                result = kernels.get(name).run();
                best = Math.min(best, System.nanoTime() - start);
            }
            System.out.println(name + " " + best / 1e6 + " " + result);
        }
    }
}
