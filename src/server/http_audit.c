/* What libmicrohttpd lets pass and two servers in a row may read differently: several lengths, odd transfer encodings, names with
 * blanks. And who is asked: the Host header, against pages that let a name point to loopback (DNS rebinding). */
#include "server/http.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define HEADERS_MAX 128

typedef struct header_facts {
    unsigned count, hosts, lengths, encodings;
    bool bad_name, bad_value, bad_length, bad_encoding;
    const char *host;
    size_t bytes;
} header_facts;

static bool is_token_byte(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool has_control(const char *value, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f) return true;
    }
    return false;
}

static bool all_digits(const char *value)
{
    if (!*value) return false;
    while (isdigit((unsigned char)*value)) {
        value++;
    }
    return *value == '\0';
}

static enum MHD_Result note_header(void *context, enum MHD_ValueKind kind, const char *name, size_t name_count,
                                   const char *value, size_t value_count)
{
    header_facts *f = context;
    (void)kind;
    f->count++;
    f->bytes += name_count + value_count;
    for (size_t i = 0; i < name_count; i++) {
        f->bad_name = f->bad_name || !is_token_byte(name[i]);
    }
    f->bad_name = f->bad_name || name_count == 0;
    if (!value) return MHD_YES;
    f->bad_value = f->bad_value || has_control(value, value_count) || strlen(value) != value_count;
    if (strcasecmp(name, "host") == 0) {
        f->hosts++;
        f->host = value;
    } else if (strcasecmp(name, "content-length") == 0) {
        f->lengths++;
        f->bad_length = f->bad_length || !all_digits(value);
    } else if (strcasecmp(name, "transfer-encoding") == 0) {
        f->encodings++;
        f->bad_encoding = f->bad_encoding || strcasecmp(value, "chunked") != 0;
    }
    return MHD_YES;
}

/* Names that mean this machine, whoever resolves them. */
static bool is_loopback_name(const char *host, size_t count)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strlen(names[i]) == count && strncasecmp(names[i], host, count) == 0) return true;
    }
    return count > 4 && strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= count;
}

static bool is_name(const char *name, const char *host, size_t count)
{
    return name && strlen(name) == count && strncasecmp(name, host, count) == 0;
}

static bool is_allowed_host(const mq_server *server, const char *host)
{
    if (server->unix_socket) return true;
    const char *end = *host == '[' ? strchr(host, ']') : NULL;
    const char *colon = strchr(end ? end : host, ':');
    const size_t count = colon ? (size_t)(colon - host) : strlen(host);
    if (colon && colon[1] && !all_digits(colon + 1)) return false;
    if (is_loopback_name(host, count) || is_name(server->host, host, count)) return true;
    for (size_t i = 0; i < server->options.allowed_host_count; i++) {
        if (is_name(server->allowed_hosts[i], host, count) || strcmp(server->allowed_hosts[i], "*") == 0) return true;
    }
    return false;
}

unsigned mq__http_audit(struct MHD_Connection *connection, const mq_server *server, const char **reason)
{
    header_facts f = {0};
    (void)MHD_get_connection_values_n(connection, MHD_HEADER_KIND, note_header, &f);
    *reason = NULL;
    if (f.count > HEADERS_MAX || f.bytes > server->options.limits.header_bytes) {
        *reason = "too many headers, or too long ones";
        return 431;
    }
    if (f.bad_name || f.bad_value) *reason = "a header is malformed";
    if (f.hosts != 1) *reason = "expected one Host header";
    if (f.lengths > 1 || f.bad_length) *reason = "expected one Content-Length, a number";
    if (f.encodings > 1 || f.bad_encoding) *reason = "expected no Transfer-Encoding but chunked";
    if (f.lengths && f.encodings) *reason = "expected Content-Length or Transfer-Encoding, got both";
    if (*reason) return 400;
    if (is_allowed_host(server, f.host)) return 0;
    *reason = "the Host header names another server; see --allowed-host";
    return 421;
}
