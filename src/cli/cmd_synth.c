#include "cli/cli.h"

static int run_synth(int argc, char **argv)
{
    mq_synth_options options = {.seed = 1};
    int layers = 0;
    bool list = false;
    const cli_option own[] = {
        {"shape", CLI_TEXT, &options.shape, 0, 0, "a published shape, as qwen3-0.6b (see --list)"},
        {"o", CLI_TEXT, &options.out_dir, 0, 0, "directory to make"},
        {"seed", CLI_UNSIGNED, &options.seed, 0, 0, "of the weights (default 1)"},
        {"layers", CLI_NUMBER, &layers, 0, 1024, "only the first N layers (default 0: all)"},
        {"list", CLI_FLAG, &list, 0, 0, "print the known shapes"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_synth, tables, 1, argc, argv, &rest, 1);
    if (code == CLI_GO_ON) code = cli_positional(&cli_synth, &rest, "--shape", &options.shape);
    if (code != CLI_GO_ON) return code;
    if (list) {
        for (size_t i = 0; mq_synth_shape_name(i); i++) {
            puts(mq_synth_shape_name(i));
        }
        return cli_finish(CLI_DONE);
    }
    if (!options.shape || !options.out_dir) {
        return cli_usage_error("synth: expected a shape and -o DIR, got no %s",
                               options.shape ? "-o" : "shape (see --list)");
    }
    options.layers = (uint32_t)layers;
    mq_error error = {0};
    if (mq_synth_checkpoint(&options, &error) != MQ_OK) return cli_report(&error);
    return CLI_DONE;
}

const cli_command cli_synth = {"synth", "[--shape] NAME -o DIR [--seed 1] [--layers N]",
                               "random BF16 weights of a published shape, to benchmark without downloading", run_synth};
