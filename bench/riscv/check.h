/* What the programs share: a checksum that is printed, and the exit status that says whether the program found its own results right. */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Mixes `value` into `sum` (the odd factor spreads low bits upwards, the shift brings them back). */
static inline uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ sum >> 29;
}

/* The bits of a double, so that results are compared to the last one. */
static inline uint64_t bits(double value)
{
    uint64_t word;
    memcpy(&word, &value, sizeof word);
    return word;
}

/* The next number of a sequence that is the same everywhere (a linear congruential generator). */
static inline uint32_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* Prints the checksum; answers the exit status. */
static inline int finish(const char *name, uint64_t sum, int right)
{
    printf("%s %016" PRIx64 "%s\n", name, sum, right ? "" : " WRONG");
    return right ? 0 : 1;
}

#endif
