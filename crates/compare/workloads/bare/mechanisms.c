/* What a riscv64 system machine is made of, measured from inside with nothing in between: a program in supervisor mode without an operating system, on the
   board that qemu calls `virt`. For each mechanism it prints its name, how often it did it, and the nanoseconds that took; then it powers off. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum {
    UART = 0x10000000,
    UART_LINE_STATUS = 5,
    UART_CAN_SEND = 1 << 5,
    VIRTIO = 0x10001000,
    VIRTIO_STRIDE = 0x1000,
    VIRTIO_SLOTS = 8,
    /* The board's clock has 10 MHz. */
    TICK_NS = 100,
    /* How long each mechanism is repeated, in ticks. */
    ENOUGH = 500000,
};

static inline u64 time(void)
{
    u64 ticks;
    __asm__ volatile("rdtime %0" : "=r"(ticks));
    return ticks;
}

static inline u32 device_read(u64 address) { return *(volatile u32 *)address; }
static inline void device_write(u64 address, u32 value) { *(volatile u32 *)address = value; }

static void put(char character)
{
    while (!(*(volatile u8 *)(UART + UART_LINE_STATUS) & UART_CAN_SEND)) {
    }
    *(volatile u8 *)UART = (u8)character;
}

static void print(const char *text)
{
    while (*text)
        put(*text++);
}

static void print_number(u64 number)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        put(digits[--count]);
}

static void tell(const char *name, u64 count, u64 ticks)
{
    print(name);
    put(' ');
    print_number(count);
    put(' ');
    print_number(ticks * TICK_NS);
    put('\n');
}

/* The supervisor binary interface: a call of the firmware. */
static u64 firmware(u64 extension, u64 function, u64 first, u64 second)
{
    register u64 a0 __asm__("a0") = first;
    register u64 a1 __asm__("a1") = second;
    register u64 a6 __asm__("a6") = function;
    register u64 a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
    return a1;
}

enum { SBI_BASE = 0x10, SBI_SYSTEM_RESET = 0x53525354 };

static void call_firmware(u64 count)
{
    for (u64 i = 0; i < count; i++)
        firmware(SBI_BASE, 0, 0, 0);
}

static void read_device(u64 count)
{
    for (u64 i = 0; i < count; i++)
        (void)*(volatile u8 *)(UART + UART_LINE_STATUS);
}

/* A trap into the handler below, which skips the instruction. */
static void trap(u64 count)
{
    for (u64 i = 0; i < count; i++)
        __asm__ volatile(".option push\n .option norvc\n ebreak\n .option pop" ::: "t0", "memory");
}

__asm__(".balign 4\n"
        "handler:\n"
        " csrr t0, sepc\n"
        " addi t0, t0, 4\n"
        " csrw sepc, t0\n"
        " sret\n");
extern char handler[];

/* A device's register that may not be there: zero, then, as the handler skips the load. */
static u32 probe(u64 address)
{
    u32 value = 0;
    __asm__ volatile(".option push\n .option norvc\n lw %0, 0(%1)\n .option pop" : "+r"(value) : "r"(address) : "t0", "memory");
    return value;
}

/* Page tables (Sv39): everything where it is, in pages of 1 GiB; and from 1 GiB on, 512 MiB of small pages, more than translation caches hold, that all lead to the same few, so that
   what differs between many and few of them is the cost of translation alone. */
enum { PAGE = 4096, ENTRIES = 512, TABLES = 256, FEW = 16, VALID = 1, ALL_RIGHTS = 0xcf };
static u64 root[ENTRIES] __attribute__((aligned(PAGE)));
static u64 middle[ENTRIES] __attribute__((aligned(PAGE)));
static u64 leaves[TABLES][ENTRIES] __attribute__((aligned(PAGE)));
static u8 pages[FEW][PAGE] __attribute__((aligned(PAGE)));
static const u64 WINDOW = 1ul << 30;
static u64 mask;

static u64 entry(u64 address, u64 flags) { return address >> 12 << 10 | flags; }

static void map(void)
{
    root[0] = entry(0, ALL_RIGHTS);
    root[2] = entry(2ul << 30, ALL_RIGHTS);
    root[1] = entry((u64)middle, VALID);
    for (u64 i = 0; i < TABLES; i++) {
        middle[i] = entry((u64)leaves[i], VALID);
        for (u64 j = 0; j < ENTRIES; j++)
            leaves[i][j] = entry((u64)pages[j % FEW], ALL_RIGHTS);
    }
    __asm__ volatile("csrw satp, %0\n sfence.vma" ::"r"(8ul << 60 | (u64)root >> 12) : "memory");
}

/* Loads from page after page, as many different ones as the mask says. */
static void load(u64 count)
{
    for (u64 i = 0; i < count; i++)
        (void)*(volatile u64 *)(WINDOW + (i & mask) * PAGE);
}

static void flush(u64 count)
{
    for (u64 i = 0; i < count; i++) {
        __asm__ volatile("sfence.vma" ::: "memory");
        (void)*(volatile u64 *)WINDOW;
    }
}

/* Devices of Virtual I/O Device, version 1.2, over memory-mapped registers (4.2.2): the first of a kind; 0 if there is none. */
static u64 find_virtio(u32 kind)
{
    enum { MAGIC = 0x74726976 };
    for (u64 device = VIRTIO; device < VIRTIO + VIRTIO_SLOTS * VIRTIO_STRIDE; device += VIRTIO_STRIDE)
        if (probe(device) == MAGIC && device_read(device + 4) == 2 && device_read(device + 8) == kind)
            return device;
    return 0;
}

/* Has a device begin with one of its queues, whose parts (2.7) are given. */
static void begin_virtio(u64 device, u32 queue, u32 size, const u64 parts[3])
{
    enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
    device_write(device + 0x70, 0);
    device_write(device + 0x70, ACKNOWLEDGE | DRIVER);
    /* Nothing but version 1: bit 32. */
    device_write(device + 0x24, 0);
    device_write(device + 0x20, 0);
    device_write(device + 0x24, 1);
    device_write(device + 0x20, 1);
    device_write(device + 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    device_write(device + 0x30, queue);
    device_write(device + 0x38, size);
    for (u64 i = 0; i < 3; i++) {
        device_write(device + 0x80 + i * 0x10, (u32)parts[i]);
        device_write(device + 0x84 + i * 0x10, (u32)(parts[i] >> 32));
    }
    device_write(device + 0x44, 1);
    device_write(device + 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

/* A virtio disk (2.7, 5.2) with one request at a time. */
enum { QUEUE = 4, NEXT = 1, DEVICE_WRITES = 2, REQUEST_MAX = 1 << 18, SECTOR = 512 };
static struct { u64 address; u32 length; u16 flags, next; } descriptors[QUEUE] __attribute__((aligned(PAGE)));
static struct { u16 flags, index, ring[QUEUE]; } available __attribute__((aligned(16)));
static volatile struct { u16 flags, index; struct { u32 id, length; } ring[QUEUE]; } used __attribute__((aligned(16)));
static struct { u32 type, reserved; u64 sector; } header;
static u8 data[REQUEST_MAX] __attribute__((aligned(PAGE)));
static volatile u8 status;
static u64 disk, sectors, request_bytes, next_sector;

static int find_disk(void)
{
    enum { BLOCK = 2 };
    disk = find_virtio(BLOCK);
    if (!disk)
        return 0;
    const u64 parts[3] = {(u64)descriptors, (u64)&available, (u64)&used};
    begin_virtio(disk, 0, QUEUE, parts);
    sectors = device_read(disk + 0x100) | (u64)device_read(disk + 0x104) << 32;
    return sectors * SECTOR >= REQUEST_MAX;
}

static void read_disk(u64 count)
{
    for (u64 i = 0; i < count; i++) {
        if ((next_sector + request_bytes / SECTOR) > sectors)
            next_sector = 0;
        header.type = 0;
        header.sector = next_sector;
        next_sector += request_bytes / SECTOR;
        descriptors[0].address = (u64)&header, descriptors[0].length = sizeof header, descriptors[0].flags = NEXT, descriptors[0].next = 1;
        descriptors[1].address = (u64)data, descriptors[1].length = (u32)request_bytes, descriptors[1].flags = NEXT | DEVICE_WRITES, descriptors[1].next = 2;
        descriptors[2].address = (u64)&status, descriptors[2].length = 1, descriptors[2].flags = DEVICE_WRITES;
        available.ring[available.index % QUEUE] = 0;
        __asm__ volatile("fence" ::: "memory");
        available.index++;
        __asm__ volatile("fence" ::: "memory");
        device_write(disk + 0x50, 0);
        while (used.index != available.index) {
        }
        __asm__ volatile("fence" ::: "memory");
    }
}

/* Network cards: frames go out a batch at a time, and the next batch when the card is done with the last. Nobody is to answer: they are of a protocol
   for experiments. */
enum { FRAMES = 32, FRAME = 1514, FRAME_HEADER = 12 };
/* Before a frame, what virtio wants there (5.1.6). */
static struct { u8 header[FRAME_HEADER]; u8 frame[FRAME]; } frames[FRAMES] __attribute__((aligned(16)));

static void make_frames(void)
{
    for (u64 i = 0; i < FRAMES; i++) {
        for (u64 j = 0; j < 6; j++)
            frames[i].frame[j] = 0xff, frames[i].frame[6 + j] = (u8)(j == 0 ? 0x52 : j);
        frames[i].frame[12] = 0x88, frames[i].frame[13] = 0xb5;
    }
}

/* A virtio network card: its second queue sends. */
static struct { u64 address; u32 length; u16 flags, next; } sending[FRAMES] __attribute__((aligned(PAGE)));
static struct { u16 flags, index, ring[FRAMES]; } offered __attribute__((aligned(16)));
static volatile struct { u16 flags, index; struct { u32 id, length; } ring[FRAMES]; } sent __attribute__((aligned(16)));
static u64 virtio_card;

static void send_by_virtio(u64 count)
{
    for (u64 i = 0; i < count; i += FRAMES) {
        for (u16 j = 0; j < FRAMES; j++)
            offered.ring[j] = j;
        __asm__ volatile("fence" ::: "memory");
        offered.index = (u16)(offered.index + FRAMES);
        __asm__ volatile("fence" ::: "memory");
        device_write(virtio_card + 0x50, 1);
        while (sent.index != offered.index) {
        }
        __asm__ volatile("fence" ::: "memory");
        /* What the interrupt would have its handler do. */
        device_write(virtio_card + 0x64, device_read(virtio_card + 0x60));
    }
}

static int find_virtio_card(void)
{
    enum { NETWORK = 1 };
    virtio_card = find_virtio(NETWORK);
    if (!virtio_card)
        return 0;
    for (u64 i = 0; i < FRAMES; i++)
        sending[i].address = (u64)&frames[i], sending[i].length = sizeof frames[i];
    const u64 parts[3] = {(u64)sending, (u64)&offered, (u64)&sent};
    begin_virtio(virtio_card, 1, FRAMES, parts);
    return 1;
}

/* An Intel 82540EM (PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual; 3.3, 13.4), which is emulated register by register. */
enum { ECAM = 0x30000000, CARD_MEMORY = 0x40000000, DEVICES = 32, INTEL_82540EM = 0x100e8086 };
enum { ICR = 0xc0, TCTL = 0x400, TDBAL = 0x3800, TDBAH = 0x3804, TDLEN = 0x3808, TDH = 0x3810, TDT = 0x3818 };
static volatile struct { u64 address; u16 length; u8 checksum, command, status, start; u16 special; } transmit[FRAMES * 2] __attribute__((aligned(PAGE)));
static u32 tail;

static void send_by_e1000(u64 count)
{
    enum { END_OF_PACKET = 1, INSERT_FCS = 2, REPORT_STATUS = 8, DONE = 1 };
    for (u64 i = 0; i < count; i += FRAMES) {
        u32 last = 0;
        for (u64 j = 0; j < FRAMES; j++) {
            last = tail;
            transmit[last].address = (u64)frames[j].frame;
            transmit[last].length = FRAME;
            transmit[last].command = END_OF_PACKET | INSERT_FCS | REPORT_STATUS;
            transmit[last].status = 0;
            tail = (tail + 1) % (FRAMES * 2);
        }
        __asm__ volatile("fence" ::: "memory");
        device_write(CARD_MEMORY + TDT, tail);
        while (!(transmit[last].status & DONE)) {
        }
        __asm__ volatile("fence" ::: "memory");
        /* What the interrupt would have its handler do: a read takes the causes. */
        (void)device_read(CARD_MEMORY + ICR);
    }
}

static int find_e1000(void)
{
    for (u64 i = 0; i < DEVICES; i++) {
        u64 device = ECAM + (i << 15);
        if (probe(device) != INTEL_82540EM)
            continue;
        device_write(device + 0x10, CARD_MEMORY);
        /* Memory, and reads and writes of its own. */
        device_write(device + 4, 6);
        device_write(CARD_MEMORY + TDBAL, (u32)(u64)transmit);
        device_write(CARD_MEMORY + TDBAH, (u32)((u64)transmit >> 32));
        device_write(CARD_MEMORY + TDLEN, sizeof transmit);
        device_write(CARD_MEMORY + TDH, 0);
        device_write(CARD_MEMORY + TDT, 0);
        /* Enabled, short frames padded. */
        device_write(CARD_MEMORY + TCTL, 1 << 1 | 1 << 3);
        return 1;
    }
    return 0;
}

/* Does something more and more often until that takes long enough. */
static void measure(const char *name, void (*what)(u64 count))
{
    for (u64 count = 32;; count *= 4) {
        u64 before = time();
        what(count);
        u64 ticks = time() - before;
        if (ticks >= ENOUGH || count > 1ul << 28) {
            tell(name, count, ticks);
            return;
        }
    }
}

__attribute__((used)) static void run(void)
{
    __asm__ volatile("csrw stvec, %0" ::"r"(handler));
    print("ready\n");
    measure("firmware", call_firmware);
    measure("device", read_device);
    measure("trap", trap);
    make_frames();
    if (find_virtio_card())
        measure("virtio-frame", send_by_virtio);
    if (find_e1000())
        measure("e1000-frame", send_by_e1000);
    map();
    mask = FEW - 1;
    measure("hit", load);
    mask = TABLES * ENTRIES - 1;
    measure("walk", load);
    measure("flush", flush);
    if (find_disk()) {
        request_bytes = SECTOR;
        measure("request", read_disk);
        request_bytes = REQUEST_MAX;
        measure("stream", read_disk);
        if (status != 0)
            print("failed: the disk says no\n");
    }
    print("end\n");
    firmware(SBI_SYSTEM_RESET, 0, 0, 0);
    for (;;) {
    }
}

__attribute__((used)) static u8 stack[PAGE * 4] __attribute__((aligned(16)));
__asm__(".section .text.start, \"ax\"\n"
        ".globl start\n"
        "start:\n"
        " la sp, stack_end\n"
        " la t0, bss_start\n"
        " la t1, bss_end\n"
        "1: bgeu t0, t1, 2f\n"
        " sd zero, 0(t0)\n"
        " addi t0, t0, 8\n"
        " j 1b\n"
        "2: call run\n"
        ".text\n");
__asm__(".set stack_end, stack + 4096 * 4\n");

void *memset(void *to, int value, u64 count)
{
    for (u64 i = 0; i < count; i++)
        ((volatile u8 *)to)[i] = (u8)value;
    return to;
}
