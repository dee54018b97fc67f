/* replay_NAME DIRECTORY...: runs a fuzz target on every file there, as a unit test. */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>

static bool replay_file(const char *directory, const char *name)
{
    char path[1024];
    static uint8_t buffer[1 << 20];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    FUZZ_CHECK(file);
    const size_t bytes = fread(buffer, 1, sizeof buffer, file);
    FUZZ_CHECK(!ferror(file) && bytes < sizeof buffer);
    fclose(file);
    uint8_t *const exact = malloc(bytes); /* so that a read past the end is seen */
    FUZZ_CHECK(exact || bytes == 0);
    if (bytes) memcpy(exact, buffer, bytes);
    fuzz_accepted = false;
    printf("%s\n", path);
    fflush(stdout);
    (void)LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
    const bool as_named =
        strncmp(name, "ok-", 3) == 0 ? fuzz_accepted : strncmp(name, "bad-", 4) != 0 || !fuzz_accepted;
    if (!as_named) fprintf(stderr, "%s: expected it to be %s\n", path, fuzz_accepted ? "refused" : "accepted");
    return as_named;
}

int main(int argc, char **argv)
{
    unsigned long files = 0, wrong = 0;
    for (int i = 1; i < argc; i++) {
        DIR *const directory = opendir(argv[i]);
        FUZZ_CHECK(directory);
        for (const struct dirent *e = readdir(directory); e; e = readdir(directory)) {
            if (e->d_name[0] == '.') continue;
            files++;
            if (!replay_file(argv[i], e->d_name)) wrong++;
        }
        closedir(directory);
    }
    if (files == 0) fprintf(stderr, "expected seeds, got none\n");
    printf("%lu inputs, %lu not as their names say\n", files, wrong);
    return files == 0 || wrong != 0;
}
