/* A file written in blocks and read back in the order of another, and small files made and removed. The host's cache holds them all: what is measured
   is the way there. */
#include "rt.h"

enum { BLOCK = 16384, FEW = 16, SMALL = 700 };

static u8 block[BLOCK];

void files_prepare(u32 amount) { (void)amount; }

u64 files_work(u32 amount)
{
    u64 sum = 1;
    char name[] = "files-a.tmp";
    int file = host_open("files.tmp", 1);
    for (u32 i = 0; i < amount; i++) {
        for (u32 j = 0; j < BLOCK; j += 512)
            block[j] = (u8)(i + j / 512);
        if (file < 0 || host_write(file, block, BLOCK) != BLOCK)
            fail("cannot write files.tmp");
    }
    for (u32 i = 0; i < amount; i++) {
        if (host_read_at(file, block, BLOCK, (u64)(i * 7 % amount) * BLOCK) != BLOCK)
            fail("cannot read files.tmp");
        sum = mix(sum, block[i % 32 * 512]);
    }
    host_close(file);
    if (host_remove("files.tmp") < 0)
        fail("cannot remove files.tmp");
    for (u32 i = 0; i < FEW; i++) {
        name[6] = (char)('a' + i);
        file = host_open(name, 1);
        if (file < 0 || host_write(file, block, SMALL) != SMALL)
            fail("cannot write a small file");
        host_close(file);
    }
    for (u32 i = 0; i < FEW; i++) {
        name[6] = (char)('a' + i);
        file = host_open(name, 0);
        sum = mix(sum, (u64)host_read_at(file, block, BLOCK, 0));
        host_close(file);
        if (host_remove(name) < 0)
            fail("cannot remove a small file");
    }
    return sum;
}
