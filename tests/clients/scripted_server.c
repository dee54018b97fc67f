/* A server whose answers come from a script (script_backend.h): the HTTP and API code of `mixquant serve` over no engine.
 *
 * usage: scripted_server -m MODEL [--port N] [-c CONTEXT] [--keepalive] SCRIPT.json
 * MODEL is a checkpoint folder; its tokenizer, template, vocabulary and end token are used. Prints its address on stdout when it can
 * be used, a line a request on stderr, and ends on SIGTERM or SIGINT. */
#include "base/file.h"
#include "base/mem.h"
#include "script_backend.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRIPT_BYTES (16U << 20)

typedef struct scripted {
    const char *model, *script;
    int port;
    unsigned context;
    bool json_keepalive;
    mq_text *text;
    int32_t eos;
    mq_served_model served;
    char *json;
} scripted;

static int complain(const mq_error *error)
{
    fprintf(stderr, "scripted_server: %s\n", error->text);
    return 1;
}

static bool read_arguments(scripted *s, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--keepalive") == 0) {
            s->json_keepalive = true;
        } else if (argv[i][0] != '-') {
            s->script = argv[i];
        } else if (value && strcmp(argv[i], "-m") == 0) {
            s->model = argv[++i];
        } else if (value && strcmp(argv[i], "--port") == 0) {
            s->port = atoi(argv[++i]);
        } else if (value && strcmp(argv[i], "-c") == 0) {
            s->context = (unsigned)strtoul(argv[++i], NULL, 10);
        } else {
            return false;
        }
    }
    return s->model && s->script;
}

/* vocab_size and eos_token_id of config.json. */
static bool read_config(const scripted *s, uint32_t *vocab, int32_t *eos)
{
    char *path = mq__path_join(s->model, "config.json");
    json_t *config = path ? json_load_file(path, 0, NULL) : NULL;
    const json_t *size = json_object_get(config, "vocab_size"), *end = json_object_get(config, "eos_token_id");
    if (json_is_array(end)) end = json_array_get(end, 0);
    const bool found = json_is_integer(size) && json_is_integer(end);
    *vocab = (uint32_t)json_integer_value(size);
    *eos = (int32_t)json_integer_value(end);
    json_decref(config);
    mq__free(path);
    return found;
}

static mq_status open_scripted(scripted *s, mq_error *error)
{
    uint32_t vocab;
    size_t bytes;
    mq_status status = mq_text_open(s->model, NULL, &s->text, error);
    if (status != MQ_OK) return status;
    if (!read_config(s, &vocab, &s->eos)) {
        snprintf(error->text, sizeof error->text, "%s/config.json: expected vocab_size and eos_token_id", s->model);
        return MQ_FORMAT;
    }
    s->served = (mq_served_model){.name = "mixquant-agent", .text = s->text, .created = 1700000000};
    s->served.info = (mq_engine_info){.vocab = vocab,
                                      .context = s->context,
                                      .max_positions = s->context,
                                      .threads = 1,
                                      .isa = "script",
                                      .model_type = "script",
                                      .kv_tokens = s->context,
                                      .bos = -1,
                                      .eos = &s->eos,
                                      .eos_count = 1,
                                      .prefill = MQ_LINEAR_NVFP4,
                                      .decode = MQ_LINEAR_BF16,
                                      .suggested = MQ_SAMPLING_GREEDY};
    mq_text_answer_style(s->text, &s->served.style);
    status = mq_vocabulary_new(s->text, vocab, &s->eos, 1, &s->served.vocabulary, error);
    return status == MQ_OK ? mq__file_read(s->script, SCRIPT_BYTES, &s->json, &bytes, error) : status;
}

static void log_scripted(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

static int serve_scripted(scripted *s, const sigset_t *signals)
{
    mq_error error = {0};
    mq_server *server;
    int number;
    const mq_server_options options = {
        .host = "127.0.0.1", .port = (uint16_t)s->port, .json_keepalive = s->json_keepalive, .log = log_scripted};
    if (mq__server_start(&options, &server, &error) != MQ_OK) return complain(&error);
    script_backend *script = script_open(s->json, s->text, &s->served.info);
    const mq_backend backend = script_interface(script);
    mq__server_ready(server, &s->served, &backend);
    printf("http://127.0.0.1:%u\n", mq__server_port(server));
    fflush(stdout);
    sigwait(signals, &number);
    mq__server_stop(server);
    script_close(script);
    return 0;
}

int main(int argc, char **argv)
{
    scripted s = {.context = 200000};
    mq_error error = {0};
    sigset_t signals;
    if (!read_arguments(&s, argc, argv)) {
        fprintf(stderr, "usage: scripted_server -m MODEL [--port N] [-c CONTEXT] [--keepalive] SCRIPT.json\n");
        return 2;
    }
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    const int code = open_scripted(&s, &error) == MQ_OK ? serve_scripted(&s, &signals) : complain(&error);
    mq_vocabulary_free(s.served.vocabulary);
    mq_text_close(s.text);
    mq__free(s.json);
    return code;
}
