/* A regular expression compiled to a small program, and the program run by backtracking over a text: unpredictable calls and returns. */
#include "rt.h"

/* What a step of the program does: one character of a set, go on at both `x` and `y`, go on at `x`, or done. */
enum operation { SET, SPLIT, JUMP, MATCH };

struct step {
    enum operation operation;
    i32 x, y;
    /* The set, a bit for each of the first 128 characters. */
    u64 low, high;
};

enum { STEPS_MAX = 64 };

static struct step program[STEPS_MAX];
static i32 steps_count;
static const char *pattern;
static const u8 *text;
static u32 text_length;

static struct step *step(enum operation operation)
{
    struct step *new = &program[steps_count++];
    *new = (struct step){operation, 0, 0, 0, 0};
    return new;
}

static void add(struct step *set, u8 first, u8 last)
{
    for (u32 c = first; c <= last; c++) {
        if (c < 64)
            set->low |= (u64)1 << c;
        else
            set->high |= (u64)1 << (c - 64);
    }
}

static void alternatives(void);

static void atom(void)
{
    if (*pattern == '(') {
        pattern++;
        alternatives();
        pattern++;
        return;
    }
    struct step *set = step(SET);
    if (*pattern == '.') {
        add(set, ' ', '~');
    } else if (*pattern == '[') {
        for (pattern++; *pattern != ']'; pattern++) {
            u8 first = (u8)*pattern;
            if (pattern[1] == '-')
                pattern += 2;
            add(set, first, (u8)*pattern);
        }
    } else {
        pattern += *pattern == '\\';
        add(set, (u8)*pattern, (u8)*pattern);
    }
    pattern++;
}

/* Makes room for a split in front of the steps from `start`, whose jumps move with them. */
static void insert_split(i32 start)
{
    for (i32 i = steps_count++; i > start; i--) {
        program[i] = program[i - 1];
        if (program[i].operation == SPLIT || program[i].operation == JUMP) {
            program[i].x += program[i].x >= start;
            program[i].y += program[i].y >= start;
        }
    }
    program[start] = (struct step){SPLIT, start + 1, 0, 0, 0};
}

static void alternatives(void)
{
    i32 begin = steps_count, ends[8], ends_count = 0;
    for (;;) {
        while (*pattern && *pattern != '|' && *pattern != ')') {
            i32 start = steps_count;
            atom();
            if (*pattern == '+') {
                i32 split = steps_count;
                step(SPLIT)->x = start;
                program[split].y = steps_count;
                pattern++;
            } else if (*pattern == '*') {
                insert_split(start);
                step(JUMP)->x = start;
                program[start].y = steps_count;
                pattern++;
            } else if (*pattern == '?') {
                insert_split(start);
                program[start].y = steps_count;
                pattern++;
            }
        }
        if (*pattern != '|')
            break;
        pattern++;
        insert_split(begin);
        ends[ends_count++] = steps_count;
        step(JUMP);
        program[begin].y = steps_count;
        begin = steps_count;
    }
    while (ends_count > 0)
        program[ends[--ends_count]].x = steps_count;
}

/* The end of the longest match by preference from `at`, or -1. */
static i32 match(i32 pc, u32 at)
{
    for (;;) {
        const struct step *now = &program[pc];
        switch (now->operation) {
        case SET: {
            u8 c = at < text_length ? text[at] : 0;
            if (!((c < 64 ? now->low >> c : now->high >> (c - 64)) & 1))
                return -1;
            at++;
            pc++;
            break;
        }
        case SPLIT: {
            i32 end = match(now->x, at);
            if (end >= 0)
                return end;
            pc = now->y;
            break;
        }
        case JUMP:
            pc = now->x;
            break;
        case MATCH:
            return (i32)at;
        }
    }
}

void regex_prepare(u32 amount)
{
    static const char *const words[] = {"guest", "192.168.7.1", "root@host.org", "page", "x.y@mail.example.com", "0x7fff", "trap", "10.0.2.15"};
    u64 random = 13;
    u32 at = 0;
    steps_count = 0;
    pattern = "[a-z.]+@([a-z]+\\.)+(com|org|net)|[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+|0x[0-9a-f]*";
    alternatives();
    step(MATCH);
    while (at < amount) {
        for (const char *word = words[next_random(&random) % 8]; *word; word++)
            arena[at++] = (u8)*word;
        arena[at++] = next_random(&random) % 8 ? ' ' : '\n';
    }
    text = arena;
    text_length = amount;
}

u64 regex_work(u32 amount)
{
    u64 sum = 1;
    for (u32 at = 0; at < amount;) {
        i32 end = match(0, at);
        if (end < 0) {
            at++;
            continue;
        }
        sum = mix(sum, (u64)at << 32 | (u32)end);
        at = (u32)end;
    }
    return sum;
}
