/* What a link carries, beside plain write and read over the same address in the same run, in turn. Two processes, on one host or two
 * (two-hosts); both verify every body by its XXH3.
 *
 *     bench_link KIND recv HOST PORT     listens there, for the plain connection at PORT + 1; ends with the sender
 *     bench_link KIND send HOST PORT
 *
 * prints the medians of RUNS runs of 512 MiB in bodies of 256 KiB and of 4 MiB. A plain run is TCP whatever the kind. */
#include "link/link.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define TOTAL   (512u << 20)
#define SOURCE  (64u << 20) /* bytes that bodies are taken from, again and again: more than a cache holds */
#define RUNS    7
#define SECONDS 20.0

enum { SIZES = 2 };
static const size_t sizes[SIZES] = {256u << 10, 4u << 20};

static uint8_t *source;
static uint64_t hashes[SIZES][SOURCE / (256u << 10)];

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(bool right, const char *text)
{
    if (right) return;
    fprintf(stderr, "bench_link: %s\n", text);
    exit(1);
}

static void make_source(void)
{
    uint64_t word = 88172645463325252ull;
    source = malloc(SOURCE);
    check(source != NULL, "no memory");
    for (size_t i = 0; i < SOURCE; i += sizeof word) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        memcpy(source + i, &word, sizeof word);
    }
    for (size_t s = 0; s < SIZES; s++) {
        for (size_t i = 0; i < SOURCE / sizes[s]; i++) {
            hashes[s][i] = XXH3_64bits(source + i * sizes[s], sizes[s]);
        }
    }
}

static size_t size_index(size_t bytes)
{
    return bytes == sizes[0] ? 0 : 1;
}

/* Body n of a run is the same on both sides. */
static void verify(const void *body, size_t bytes, size_t n)
{
    check(XXH3_64bits(body, bytes) == hashes[size_index(bytes)][n % (SOURCE / bytes)], "a body with another hash");
}

static const void *body_of(size_t bytes, size_t n)
{
    return source + n % (SOURCE / bytes) * bytes;
}

/* ---- plain: the bytes of a run in order, then one byte back */

static struct addrinfo *plain_address(const char *host, unsigned port)
{
    char number[8];
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    snprintf(number, sizeof number, "%u", port + 1);
    check(getaddrinfo(host, number, &hints, &found) == 0, "no such host");
    return found;
}

static int plain_listen(const char *host, unsigned port)
{
    const int on = 1;
    struct addrinfo *a = plain_address(host, port);
    const int fd = socket(a->ai_family, SOCK_STREAM, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    check(bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 8) == 0, "the port after PORT is not free");
    freeaddrinfo(a);
    return fd;
}

static void read_all(int fd, uint8_t *to, size_t bytes)
{
    for (size_t have = 0; have < bytes;) {
        const ssize_t count = read(fd, to + have, bytes - have);
        check(count > 0, "plain read failed");
        have += (size_t)count;
    }
}

static void write_all(int fd, const uint8_t *from, size_t bytes)
{
    for (size_t sent = 0; sent < bytes;) {
        const ssize_t count = write(fd, from + sent, bytes - sent);
        check(count > 0, "plain write failed");
        sent += (size_t)count;
    }
}

/* One connection, as there is one link; each run begins with the size of its bodies. */
static void *serve_plain(void *argument)
{
    uint64_t bytes;
    uint8_t *body = malloc(sizes[SIZES - 1]);
    const int fd = accept(*(int *)argument, NULL, NULL);
    check(fd >= 0 && body, "accept failed");
    while (recv(fd, &bytes, sizeof bytes, MSG_WAITALL) == (ssize_t)sizeof bytes) {
        check(bytes == sizes[0] || bytes == sizes[1], "another size");
        for (size_t n = 0; n < TOTAL / bytes; n++) {
            read_all(fd, body, bytes);
            verify(body, bytes, n);
        }
        write_all(fd, body, 1);
    }
    free(body);
    close(fd);
    return NULL;
}

static int plain_connect(const char *host, unsigned port)
{
    struct addrinfo *a = plain_address(host, port);
    const int fd = socket(a->ai_family, SOCK_STREAM, 0);
    check(connect(fd, a->ai_addr, a->ai_addrlen) == 0, "plain connect failed");
    freeaddrinfo(a);
    return fd;
}

static double run_plain(int fd, size_t bytes)
{
    uint8_t byte;
    const uint64_t size = bytes;
    const double start = seconds();
    write_all(fd, (const uint8_t *)&size, sizeof size);
    for (size_t n = 0; n < TOTAL / bytes; n++) {
        write_all(fd, body_of(bytes, n), bytes);
    }
    read_all(fd, &byte, 1);
    return seconds() - start;
}

/* ---- the link: bodies of a run, then an empty message back */

typedef struct receiver {
    mq_link *link;
    size_t count, bytes; /* of the run */
} receiver;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned answers; /* under lock */
static bool is_over;     /* the same */

static bool take_body(void *context, const uint8_t *head, const void *body, size_t bytes)
{
    (void)head;
    receiver *r = context;
    static const uint8_t answer[MQ_LINK_HEAD];
    mq_error error;
    verify(body, bytes, r->count++);
    r->bytes += bytes;
    if (r->bytes < TOTAL) return true;
    r->count = r->bytes = 0;
    check(mq__link_send(r->link, answer, NULL, 0, SECONDS, &error) == MQ_OK, "answer failed");
    return true;
}

static bool take_answer(void *context, const uint8_t *head, const void *body, size_t bytes)
{
    (void)context;
    (void)head;
    (void)body;
    check(bytes == 0, "an answer with a body");
    pthread_mutex_lock(&lock);
    answers++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return true;
}

static void note_end(void *context, const mq_error *error)
{
    (void)context;
    (void)error;
    pthread_mutex_lock(&lock);
    is_over = true;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

static void accept_sender(void *context, mq_link *link, const char *from)
{
    (void)from;
    receiver *r = context;
    mq_error error;
    check(r->link == NULL, "a second sender");
    r->link = link;
    const mq_link_events events = {take_body, note_end, r};
    check(mq__link_start(link, &events, sizes[SIZES - 1], &error) == MQ_OK, "start failed");
}

static double run_link(mq_link *link, size_t bytes)
{
    static const uint8_t head[MQ_LINK_HEAD];
    mq_error error = {0};
    const double start = seconds();
    for (size_t n = 0; n < TOTAL / bytes; n++) {
        check(mq__link_send(link, head, body_of(bytes, n), bytes, SECONDS, &error) == MQ_OK, error.text);
    }
    check(mq__link_flush(link, SECONDS, &error) == MQ_OK, error.text);
    pthread_mutex_lock(&lock);
    while (answers == 0 && !is_over) {
        pthread_cond_wait(&changed, &lock);
    }
    check(answers == 1, "the link ended");
    answers = 0;
    pthread_mutex_unlock(&lock);
    return seconds() - start;
}

/* ---- both sides */

static int receive(const char *kind, const char *host, unsigned port)
{
    receiver r = {0};
    mq_error error;
    mq_link_listener *listener;
    pthread_t thread;
    int fd = plain_listen(host, port);
    check(pthread_create(&thread, NULL, serve_plain, &fd) == 0, "no thread");
    const mq_status status = mq__link_listen(kind, host, (uint16_t)port, accept_sender, &r, &listener, &error);
    check(status == MQ_OK, error.text);
    pthread_mutex_lock(&lock);
    while (!is_over) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    mq__link_listener_close(listener);
    mq__link_close(r.link);
    return 0;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, RUNS, sizeof *values, compare);
    return values[RUNS / 2];
}

static void report(const char *kind, int fd, mq_link *link, size_t bytes)
{
    double plain[RUNS], own[RUNS], ratio[RUNS];
    for (int i = 0; i < RUNS; i++) {
        plain[i] = TOTAL / 1e9 / run_plain(fd, bytes);
        own[i] = TOTAL / 1e9 / run_link(link, bytes);
        ratio[i] = own[i] / plain[i];
    }
    const double most = median(own), others = median(plain), share = median(ratio);
    printf("%-4s %4zu KiB: %6.3f GB/s (%.3f-%.3f), plain %6.3f GB/s (%.3f-%.3f), ratio %.2f (%.2f-%.2f)\n", kind,
           bytes >> 10, most, own[0], own[RUNS - 1], others, plain[0], plain[RUNS - 1], share, ratio[0],
           ratio[RUNS - 1]);
    fflush(stdout);
}

static int send_runs(const char *kind, const char *host, unsigned port)
{
    mq_error error;
    mq_link *link = NULL;
    for (int i = 0; i < 100 && !link; i++) { /* the other side is about to start */
        if (mq__link_connect(kind, host, (uint16_t)port, SECONDS, &link, &error) != MQ_OK) usleep(50000);
    }
    check(link != NULL, error.text);
    const mq_link_events events = {take_answer, note_end, NULL};
    check(mq__link_start(link, &events, 0, &error) == MQ_OK, "start failed");
    const int fd = plain_connect(host, port);
    for (size_t s = 0; s < SIZES; s++) {
        report(kind, fd, link, sizes[s]);
    }
    mq__link_close(link);
    close(fd);
    return 0;
}

int main(int count, char **words)
{
    const unsigned port = count == 5 ? (unsigned)atoi(words[4]) : 0;
    if (port == 0 || port > 65534 || (strcmp(words[2], "recv") != 0 && strcmp(words[2], "send") != 0)) {
        fprintf(stderr, "usage: bench_link KIND recv|send HOST PORT\n");
        return 2;
    }
    make_source();
    return strcmp(words[2], "recv") == 0 ? receive(words[1], words[3], port) : send_runs(words[1], words[3], port);
}
