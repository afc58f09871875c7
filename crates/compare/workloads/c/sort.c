/* Quicksort of integers in no order: branches that nobody can predict. */
#include "rt.h"

enum { FEW = 12 };

static void sort(i32 *numbers, i32 from, i32 to)
{
    while (to - from > FEW) {
        i32 pivot = numbers[from + (to - from) / 2], i = from, j = to - 1;
        while (i <= j) {
            while (numbers[i] < pivot)
                i++;
            while (numbers[j] > pivot)
                j--;
            if (i <= j) {
                i32 old = numbers[i];
                numbers[i++] = numbers[j];
                numbers[j--] = old;
            }
        }
        if (j + 1 - from < to - i) {
            sort(numbers, from, j + 1);
            from = i;
        } else {
            sort(numbers, i, to);
            to = j + 1;
        }
    }
    for (i32 i = from + 1; i < to; i++) {
        i32 value = numbers[i], j = i;
        for (; j > from && numbers[j - 1] > value; j--)
            numbers[j] = numbers[j - 1];
        numbers[j] = value;
    }
}

void sort_prepare(u32 amount) { (void)amount; }

u64 sort_work(u32 amount)
{
    i32 *numbers = (i32 *)arena;
    u64 random = 7, sum = 1;
    for (u32 i = 0; i < amount; i++)
        numbers[i] = (i32)next_random(&random);
    sort(numbers, 0, (i32)amount);
    for (u32 i = 1; i < amount; i++)
        if (numbers[i - 1] > numbers[i])
            return 0;
    for (u32 i = 0; i < amount; i += 100)
        sum = mix(sum, (u64)numbers[i]);
    return sum;
}
