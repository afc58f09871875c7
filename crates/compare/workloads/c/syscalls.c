/* Calls of the host that do next to nothing: a byte read at some place of an open file. */
#include "rt.h"

static int file = -1;

void syscalls_prepare(u32 amount)
{
    u8 bytes[256];
    (void)amount;
    file = host_open("syscalls.tmp", 1);
    for (u32 i = 0; i < sizeof bytes; i++)
        bytes[i] = (u8)(i * 7);
    if (file < 0 || host_write(file, bytes, sizeof bytes) != sizeof bytes)
        fail("cannot write syscalls.tmp");
    /* It goes when it is closed, where the host lets it. */
    host_remove("syscalls.tmp");
}

u64 syscalls_work(u32 amount)
{
    u64 sum = 1;
    for (u32 i = 0; i < amount; i++) {
        u8 byte;
        if (host_read_at(file, &byte, 1, i % 256) != 1)
            fail("cannot read syscalls.tmp");
        sum = sum * 31 + byte;
    }
    return sum;
}
