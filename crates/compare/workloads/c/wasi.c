/* The host's side on WASI preview 1 (wasi_snapshot_preview1). The working folder is the first that the host opens. There are no sockets. */
#include "rt.h"

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

struct vector {
    const void *bytes;
    size count;
};

IMPORT(args_sizes_get) extern u16 args_sizes_get(size *count, size *bytes);
IMPORT(args_get) extern u16 args_get(char **words, char *bytes);
IMPORT(clock_time_get) extern u16 clock_time_get(u32 clock, u64 precision, u64 *time_ns);
IMPORT(fd_read) extern u16 fd_read(int file, const struct vector *vectors, size count, size *done);
IMPORT(fd_write) extern u16 fd_write(int file, const struct vector *vectors, size count, size *done);
IMPORT(fd_pread) extern u16 fd_pread(int file, const struct vector *vectors, size count, u64 offset, size *done);
IMPORT(fd_close) extern u16 fd_close(int file);
IMPORT(path_open) extern u16 path_open(int folder, u32 lookup, const char *name, size length, u16 flags, u64 rights, u64 inherited, u16 fd_flags, int *file);
IMPORT(path_unlink_file) extern u16 path_unlink_file(int folder, const char *name, size length);
IMPORT(proc_exit) extern __attribute__((noreturn)) void proc_exit(int status);

enum { FOLDER = 3 };

i64 host_time_ns(void)
{
    enum { MONOTONIC = 1 };
    u64 time_ns = 0;
    clock_time_get(MONOTONIC, 1, &time_ns);
    return (i64)time_ns;
}

i64 host_read(int file, void *bytes, size count)
{
    struct vector vector = {bytes, count};
    size done = 0;
    return fd_read(file, &vector, 1, &done) ? -1 : (i64)done;
}

i64 host_write(int file, const void *bytes, size count)
{
    struct vector vector = {bytes, count};
    size done = 0;
    return fd_write(file, &vector, 1, &done) ? -1 : (i64)done;
}

i64 host_read_at(int file, void *bytes, size count, u64 offset)
{
    struct vector vector = {bytes, count};
    size done = 0;
    return fd_pread(file, &vector, 1, offset, &done) ? -1 : (i64)done;
}

static size length(const char *text)
{
    size count = 0;
    while (text[count])
        count++;
    return count;
}

int host_open(const char *name, int create)
{
    /* fd_read, fd_seek, fd_tell, fd_write, fd_filestat_get */
    enum { RIGHTS = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 21, CREATE = 1, TRUNCATE = 8 };
    int file = -1;
    return path_open(FOLDER, 0, name, length(name), create ? CREATE | TRUNCATE : 0, RIGHTS, 0, 0, &file) ? -1 : file;
}

void host_close(int file) { fd_close(file); }
int host_remove(const char *name) { return path_unlink_file(FOLDER, name, length(name)) ? -1 : 0; }
void host_exit(int status) { proc_exit(status); }
int host_connect(int ends[2]) { return ends[0] = ends[1] = -1; }
i64 host_send(int socket, const void *bytes, size count) { return host_write(socket, bytes, count); }
i64 host_receive(int socket, void *bytes, size count) { return host_read(socket, bytes, count); }

enum { WORDS_MAX = 16, WORDS_BYTES = 512 };

__attribute__((export_name("_start"))) void start(void)
{
    static char *words[WORDS_MAX];
    static char bytes[WORDS_BYTES];
    size count = 0, used = 0;
    char byte;
    if (args_sizes_get(&count, &used) || count < 1 || count > WORDS_MAX || used > WORDS_BYTES || args_get(words, bytes))
        fail("no arguments");
    run((int)count - 1, words + 1);
    while (host_read(0, &byte, 1) > 0) {
    }
}
