/* mixquant <command> [options] */
#include "cli/cli.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const cli_command *const commands[] = {
#ifdef MQ_SERVE
    &cli_serve,
#endif
    &cli_run,        &cli_chat,   &cli_agent,   &cli_bench, &cli_quantize, &cli_logits, &cli_tokenize,
    &cli_detokenize, &cli_render, &cli_inspect, &cli_synth, &cli_cpu,      &cli_eval,
};

static void print_help_main(FILE *file)
{
    fprintf(file, "mixquant %s: NVFP4 prefill, BF16 decode, on CPUs\n\nusage: mixquant <command> [options]\n\n",
            mq_version());
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        fprintf(file, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    }
    fprintf(file, "  %-12s %s\n", "help", "of a command: help run");
    fprintf(file, "  %-12s %s\n", "version", "and the commit it was built from");
    fprintf(file, "\n`mixquant <command> -h` shows its options. Without -m the bundled model is used.\n");
}

static const cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i]->name) == 0) return commands[i];
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    return cli_usage_error("command: expected one of those that `mixquant help` lists, got %s", name);
}

/* help [COMMAND] */
static int print_help(int argc, char **argv)
{
    const cli_command *command = argc > 1 ? find_command(argv[1]) : NULL;
    if (argc > 2) return cli_usage_error("help: expected one command, got %d", argc - 1);
    if (argc > 1 && !command) return unknown_command(argv[1]);
    if (command) return command->run(2, (char *[]){argv[1], "-h", NULL});
    print_help_main(stdout);
    return CLI_DONE;
}

static int dispatch(int argc, char **argv)
{
    const char *name = argv[0];
    const cli_command *command = find_command(name);
    if (command) return command->run(argc, argv);
    if (strcmp(name, "help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0) {
        return print_help(argc, argv);
    }
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        if (argc > 1) return cli_usage_error("version: expected no argument, got %s", argv[1]);
        printf("mixquant %s (%s)\n", mq_version(), mq_commit());
        return CLI_DONE;
    }
    return unknown_command(name);
}

/* A descriptor that the caller closed must not become that of a file we open: the answer would go into it. */
static void hold_standard_descriptors(void)
{
    while (true) {
        const int fd = open("/dev/null", O_RDONLY);
        if (fd < 0 || fd > STDERR_FILENO) {
            if (fd > STDERR_FILENO) close(fd);
            return;
        }
        if (fd != STDIN_FILENO) continue; /* writing to it fails, as it should */
        const int input = open("/dev/null", O_WRONLY);
        if (input < 0) return;
        dup2(input, STDIN_FILENO); /* and so does reading */
        close(input);
    }
}

int main(int argc, char **argv)
{
    hold_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe and a file-size limit are write errors with a message, not signals */
    signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_help_main(stderr);
        return CLI_USAGE;
    }
    return cli_finish(dispatch(argc - 1, argv + 1));
}
