#include "base/file.h"
#include "base/pool.h"
#include "cli/calibration.h"
#include "cli/cli.h"

#include <string.h>

/* The plan goes to a file that appears whole. prefill_model: the checkpoint just written, or NULL. */
static int write_plan_quantize(const mq_quantize_options *o, const char *path, float budget)
{
    mq_error error = {0};
    char *plan = NULL;
    const mq_sensitivity_options options = {.model_dir = o->in_dir,
                                            .prefill_model_dir = o->out_dir,
                                            .scales = o->scales,
                                            .threads = o->threads,
                                            .texts = o->texts,
                                            .text_count = o->text_count,
                                            .budget = (double)budget,
                                            .progress = cli_progress};
    mq_writer writer = {0};
    mq_status status = mq_sensitivity_plan(&options, &plan, &error);
    if (status == MQ_OK) status = mq__writer_open(&writer, path, &error);
    if (status == MQ_OK) status = mq__writer_put(&writer, plan, strlen(plan), &error);
    if (status == MQ_OK) status = mq__writer_commit(&writer, &error);
    mq__writer_abort(&writer);
    mq_free(plan);
    return status == MQ_OK ? CLI_DONE : cli_report(&error);
}

static int run_quantize(int argc, char **argv)
{
    mq_quantize_options options = {.progress = cli_progress};
    const char *layout = "compressed-tensors", *scales = "rtn", *method = "rtn", *file = NULL, *plan = NULL;
    float budget = 1.05f;
    int tokens = 8192;
    const cli_option own[] = {
        {"m", CLI_TEXT, &options.in_dir, 0, 0, "checkpoint directory (default: the bundled model)"},
        {"o", CLI_TEXT, &options.out_dir, 0, 0, "directory to make"},
        {"format", CLI_TEXT, &layout, 0, 0, "compressed-tensors (default) or modelopt"},
        {"scales", CLI_TEXT, &scales, 0, 0, "rtn (default), four-six or sweep"},
        {"method", CLI_TEXT, &method, 0, 0, "rtn (default: nearest values) or gptq (calibrated)"},
        {"smooth", CLI_FLOAT, &options.smooth, 0, 1, "SmoothQuant's alpha, 0 to 1 (default 0: none; calibrated)"},
        {"calibrate", CLI_TEXT, &file, 0, 0, "calibration text (default: the model's episodes.jsonl)"},
        {"calibrate-tokens", CLI_NUMBER, &tokens, 1, 1e8, "how much of it, from its end (default 8192)"},
        {"sensitivity", CLI_TEXT, &plan, 0, 0, "write a plan file for --plan from measured sensitivities (calibrated)"},
        {"budget", CLI_FLOAT, &budget, 1, 100, "time of that plan's prefill over NVFP4's (default 1.05)"},
        {"ignore", CLI_TEXT, &options.ignore, 0, 0, "modules to leave dense: a regular expression on their names"},
        {"t", CLI_NUMBER, &options.threads, 0, MQ_THREADS_MAX, "threads (default 0: all processors)"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own)};
    cli_texts rest = {.count = 0};
    int code = cli_parse(&cli_quantize, tables, 1, argc, argv, &rest, 1);
    if (code == CLI_GO_ON) code = cli_positional(&cli_quantize, &rest, "-m", &options.in_dir);
    if (code != CLI_GO_ON) return code;
    if (!options.out_dir && !plan) {
        return cli_usage_error("quantize: output: expected -o DIR or --sensitivity FILE, got none");
    }
    mq_error error = {0};
    options.in_dir = cli_model(options.in_dir);
    if (mq_checkpoint_layout_parse(layout, &options.layout, &error) != MQ_OK ||
        mq_scale_rule_parse(scales, &options.scales, &error) != MQ_OK ||
        mq_quantize_method_parse(method, &options.method, &error) != MQ_OK) {
        return cli_report(&error);
    }
    cli_calibration calibration = {0};
    if (options.method == MQ_METHOD_GPTQ || options.smooth > 0 || plan) {
        code = cli_calibration_open(options.in_dir, file, (uint32_t)tokens, &calibration);
        if (code != CLI_DONE) return code;
        options.texts = calibration.texts;
        options.text_count = calibration.count;
    }
    code = CLI_DONE;
    if (options.out_dir && mq_quantize_checkpoint(&options, &error) != MQ_OK) code = cli_report(&error);
    if (code == CLI_DONE && plan) code = write_plan_quantize(&options, plan, budget);
    cli_calibration_close(&calibration);
    return code;
}

const cli_command cli_quantize = {
    "quantize",
    "[DIR] -o OUT [--format F] [--scales S] [--method M] [--smooth ALPHA] [--sensitivity PLAN] [--ignore REGEX]",
    "an NVFP4 checkpoint of a dense one", run_quantize};
