/* What drafting brings: the same answers with and without drafts in turn (A B A B), one sequence, and the ratio of tokens a second of
 * decoding. Every pair is compared: a token that differs ends the program.
 *
 *     bench_draft episodes DRAFT [COUNT [TEMPERATURE]]   the bundled model's episodes, tools really run
 *     bench_draft replay DRAFT SHAPE TOKENS [AGREEMENT]  recorded answers in place of the model's (mq_draft_script): TOKENS has a line
 *                                                        an answer, "CONVERSATION PROMPT_COUNT ANSWER_COUNT ID..."
 *     bench_draft copy DRAFT SHAPE                       an answer that repeats 400 tokens of its prompt
 *     bench_draft sweep SHAPE [AGREEMENT]                the NVFP4 draft, by the share of its tokens that are right
 *     bench_draft random DRAFT SHAPE                     temperature 1.5: what nothing predicts
 *
 * SHAPE: of `mixquant synth`, with random weights; DRAFT: lookup, nvfp4, auto. */
#include "eval/scene.h"
#include "gen/drafter_impl.h"
#include "mixquant_draft.h"
#include "mixquant_tools.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT   8192
#define ANSWER    192
#define CALLS_MAX 4
#define PAIRS_MAX 8192

static mq_engine *engine;
static mq_text *text;
static mq_engine_info info;

static void check(mq_status status, const mq_error *error)
{
    if (status == MQ_OK) return;
    fprintf(stderr, "bench_draft: %s\n", error->text);
    exit(1);
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- pairs */

/* The two ways of one prompt; each has its sequence, so that turns of a conversation find what they had. */
typedef struct way {
    mq_sequence *sequence;
    mq_drafter *drafter; /* NULL: without */
    char *answer;
    size_t bytes;
    int32_t token[ANSWER * 8];
    uint32_t tokens;
    mq_generate_result result;
} way;

typedef struct pairs {
    way way[2];
    double ratio[PAIRS_MAX]; /* tokens a second with drafts over those without */
    size_t count;
    double seconds[2], decoded[2];
    uint64_t steps[2], drafted, right;
} pairs;

static void open_pairs(pairs *p, mq_draft draft)
{
    mq_error error = {0};
    memset(p, 0, sizeof *p);
    for (int i = 0; i < 2; i++) {
        check(mq_sequence_new(engine, &p->way[i].sequence, &error), &error);
    }
    check(mq_drafter_new(engine, draft, &p->way[1].drafter, &error), &error);
}

static void close_pairs(pairs *p)
{
    for (int i = 0; i < 2; i++) {
        mq_sequence_free(p->way[i].sequence);
        free(p->way[i].answer);
    }
    mq_drafter_free(p->way[1].drafter);
}

static bool take_text(void *context, const char *bytes, size_t count)
{
    way *w = context;
    w->answer = realloc(w->answer, w->bytes + count + 1);
    if (!w->answer) exit(1);
    memcpy(w->answer + w->bytes, bytes, count);
    w->bytes += count;
    w->answer[w->bytes] = '\0';
    return true;
}

static void take_token(void *context, int32_t token, float logprob, const mq_token_logprob *top, size_t count)
{
    way *w = context;
    (void)logprob;
    (void)top;
    (void)count;
    if (w->tokens < sizeof w->token / sizeof *w->token) w->token[w->tokens++] = token;
}

static void run_way(way *w, const int32_t *tokens, uint32_t count, const mq_generate_options *settings)
{
    mq_error error = {0};
    mq_generate_options options = *settings;
    options.text = take_text;
    options.token = take_token;
    options.context = w;
    options.drafter = w->drafter;
    w->bytes = w->tokens = 0;
    (void)take_text(w, "", 0);
    check(mq_sequence_sync(w->sequence, tokens, count, NULL, NULL, &error), &error);
    check(mq_generate(w->sequence, text, &options, &w->result, &error), &error);
}

/* Both ways of a prompt, the one that is first changes. */
static void run_pair(pairs *p, const int32_t *tokens, uint32_t count, const mq_generate_options *options)
{
    static size_t turn;
    double rate[2];
    const size_t first = turn++ % 2;
    for (size_t i = 0; i < 2; i++) {
        const size_t which = i ^ first;
        way *w = &p->way[which];
        run_way(w, tokens, count, options);
        const uint32_t decoded = w->result.steps + w->result.drafted_right;
        p->seconds[which] += w->result.decode_s;
        p->decoded[which] += decoded;
        p->steps[which] += w->result.steps;
        rate[which] = decoded / w->result.decode_s;
    }
    const way *a = &p->way[0], *b = &p->way[1];
    p->drafted += b->result.drafted;
    p->right += b->result.drafted_right;
    if (a->tokens != b->tokens || memcmp(a->token, b->token, a->tokens * sizeof *a->token) != 0) {
        fprintf(stderr, "bench_draft: prompt %zu: expected the same tokens, got others\n", p->count);
        exit(1);
    }
    if (a->result.steps && p->count < PAIRS_MAX) p->ratio[p->count++] = rate[1] / rate[0];
}

/* What steps take, as the drafter has learnt it. */
static void print_costs(const mq_drafter *d)
{
    printf("    a step of one row %.1f ms; of 2 to 8 rows", d->cost.level * 1e3);
    for (uint32_t rows = 2; rows <= 8; rows++) {
        printf(" %.2f", mq__cost_of(&d->cost, MQ_COST_DECODE, rows));
    }
    printf(" times as long, a draft step %.2f\n", mq__cost_of(&d->cost, MQ_COST_DRAFT, 1));
}

static void print_pairs(pairs *p, const char *what)
{
    qsort(p->ratio, p->count, sizeof *p->ratio, compare_doubles);
    const double *r = p->ratio;
    const size_t n = p->count;
    if (n == 0) return;
    printf("%-28s %zu answers equal, %.0f tokens; %.2f tokens a step; drafted %llu, right %.0f%%; tok/s %.1f -> %.1f: "
           "%.2fx; of an "
           "answer: median %.2fx (10%%: %.2f, 90%%: %.2f)\n",
           what, n, p->decoded[0], p->decoded[1] / (double)p->steps[1], (unsigned long long)p->drafted,
           p->drafted ? 100.0 * (double)p->right / (double)p->drafted : 0, p->decoded[0] / p->seconds[0],
           p->decoded[1] / p->seconds[1], p->decoded[1] / p->seconds[1] / (p->decoded[0] / p->seconds[0]), r[n / 2],
           r[n / 10], r[n * 9 / 10]);
    print_costs(p->way[1].drafter);
}

/* ---- episodes of the bundled model */

static char *ask(pairs *p, const json_t *messages, const json_t *tools, float temperature)
{
    mq_error error = {0};
    char *prompt;
    size_t bytes, count;
    int32_t *tokens;
    json_t *body = json_pack("{sOsOsb}", "messages", messages, "tools", tools, "add_generation_prompt", 1);
    char *request = json_dumps(body, JSON_COMPACT);
    mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = ANSWER};
    options.sampling.temperature = temperature;
    options.sampling.seed = p->count;
    check(mq_render(text, request, strlen(request), &prompt, &bytes, &error), &error);
    check(mq_tokenize(text, prompt, bytes, MQ_TOKENIZE_PARSE_SPECIAL, &tokens, &count, &error), &error);
    run_pair(p, tokens, (uint32_t)count, &options);
    json_decref(body);
    free(request);
    mq_free(prompt);
    mq_free(tokens);
    return p->way[0].answer;
}

/* A question, and the calls that the model makes until it answers. */
static void play_turn(pairs *p, const json_t *scene, json_t *messages, const json_t *tools, float temperature)
{
    for (int round = 0; round <= CALLS_MAX; round++) {
        const char *answer = ask(p, messages, tools, temperature);
        json_t *call = round < CALLS_MAX ? mq__scene_parse_call(answer) : NULL;
        if (!call) {
            json_array_append_new(messages, json_pack("{ssss}", "role", "assistant", "content", answer));
            return;
        }
        const char *name = json_string_value(json_object_get(call, "name"));
        char *result = mq__scene_call(scene, name, json_object_get(call, "arguments"));
        json_array_append_new(messages, json_pack("{sssss[{sss{sssO}}]}", "role", "assistant", "content", "",
                                                  "tool_calls", "type", "function", "function", "name", name,
                                                  "arguments", json_object_get(call, "arguments")));
        json_array_append_new(messages, json_pack("{ssss}", "role", "tool", "content", result ? result : ""));
        mq_free(result);
        json_decref(call);
    }
}

static void play_episode(pairs *p, const char *line, float temperature)
{
    json_t *scene = json_loads(line, 0, NULL), *tools = mq__scene_tools(scene), *turn;
    json_t *messages = json_pack("[{sssO}]", "role", "system", "content", json_object_get(scene, "system"));
    size_t i;
    json_array_foreach(json_object_get(scene, "turns"), i, turn)
    {
        json_array_append_new(messages, json_pack("{sssO}", "role", "user", "content", json_object_get(turn, "user")));
        play_turn(p, scene, messages, tools, temperature);
    }
    json_decref(messages);
    json_decref(tools);
    json_decref(scene);
}

static void open_model(const char *dir, const char *tokenizer, uint32_t context)
{
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = dir,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .context = context,
                                       .sequences = 2};
    check(mq_text_open(tokenizer, NULL, &text, &error), &error);
    check(mq_engine_open(&options, &engine, &error), &error);
    mq_engine_settle(engine);
    mq_engine_describe(engine, &info);
}

static char bundled[1024];

static void bench_episodes(mq_draft draft, long most, float temperature)
{
    static pairs p;
    char path[1100], *line = NULL;
    size_t room = 0;
    long count = 0;
    snprintf(path, sizeof path, "%s/episodes.jsonl", bundled);
    FILE *file = fopen(path, "r");
    if (!file) exit(1);
    open_model(bundled, bundled, 0);
    open_pairs(&p, draft);
    while (count < most && getline(&line, &room, file) > 0) {
        play_episode(&p, line, temperature);
        count++;
    }
    free(line);
    (void)fclose(file);
    print_pairs(&p, mq_draft_name(draft));
    close_pairs(&p);
}

/* ---- given answers on random weights */

static void open_shape(const char *shape)
{
    char *dir;
    mq_error error = {0};
    check(mq_synth_cached(shape, 0, NULL, &dir, &error), &error);
    open_model(dir, bundled, CONTEXT);
    mq_free(dir);
}

static void run_script(pairs *p, const int32_t *prompt, uint32_t count, const mq_draft_script *script, uint32_t most)
{
    const mq_generate_options options = {
        .sampling = MQ_SAMPLING_GREEDY, .max_tokens = most, .ignore_eos = true, .script = script};
    run_pair(p, prompt, count, &options);
}

static int32_t *read_line(FILE *file, uint32_t *prompt, uint32_t *answer)
{
    long conversation;
    if (fscanf(file, "%ld %u %u", &conversation, prompt, answer) != 3 || *prompt + *answer > CONTEXT) return NULL;
    const size_t count = *prompt + *answer;
    int32_t *tokens = malloc(count * sizeof *tokens);
    for (size_t i = 0; i < count; i++) {
        if (!tokens || fscanf(file, "%d", &tokens[i]) != 1) exit(1);
    }
    return tokens;
}

static void bench_replay(mq_draft draft, const char *shape, const char *path, double agreement)
{
    static pairs p;
    uint32_t prompt, answer;
    int32_t *tokens;
    FILE *file = fopen(path, "r");
    if (!file) exit(1);
    open_shape(shape);
    open_pairs(&p, draft);
    while ((tokens = read_line(file, &prompt, &answer))) {
        const mq_draft_script script = {tokens + prompt, answer, agreement, p.count};
        run_script(&p, tokens, prompt, &script, answer);
        free(tokens);
    }
    (void)fclose(file);
    print_pairs(&p, mq_draft_name(draft));
    close_pairs(&p);
}

static void fill_random(int32_t *tokens, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = (int32_t)((seed >> 33) % info.vocab);
    }
}

static void bench_copy(mq_draft draft, const char *shape)
{
    static pairs p;
    enum { PROMPT = 600, COPIED = 400, RUNS = 5 };
    int32_t prompt[PROMPT];
    open_shape(shape);
    open_pairs(&p, draft);
    for (uint64_t run = 0; run < RUNS; run++) {
        fill_random(prompt, PROMPT, run + 1);
        const mq_draft_script script = {prompt + 100, COPIED, 0.8, run};
        run_script(&p, prompt, PROMPT, &script, COPIED);
    }
    print_pairs(&p, "copy");
    close_pairs(&p);
}

static void sweep_one(double agreement)
{
    static pairs p;
    enum { PROMPT = 64, TOKENS = 96, RUNS = 7 };
    int32_t prompt[PROMPT], answer[TOKENS];
    char name[32];
    open_pairs(&p, MQ_DRAFT_NVFP4);
    for (uint64_t run = 0; run < RUNS; run++) {
        fill_random(prompt, PROMPT, run + 1);
        fill_random(answer, TOKENS, run + 100);
        const mq_draft_script script = {answer, TOKENS, agreement, run};
        run_script(&p, prompt, PROMPT, &script, TOKENS);
    }
    snprintf(name, sizeof name, "agreement %.2f", agreement);
    print_pairs(&p, name);
    close_pairs(&p);
}

static void bench_sweep(const char *shape, const char *only)
{
    static const double agreement[] = {0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1};
    open_shape(shape);
    if (only) {
        sweep_one(strtod(only, NULL));
        return;
    }
    for (size_t i = 0; i < sizeof agreement / sizeof *agreement; i++) {
        sweep_one(agreement[i]);
    }
}

static void bench_random(mq_draft draft, const char *shape)
{
    static pairs p;
    enum { PROMPT = 64, TOKENS = 96, RUNS = 9 };
    int32_t prompt[PROMPT];
    open_shape(shape);
    open_pairs(&p, draft);
    for (uint64_t run = 0; run < RUNS; run++) {
        mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = TOKENS, .ignore_eos = true};
        options.sampling.temperature = 1.5f;
        options.sampling.seed = run;
        fill_random(prompt, PROMPT, run + 1);
        run_pair(&p, prompt, PROMPT, &options);
    }
    print_pairs(&p, "temperature 1.5");
    close_pairs(&p);
}

static int wrong_use(void)
{
    fprintf(stderr, "usage: bench_draft episodes DRAFT [COUNT [TEMPERATURE]] | replay DRAFT SHAPE TOKENS [AGREEMENT] | "
                    "copy DRAFT SHAPE | "
                    "sweep SHAPE [AGREEMENT] | random DRAFT SHAPE\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *source = getenv("MQ_SOURCE_DIR"), *what = argc > 2 ? argv[1] : "";
    mq_error error = {0};
    mq_draft draft = MQ_DRAFT_NVFP4;
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(bundled, sizeof bundled, "%s/models/mixquant-agent", source ? source : ".");
    if (argc < 3) return wrong_use();
    if (strcmp(what, "sweep") != 0) check(mq_draft_parse(argv[2], &draft, &error), &error);
    if (strcmp(what, "episodes") == 0)
        bench_episodes(draft, argc > 3 ? strtol(argv[3], NULL, 10) : 600, argc > 4 ? strtof(argv[4], NULL) : 0);
    else if (strcmp(what, "replay") == 0 && argc > 4)
        bench_replay(draft, argv[3], argv[4], argc > 5 ? strtod(argv[5], NULL) : 0.8);
    else if (strcmp(what, "copy") == 0 && argc > 3)
        bench_copy(draft, argv[3]);
    else if (strcmp(what, "sweep") == 0)
        bench_sweep(argv[2], argc > 3 ? argv[3] : NULL);
    else if (strcmp(what, "random") == 0 && argc > 3)
        bench_random(draft, argv[3]);
    else
        return wrong_use();
    mq_engine_close(engine);
    mq_text_close(text);
    return 0;
}
