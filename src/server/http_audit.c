/* What libmicrohttpd lets pass and two servers in a row may read differently: several lengths, odd transfer encodings, names with
 * blanks. And who is asked: the Host header, against pages that let a name point to loopback (DNS rebinding). */
#include "server/http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

#define HEADERS_MAX 128
#define BLANKS_MAX  64 /* before a value */

typedef struct header_facts {
    unsigned count, hosts, lengths, encodings;
    bool bad_name, bad_value, bad_length, bad_encoding, bad_line;
    const char *host, *next; /* next: where another header's name would be */
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

/* libmicrohttpd 0.9.75 ends values at NUL, takes LF for a line's end and glues continued lines to a header's name. Later versions do
 * not. It leaves headers where they came in, so these show as gaps: a name, ':', blanks, the value, CR, LF, the next name. */
static bool has_lax_lines(void)
{
    return strcmp(MHD_get_version(), "0.9.75") == 0;
}

static bool follows(const char *next, const char *before, size_t least, size_t most)
{
    const uintptr_t gap = (uintptr_t)next - (uintptr_t)before;
    return gap >= least && gap <= most;
}

static void check_line(header_facts *f, const char *name, size_t name_count, const char *value, size_t value_count)
{
    f->bad_line = f->bad_line || name != f->next || !value || !follows(value, name + name_count, 1, 1 + BLANKS_MAX);
    f->next = value ? value + value_count + 2 : NULL;
}

static enum MHD_Result note_header(void *context, enum MHD_ValueKind kind, const char *name, size_t name_count,
                                   const char *value, size_t value_count)
{
    header_facts *f = context;
    (void)kind;
    f->count++;
    check_line(f, name, name_count, value, value_count);
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

/* [::1], 10.0.0.7: no name that somebody could let point elsewhere. */
static bool is_address(const char *host, size_t count)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char address[16];
    const bool six = count > 2 && *host == '[' && host[count - 1] == ']';
    const char *from = six ? host + 1 : host;
    const size_t bytes = six ? count - 2 : count;
    if (bytes >= sizeof text) return false;
    memcpy(text, from, bytes);
    text[bytes] = '\0';
    return inet_pton(six ? AF_INET6 : AF_INET, text, address) == 1;
}

/* `name` is as an option gives it, without brackets. */
static bool is_host_name(const char *name, const char *host, size_t count)
{
    if (count > 2 && *host == '[' && host[count - 1] == ']' && *name != '[') {
        host++;
        count -= 2;
    }
    return strlen(name) == count && strncasecmp(name, host, count) == 0;
}

/* Loopback has the names above only; on another address any address is right, and names have to be given. */
static bool is_allowed_host(const mq_server *server, const char *host)
{
    if (server->unix_socket || !host) return true;
    const char *end = *host == '[' ? strchr(host, ']') : NULL;
    const char *colon = strchr(end ? end : host, ':');
    const size_t count = colon ? (size_t)(colon - host) : strlen(host);
    if (colon && colon[1] && !all_digits(colon + 1)) return false;
    if (is_loopback_name(host, count) || is_host_name(server->host, host, count)) return true;
    if (!server->is_loopback && is_address(host, count)) return true;
    for (size_t i = 0; i < server->options.allowed_host_count; i++) {
        if (is_host_name(server->allowed_hosts[i], host, count) || strcmp(server->allowed_hosts[i], "*") == 0)
            return true;
    }
    return false;
}

/* The empty line after the headers, and the path in the request line. */
static void check_frame(const mq_exchange *x, const http_line *line, header_facts *f)
{
    const union MHD_ConnectionInfo *head =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    f->bad_line = f->bad_line || !head || !f->next || f->next + 2 != line->method + head->header_size;
    f->bad_line = f->bad_line || !x->socket || line->path + x->socket->uri_bytes + 1 != line->version;
}

static const char *bad_framing(const header_facts *f, bool is_old)
{
    if (f->bad_line) return "expected lines that end with CR LF, without NUL, none continued";
    if (f->bad_name || f->bad_value) return "a header is malformed";
    if (f->hosts > 1 || (f->hosts == 0 && !is_old)) return "expected one Host header";
    if (f->lengths > 1 || f->bad_length) return "expected one Content-Length, a number";
    if (f->encodings > 1 || f->bad_encoding) return "expected no Transfer-Encoding but chunked";
    if (f->lengths && f->encodings) return "expected Content-Length or Transfer-Encoding, got both";
    return is_old && f->encodings ? "expected no Transfer-Encoding of HTTP/1.0" : NULL;
}

unsigned mq__http_audit(const mq_exchange *x, const http_line *line, const char **reason)
{
    const mq_server *server = x->server;
    header_facts f = {.next = line->version + strlen(line->version) + 2};
    (void)MHD_get_connection_values_n(x->connection, MHD_HEADER_KIND, note_header, &f);
    if (f.count > HEADERS_MAX || f.bytes > server->options.limits.header_bytes) {
        *reason = "too many headers, or too long ones";
        return 431;
    }
    check_frame(x, line, &f);
    f.bad_line = f.bad_line && has_lax_lines();
    *reason = x->socket && x->socket->bad_path ? "a NUL in the path"
                                               : bad_framing(&f, strcmp(line->version, "HTTP/1.0") == 0);
    if (*reason) return 400;
    if (is_allowed_host(server, f.host)) return 0;
    *reason = "the Host header names another server; see --allowed-host";
    return 421;
}
