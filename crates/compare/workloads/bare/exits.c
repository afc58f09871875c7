/* What it costs to leave an x86-64 machine and to come back, measured from inside: a program without an operating system, entered as PVH says, in 32-bit
   protected mode, from which it goes to 64-bit mode. For each mechanism it prints its name, how often it did it, and the processor's cycles (of its time-stamp counter) that took. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum {
    UART = 0x3f8,
    UART_LINE_STATUS = UART + 5,
    UART_CAN_SEND = 1 << 5,
    /* Cycles that each mechanism is repeated for: the most that is printed is four times as much. */
    ENOUGH = 60000000,
};

static inline u64 cycles(void)
{
    u32 low, high;
    __asm__ volatile("lfence\n rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (u64)high << 32 | low;
}

static inline u8 in(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void out(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }

static void put(char character)
{
    while (!(in(UART_LINE_STATUS) & UART_CAN_SEND)) {
    }
    out(UART, (u8)character);
}

static void print(const char *text)
{
    while (*text)
        put(*text++);
}

static void print_number(u32 number)
{
    char digits[10];
    int count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        put(digits[--count]);
}

static void tell(const char *name, u32 count, u32 spent)
{
    print(name);
    put(' ');
    print_number(count);
    put(' ');
    print_number(spent);
    put('\n');
}

/* An exit that the kernel's part of the monitor answers by itself. */
static void identify(u32 count)
{
    for (u32 i = 0; i < count; i++) {
        u32 leaf = 0, b, c = 0, d;
        __asm__ volatile("cpuid" : "+a"(leaf), "=b"(b), "+c"(c), "=d"(d));
    }
}

/* An exit to the process that the machine is: a device's register. */
static void read_device(u32 count)
{
    for (u32 i = 0; i < count; i++)
        (void)in(UART_LINE_STATUS);
}

static void measure(const char *name, void (*what)(u32 count))
{
    for (u32 count = 16;; count *= 4) {
        u64 before = cycles();
        what(count);
        u64 spent = cycles() - before;
        if (spent >= ENOUGH || count >= 1u << 28) {
            tell(name, count, spent > 0xffffffff ? 0xffffffff : (u32)spent);
            return;
        }
    }
}

__attribute__((used)) static void run(void)
{
    print("ready\n");
    measure("kernel", identify);
    measure("device", read_device);
    print("end\n");
    /* Reset, by the keyboard controller's line and by a triple fault; whoever reads has seen the end. */
    out(0x64, 0xfe);
    for (;;)
        __asm__ volatile("cli\n hlt");
}

/* The first 2 MiB, one to one, is all there is; zero is no entry. */
__attribute__((used)) static u64 tables[3][512] __attribute__((aligned(4096)));
__attribute__((used)) static u8 stack[16384] __attribute__((aligned(16)));
__asm__(".text\n"
        ".code32\n"
        ".globl start\n"
        "start:\n"
        " cli\n"
        /* Present and writable; in the last table also a large page. */
        " movl $tables + 0x1003, tables\n"
        " movl $tables + 0x2003, tables + 0x1000\n"
        " movl $0x83, tables + 0x2000\n"
        " mov $tables, %eax\n"
        " mov %eax, %cr3\n"
        /* CR4.PAE, EFER.LME, CR0.PG: 64-bit mode (Intel SDM 3A, 11.8.5). */
        " mov %cr4, %eax\n"
        " or $0x20, %eax\n"
        " mov %eax, %cr4\n"
        " mov $0xc0000080, %ecx\n"
        " rdmsr\n"
        " or $0x100, %eax\n"
        " wrmsr\n"
        " mov %cr0, %eax\n"
        " or $0x80000000, %eax\n"
        " mov %eax, %cr0\n"
        " lgdt descriptors\n"
        " ljmp $8, $long_mode\n"
        ".code64\n"
        "long_mode:\n"
        " mov $16, %eax\n"
        " mov %eax, %ds\n"
        " mov %eax, %es\n"
        " mov %eax, %ss\n"
        " mov $stack + 16384, %rsp\n"
        " call run\n"
        ".section .rodata\n"
        ".balign 8\n"
        "segments: .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff\n"
        "descriptors: .word 23\n"
        " .long segments\n"
        /* XEN_ELFNOTE_PHYS32_ENTRY */
        ".section .note.pvh, \"a\", @note\n"
        " .long 4, 4, 18\n"
        " .asciz \"Xen\"\n"
        " .long start\n"
        ".text\n");
