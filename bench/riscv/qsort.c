/* The C library's interface of sorting with a quicksort of our own (so that every library is measured alike): calls through a pointer, and
   branches that nobody can predict. */
#include <stdlib.h>

#include "check.h"

enum { COUNT = 1000000, ROUNDS = 5, FEW = 12 };

typedef int (*order)(const void *, const void *);

__attribute__((noinline)) static int by_number(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void swap(int32_t *a, int32_t *b)
{
    int32_t old = *a;
    *a = *b;
    *b = old;
}

__attribute__((noinline)) static void sort(int32_t *from, int32_t *to, order compare)
{
    while (to - from > FEW) {
        int32_t *middle = from + (to - from) / 2, *last = to - 1;
        if (compare(middle, from) < 0)
            swap(middle, from);
        if (compare(last, middle) < 0) {
            swap(last, middle);
            if (compare(middle, from) < 0)
                swap(middle, from);
        }
        int32_t pivot = *middle, *i = from, *j = last;
        for (;;) {
            while (compare(i, &pivot) < 0)
                i++;
            while (compare(&pivot, j) < 0)
                j--;
            if (i >= j)
                break;
            swap(i++, j--);
        }
        if (i == j)
            i++;
        if (j - from < to - i) {
            sort(from, i, compare);
            from = i;
        } else {
            sort(i, to, compare);
            to = i;
        }
    }
    for (int32_t *i = from + 1; i < to; i++)
        for (int32_t *j = i; j > from && compare(j, j - 1) < 0; j--)
            swap(j, j - 1);
}

int main(void)
{
    int32_t *numbers = malloc(COUNT * sizeof *numbers);
    volatile order compare = by_number;
    uint64_t random = 7, sum = 0;
    int right = numbers != NULL;
    for (int round = 0; right && round < ROUNDS; round++) {
        uint64_t before = 0, after = 0;
        for (int i = 0; i < COUNT; i++)
            before += (uint32_t)(numbers[i] = (int32_t)(next_random(&random) << 1));
        sort(numbers, numbers + COUNT, compare);
        for (int i = 0; i < COUNT; i++) {
            after += (uint32_t)numbers[i];
            right &= i == 0 || numbers[i - 1] <= numbers[i];
            if (i % 1000 == 0)
                sum = mix(sum, (uint32_t)numbers[i]);
        }
        right &= before == after;
    }
    return finish("qsort", sum, right);
}
