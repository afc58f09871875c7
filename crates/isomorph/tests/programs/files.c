// Files and memory: what the calls answer, and what they leave behind. Prints nothing that differs between two runs.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

static void say(const char *what, long answer) {
    if (answer < 0) printf("%s: -1 %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, answer);
}
#define SAY(call) say(#call, (long)(call))

static int names(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

int main(void) {
    char path[] = "/tmp/files-XXXXXX", buffer[256] = "";
    struct stat st;
    struct statx stx;
    if (!mkdtemp(path) || chdir(path)) return 1;

    // Flags whose numbers differ between some processors.
    SAY(open("none", O_RDONLY));
    int file = open("a", O_RDWR | O_CREAT | O_EXCL, 0640);
    SAY(open("a", O_RDWR | O_CREAT | O_EXCL, 0640));
    SAY(open("a", O_RDONLY | O_DIRECTORY));
    SAY(symlink("a", "link"));
    SAY(open("link", O_RDONLY | O_NOFOLLOW));
    SAY(open(".", O_WRONLY));

    SAY(write(file, "hello, world", 12));
    SAY(pwrite(file, "W", 1, 7));
    struct iovec in[2] = {{buffer, 5}, {buffer + 100, 50}};
    SAY(lseek(file, 0, SEEK_SET));
    SAY(readv(file, in, 2));
    printf("%s|%s\n", buffer, buffer + 100);
    SAY(preadv(file, in, 1, 2));
    printf("%s\n", buffer);
    SAY(readv(file, in, -1));
    SAY(readv(file, in, 2000));
    SAY(lseek(file, 1 << 20, SEEK_SET));
    SAY(write(file, "end", 3));
    SAY(lseek(file, 0, SEEK_DATA));
    SAY(fstat(file, &st));
    printf("%o %ld %ld %ld\n", st.st_mode, (long)st.st_nlink, (long)st.st_size, (long)st.st_blksize);
    SAY(stat("link", &st));
    printf("%o %d\n", st.st_mode, st.st_mtim.tv_nsec < 1000000000);
    SAY(lstat("link", &st));
    printf("%o %ld\n", st.st_mode, (long)st.st_size);
    SAY(statx(AT_FDCWD, "a", 0, STATX_ALL, &stx));
    printf("%o %ld %ld\n", stx.stx_mode, (long)stx.stx_nlink, (long)stx.stx_size);
    SAY(stat("/dev/null", &st));
    printf("%o %lx\n", st.st_mode, (long)st.st_rdev);

    SAY(fchmod(file, 0600));
    SAY(fchmodat(AT_FDCWD, "a", 0604, 0));
    struct timespec times[2] = {{1000, 5}, {2000, 7}};
    SAY(utimensat(AT_FDCWD, "a", times, 0));
    SAY(stat("a", &st));
    printf("%o %ld.%ld %ld.%ld\n", st.st_mode, (long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    SAY(ftruncate(file, 5));
    SAY(truncate("a", 4));
    SAY(fallocate(file, 0, 0, 100));
    SAY(stat("a", &st));
    printf("%ld\n", (long)st.st_size);

    SAY(mkdir("d", 0755));
    SAY(mkdir("d", 0755));
    SAY(link("a", "d/b"));
    SAY(rename("d/b", "d/c"));
    SAY(syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "d/c", 1));
    SAY(rmdir("d"));
    SAY(access("d/c", R_OK));
    SAY(access("d/e", R_OK));
    SAY(readlink("link", buffer, sizeof buffer));
    SAY(readlink("a", buffer, sizeof buffer));
    SAY(chdir("d"));
    printf("%s\n", strcmp(getcwd(buffer, sizeof buffer) + strlen(path), "/d") ? buffer : "in d");
    SAY(chdir(".."));
    DIR *directory = opendir(".");
    char *found[16];
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) && count < 16;) found[count++] = strdup(entry->d_name);
    qsort(found, count, sizeof *found, names);
    for (int i = 0; i < count; i++) printf("%s ", found[i]);
    puts("");

    struct flock lock = {F_WRLCK, SEEK_SET, 0, 10};
    SAY(fcntl(file, F_SETLK, &lock));
    SAY(fcntl(file, F_GETLK, &lock));
    printf("%d\n", lock.l_type == F_UNLCK);
    SAY(fcntl(file, F_GETFL) & (O_ACCMODE | O_APPEND));
    SAY(fcntl(file, F_SETFL, O_APPEND | O_NONBLOCK));
    SAY(fcntl(file, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
    SAY(flock(file, LOCK_EX | LOCK_NB));
    SAY(fsetxattr(file, "user.x", "y", 1, 0) == 0 || errno == ENOTSUP);

    int ends[2], waiting = -1;
    SAY(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
    SAY(read(ends[0], buffer, 1));
    SAY(write(ends[1], "abc", 3));
    SAY(ioctl(ends[0], FIONREAD, &waiting));
    printf("%d\n", waiting);
    struct winsize size;
    SAY(ioctl(ends[0], TIOCGWINSZ, &size));
    SAY(isatty(ends[0]));
    SAY(dup3(ends[0], ends[0], 0));
    SAY(sendfile(ends[1], file, NULL, 2));
    off_t offset = 0;
    SAY(sendfile(ends[1], file, &offset, 2));
    printf("%ld\n", (long)offset);
    int copy = open("copy", O_RDWR | O_CREAT, 0600);
    SAY(splice(ends[0], NULL, copy, NULL, 100, 0));
    loff_t from = 0;
    SAY(copy_file_range(file, &from, copy, NULL, 50, 0));
    SAY(lseek(copy, 0, SEEK_END));
    struct statfs fs;
    SAY(fstatfs(file, &fs) == 0 && fs.f_bsize > 0 && fs.f_namelen > 0);
    int watch = inotify_init1(IN_NONBLOCK);
    SAY(inotify_add_watch(watch, ".", IN_CREATE) > 0);
    close(open("new", O_CREAT | O_WRONLY, 0600));
    SAY(read(watch, buffer, sizeof buffer));
    printf("%s\n", ((struct inotify_event *)buffer)->name);
    SAY(umask(027));
    close(open("masked", O_CREAT | O_WRONLY, 0666));
    stat("masked", &st);
    printf("%o\n", st.st_mode);

    // Addresses that are not there.
    SAY(read(file, (void *)8, 1));
    SAY(write(ends[1], (void *)0x3fffffffff, 10));
    SAY(write(ends[1], (void *)-4096, 10));
    SAY(open((char *)8, O_RDONLY));
    SAY(syscall(SYS_newfstatat, AT_FDCWD, "a", (void *)8, 0));
    SAY(syscall(SYS_getcwd, buffer, 2));
    SAY(close(1000));
    SAY(syscall(1000));

    // Memory.
    char *map = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SAY(mprotect(map + 4096, 4096, PROT_NONE));
    SAY(pread(copy, map + 4096, 1, 0));
    SAY(pread(copy, map + 4096 - 2, 6, 0));
    SAY(munmap(map + 4096, 4096));
    SAY(mprotect(map, 3 * 4096, PROT_READ));
    SAY(munmap(map + 1, 4096));
    SAY(munmap(map, 3 * 4096));
    SAY(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SAY(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 1000, 0));
    SAY(mmap(NULL, 4096, PROT_READ, MAP_ANONYMOUS, -1, 0));
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
    memcpy(shared, "shared", 6);
    SAY(msync(shared, 4096, MS_SYNC));
    memset(buffer, 0, sizeof buffer);
    SAY(pread(copy, buffer, 6, 0));
    printf("%s\n", buffer);
    map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(map, "moved");
    map = mremap(map, 4096, 1 << 20, MREMAP_MAYMOVE);
    printf("%s %d\n", map, map[(1 << 20) - 1]);
    SAY(madvise(map, 4096, MADV_DONTNEED));
    printf("%d\n", map[0]);
    int memory = memfd_create("m", MFD_CLOEXEC);
    SAY(ftruncate(memory, 8192));
    char *one = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    char *two = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, 4096);
    strcpy(one + 4096, "twice");
    printf("%s\n", two);
    char *big = malloc(50 << 20);
    memset(big, 1, 50 << 20);
    printf("%d\n", big[(50 << 20) - 1]);
    free(big);

    SAY(readlink("/proc/self/exe", buffer, sizeof buffer) > 0);
    printf("%d\n", access(buffer, X_OK));
    char *opened = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, 4096);
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long start, end, shift;
    char rights[8], name[128];
    while (fgets(buffer, sizeof buffer, maps)) {
        name[0] = 0;
        int count = sscanf(buffer, "%lx-%lx %7s %lx %*s %*s %127s", &start, &end, rights, &shift, name);
#define HOLDS(at) (start <= (unsigned long)(at) && (unsigned long)(at) < end)
        if (count < 4) printf("not a line: %s", buffer);
        if (HOLDS(main)) printf("%s %d\n", rights, strstr(name, "files") != NULL);
        if (HOLDS(opened)) printf("%s %lx %s %ld\n", rights, shift, name, (long)(strstr(buffer, "/memfd") - buffer));
        if (HOLDS(&shift)) printf("%s %s\n", rights, name);
        if (HOLDS((char *)sbrk(0) - 1)) printf("%s\n", name);
    }
    FILE *line = fopen("/proc/self/cmdline", "r");
    memset(buffer, 0, sizeof buffer);
    fread(buffer, 1, sizeof buffer - 1, line);
    printf("%d\n", strstr(buffer, "files") != NULL);

    SAY(chdir("/"));
    sprintf(buffer, "rm -r %s", path);
    return system(buffer);
}
