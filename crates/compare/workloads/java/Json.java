import java.nio.charset.StandardCharsets;

/** JSON (RFC 8259): a text parsed into a tree of values, and the tree walked. */
final class Json implements Main.Workload {
    private static final int NONE = 0, FALSE = 1, TRUE = 2, NUMBER = 3, STRING = 4, ARRAY = 5, OBJECT = 6;

    /** A value and the next in its array or object. */
    private static final class Value {
        int kind;
        double number;
        byte[] string, name;
        Value first, next;
    }

    private byte[] text, unescaped = new byte[64];
    private int at;

    @Override
    public void prepare(int amount) {
        String[] words = {"guest", "host", "page", "trap", "\\u00e9t\\u00e9", "a \\\"quote\\\"", "line\\n", "frame"};
        Main.Random random = new Main.Random(5);
        StringBuilder text = new StringBuilder("[");
        for (int i = 0; i < amount; i++) {
            text.append(i > 0 ? ",\n  {\"id\": " : "\n  {\"id\": ").append(i);
            text.append(", \"name\": \"").append(words[random.next() % 8]).append(' ').append(words[random.next() % 8]);
            text.append("\", \"size\": ").append(random.next() % 2 != 0 ? "-" : "").append(random.next() % 100000).append('.');
            text.append(random.next() % 1000).append(random.next() % 4 != 0 ? "" : "e2").append(", \"tags\": [");
            for (int j = 0, count = random.next() % 5; j < count; j++) {
                text.append(j > 0 ? ", " : "").append(random.next() % 64);
            }
            text.append("], \"on\": ").append(random.next() % 2 != 0 ? "true" : "false").append(", \"parent\": null}");
        }
        this.text = text.append("\n]\n").toString().getBytes(StandardCharsets.ISO_8859_1);
    }

    private void space() {
        while (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
            at++;
        }
    }

    private int hexadecimal() {
        int unit = 0;
        for (int i = 0; i < 4; i++, at++) {
            unit = unit << 4 | (text[at] <= '9' ? text[at] - '0' : (text[at] | 32) - 'a' + 10);
        }
        return unit;
    }

    /** A string, unescaped, as bytes of UTF-8. */
    private byte[] string() {
        int length = 0;
        at++;
        while (text[at] != '"') {
            if (length + 3 > unescaped.length) {
                unescaped = java.util.Arrays.copyOf(unescaped, unescaped.length * 2);
            }
            if (text[at] != '\\') {
                unescaped[length++] = text[at++];
                continue;
            }
            byte escape = text[at + 1];
            at += 2;
            if (escape == 'u') {
                int unit = hexadecimal();
                if (unit < 0x80) {
                    unescaped[length++] = (byte) unit;
                } else if (unit < 0x800) {
                    unescaped[length++] = (byte) (0xc0 | unit >> 6);
                    unescaped[length++] = (byte) (0x80 | unit & 63);
                } else {
                    unescaped[length++] = (byte) (0xe0 | unit >> 12);
                    unescaped[length++] = (byte) (0x80 | unit >> 6 & 63);
                    unescaped[length++] = (byte) (0x80 | unit & 63);
                }
            } else {
                unescaped[length++] = escape == 'n' ? (byte) '\n' : escape == 't' ? (byte) '\t' : escape == 'r' ? (byte) '\r' : escape;
            }
        }
        at++;
        return java.util.Arrays.copyOf(unescaped, length);
    }

    private boolean isDigit() {
        return text[at] >= '0' && text[at] <= '9';
    }

    private double number() {
        boolean negative = text[at] == '-';
        int places = 0, power = 0;
        double value = 0;
        at += negative ? 1 : 0;
        for (; isDigit(); at++) {
            value = value * 10 + (text[at] - '0');
        }
        if (text[at] == '.') {
            for (at++; isDigit(); at++, places++) {
                value = value * 10 + (text[at] - '0');
            }
        }
        if ((text[at] | 32) == 'e') {
            at++;
            boolean negativePower = text[at] == '-';
            at += text[at] == '-' || text[at] == '+' ? 1 : 0;
            for (; isDigit(); at++) {
                power = power * 10 + (text[at] - '0');
            }
            power = negativePower ? -power : power;
        }
        power -= places;
        for (; power < 0; power++) {
            value /= 10;
        }
        for (; power > 0; power--) {
            value *= 10;
        }
        return negative ? -value : value;
    }

    private Value parse() {
        Value value = new Value();
        space();
        switch (text[at]) {
            case '{':
            case '[': {
                byte close = text[at] == '{' ? (byte) '}' : (byte) ']';
                Value last = null;
                value.kind = text[at] == '{' ? OBJECT : ARRAY;
                at++;
                for (space(); text[at] != close; space()) {
                    byte[] name = null;
                    if (close == '}') {
                        name = string();
                        space();
                        at++;
                    }
                    Value inside = parse();
                    inside.name = name;
                    if (last != null) {
                        last.next = inside;
                    } else {
                        value.first = inside;
                    }
                    last = inside;
                    space();
                    if (text[at] == ',') {
                        at++;
                        space();
                    }
                }
                at++;
                break;
            }
            case '"':
                value.kind = STRING;
                value.string = string();
                break;
            case 't':
                value.kind = TRUE;
                at += 4;
                break;
            case 'f':
                value.kind = FALSE;
                at += 5;
                break;
            case 'n':
                value.kind = NONE;
                at += 4;
                break;
            default:
                value.kind = NUMBER;
                value.number = number();
        }
        return value;
    }

    private static long walk(Value value, long sum) {
        sum = Main.mix(sum, value.kind);
        if (value.name != null) {
            for (byte character : value.name) {
                sum = sum * 31 + (character & 255);
            }
        }
        if (value.kind == NUMBER) {
            sum = Main.mix(sum, Double.doubleToRawLongBits(value.number));
        }
        if (value.kind == STRING) {
            for (byte character : value.string) {
                sum = sum * 31 + (character & 255);
            }
        }
        for (Value inside = value.first; inside != null; inside = inside.next) {
            sum = walk(inside, sum);
        }
        return sum;
    }

    @Override
    public long work(int amount) {
        at = 0;
        return walk(parse(), 1);
    }
}
