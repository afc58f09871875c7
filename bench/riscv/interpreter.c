/* A virtual machine with registers and computed jumps, as scripting languages have one, counting the steps of Collatz sequences. */
#include "check.h"

enum op { CONST, MOVE, ADD, SHIFT, TRIPLE, ODD, JUMP, IF_ZERO, IF_EQUAL, IF_LESS, STOP };

struct instruction {
    uint8_t op, a, b, c;
    int32_t value;
};

static int64_t run(const struct instruction *code, int64_t *r)
{
    static const void *const targets[] = {&&const_, &&move, &&add, &&shift, &&triple, &&odd, &&jump, &&if_zero, &&if_equal, &&if_less, &&stop};
    const struct instruction *i = code;
#define NEXT goto *targets[i->op]
    NEXT;
const_:
    r[i->a] = i->value;
    i++;
    NEXT;
move:
    r[i->a] = r[i->b];
    i++;
    NEXT;
add:
    r[i->a] = r[i->b] + r[i->c];
    i++;
    NEXT;
shift:
    r[i->a] = r[i->b] >> 1;
    i++;
    NEXT;
triple:
    r[i->a] = 3 * r[i->b] + 1;
    i++;
    NEXT;
odd:
    r[i->a] = r[i->b] & 1;
    i++;
    NEXT;
jump:
    i += i->value;
    NEXT;
if_zero:
    i += r[i->a] == 0 ? i->value : 1;
    NEXT;
if_equal:
    i += r[i->a] == r[i->b] ? i->value : 1;
    NEXT;
if_less:
    i += r[i->a] < r[i->b] ? i->value : 1;
    NEXT;
stop:
    return r[i->a];
}

enum { ONE, LIMIT, N, X, STEPS, FLAG, TOTAL };

int main(void)
{
    static const struct instruction code[] = {
        {CONST, ONE, 0, 0, 1},
        {CONST, LIMIT, 0, 0, 400000},
        {CONST, N, 0, 0, 1},
        {CONST, TOTAL, 0, 0, 0},
        /* 4: for each n */
        {MOVE, X, N, 0, 0},
        {CONST, STEPS, 0, 0, 0},
        /* 6: until x is one */
        {IF_EQUAL, X, ONE, 0, 8},
        {ADD, STEPS, STEPS, ONE, 0},
        {ODD, FLAG, X, 0, 0},
        {IF_ZERO, FLAG, 0, 0, 3},
        {TRIPLE, X, X, 0, 0},
        {JUMP, 0, 0, 0, -5},
        /* 12: half of it */
        {SHIFT, X, X, 0, 0},
        {JUMP, 0, 0, 0, -7},
        /* 14: the next n */
        {ADD, TOTAL, TOTAL, STEPS, 0},
        {ADD, N, N, ONE, 0},
        {IF_LESS, N, LIMIT, 0, -12},
        {STOP, TOTAL, 0, 0, 0},
    };
    int64_t registers[8] = {0};
    int64_t total = run(code, registers);
    /* The sum of the numbers of steps, which anyone can count. */
    return finish("interpreter", mix(0, (uint64_t)total), total == INT64_C(48762334));
}
