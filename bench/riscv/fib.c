/* Calls and returns: Fibonacci numbers by their definition. */
#include "check.h"

/* Neither inlined nor cloned, so that each number costs its calls. */
__attribute__((noipa)) static uint64_t fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

int main(void)
{
    uint64_t a = 0, b = 1, last = fib(41);
    for (int i = 0; i < 41; i++) {
        uint64_t next = a + b;
        a = b;
        b = next;
    }
    return finish("fib", mix(0, last), last == a);
}
