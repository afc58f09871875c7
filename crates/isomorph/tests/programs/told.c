/* Tells what it was given, and what it finds behind a path. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>

int main(int count, char **arguments)
{
    for (int at = 1; at < count; at++)
        printf("%s\n", arguments[at]);
    printf("%s\n", getenv("TOLD") ? getenv("TOLD") : "nothing");
    char text[32] = "no file\n";
    FILE *file = fopen("/etc/isomorph/link", "r");
    if (file)
        fgets(text, sizeof text, file);
    fputs(text, stdout);
    fflush(stdout);
    if (count == 1 && !fork()) {
        execl(arguments[0], arguments[0], "again", (char *)0);
        _exit(1);
    }
    wait(0);
    return 0;
}
