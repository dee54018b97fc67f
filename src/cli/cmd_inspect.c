#include "cli/cli.h"

static int run_inspect(int argc, char **argv)
{
    const char *model = NULL;
    bool json = false;
    const cli_option own[] = {
        {"m", CLI_TEXT, &model, 0, 0, "checkpoint directory (default: the bundled model)"},
        {"json", CLI_FLAG, &json, 0, 0, "one JSON document"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_inspect, tables, 1, argc, argv, &rest, 1);
    if (code == CLI_GO_ON) code = cli_positional(&cli_inspect, &rest, "-m", &model);
    if (code != CLI_GO_ON) return code;
    mq_error error = {0};
    char *text;
    if (mq_inspect(cli_model(model), json, &text, &error) != MQ_OK) return cli_report(&error);
    fputs(text, stdout);
    mq_free(text);
    return CLI_DONE;
}

const cli_command cli_inspect = {"inspect", "[DIR] [--json]",
                                 "architecture, tensors, formats, what each phase would use, memory", run_inspect};
