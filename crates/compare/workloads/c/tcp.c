/* Round trips of 64 bytes over the loopback interface, both ends in this program: the way through the network's layers, twice. */
#include "rt.h"

enum { BYTES = 64 };

static int ends[2];

void tcp_prepare(u32 amount)
{
    (void)amount;
    if (host_connect(ends) < 0)
        fail("no TCP here");
}

static void pass(int from, int to, u8 *bytes)
{
    i64 got = 0;
    if (host_send(from, bytes, BYTES) != BYTES)
        fail("cannot send");
    while (got < BYTES) {
        i64 count = host_receive(to, bytes + got, (size)(BYTES - got));
        if (count <= 0)
            fail("cannot receive");
        got += count;
    }
}

u64 tcp_work(u32 amount)
{
    u8 bytes[BYTES];
    u64 sum = 1;
    for (u32 i = 0; i < BYTES; i++)
        bytes[i] = (u8)i;
    for (u32 i = 0; i < amount; i++) {
        bytes[i % BYTES] += (u8)i;
        pass(ends[0], ends[1], bytes);
        pass(ends[1], ends[0], bytes);
        sum = sum * 31 + bytes[i % BYTES];
    }
    return sum;
}
