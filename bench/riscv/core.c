/* What small processors do all day: walk and sort linked lists, multiply small matrices of 16-bit numbers, run a state machine over text,
   and put a CRC over everything. The mixture is that of the usual benchmarks for embedded processors. */
#include "check.h"

enum { NODES = 400, SIDE = 12, TEXT = 600, ROUNDS = 6000 };

struct node {
    struct node *next;
    int16_t value;
    uint16_t index;
};

static struct node nodes[NODES];

static uint16_t crc16(uint16_t crc, uint16_t value)
{
    for (int bit = 0; bit < 16; bit++, value >>= 1) {
        uint16_t carry = (crc ^ value) & 1;
        crc >>= 1;
        if (carry)
            crc ^= 0xa001;
    }
    return crc;
}

static struct node *make_list(uint64_t *random)
{
    for (int i = 0; i < NODES; i++) {
        nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
        nodes[i].value = (int16_t)(next_random(random) & 0x3fff);
        nodes[i].index = (uint16_t)i;
    }
    return nodes;
}

static int by_value(const struct node *a, const struct node *b) { return a->value - b->value; }
static int by_index(const struct node *a, const struct node *b) { return a->index - b->index; }

/* Merge sort from the bottom up. */
static struct node *sort(struct node *list, int (*order)(const struct node *, const struct node *))
{
    for (int width = 1;; width *= 2) {
        struct node *rest = list, *head = NULL, **tail = &head;
        int merges = 0;
        while (rest) {
            merges++;
            struct node *left = rest, *right = rest;
            int left_count = 0, right_count = width;
            while (right && left_count < width) {
                right = right->next;
                left_count++;
            }
            while (left_count > 0 || (right_count > 0 && right)) {
                struct node **from = left_count == 0                              ? &right
                                     : right_count == 0 || !right                  ? &left
                                     : order(left, right) <= 0                     ? &left
                                                                                   : &right;
                if (from == &left)
                    left_count--;
                else
                    right_count--;
                struct node *one = *from;
                *from = one->next;
                *tail = one;
                tail = &one->next;
            }
            rest = right;
        }
        *tail = NULL;
        list = head;
        if (merges <= 1)
            return list;
    }
}

static struct node *reverse(struct node *list)
{
    struct node *done = NULL;
    while (list) {
        struct node *next = list->next;
        list->next = done;
        done = list;
        list = next;
    }
    return done;
}

static const struct node *find(const struct node *list, int16_t value)
{
    while (list && list->value != value)
        list = list->next;
    return list;
}

static uint16_t lists(uint16_t crc, uint64_t *random, int *right)
{
    struct node *list = sort(make_list(random), by_value);
    for (const struct node *at = list; at->next; at = at->next)
        *right &= at->value <= at->next->value;
    list = reverse(list);
    for (int i = 0; i < 20; i++) {
        const struct node *found = find(list, nodes[next_random(random) % NODES].value);
        crc = crc16(crc, found ? found->index : 0xffff);
    }
    list = sort(list, by_index);
    *right &= list == nodes;
    for (const struct node *at = list; at; at = at->next)
        crc = crc16(crc, (uint16_t)at->value);
    return crc;
}

static uint16_t matrices(uint16_t crc, uint64_t *random)
{
    static int16_t a[SIDE][SIDE], b[SIDE][SIDE];
    static int32_t c[SIDE][SIDE];
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = (int16_t)next_random(random);
            b[i][j] = (int16_t)(next_random(random) & 0xff);
        }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            int32_t sum = 0;
            for (int k = 0; k < SIDE; k++) {
                int32_t product = (int32_t)a[i][k] * b[k][j];
                sum += (product >> 2 & 0xf) * (product >> 5 & 0x7f);
            }
            c[i][j] = sum;
        }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++)
            crc = crc16(crc, (uint16_t)c[i][j]);
    return crc;
}

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, POWER, INVALID, STATES };

static enum state step(enum state state, char c)
{
    int digit = c >= '0' && c <= '9', sign = c == '+' || c == '-';
    switch (state) {
    case START: return digit ? INTEGER : sign ? SIGN : c == '.' ? POINT : INVALID;
    case SIGN: return digit ? INTEGER : c == '.' ? POINT : INVALID;
    case INTEGER: return digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID;
    case POINT: return digit ? FRACTION : INVALID;
    case FRACTION: return digit ? FRACTION : c == 'e' ? EXPONENT : INVALID;
    case EXPONENT: return digit ? POWER : sign ? EXPONENT_SIGN : INVALID;
    case EXPONENT_SIGN: return digit ? POWER : INVALID;
    case POWER: return digit ? POWER : INVALID;
    default: return INVALID;
    }
}

static uint16_t text(uint16_t crc, uint64_t *random)
{
    static const char letters[] = "0123456789012345678901234567890123456789..ee+-,,,,x";
    static char line[TEXT];
    uint16_t counts[STATES] = {0};
    for (int i = 0; i < TEXT; i++)
        line[i] = letters[next_random(random) % (sizeof letters - 1)];
    enum state state = START;
    for (int i = 0; i < TEXT; i++) {
        if (line[i] == ',') {
            counts[state]++;
            state = START;
        } else {
            state = step(state, line[i]);
        }
    }
    for (int i = 0; i < STATES; i++)
        crc = crc16(crc, counts[i]);
    return crc;
}

int main(void)
{
    uint64_t random = 1, sum = 0;
    int right = 1;
    for (int round = 0; round < ROUNDS; round++) {
        uint16_t crc = lists((uint16_t)round, &random, &right);
        crc = matrices(crc, &random);
        crc = text(crc, &random);
        sum = mix(sum, crc);
    }
    return finish("core", sum, right);
}
