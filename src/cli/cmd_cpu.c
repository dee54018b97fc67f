#include "base/pool.h"
#include "cli/cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { CANDIDATES_MOST = 32 };

typedef struct candidates {
    mq_candidate one[CANDIDATES_MOST];
    size_t count;
} candidates;

static json_t *json_candidates(const candidates *c)
{
    json_t *all = json_object();
    for (size_t i = 0; i < c->count; i++) {
        const mq_candidate *one = &c->one[i];
        json_t *choice = json_object_get(all, one->choice);
        if (!choice) {
            choice = json_object();
            json_object_set_new(all, one->choice, choice);
        }
        json_object_set_new(
            choice, one->name,
            json_pack("{sf sb sb}", "microseconds", one->seconds * 1e6, "winner", one->winner, "pinned", one->pinned));
    }
    return all;
}

/* One line a choice: "dense_thin: plain (812 us), ahead 846 us". */
static void print_candidates(const candidates *c)
{
    puts("fastest, measured once (the winner in brackets; microseconds of equal work)");
    for (size_t i = 0; i < c->count;) {
        const char *choice = c->one[i].choice;
        printf("  %-24s", choice);
        for (; i < c->count && strcmp(c->one[i].choice, choice) == 0; i++) {
            const mq_candidate *one = &c->one[i];
            printf(one->winner ? " [%s %.0f%s]" : " %s %.0f%s", one->name, one->seconds * 1e6,
                   one->winner && one->pinned ? ", pinned" : "");
        }
        puts("");
    }
}

static int print_json_cpu(const mq_machine *m, const candidates *c)
{
    json_t *kernels = json_object();
    const char *name, *isa;
    for (size_t i = 0; mq_machine_kernel(i, &name, &isa); i++) {
        json_object_set_new(kernels, name, json_string(isa));
    }
    json_t *root = json_pack("{ss ss si sf sf sI sI sI so so}", "name", m->cpu, "isa", m->isa, "threads", m->threads,
                             "read_gb_s", m->read_gb_s, "fma_gflop_s", 2 * m->fma_gmac_s, "l1d_bytes",
                             (json_int_t)m->l1d_bytes, "l2_bytes", (json_int_t)m->l2_bytes, "l3_bytes",
                             (json_int_t)m->l3_bytes, "kernels", kernels, "measured", json_candidates(c));
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(5)) : NULL;
    if (text) puts(text);
    free(text);
    json_decref(root);
    return text ? CLI_DONE : CLI_FAILED;
}

static int run_cpu(int argc, char **argv)
{
    int threads = 0;
    bool json = false, quick = false;
    const cli_option own[] = {
        {"t", CLI_NUMBER, &threads, 0, MQ_THREADS_MAX, "threads (default 0: all processors)"},
        {"json", CLI_FLAG, &json, 0, 0, "one JSON document"},
        {"quick", CLI_FLAG, &quick, 0, 0, "do not measure: no limits, no choices"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own)};
    cli_texts rest = {.count = 0};
    const int code = cli_parse(&cli_cpu, tables, 1, argc, argv, &rest, 0);
    if (code != CLI_GO_ON) return code;
    mq_machine m;
    mq_error error = {0};
    if (mq_machine_measure(threads, !quick, &m, &error) != MQ_OK) return cli_report(&error);
    candidates c = {.count = 0};
    if (!quick && mq_machine_candidates(NULL, c.one, CANDIDATES_MOST, &c.count, &error) != MQ_OK)
        return cli_report(&error);
    if (json) return print_json_cpu(&m, &c);
    printf("%s\nlevel %s, %d threads, L1d %zu KiB, L2 %zu KiB, L3 %zu KiB\n", m.cpu, m.isa, m.threads,
           m.l1d_bytes >> 10, m.l2_bytes >> 10, m.l3_bytes >> 10);
    if (!quick)
        printf("read bandwidth %.1f GB/s, FP32 FMA peak %.1f GMAC/s (all threads)\n", m.read_gb_s, m.fma_gmac_s);
    const char *name, *isa;
    for (size_t i = 0; mq_machine_kernel(i, &name, &isa); i++) {
        printf("  %-24s %s\n", name, isa);
    }
    if (!quick) print_candidates(&c);
    return CLI_DONE;
}

const cli_command cli_cpu = {"cpu", "[options]", "this machine: kernel level, caches, limits, kernel per operation",
                             run_cpu};
