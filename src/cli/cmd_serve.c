/* serve: the server agents connect to. */
#include "base/file.h"
#include "base/mem.h"
#include "cli/serve_handoff.h"
#include "cli/serve_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONTEXT_LEAST 16 /* no request would fit into less */

typedef struct serve_settings {
    cli_engine engine;
    cli_serve_limits limits;
    cli_serve_handoff handoff;
    const char *host, *unix_socket, *key_file, *tls_cert, *tls_key, *alias, *kv, *states, *cache, *disk;
    cli_texts allowed_hosts;
    int port, streams, queue, drain_seconds;
    float gap;
    bool insecure, json_keepalive, strict_model, finish_abandoned;
    const char *draft;
} serve_settings;

/* All that a running server is made of, in the order in which it is made. */
typedef struct serving {
    mq_server *server;
    mq_engine *engine;
    mq_text *text;
    mq_scheduler *scheduler;
    mq_served_model model;
    char name[256];
} serving;

/* ---- signals: while the model is loaded they end the process, then they are read from a pipe */

static int signal_pipe[2];
static volatile sig_atomic_t is_serving;

static void catch_signal(int number)
{
    const int error = errno;
    const char byte = (char)number;
    if (!is_serving && number != SIGHUP) _exit(128 + number);
    if (write(signal_pipe[1], &byte, 1) < 0) errno = 0; /* the pipe is full: nobody reads that many */
    errno = error;
}

static int catch_signals(void)
{
    const struct sigaction action = {.sa_handler = catch_signal, .sa_flags = SA_RESTART};
    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGHUP, &action, NULL) != 0) {
        fprintf(stderr, "mixquant: serve: signals: %s\n", strerror(errno));
        return CLI_FAILED;
    }
    return CLI_DONE;
}

/* The next signal, or 0 after so many milliseconds (-1: never). */
static int next_signal(int milliseconds)
{
    struct pollfd fd = {.fd = signal_pipe[0], .events = POLLIN};
    char byte;
    if (poll(&fd, 1, milliseconds) <= 0) return 0;
    return read(signal_pipe[0], &byte, 1) == 1 ? byte : 0;
}

/* ---- the log */

static void log_line(void *context, const char *line)
{
    (void)context;
    struct timespec now;
    struct tm utc;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    fprintf(stderr, "%s.%03ldZ %s\n", stamp, now.tv_nsec / 1000000, line);
}

/* ---- the parts */

static mq_server_options server_options(const serve_settings *s)
{
    return (mq_server_options){.host = s->host,
                               .port = (uint16_t)s->port,
                               .unix_socket = s->unix_socket,
                               .key_file = s->key_file,
                               .tls_cert = s->tls_cert,
                               .tls_key = s->tls_key,
                               .insecure = s->insecure,
                               .json_keepalive = s->json_keepalive,
                               .strict_model = s->strict_model,
                               .allowed_hosts = s->allowed_hosts.item,
                               .allowed_host_count = s->allowed_hosts.count,
                               .log = log_line};
}

static int open_server(const serve_settings *s, serving *v)
{
    mq_error error = {0};
    mq_server_options options = server_options(s);
    if (!cli_serve_limits_read(&s->limits, &options.limits)) return CLI_USAGE;
    return mq__server_start(&options, &v->server, &error) == MQ_OK ? CLI_DONE : cli_report(&error);
}

/* KV: half of the memory unless the user says how much; one request has the context, all share the pool. */
static int open_model(serve_settings *s, serving *v)
{
    if (!cli_size("kv-bytes", s->kv, &s->engine.kv_bytes)) return CLI_USAGE;
    if (!cli_size("state-bytes", s->states, &s->engine.state_bytes)) return CLI_USAGE;
    if (s->engine.kv_bytes == 0) s->engine.kv_bytes = mq__memory_total() / 2;
    s->engine.worker = s->handoff.used;
    const int code = cli_open(&s->engine, &v->engine, &v->text);
    if (code != CLI_DONE) return code;
    mq_error error = {0};
    struct stat facts;
    const char *model = cli_model(s->engine.model);
    char *path = realpath(model, NULL);
    if (!path) path = strdup(model); /* OWNER/NAME */
    snprintf(v->name, sizeof v->name, "%s", s->alias ? s->alias : path ? basename(path) : "model");
    free(path);
    v->model = (mq_served_model){.name = v->name, .text = v->text, .created = time(NULL)};
    if (stat(model, &facts) == 0) v->model.created = facts.st_mtime;
    mq_engine_describe(v->engine, &v->model.info);
    mq_text_answer_style(v->text, &v->model.style);
    const mq_engine_info *info = &v->model.info;
    if (info->context < CONTEXT_LEAST) {
        fprintf(stderr, "mixquant: serve: -c and --kv-bytes: expected room for %d tokens or more, got %u\n",
                CONTEXT_LEAST, info->context);
        return CLI_USAGE;
    }
    const mq_status status =
        mq_vocabulary_new(v->text, info->vocab, info->eos, info->eos_count, &v->model.vocabulary, &error);
    return status == MQ_OK ? CLI_DONE : cli_report(&error);
}

static int open_handoff(serve_settings *s, serving *v)
{
    const mq_server_options options = server_options(s);
    return cli_handoff_open(&s->handoff, v->engine, &options);
}

static int start_requests(const serve_settings *s, serving *v)
{
    mq_error error = {0};
    char *folder = s->engine.cache_dir ? mq__path_join(s->engine.cache_dir, "kv") : NULL;
    mq_scheduler_options options = {.engine = v->engine,
                                    .text = v->text,
                                    .streams = (uint32_t)s->streams,
                                    .queue = (uint32_t)s->queue,
                                    .gap = (double)s->gap,
                                    .cache_dir = folder,
                                    .finish_abandoned = s->finish_abandoned,
                                    .source = cli_handoff_source(&s->handoff),
                                    .log = log_line};
    int code = CLI_USAGE;
    options.draft = MQ_DRAFT_AUTO;
    if (s->draft && mq_draft_parse(s->draft, &options.draft, &error) != MQ_OK) return cli_report(&error);
    if (cli_size("prefix-cache", s->cache, &options.cache_bytes) &&
        cli_size("disk-cache", s->disk, &options.disk_bytes)) {
        code = mq_scheduler_start(&options, &v->scheduler, &error) == MQ_OK ? CLI_DONE : cli_report(&error);
    }
    mq__free(folder);
    return code;
}

static mq_status submit_request(void *self, const mq_request *request, mq_job **job, mq_error *error)
{
    return mq_scheduler_submit(self, request, job, error);
}

static void release_job(void *self, mq_job *job)
{
    (void)self;
    mq_job_free(job);
}

static void describe_requests(void *self, mq_scheduler_stats *stats)
{
    mq_scheduler_describe(self, stats);
}

static void close_all(serve_settings *s, serving *v)
{
    mq__server_stop(v->server);
    cli_handoff_stop(&s->handoff);
    mq_scheduler_stop(v->scheduler);
    cli_handoff_close(&s->handoff);
    mq_vocabulary_free(v->model.vocabulary);
    mq_engine_close(v->engine);
    mq_text_close(v->text);
}

/* ---- what the user reads */

/* A word as a shell reads it back. */
static void quote_word(const char *word, char *out, size_t size)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+/:@";
    size_t n = 0;
    const bool needed = word[strspn(word, plain)] != '\0';
    if (needed) out[n++] = '\'';
    for (; *word && n + 6 < size; word++) {
        if (*word == '\'') n += (size_t)snprintf(out + n, size - n, "'\\'");
        out[n++] = *word;
    }
    if (needed) out[n++] = '\'';
    out[n] = '\0';
}

static void print_clients(const serve_settings *s, const serving *v)
{
    char url[300], model[4 * sizeof v->name];
    const uint32_t context = v->model.info.context;
    if (s->unix_socket) {
        fprintf(stderr, "listening on %s\n", s->unix_socket);
        return;
    }
    quote_word(v->name, model, sizeof model);
    const bool is_ipv6 = strchr(s->host, ':') != NULL;
    snprintf(url, sizeof url, "%s://%s%s%s:%u", s->tls_cert ? "https" : "http", is_ipv6 ? "[" : "", s->host,
             is_ipv6 ? "]" : "", mq__server_port(v->server));
    fprintf(stderr, "%s on %s (a page for people is there, too); %u tokens a request, %llu in all\n", v->name, url,
            context, (unsigned long long)v->model.info.kv_tokens);
    fprintf(
        stderr,
        "  Claude Code  ANTHROPIC_BASE_URL=%s ANTHROPIC_AUTH_TOKEN=%s ANTHROPIC_MODEL=%s "
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS=%u CLAUDE_CODE_MAX_OUTPUT_TOKENS=%u CLAUDE_CODE_ATTRIBUTION_HEADER=0 claude\n",
        url, s->key_file ? "KEY" : "none", model, context, context / 8);
    fprintf(stderr,
            "  Codex        codex -c model=%s -c model_provider=mixquant -c model_providers.mixquant.name=mixquant "
            "-c model_providers.mixquant.base_url=%s/v1 -c model_providers.mixquant.wire_api=responses "
            "-c model_context_window=%u\n",
            model, url, context);
    fprintf(stderr, "  OpenAI API   OPENAI_BASE_URL=%s/v1 OPENAI_API_KEY=%s (opencode, Qwen Code: docs/AGENTS.md)\n",
            url, s->key_file ? "KEY" : "none");
}

/* ---- running */

static void reload_keys(serving *v)
{
    mq_error error = {0};
    log_line(NULL, mq__server_reload_keys(v->server, &error) == MQ_OK ? "keys: read anew" : error.text);
}

/* New requests are refused, answers are finished, KV that others will fetch stays for them; a second signal ends all that. */
static void drain(const serve_settings *s, serving *v)
{
    log_line(NULL, "draining: answers are finished, new requests refused; a second signal ends them");
    mq__server_draining(v->server);
    for (int tenths = 0; tenths < 10 * s->drain_seconds; tenths++) {
        mq_scheduler_stats stats;
        mq_scheduler_drain(v->scheduler, 0.1);
        mq_scheduler_describe(v->scheduler, &stats);
        const uint32_t left = stats.running + stats.waiting + stats.held;
        if (left == 0 && mq__server_is_idle(v->server)) return;
        const int number = next_signal(stats.running + stats.waiting ? 0 : left ? 100 : 20);
        if (number == SIGTERM || number == SIGINT) return;
    }
}

static void serve_until_told(const serve_settings *s, serving *v)
{
    const mq_handoff_backend *handoff = s->handoff.handoff ? &s->handoff.backend : NULL;
    const mq_backend backend = {submit_request, release_job, describe_requests, v->scheduler, handoff};
    is_serving = 1;
    mq__server_ready(v->server, &v->model, &backend);
    print_clients(s, v);
    for (int number = 0; number != SIGTERM && number != SIGINT;) {
        number = next_signal(-1);
        if (number == SIGHUP) reload_keys(v);
    }
    drain(s, v);
}

static int serve_model(serve_settings *s)
{
    serving v = {0};
    int code = cli_handoff_check(&s->handoff);
    if (code == CLI_DONE) code = catch_signals();
    if (code == CLI_DONE) code = open_server(s, &v);
    if (code == CLI_DONE) code = open_model(s, &v);
    if (code == CLI_DONE) code = open_handoff(s, &v);
    if (code == CLI_DONE) code = start_requests(s, &v);
    if (code == CLI_DONE) code = cli_handoff_serve(&s->handoff, v.scheduler);
    if (code == CLI_DONE) serve_until_told(s, &v);
    close_all(s, &v);
    return code;
}

static int run_serve(int argc, char **argv)
{
    serve_settings s = {.host = "127.0.0.1", .port = 8080, .drain_seconds = 30};
    cli_option engine[CLI_ENGINE_OPTION_COUNT], limits[CLI_SERVE_LIMIT_COUNT], handoff[CLI_SERVE_HANDOFF_COUNT];
    cli_engine_options(&s.engine, engine, "");
    cli_serve_limit_options(&s.limits, limits);
    cli_serve_handoff_options(&s.handoff, handoff);
    const cli_option own[] = {
        {"host", CLI_TEXT, &s.host, 0, 0, "address to listen on (127.0.0.1); others need keys"},
        {"port", CLI_NUMBER, &s.port, 0, 65535, "port (8080; 0: any free one)"},
        {"unix-socket", CLI_TEXT, &s.unix_socket, 0, 0, "listen on this path instead"},
        {"api-key-file", CLI_TEXT, &s.key_file, 0, 0,
         "API keys, a line each: KEY or blake2b:HEX; SIGHUP reads it anew"},
        {"insecure", CLI_FLAG, &s.insecure, 0, 0, "an address that others reach, without keys (also of a link)"},
        {"allowed-host", CLI_TEXTS, &s.allowed_hosts, 0, 0,
         "a name in Host headers besides loopback's (repeatable; *: any)"},
        {"tls-cert", CLI_TEXT, &s.tls_cert, 0, 0, "PEM file; with --tls-key"},
        {"tls-key", CLI_TEXT, &s.tls_key, 0, 0, "PEM file"},
        {"alias", CLI_TEXT, &s.alias, 0, 0, "the model's name for clients (its folder's)"},
        {"strict-model", CLI_FLAG, &s.strict_model, 0, 0, "requests for other models are 404"},
        {"state-bytes", CLI_TEXT, &s.states, 0, 0, "memory for snapshots of recurrent state (a quarter of it at most)"},
        {"kv-bytes", CLI_TEXT, &s.kv, 0, 0, "memory for KV of all requests and the prefix cache (half of the memory)"},
        {"prefix-cache", CLI_TEXT, &s.cache, 0, 0, "of it, what the prefix cache may hold (all)"},
        {"disk-cache", CLI_TEXT, &s.disk, 0, 0,
         "bytes of KV that --cache-dir DIR keeps in DIR/kv, over restarts (16G; 1: none)"},
        {"finish-abandoned", CLI_FLAG, &s.finish_abandoned, 0, 0, "read a prompt to its end when its client left"},
        {"streams", CLI_NUMBER, &s.streams, 0, 1024, "answers at once (64, also for 0)"},
        {"queue", CLI_NUMBER, &s.queue, 0, 1000000, "requests that wait (256, also for 0)"},
        {"gap", CLI_FLOAT, &s.gap, 0, 1000,
         "pause of answers while a prompt is read, in decode steps (2; 1.1 at least)"},
        {"draft", CLI_TEXT, &s.draft, 0, 0, CLI_DRAFT_HELP " (auto)"},
        {"json-keepalive", CLI_FLAG, &s.json_keepalive, 0, 0, "blanks before a JSON answer that takes long"},
        {"drain-seconds", CLI_NUMBER, &s.drain_seconds, 0, 86400, "for answers to finish after SIGTERM (30)"},
    };
    const cli_options tables[] = {CLI_OPTIONS(own), CLI_OPTIONS(handoff), CLI_OPTIONS(limits), CLI_OPTIONS(engine)};
    cli_texts rest = {.count = 0};
    const int code = cli_parse(&cli_serve, tables, 4, argc, argv, &rest, 1);
    if (code != CLI_GO_ON) return code;
    const int model = cli_positional(&cli_serve, &rest, "m", &s.engine.model);
    return model == CLI_GO_ON ? serve_model(&s) : model;
}

const cli_command cli_serve = {"serve", "[-m DIR] [--port 8080] [options]",
                               "answer OpenAI and Anthropic clients over HTTP", run_serve};
