/* What a start costs. */
#include <stdio.h>

int main(void)
{
    puts("hello");
    return 0;
}
