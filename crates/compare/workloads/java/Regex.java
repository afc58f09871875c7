import java.nio.charset.StandardCharsets;

/** A regular expression compiled to a small program, and the program run by backtracking over a text: unpredictable calls and returns. */
final class Regex implements Main.Workload {
    /** What a step does: one character of a set, go on at both x and y, go on at x, or done. */
    private static final int SET = 0, SPLIT = 1, JUMP = 2, MATCH = 3;

    private static final class Step {
        final int operation;
        int x, y;
        /** The set, a bit for each of the first 128 characters. */
        long low, high;

        Step(int operation) {
            this.operation = operation;
        }

        void add(int first, int last) {
            for (int c = first; c <= last; c++) {
                if (c < 64) {
                    low |= 1L << c;
                } else {
                    high |= 1L << c - 64;
                }
            }
        }
    }

    private final Step[] program = new Step[64];
    private int steps, at;
    private String pattern;
    private byte[] text;
    private int length;

    private Step step(int operation) {
        return program[steps++] = new Step(operation);
    }

    private char now() {
        return at < pattern.length() ? pattern.charAt(at) : 0;
    }

    private void atom() {
        if (now() == '(') {
            at++;
            alternatives();
            at++;
            return;
        }
        Step set = step(SET);
        if (now() == '.') {
            set.add(' ', '~');
        } else if (now() == '[') {
            for (at++; now() != ']'; at++) {
                char first = now();
                if (pattern.charAt(at + 1) == '-') {
                    at += 2;
                }
                set.add(first, now());
            }
        } else {
            at += now() == '\\' ? 1 : 0;
            set.add(now(), now());
        }
        at++;
    }

    /** Makes room for a split in front of the steps from {@code start}, whose jumps move with them. */
    private void insertSplit(int start) {
        for (int i = steps++; i > start; i--) {
            Step moved = program[i] = program[i - 1];
            if (moved.operation == SPLIT || moved.operation == JUMP) {
                moved.x += moved.x >= start ? 1 : 0;
                moved.y += moved.y >= start ? 1 : 0;
            }
        }
        program[start] = new Step(SPLIT);
        program[start].x = start + 1;
    }

    private void alternatives() {
        int begin = steps, count = 0;
        int[] ends = new int[8];
        for (;;) {
            while (now() != 0 && now() != '|' && now() != ')') {
                int start = steps;
                atom();
                if (now() == '+') {
                    Step split = step(SPLIT);
                    split.x = start;
                    split.y = steps;
                    at++;
                } else if (now() == '*') {
                    insertSplit(start);
                    step(JUMP).x = start;
                    program[start].y = steps;
                    at++;
                } else if (now() == '?') {
                    insertSplit(start);
                    program[start].y = steps;
                    at++;
                }
            }
            if (now() != '|') {
                break;
            }
            at++;
            insertSplit(begin);
            ends[count++] = steps;
            step(JUMP);
            program[begin].y = steps;
            begin = steps;
        }
        while (count > 0) {
            program[ends[--count]].x = steps;
        }
    }

    /** The end of the match that is preferred, or -1. */
    private int match(int pc, int at) {
        for (;;) {
            Step now = program[pc];
            switch (now.operation) {
                case SET: {
                    int c = at < length ? text[at] : 0;
                    if (((c < 64 ? now.low >>> c : now.high >>> c - 64) & 1) == 0) {
                        return -1;
                    }
                    at++;
                    pc++;
                    break;
                }
                case SPLIT: {
                    int end = match(now.x, at);
                    if (end >= 0) {
                        return end;
                    }
                    pc = now.y;
                    break;
                }
                case JUMP:
                    pc = now.x;
                    break;
                default:
                    return at;
            }
        }
    }

    @Override
    public void prepare(int amount) {
        String[] words = {"guest", "192.168.7.1", "root@host.org", "page", "x.y@mail.example.com", "0x7fff", "trap", "10.0.2.15"};
        Main.Random random = new Main.Random(13);
        pattern = "[a-z.]+@([a-z]+\\.)+(com|org|net)|[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+|0x[0-9a-f]*";
        alternatives();
        step(MATCH);
        StringBuilder text = new StringBuilder();
        while (text.length() < amount) {
            text.append(words[random.next() % 8]).append(random.next() % 8 != 0 ? ' ' : '\n');
        }
        this.text = text.toString().getBytes(StandardCharsets.ISO_8859_1);
        length = amount;
    }

    @Override
    public long work(int amount) {
        long sum = 1;
        for (int at = 0; at < amount;) {
            int end = match(0, at);
            if (end < 0) {
                at++;
                continue;
            }
            sum = Main.mix(sum, (long) at << 32 | end);
            at = end;
        }
        return sum;
    }
}
