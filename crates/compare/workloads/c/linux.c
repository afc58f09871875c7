/* The host's side on Linux, by system calls alone: x86-64 (System V ABI supplement, A.2.1) and riscv64. */
#include "rt.h"

#if defined __x86_64__
enum {
    READ = 0, WRITE = 1, CLOSE = 3, IOCTL = 16, PREAD = 17, SOCKET = 41, CONNECT = 42, BIND = 49, LISTEN = 50,
    GETSOCKNAME = 51, SETSOCKOPT = 54, EXIT = 231, CLOCK_GETTIME = 228, GETPID = 39, OPENAT = 257, UNLINKAT = 263, ACCEPT4 = 288,
    REBOOT = 169, WAIT4 = 61, CLONE = 56,
};
static i64 call(i64 number, i64 a, i64 b, i64 c, i64 d, i64 e)
{
    i64 result;
    register i64 r10 __asm__("r10") = d;
    register i64 r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}
__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#elif defined __riscv
enum {
    READ = 63, WRITE = 64, CLOSE = 57, IOCTL = 29, PREAD = 67, SOCKET = 198, CONNECT = 203, BIND = 200, LISTEN = 201,
    GETSOCKNAME = 204, SETSOCKOPT = 208, EXIT = 94, CLOCK_GETTIME = 113, GETPID = 172, OPENAT = 56, UNLINKAT = 35, ACCEPT4 = 242,
    REBOOT = 142, WAIT4 = 260, CLONE = 220,
};
static i64 call(i64 number, i64 a, i64 b, i64 c, i64 d, i64 e)
{
    register i64 a0 __asm__("a0") = a;
    register i64 a1 __asm__("a1") = b;
    register i64 a2 __asm__("a2") = c;
    register i64 a3 __asm__("a3") = d;
    register i64 a4 __asm__("a4") = e;
    register i64 a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a7) : "memory");
    return a0;
}
__asm__(".globl _start\n_start:\n .option push\n .option norelax\n la gp, __global_pointer$\n .option pop\n mv a0, sp\n andi sp, sp, -16\n call start\n");
#endif

enum { AT_FDCWD = -100, O_RDWR = 2, O_CREAT = 0100, O_TRUNC = 01000, AF_INET = 2, SOCK_STREAM = 1, IPPROTO_TCP = 6, TCP_NODELAY = 1 };

i64 host_time_ns(void)
{
    i64 time[2];
    enum { CLOCK_MONOTONIC = 1 };
    call(CLOCK_GETTIME, CLOCK_MONOTONIC, (i64)time, 0, 0, 0);
    return time[0] * 1000000000 + time[1];
}

i64 host_read(int file, void *bytes, size count) { return call(READ, file, (i64)bytes, (i64)count, 0, 0); }
i64 host_write(int file, const void *bytes, size count) { return call(WRITE, file, (i64)bytes, (i64)count, 0, 0); }
i64 host_read_at(int file, void *bytes, size count, u64 offset) { return call(PREAD, file, (i64)bytes, (i64)count, (i64)offset, 0); }
int host_open(const char *name, int create) { return (int)call(OPENAT, AT_FDCWD, (i64)name, O_RDWR | (create ? O_CREAT | O_TRUNC : 0), 0600, 0); }
void host_close(int file) { call(CLOSE, file, 0, 0, 0, 0); }
int host_remove(const char *name) { return (int)call(UNLINKAT, AT_FDCWD, (i64)name, 0, 0, 0); }
i64 host_send(int socket, const void *bytes, size count) { return host_write(socket, bytes, count); }
i64 host_receive(int socket, void *bytes, size count) { return host_read(socket, bytes, count); }

void host_exit(int status)
{
    for (;;)
        call(EXIT, status, 0, 0, 0, 0);
}

int host_connect(int ends[2])
{
    /* sockaddr_in: 127.0.0.1, a port of the kernel's choice. */
    struct {
        u16 family;
        u8 port[2], address[4], zero[8];
    } name = {AF_INET, {0, 0}, {127, 0, 0, 1}, {0}};
    u32 length = sizeof name;
    int on = 1, listener = (int)call(SOCKET, AF_INET, SOCK_STREAM, 0, 0, 0);
    ends[0] = (int)call(SOCKET, AF_INET, SOCK_STREAM, 0, 0, 0);
    if (listener < 0 || ends[0] < 0 || call(BIND, listener, (i64)&name, sizeof name, 0, 0) < 0 || call(LISTEN, listener, 1, 0, 0, 0) < 0 ||
        call(GETSOCKNAME, listener, (i64)&name, (i64)&length, 0, 0) < 0 || call(CONNECT, ends[0], (i64)&name, sizeof name, 0, 0) < 0)
        return -1;
    ends[1] = (int)call(ACCEPT4, listener, 0, 0, 0, 0);
    host_close(listener);
    for (int i = 0; i < 2; i++)
        if (ends[i] < 0 || call(SETSOCKOPT, ends[i], IPPROTO_TCP, TCP_NODELAY, (i64)&on, sizeof on) < 0)
            return -1;
    return 0;
}

enum { LINE_MAX = 200, WORDS_MAX = 8 };

/* As the first process of a machine: brings the loopback interface up and does what the lines of the console say, each in a process of its own. */
static void serve(void)
{
    enum { SIOCGIFFLAGS = 0x8913, SIOCSIFFLAGS = 0x8914, IFF_UP = 1, SIGCHLD = 17 };
    enum { REBOOT_MAGIC1 = 0xfee1dead, REBOOT_MAGIC2 = 672274793, POWER_OFF = 0x4321fedc };
    struct {
        char name[16];
        u16 flags;
        u8 rest[22];
    } interface = {"lo", 0, {0}};
    i64 socket = call(SOCKET, AF_INET, SOCK_STREAM, 0, 0, 0);
    if (socket < 0 || call(IOCTL, socket, SIOCGIFFLAGS, (i64)&interface, 0, 0) < 0)
        fail("no loopback interface");
    interface.flags |= IFF_UP;
    call(IOCTL, socket, SIOCSIFFLAGS, (i64)&interface, 0, 0);
    host_close((int)socket);
    static const char welcome[] = "serving\n";
    host_write(1, welcome, sizeof welcome - 1);
    static char line[LINE_MAX];
    for (;;) {
        i64 count = host_read(0, line, LINE_MAX - 1);
        if (count <= 0)
            break;
        line[count] = 0;
        char *words[WORDS_MAX] = {0};
        int found = 0;
        for (char *at = line; *at && found < WORDS_MAX;) {
            while (*at == ' ' || *at == '\n' || *at == '\r')
                *at++ = 0;
            if (*at)
                words[found++] = at;
            while (*at && *at != ' ' && *at != '\n' && *at != '\r')
                at++;
        }
        if (found == 1)
            break;
        if (found == 0)
            continue;
        i64 child = call(CLONE, SIGCHLD, 0, 0, 0, 0);
        if (child == 0) {
            run(found, words);
            host_exit(0);
        }
        if (child < 0 || call(WAIT4, child, 0, 0, 0, 0) < 0)
            fail("no new process");
    }
    call(REBOOT, (i64)(int)REBOOT_MAGIC1, REBOOT_MAGIC2, POWER_OFF, 0, 0);
    host_exit(0);
}

__attribute__((used)) void start(i64 *stack)
{
    char byte;
    if (call(GETPID, 0, 0, 0, 0, 0) == 1)
        serve();
    run((int)stack[0] - 1, (char **)(stack + 2));
    /* Whoever measures looks at the memory that was taken, and then closes the input. */
    while (host_read(0, &byte, 1) > 0) {
    }
    host_exit(0);
}
