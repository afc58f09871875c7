/* JSON (RFC 8259): a text parsed into a tree of values, and the tree walked. The text is made by `prepare`. */
#include "rt.h"

enum kind { NONE, FALSE, TRUE, NUMBER, STRING, ARRAY, OBJECT };

/* A value and the next in its array or object. Of a string and of a member's name, the place in `strings`. */
struct value {
    enum kind kind;
    u32 length, name_length;
    f64 number;
    const u8 *string, *name;
    struct value *first, *next;
};

static u8 *text, *text_end, *at;
static struct value *values, *values_next;
static u8 *strings_next;

static void put(const char *part)
{
    while (*part)
        *text_end++ = (u8)*part++;
}

static void put_number(u32 number)
{
    u8 digits[10];
    int count = 0;
    do
        digits[count++] = (u8)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *text_end++ = digits[--count];
}

void json_prepare(u32 amount)
{
    static const char *const words[] = {"guest", "host", "page", "trap", "\\u00e9t\\u00e9", "a \\\"quote\\\"", "line\\n", "frame"};
    u64 random = 5;
    text = text_end = arena;
    values = (struct value *)(arena + (16 << 20));
    put("[");
    for (u32 i = 0; i < amount; i++) {
        put(i ? ",\n  {\"id\": " : "\n  {\"id\": ");
        put_number(i);
        put(", \"name\": \"");
        put(words[next_random(&random) % 8]);
        put(" ");
        put(words[next_random(&random) % 8]);
        put("\", \"size\": ");
        put(next_random(&random) % 2 ? "-" : "");
        put_number(next_random(&random) % 100000);
        put(".");
        put_number(next_random(&random) % 1000);
        put(next_random(&random) % 4 ? "" : "e2");
        put(", \"tags\": [");
        for (u32 j = 0, count = next_random(&random) % 5; j < count; j++) {
            put(j ? ", " : "");
            put_number(next_random(&random) % 64);
        }
        put("], \"on\": ");
        put(next_random(&random) % 2 ? "true" : "false");
        put(", \"parent\": null}");
    }
    put("\n]\n");
}

static void space(void)
{
    while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')
        at++;
}

static u32 hexadecimal(void)
{
    u32 unit = 0;
    for (int i = 0; i < 4; i++, at++)
        unit = unit << 4 | (*at <= '9' ? *at - '0' : (*at | 32) - 'a' + 10);
    return unit;
}

/* A string, unescaped, as bytes of UTF-8. */
static const u8 *string(u32 *length)
{
    u8 *to = strings_next;
    at++;
    while (*at != '"') {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        u8 escape = at[1];
        at += 2;
        if (escape == 'u') {
            u32 unit = hexadecimal();
            if (unit < 0x80) {
                *to++ = (u8)unit;
            } else if (unit < 0x800) {
                *to++ = (u8)(0xc0 | unit >> 6);
                *to++ = (u8)(0x80 | (unit & 63));
            } else {
                *to++ = (u8)(0xe0 | unit >> 12);
                *to++ = (u8)(0x80 | (unit >> 6 & 63));
                *to++ = (u8)(0x80 | (unit & 63));
            }
        } else {
            *to++ = escape == 'n' ? '\n' : escape == 't' ? '\t' : escape == 'r' ? '\r' : escape;
        }
    }
    at++;
    const u8 *from = strings_next;
    *length = (u32)(to - from);
    strings_next = to;
    return from;
}

static f64 number(void)
{
    int negative = *at == '-', places = 0, power = 0, negative_power = 0;
    f64 value = 0;
    at += negative;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (*at - '0');
    if (*at == '.')
        for (at++; *at >= '0' && *at <= '9'; at++, places++)
            value = value * 10 + (*at - '0');
    if ((*at | 32) == 'e') {
        at++;
        negative_power = *at == '-';
        at += *at == '-' || *at == '+';
        for (; *at >= '0' && *at <= '9'; at++)
            power = power * 10 + (*at - '0');
    }
    power = (negative_power ? -power : power) - places;
    for (; power < 0; power++)
        value /= 10;
    for (; power > 0; power--)
        value *= 10;
    return negative ? -value : value;
}

static struct value *parse(void)
{
    struct value *value = values_next++;
    value->kind = NONE;
    value->first = value->next = 0;
    value->name_length = 0;
    space();
    switch (*at) {
    case '{':
    case '[': {
        u8 close = *at == '{' ? '}' : ']';
        struct value *last = 0;
        value->kind = *at == '{' ? OBJECT : ARRAY;
        at++;
        for (space(); *at != close; space()) {
            const u8 *name = 0;
            u32 name_length = 0;
            if (close == '}') {
                name = string(&name_length);
                space();
                at++;
            }
            struct value *inside = parse();
            inside->name = name;
            inside->name_length = name_length;
            if (last)
                last->next = inside;
            else
                value->first = inside;
            last = inside;
            space();
            if (*at == ',') {
                at++;
                space();
            }
        }
        at++;
        break;
    }
    case '"':
        value->kind = STRING;
        value->string = string(&value->length);
        break;
    case 't':
        value->kind = TRUE;
        at += 4;
        break;
    case 'f':
        value->kind = FALSE;
        at += 5;
        break;
    case 'n':
        at += 4;
        break;
    default:
        value->kind = NUMBER;
        value->number = number();
    }
    return value;
}

static u64 walk(const struct value *value, u64 sum)
{
    sum = mix(sum, value->kind);
    for (u32 i = 0; i < value->name_length; i++)
        sum = sum * 31 + value->name[i];
    if (value->kind == NUMBER)
        sum = mix(sum, bits(value->number));
    if (value->kind == STRING)
        for (u32 i = 0; i < value->length; i++)
            sum = sum * 31 + value->string[i];
    for (const struct value *inside = value->first; inside; inside = inside->next)
        sum = walk(inside, sum);
    return sum;
}

u64 json_work(u32 amount)
{
    (void)amount;
    at = text;
    values_next = values;
    strings_next = text_end + 1;
    return walk(parse(), 1);
}
