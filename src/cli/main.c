/* mixquant <command> [options] */
#include "cli/cli.h"

#include <signal.h>
#include <string.h>

static const cli_command *const commands[] = {
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
    fprintf(file, "\n`mixquant <command> -h` shows its options. Without -m the bundled model is used.\n");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a closed pipe and a file-size limit are write errors with a message, not signals */
    signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_help_main(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_help_main(stdout);
        return cli_finish(CLI_DONE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mixquant %s (%s)\n", mq_version(), mq_commit());
        return cli_finish(CLI_DONE);
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i]->name) == 0) return cli_finish(commands[i]->run(argc - 1, argv + 1));
    }
    return cli_usage_error("command: expected one of those that `mixquant help` lists, got %s", argv[1]);
}
