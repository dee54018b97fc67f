/* A phase plan file. */
#include "engine/engine.h"
#include "fuzz.h"

enum { LAYERS = 12 };

static void check_plan(const mq_phase_plan plan[MQ_PHASES])
{
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        FUZZ_CHECK((unsigned)plan[phase].attention < MQ_ATTENTION_FORMATS);
        for (int layer = 0; layer < LAYERS; layer++) {
            for (int group = 0; group < MQ_GROUPS; group++) {
                FUZZ_CHECK((unsigned)plan[phase].format[layer][group] < MQ_LINEAR_FORMATS);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_write("plan.json", data, bytes);
    const mq_plan_options options = {
        .prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16, .file = fuzz_path("plan.json")};
    mq_phase_plan plan[MQ_PHASES];
    mq_error error = {0};
    fuzz_accepted = fuzz_passed(mq__plan_read(&options, NULL, LAYERS, plan, &error), &error);
    if (fuzz_accepted) {
        check_plan(plan);
        mq__plan_free(plan);
    }
    fuzz_remove("plan.json");
    return 0;
}
